//! A gate for log lines that something outside can cause: one now and then, and how many were left
//! out. A stranger who rings a thousand times a second must not fill the disk.

use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// At most one line a gate in this time.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// One kind of line.
#[derive(Default)]
pub struct Gate(Mutex<Passed>);

#[derive(Default)]
struct Passed {
    last: Option<Instant>,
    left_out: u64,
}

impl Gate {
    /// Logs a warning unless one was logged a short time ago.
    pub fn warn(&self, line: impl FnOnce() -> String) {
        self.log(log::Level::Warn, line);
    }

    /// The same for what is nothing to worry about.
    pub fn info(&self, line: impl FnOnce() -> String) {
        self.log(log::Level::Info, line);
    }

    fn log(&self, level: log::Level, line: impl FnOnce() -> String) {
        if let Some(left_out) = self.pass(Instant::now()) {
            match left_out {
                0 => log::log!(level, "{}", line()),
                n => log::log!(level, "{} ({n} lines like it left out)", line()),
            }
        }
    }

    /// The next line is logged: the matter has changed.
    pub fn open(&self) {
        self.0.lock().last = None;
    }

    fn pass(&self, now: Instant) -> Option<u64> {
        let mut passed = self.0.lock();
        if passed.last.is_some_and(|last| now.duration_since(last) < LINE_EVERY) {
            passed.left_out += 1;
            return None;
        }
        passed.last = Some(now);
        Some(std::mem::take(&mut passed.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_passes_and_the_others_are_counted() {
        let (gate, start) = (Gate::default(), Instant::now());
        assert_eq!(gate.pass(start), Some(0));
        assert_eq!(gate.pass(start + LINE_EVERY / 2), None);
        assert_eq!(gate.pass(start + LINE_EVERY / 2), None);
        assert_eq!(gate.pass(start + LINE_EVERY), Some(2));
        assert_eq!(gate.pass(start + LINE_EVERY), None);
        gate.open();
        assert_eq!(gate.pass(start + LINE_EVERY), Some(1));
    }
}
