//! Immutable bytes of which few lie in place.
//!
//! Most keys are short. In place they cost no allocation where a message is decoded, no count of
//! owners where it is handed on, and no look at far memory where two are compared.

use std::{
    cmp::Ordering,
    hash::{Hash, Hasher},
    ops::Deref,
    sync::Arc,
};

/// So many bytes lie in place: with them the whole takes three words, one more than a shared slice.
const SHORT_MAX: usize = 22;

/// Immutable bytes; up to [`SHORT_MAX`] of them in place, more of them shared by all copies.
#[derive(Clone)]
pub(crate) struct ShortBytes(Repr);

#[derive(Clone)]
enum Repr {
    /// Zeros behind the first `len`.
    Short { len: u8, bytes: [u8; SHORT_MAX] },
    /// More than [`SHORT_MAX`].
    Long(Arc<[u8]>),
}

impl Deref for ShortBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Short { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or(bytes),
            Repr::Long(bytes) => bytes,
        }
    }
}

impl From<&[u8]> for ShortBytes {
    fn from(from: &[u8]) -> ShortBytes {
        let mut bytes = [0; SHORT_MAX];
        ShortBytes(match (bytes.get_mut(..from.len()), u8::try_from(from.len())) {
            (Some(to), Ok(len)) => {
                to.copy_from_slice(from);
                Repr::Short { len, bytes }
            }
            _ => Repr::Long(from.into()),
        })
    }
}

impl From<Vec<u8>> for ShortBytes {
    fn from(from: Vec<u8>) -> ShortBytes {
        from.as_slice().into()
    }
}

impl PartialEq for ShortBytes {
    fn eq(&self, other: &ShortBytes) -> bool {
        match (&self.0, &other.0) {
            // Of one size, known here: a few instructions instead of a call.
            (Repr::Short { len: l, bytes: left }, Repr::Short { len: r, bytes: right }) => {
                l == r && left == right
            }
            (Repr::Long(left), Repr::Long(right)) => left == right,
            _ => false,
        }
    }
}

impl Eq for ShortBytes {}

impl PartialOrd for ShortBytes {
    fn partial_cmp(&self, other: &ShortBytes) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ShortBytes {
    fn cmp(&self, other: &ShortBytes) -> Ordering {
        (**self).cmp(&**other)
    }
}

/// As the bytes alone are: a map's keys are looked for by slices, too.
impl Hash for ShortBytes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::hash::{BuildHasher, RandomState};

    /// Bytes around the size up to which they lie in place, many of them zero or alike.
    fn some() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(0..3_u8, 0..2 * SHORT_MAX)
    }

    proptest! {
        #[test]
        fn they_are_as_the_slice_is(left in some(), right in some()) {
            let (short, other) = (ShortBytes::from(left.clone()), ShortBytes::from(&*right));
            prop_assert_eq!(&*short, &*left);
            prop_assert_eq!(&*short.clone(), &*left);
            prop_assert_eq!(short == other, left == right);
            prop_assert!(short == ShortBytes::from(&*left));
            prop_assert_eq!(short.cmp(&other), left.cmp(&right));
            let hasher = RandomState::new();
            prop_assert_eq!(hasher.hash_one(&short), hasher.hash_one(&*left));
        }
    }

    #[test]
    fn what_fills_the_place_is_no_part_of_them() {
        assert!(ShortBytes::from(&b"a"[..]) != ShortBytes::from(&b"a\0"[..]));
    }

    #[test]
    fn three_words() {
        assert_eq!(size_of::<ShortBytes>(), 3 * size_of::<usize>());
    }
}
