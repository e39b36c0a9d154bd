//! What the operating system knows and does: processor time, a fine timer, signals.

use nix::time::ClockId;
use rustix::{
    process::{Pid, Signal, kill_process},
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    },
};
use std::{
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};
use tokio::io::unix::AsyncFd;

/// Processor time a process has used, user and system, all threads, to the nanosecond; none where it
/// is gone.
pub fn processor_time(pid: u32) -> Option<Duration> {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).ok()?);
    Some(ClockId::pid_cpu_clock_id(pid).ok()?.now().ok()?.into())
}

/// All of them together; none where one is gone or none is named.
pub fn processor_times(pids: &[u32]) -> Option<Duration> {
    if pids.is_empty() {
        return None;
    }
    pids.iter().map(|pid| processor_time(*pid)).sum()
}

/// Sends SIGKILL or SIGSTOP.
pub fn strike(pid: u32, kill: bool) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("no such process"))?;
    Ok(kill_process(pid, if kill { Signal::KILL } else { Signal::STOP })?)
}

/// A timer of the kernel: tokio's own counts in whole milliseconds, more than many an operation takes.
pub struct Timer {
    descriptor: AsyncFd<OwnedFd>,
}

impl Timer {
    pub fn new() -> io::Result<Timer> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let descriptor = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        // SAFETY: the descriptor is owned by what is registered, so it stays open and the same.
        let descriptor = unsafe { AsyncFd::register(descriptor)? };
        Ok(Timer { descriptor })
    }

    /// Waits until then.
    pub async fn until(&self, then: Instant) -> io::Result<()> {
        let left = then.saturating_duration_since(Instant::now());
        if left.is_zero() {
            // Others must run too where the timer is always late.
            tokio::task::yield_now().await;
            return Ok(());
        }
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let after = Itimerspec { it_interval: zero, it_value: value };
        timerfd_settime(self.descriptor.get_ref(), TimerfdTimerFlags::empty(), &after)?;
        let mut ready = self.descriptor.readable().await?;
        let mut count = [0; 8];
        match rustix::io::read(self.descriptor.get_ref(), &mut count) {
            Ok(_) | Err(rustix::io::Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        ready.clear_ready();
        Ok(())
    }
}

/// How often the machine itself stood still: what no server on it can be faster than.
pub struct Stalls {
    /// Times in which a thread that does nothing but look at the clock did not run for [`STALL`].
    pub count: usize,
    /// The longest.
    pub longest: Duration,
    /// All of them together, as a share of the processors' time.
    pub share: f64,
}

/// From here on a gap is a stall.
pub const STALL: Duration = Duration::from_millis(2);

/// Keeps all processors busy for so long and looks for gaps.
pub fn stalls(time: Duration, processors: usize) -> Stalls {
    let look = move || {
        let (begun, mut last, mut gaps) = (Instant::now(), Instant::now(), Vec::new());
        while last.duration_since(begun) < time {
            let now = Instant::now();
            let gap = now.duration_since(last);
            if gap >= STALL {
                gaps.push(gap);
            }
            last = now;
        }
        gaps
    };
    let lookers: Vec<_> = (0..processors).map(|_| std::thread::spawn(look)).collect();
    let gaps: Vec<_> = lookers.into_iter().filter_map(|one| one.join().ok()).flatten().collect();
    let whole = time.as_secs_f64() * processors as f64;
    Stalls {
        count: gaps.len(),
        longest: gaps.iter().max().copied().unwrap_or_default(),
        share: gaps.iter().sum::<Duration>().as_secs_f64() / whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stalls_are_no_longer_than_the_time_looked_at() {
        let found = stalls(Duration::from_millis(20), 2);
        assert!((0.0..=2.0).contains(&found.share), "{}", found.share);
        assert!(found.count == 0 || found.longest >= STALL);
    }

    #[test]
    fn this_process_uses_time() {
        let me = std::process::id();
        let (before, mut sum) = (processor_time(me).unwrap(), 0u64);
        for number in 0..1_000_000 {
            sum = std::hint::black_box(sum.wrapping_add(number));
        }
        assert!(processor_time(me).unwrap() > before, "{sum}");
        assert!(processor_times(&[me, me]).is_some());
        assert_eq!(processor_times(&[]), None);
    }
}
