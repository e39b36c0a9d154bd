//! When a request is sent a second time, to the next replica, before anybody is suspected.
//!
//! A dead coordinator is found by a time-out, and until then each of its requests would wait that
//! long. So a request that takes much longer than such requests take, sent to a node that has
//! answered nothing else meanwhile, is asked for at the next replica as well; whichever answers
//! first is believed, and the exactly-once records see to it that it is applied once. What "much
//! longer" is, is measured: smoothed latency and four times its mean deviation (Jacobson, SIGCOMM
//! '88), within bounds.
//!
//! A second coordinator takes the ballot from the first, so where many requests are merely late,
//! hedging them would make all later. A [`Budget`] bounds that.
//!
//! Caveat: safety never rests on it; a hedge is an ordinary further attempt, only earlier.

use crate::budget::Budget;
use std::time::Duration;

/// Decides when a router hedges.
#[derive(Clone, Debug)]
pub struct Hedge {
    floor: Duration,
    ceiling: Duration,
    /// Smoothed latency and its mean deviation, microseconds; none before the first answer.
    latency: Option<(u64, u64)>,
    budget: Budget,
}

impl Hedge {
    /// Waits at least `floor`; where the wait would reach `ceiling`, the time-out, it never hedges.
    #[must_use]
    pub fn new(floor: Duration, ceiling: Duration) -> Hedge {
        Hedge { floor, ceiling, latency: None, budget: Budget::default() }
    }

    /// A first attempt was answered after so long.
    pub fn sample(&mut self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX >> 8);
        self.latency = Some(match self.latency {
            None => (took, took / 2),
            Some((smoothed, deviation)) => {
                let error = took.abs_diff(smoothed);
                let smoothed = (smoothed * 7 + took) / 8;
                (smoothed, (deviation * 3 + error) / 4)
            }
        });
    }

    /// A request was sent: it earns its part of a hedge.
    pub fn earn(&mut self) {
        self.budget.earn();
    }

    /// How long to wait for an answer before the next replica is asked as well; none for not at all:
    /// before anything was measured, or where the time-out comes first.
    #[must_use]
    pub fn after(&self) -> Option<Duration> {
        Some(self.usual()?.max(self.floor)).filter(|after| *after < self.ceiling)
    }

    /// Whether what takes longer than the time-out is an exception, as far as anything was measured.
    #[must_use]
    pub fn is_prompt(&self) -> bool {
        self.usual().is_none_or(|usual| usual < self.ceiling)
    }

    fn usual(&self) -> Option<Duration> {
        let (smoothed, deviation) = self.latency?;
        Some(Duration::from_micros(smoothed.saturating_add(deviation.saturating_mul(4))))
    }

    /// Takes one hedge out of the budget, if there is one.
    pub fn spend(&mut self) -> bool {
        self.budget.spend()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR: Duration = Duration::from_millis(10);
    const CEILING: Duration = Duration::from_millis(100);

    fn measured(samples: &[u64]) -> Hedge {
        let mut hedge = Hedge::new(FLOOR, CEILING);
        samples.iter().for_each(|ms| hedge.sample(Duration::from_millis(*ms)));
        hedge
    }

    #[test]
    fn waits_for_what_is_usual_within_bounds() {
        assert_eq!(Hedge::new(FLOOR, CEILING).after(), None, "nothing is measured");
        assert_eq!(measured(&[1; 50]).after(), Some(FLOOR));
        assert_eq!(measured(&[200; 50]).after(), None, "the time-out comes first");
        assert!(measured(&[]).is_prompt() && measured(&[1; 50]).is_prompt());
        assert!(!measured(&[200; 50]).is_prompt());
        let after = measured(&[20; 50]).after().unwrap_or_default();
        assert!(
            after >= Duration::from_millis(20) && after < Duration::from_millis(30),
            "{after:?}"
        );
        let wild = measured(&[1, 40, 2, 30, 1, 40, 3, 35]).after();
        assert!(wild.is_none_or(|after| after > Duration::from_millis(40)), "{wild:?}");
    }
}
