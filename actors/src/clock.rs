//! The node's clocks, read once a message and handed to the protocol as an argument.

use simpledynamo_protocol::time::{Now, Time, WallMillis};
use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::time::Instant;

/// Monotonic time since the node's start, and wall time. Cheap to clone, for any thread.
#[derive(Clone)]
pub struct Clock {
    origin: Instant,
    /// Microseconds since the Unix epoch.
    wall: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Clock {
    /// The machine's clocks. The monotonic one is tokio's, so that a simulation can move it.
    #[must_use]
    pub fn system() -> Clock {
        Clock { origin: Instant::now(), wall: Arc::new(system_wall) }
    }

    /// The machine's monotonic clock with another wall clock: a simulated node's may be skewed.
    #[must_use]
    pub fn with_wall(wall: impl Fn() -> WallMillis + Send + Sync + 'static) -> Clock {
        let wall = move || wall().saturating_mul(MICROS);
        Clock { origin: Instant::now(), wall: Arc::new(wall) }
    }

    /// Both times now.
    #[must_use]
    pub fn now(&self) -> Now {
        Now { mono: self.mono(), wall: (self.wall)() / MICROS }
    }

    /// The wall time now, microseconds since the Unix epoch; for people only.
    #[must_use]
    pub fn wall_micros(&self) -> u64 {
        (self.wall)()
    }

    /// What [`Clock::mono`] counts from.
    #[must_use]
    pub fn origin(&self) -> Instant {
        self.origin
    }

    /// The monotonic time now.
    #[must_use]
    pub fn mono(&self) -> Time {
        Time(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}

/// In a millisecond.
const MICROS: u64 = 1_000;

fn system_wall() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
