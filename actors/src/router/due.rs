//! Taking what is due from the front of an ordered set.

use std::collections::BTreeSet;

/// The first element, where it is due.
pub(super) trait PopFirstIf<T> {
    fn pop_first_if(&mut self, due: impl FnOnce(&T) -> bool) -> Option<T>;
}

impl<T: Ord> PopFirstIf<T> for BTreeSet<T> {
    fn pop_first_if(&mut self, due: impl FnOnce(&T) -> bool) -> Option<T> {
        self.first().is_some_and(due).then(|| self.pop_first()).flatten()
    }
}
