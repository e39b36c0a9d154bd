//! How much may be asked a second time.
//!
//! Where many answers are merely late, asking again makes all later still: a system that is overloaded
//! and asks everything twice does not recover. So what is asked more than once is paid for out of a
//! budget: a part of all that is asked, and a burst for the moment in which a node dies or a connection
//! breaks (Dean & Barroso, "The Tail at Scale", CACM 2013).

/// Questions that earn one more.
const EARNS_ONE: u32 = 20;
/// What may be saved up: more than the clients of a busy node that wait for one dead peer.
const SAVED_MAX: u32 = 512;

/// Pays for what is asked again.
#[derive(Clone, Debug)]
pub struct Budget {
    /// In parts of [`EARNS_ONE`].
    saved: u32,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { saved: SAVED_MAX * EARNS_ONE }
    }
}

impl Budget {
    /// Something was asked for the first time: it earns its part.
    pub fn earn(&mut self) {
        self.saved = (self.saved + 1).min(SAVED_MAX * EARNS_ONE);
    }

    /// Takes one out, if there is one.
    pub fn spend(&mut self) -> bool {
        let left = self.saved.checked_sub(EARNS_ONE);
        self.saved = left.unwrap_or(self.saved);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_part_of_what_is_asked_and_a_burst() {
        let mut budget = Budget::default();
        let burst = std::iter::repeat_with(|| budget.spend()).take_while(|spent| *spent).count();
        assert_eq!(burst, SAVED_MAX as usize);
        for _ in 0..EARNS_ONE - 1 {
            budget.earn();
            assert!(!budget.spend());
        }
        budget.earn();
        assert!(budget.spend());
        assert!(!budget.spend());
    }
}
