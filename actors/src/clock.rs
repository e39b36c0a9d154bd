//! The node's clocks, read once a message and handed to the protocol as an argument.

use simpledynamo_protocol::time::{Now, Time, WallMillis};
use std::{
    rc::Rc,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::time::Instant;

/// Monotonic time since the node's start, and wall time. Cheap to clone.
#[derive(Clone)]
pub struct Clock {
    origin: Instant,
    wall: Rc<dyn Fn() -> WallMillis>,
}

impl Clock {
    /// The machine's clocks. The monotonic one is tokio's, so that a simulation can move it.
    #[must_use]
    pub fn system() -> Clock {
        Clock::with_wall(system_wall)
    }

    /// The machine's monotonic clock with another wall clock: a simulated node's may be skewed.
    #[must_use]
    pub fn with_wall(wall: impl Fn() -> WallMillis + 'static) -> Clock {
        Clock { origin: Instant::now(), wall: Rc::new(wall) }
    }

    /// Both times now.
    #[must_use]
    pub fn now(&self) -> Now {
        Now { mono: self.mono(), wall: (self.wall)() }
    }

    /// The monotonic time now.
    #[must_use]
    pub fn mono(&self) -> Time {
        Time(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}

fn system_wall() -> WallMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
