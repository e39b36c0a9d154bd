//! What the tests on real processes share: a ring of five, a small client, and load that records
//! what it saw.

pub mod load;
pub mod resp;
pub mod ring;

use std::time::{Duration, Instant};

/// The longest a test waits for a condition. Far above anything a healthy ring needs on a busy
/// machine with two cores; only a failing test waits so long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` gives something.
pub fn wait<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < end, "waited {PATIENCE:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
