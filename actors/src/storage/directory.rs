//! A node's directory: one process at a time, files replaced as a whole.
//!
//! The lock is an advisory one on an open file (`flock`), so it goes with the process, however that
//! ends; a lock file left over means nothing. A file is replaced by writing another, syncing it and
//! renaming it over the old one, then syncing the directory: a crash leaves the one or the other.

use super::StoreError;
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

/// The lock file's name.
const LOCK: &str = "lock";

/// A directory that this process has to itself until the last clone is dropped.
#[derive(Clone, Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: Arc<File>,
}

impl DataDir {
    /// Takes the directory, making it where there is none.
    ///
    /// # Errors
    /// [`StoreError::InUse`] where another process has it, or the operating system's.
    pub fn open(path: &Path) -> Result<DataDir, StoreError> {
        create(path)?;
        let file = path.join(LOCK);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&file)
            .map_err(|e| StoreError::io(&file, "open", e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let read = lock.read_to_string(&mut holder);
                let by = read.ok().and_then(|_| holder.trim().parse().ok());
                return Err(StoreError::InUse { path: path.into(), by });
            }
            Err(TryLockError::Error(e)) => return Err(StoreError::io(&file, "lock", e)),
        }
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(|e| StoreError::io(&file, "write", e))?;
        Ok(DataDir { path: path.into(), _lock: Arc::new(lock) })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes a directory and its parents, durably.
fn create(path: &Path) -> Result<(), StoreError> {
    let missing: Vec<_> = path
        .ancestors()
        .take_while(|path| !path.as_os_str().is_empty() && !path.exists())
        .collect();
    fs::create_dir_all(path).map_err(|e| StoreError::io(path, "create", e))?;
    missing.into_iter().try_for_each(sync_parent)
}

/// Makes a new name durable.
fn sync_parent(path: &Path) -> Result<(), StoreError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    File::open(parent)
        .and_then(|directory| directory.sync_all())
        .map_err(|e| StoreError::io(parent, "sync", e))
}

/// Makes `text` the content of `file`, durably; the old content stays until the new one is whole.
pub(super) fn replace(file: &Path, text: &str) -> Result<(), StoreError> {
    let fresh = file.with_extension("new");
    let written = File::create(&fresh).and_then(|mut to| {
        to.write_all(text.as_bytes())?;
        to.sync_all()
    });
    written.map_err(|e| StoreError::io(&fresh, "write", e))?;
    rename(&fresh, file)
}

/// Renames a file or directory, durably.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(|e| StoreError::io(to, "write", e))?;
    sync_parent(to)
}
