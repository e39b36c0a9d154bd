//! What can go wrong with a node's directory, each with the path and the mend.

use super::row::KEY_BYTES_MAX;
use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// An error of the store or of the node's directory. `Display` says what to do.
#[derive(Debug)]
pub enum StoreError {
    /// Another process has the directory.
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process, where its lock file tells.
        by: Option<u32>,
    },
    /// The directory belongs to another node, cluster or strategy.
    Foreign {
        /// The identity file.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// As the directory has it.
        found: String,
        /// As the configuration has it.
        expected: String,
    },
    /// There are records, but nothing says whose.
    Unclaimed {
        /// The directory.
        path: PathBuf,
    },
    /// Written by a newer release.
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
    /// Bytes that were once written as something else.
    Corrupt {
        /// The file or directory.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The operating system refused.
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried: "write", "open".
        doing: &'static str,
        /// Its reason.
        source: io::Error,
    },
    /// The engine refused, and it is neither damage nor the operating system.
    Engine {
        /// The store's directory.
        path: PathBuf,
        /// The engine's words.
        reason: String,
    },
    /// An earlier commit failed; what the disk holds is not known until the next start.
    Failed {
        /// The store's directory.
        path: PathBuf,
    },
    /// A key that cannot be stored.
    KeySize {
        /// Its length.
        bytes: usize,
    },
}

impl StoreError {
    /// An error of the operating system at `path`.
    pub(super) fn io(path: &Path, doing: &'static str, source: io::Error) -> StoreError {
        StoreError::Io { path: path.into(), doing, source }
    }

    /// Damage at `path`.
    pub(super) fn corrupt(path: &Path, what: impl Into<String>) -> StoreError {
        StoreError::Corrupt { path: path.into(), what: what.into() }
    }

    /// What is wrong, without the mend: for damage that is seen to.
    #[must_use]
    pub fn finding(&self) -> String {
        match self {
            StoreError::Corrupt { path, what } => format!("{} is damaged ({what})", path.display()),
            other => other.to_string(),
        }
    }

    /// Whether stored bytes are damaged: the node can no longer prove what it acknowledged.
    #[must_use]
    pub fn is_corrupt(&self) -> bool {
        matches!(self, StoreError::Corrupt { .. })
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::InUse { path, by } => {
                write!(f, "{} is in use by another process", path.display())?;
                if let Some(pid) = by {
                    write!(f, " (pid {pid})")?;
                }
                f.write_str(": stop that node first, or choose another --data-dir")
            }
            StoreError::Foreign { path, what, found, expected } => write!(
                f,
                "{} was written under {what} {found}, but the configuration says {expected}: \
                 correct the configuration, or choose an empty --data-dir to start without that data",
                path.display()
            ),
            StoreError::Unclaimed { path } => write!(
                f,
                "{} holds records but no identity.toml: bring that file back, or move the \
                 directory away and start empty; the node then copies its records from its peers",
                path.display()
            ),
            StoreError::TooNew { path, format } => write!(
                f,
                "{} has format {format}, which this release does not know: use the release that \
                 wrote it, or a newer one",
                path.display()
            ),
            StoreError::Corrupt { path, what } => write!(
                f,
                "{} is damaged ({what}): check the disk, move the directory away and start the \
                 node empty; it then copies its records from its peers",
                path.display()
            ),
            StoreError::Io { path, doing, source } => write!(
                f,
                "cannot {doing} {}: {source}; see that the disk is healthy, not full, and that \
                 this user may write there",
                path.display()
            ),
            StoreError::Engine { path, reason } => {
                write!(f, "the engine refuses {}: {reason}; see the log", path.display())
            }
            StoreError::Failed { path } => write!(
                f,
                "an earlier write to {} failed, so nothing more is accepted: see that the disk is \
                 healthy and not full, then start the node again",
                path.display()
            ),
            StoreError::KeySize { bytes } => {
                write!(f, "a key must have 1 to {KEY_BYTES_MAX} bytes, this one has {bytes}")
            }
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StoreError::Io { source, .. } => Some(source),
            StoreError::InUse { .. }
            | StoreError::Foreign { .. }
            | StoreError::Unclaimed { .. }
            | StoreError::TooNew { .. }
            | StoreError::Corrupt { .. }
            | StoreError::Engine { .. }
            | StoreError::Failed { .. }
            | StoreError::KeySize { .. } => None,
        }
    }
}
