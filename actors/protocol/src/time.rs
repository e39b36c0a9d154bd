//! Time as the protocol sees it: an argument, never a clock.
//!
//! Two kinds that must not be mixed. [`Time`] is a node's own monotonic time and decides only when
//! to try again or give up. [`WallMillis`] is the stamp users see in `EXPIREAT`; it decides what a
//! command writes (expiry), never which of two records is newer.

use std::{fmt, ops::Add, time::Duration};

/// Monotonic time of one node, in microseconds since an arbitrary start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// Time from `earlier` to this one; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;
    fn add(self, span: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}ms", self.0 / 1000, self.0 % 1000)
    }
}

/// Milliseconds since the Unix epoch.
pub type WallMillis = u64;

/// Both times of one node at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic, for time-outs.
    pub mono: Time,
    /// Wall clock, for expiry stamps.
    pub wall: WallMillis,
}
