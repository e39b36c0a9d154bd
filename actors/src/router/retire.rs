//! Which coordinators end: those longest unused where there are too many, and those that nobody used for
//! a while. Each decides for itself whether it can; what comes for it meanwhile waits.

use super::{Entry, Router};
use crate::coordinator::Retire;
use std::time::Duration;

/// A coordinator that was not used for about this long, to twice this long, is ended: it pins its value.
const IDLE_FOR: Duration = Duration::from_secs(2);

impl Router {
    /// Keeps the number of coordinators within its bound: those longest unused are asked to end.
    pub(super) fn retire_some(&mut self) {
        let over = self.retire_order.len().saturating_sub(self.settings.limits.coordinators);
        // One more than came in, so that a burst is worked off.
        self.retire(over.min(2), 2 * self.settings.limits.coordinators);
    }

    /// Looks at the share of the coordinators that falls on this span of time: in [`IDLE_FOR`] at all
    /// that there were at its begin. All at once, thousands of them would end in one go and hold up
    /// every request for some 6 to 20 ms.
    pub(super) fn retire_idle(&mut self, span: Duration) {
        let (count, before) = self.pass;
        let after = (before + span).min(IDLE_FOR);
        let due = |at: Duration| {
            let due = count as u128 * at.as_micros() / IDLE_FOR.as_micros();
            usize::try_from(due).unwrap_or(usize::MAX)
        };
        self.retire(usize::MAX, due(after) - due(before));
        let over = after == IDLE_FOR;
        self.pass = if over { (self.retire_order.len(), Duration::ZERO) } else { (count, after) };
    }

    /// Asks up to `most` coordinators to end that were not used since they were last looked at;
    /// looks at up to `looks`.
    fn retire(&mut self, most: usize, looks: usize) {
        let mut retired = 0;
        for _ in 0..looks.min(self.retire_order.len()) {
            if retired == most {
                return;
            }
            let Some(key) = self.retire_order.pop_front() else { return };
            match self.coordinators.get_mut(&key) {
                Some(Entry::Alive { used, .. }) if *used => {
                    *used = false;
                    self.retire_order.push_back(key);
                }
                Some(entry) => {
                    if let Entry::Alive { addr, .. } = entry {
                        let addr = addr.clone();
                        addr.do_send(Retire);
                        *entry = Entry::Retiring { addr, held: Vec::new() };
                        retired += 1;
                    }
                }
                None => {}
            }
        }
    }
}
