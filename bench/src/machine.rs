//! What the operating system knows and does: processor time, a fine timer, signals.
//!
//! Caveat: processor times of other processes come in ticks of 10 ms, all threads together; over two
//! seconds of a busy server that is half a percent.

use rustix::{
    process::{Pid, Signal, kill_process},
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    },
};
use std::{
    fs, io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};
use tokio::io::unix::AsyncFd;

/// Ticks in a second of `/proc/PID/stat`: fixed for programs since Linux 2.4.
const TICKS: u64 = 100;

/// Processor time a process has used, user and system, all threads; none where it is gone.
pub fn processor_time(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 1_000 / TICKS))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_time() {
        let me = std::process::id();
        assert!(processor_time(me).is_some());
        assert!(processor_times(&[me, me]).is_some());
        assert_eq!(processor_times(&[]), None);
    }
}
