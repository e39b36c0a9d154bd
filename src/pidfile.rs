//! Pid files that cannot lie: `DIR/ID/pid` of a node, `DIR/up.pid` of an `up`.
//!
//! A process that claims one locks the file, writes its pid and keeps it open until its end. The
//! lock, which the kernel drops with the process however that dies, keeps a second one out. That
//! the process of the written pid *has this very file open* tells readers that it is the one and
//! not a stranger to whom the number was given again after a `kill -9` or a reboot: no signal is
//! ever sent on the strength of a number alone.
//!
//! Caveats: Linux only, as it reads `/proc`; a node of another user counts as not there. Between
//! the look and the signal a process may end and its number be reused: microseconds against the
//! time a kernel takes to come round to a number again.

use nix::unistd::Pid;
use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Bytes of a pid file that are looked at: a pid and a line end, with room.
const PID_BYTES_MAX: u64 = 32;

/// A claimed pid file; dropping it removes the file and lets go.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    _held: File,
}

/// Why a pid file could not be claimed.
#[derive(Debug)]
pub enum Claimed {
    /// Another process has it; its pid, where it could be read.
    By(Option<Pid>),
    /// The file system refused.
    Io(io::Error),
}

impl PidFile {
    /// Claims `path` for this process, whose directory must exist.
    ///
    /// # Errors
    /// Another living process has it, or the file system refuses.
    pub fn claim(path: &Path) -> Result<PidFile, Claimed> {
        loop {
            let mut open = OpenOptions::new();
            let mut file = open
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)
                .map_err(Claimed::Io)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(Claimed::By(read(path))),
                Err(TryLockError::Error(error)) => return Err(Claimed::Io(error)),
            }
            // Its former holder may have removed it between our opening and its letting go: then
            // what is locked is a file without a name, and another may lock one with it.
            if !names(path, &file) {
                continue;
            }
            let line = format!("{}\n", std::process::id());
            file.set_len(0).and_then(|()| file.write_all(line.as_bytes())).map_err(Claimed::Io)?;
            return Ok(PidFile { path: path.to_owned(), _held: file });
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// The living process that holds `path`, if any.
#[must_use]
pub fn holder(path: &Path) -> Option<Pid> {
    let pid = read(path)?;
    let file = std::fs::metadata(path).ok()?;
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let same = |entry: std::fs::DirEntry| {
        std::fs::metadata(entry.path())
            .is_ok_and(|other| other.ino() == file.ino() && other.dev() == file.dev())
    };
    open.flatten().any(same).then_some(pid)
}

/// Whether a process is stopped, as by SIGSTOP.
#[must_use]
pub fn paused(pid: Pid) -> bool {
    state(pid) == Some('T')
}

/// Whether a process has ended so far that all its files and ports are free: it is no more, or is a
/// zombie whose threads have all ended. Sooner, a successor could find its ports in use.
#[must_use]
pub fn gone(pid: Pid) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    state(pid).is_none_or(|state| matches!(state, 'Z' | 'X') && threads <= 1)
}

/// The state letter of `/proc/PID/stat`; none where there is no such process.
fn state(pid: Pid) -> Option<char> {
    // `pid (name) T …`; the name may hold anything, so the state is looked for behind the last `)`.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.trim_start().chars().next()
}

fn read(path: &Path) -> Option<Pid> {
    let mut text = String::new();
    File::open(path).ok()?.take(PID_BYTES_MAX).read_to_string(&mut text).ok()?;
    let pid = text.trim().parse::<i32>().ok().filter(|pid| *pid > 0)?;
    Some(Pid::from_raw(pid))
}

/// Whether `path` still names `file`.
fn names(path: &Path, file: &File) -> bool {
    let (Ok(named), Ok(held)) = (std::fs::metadata(path), file.metadata()) else { return false };
    named.ino() == held.ino() && named.dev() == held.dev()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holder_is_found_while_it_holds_and_no_longer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        assert_eq!(holder(&path), None);
        let held = PidFile::claim(&path).unwrap();
        assert_eq!(holder(&path), Some(Pid::this()));
        assert!(matches!(PidFile::claim(&path), Err(Claimed::By(Some(pid))) if pid == Pid::this()));
        assert!(!paused(Pid::this()) && !gone(Pid::this()));
        drop(held);
        assert_eq!(holder(&path), None);
        assert!(!path.exists());
    }

    #[test]
    fn stale_file_with_a_strangers_pid_is_nobodys_and_can_be_claimed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        // This process lives, but has not that file open.
        std::fs::write(&path, format!("{}\n", std::process::id())).unwrap();
        assert_eq!(holder(&path), None);
        PidFile::claim(&path).unwrap();
    }

    #[test]
    fn zombie_is_gone_and_so_is_one_that_was_never_there() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        // Not waited for, so it stays a zombie.
        while state(pid) != Some('Z') {
            std::thread::yield_now();
        }
        assert!(gone(pid));
        child.wait().unwrap();
        assert!(gone(pid));
    }

    #[test]
    fn garbage_is_nobodys() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        for garbage in ["", "-1", "0", "1x", "99999999999999999999999999999999999999999"] {
            std::fs::write(&path, garbage).unwrap();
            assert_eq!(holder(&path), None, "{garbage}");
        }
    }
}
