//! The identity as a file: what is written, how it is checked, where it lies.
//!
//! TOML, so that a person can read it, behind a checksum of the rest, because a flipped bit in a
//! start count would let two lives of a node use the same names. Numbers of 64 random bits are
//! text: TOML's integers have 63.

use super::{DataDir, StoreError, directory};
use serde::{Deserialize, Serialize};
use std::{
    fmt, fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// The file's name in a node's directory.
const FILE: &str = "identity.toml";
/// The first line; the checksum of all that follows the second stands in that.
const HEADING: &str = "# Written by this node at every start. Changed by hand it is refused.\n";
/// Starts the second line.
const CHECK: &str = "# check ";
/// What this release writes.
pub(super) const FORMAT: u32 = 1;
/// Largest file read, bytes: far above what the largest ring needs.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Everything the file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Content {
    pub(super) format: u32,
    pub(super) store: Hex,
    pub(super) node: u32,
    pub(super) cluster: Hex,
    pub(super) strategy: String,
    pub(super) incarnation: u64,
    /// The machine's boot at the last start.
    pub(super) boot: String,
    /// Whether acknowledged records may be with the operating system only.
    pub(super) unsynced: bool,
    /// Whether the last run ended in order, with everything synced.
    pub(super) clean: bool,
    pub(super) member: bool,
    /// Why this node must copy its records back; none where it need not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) learner: Option<String>,
    /// Whether nothing that the store said of before that loss is left in it.
    #[serde(default)]
    pub(super) begun: bool,
    /// What is wrong with the store; none where nothing is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) damaged: Option<String>,
    #[serde(default, rename = "peer")]
    pub(super) peers: Vec<Peer>,
}

/// What is known of one peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Peer {
    pub(super) node: u32,
    pub(super) store: Hex,
    pub(super) incarnation: u64,
}

/// 64 bits, written as 16 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Hex(pub(super) u64);

impl TryFrom<String> for Hex {
    type Error = std::num::ParseIntError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        u64::from_str_radix(&text, 16).map(Hex)
    }
}

impl From<Hex> for String {
    fn from(hex: Hex) -> String {
        hex.to_string()
    }
}

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where an identity lies.
#[derive(Clone, Debug)]
pub enum Place {
    /// In a node's directory.
    Disk(DataDir),
    /// In memory, for simulated nodes.
    Memory(MemoryPlace),
}

/// An identity file in memory: clones share it, so it survives a simulated restart.
#[derive(Clone, Debug)]
pub struct MemoryPlace {
    store: u64,
    text: Arc<Mutex<Option<String>>>,
}

impl MemoryPlace {
    /// An empty place; `store` becomes the id of the store that is made there.
    #[must_use]
    pub fn new(store: u64) -> MemoryPlace {
        MemoryPlace { store, text: Arc::default() }
    }

    /// What is there now, apart from what is written to this one from here on.
    #[cfg(feature = "harness")]
    pub(crate) fn copy(&self) -> MemoryPlace {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner).clone();
        MemoryPlace { store: self.store, text: Arc::new(Mutex::new(text)) }
    }

    /// Whether the identity there is that of a node that has nothing to copy back.
    #[cfg(feature = "harness")]
    pub(crate) fn votes(&self) -> bool {
        let content = Place::Memory(self.clone()).load().ok().flatten();
        content.is_some_and(|content| content.member && content.learner.is_none())
    }
}

impl Place {
    /// What errors name.
    pub(super) fn path(&self) -> PathBuf {
        match self {
            Place::Disk(dir) => dir.path().join(FILE),
            Place::Memory(_) => PathBuf::from("(memory)").join(FILE),
        }
    }

    /// The id for a store that is made here.
    pub(super) fn fresh_store(&self) -> Result<u64, StoreError> {
        match self {
            Place::Disk(_) => random_id(),
            Place::Memory(memory) => Ok(memory.store),
        }
    }

    /// The stored content; none where there is no file.
    pub(super) fn load(&self) -> Result<Option<Content>, StoreError> {
        let path = self.path();
        let text = match self {
            Place::Memory(memory) => {
                memory.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
            }
            Place::Disk(_) => read(&path)?,
        };
        text.map(|text| parse(&path, &text)).transpose()
    }

    /// Replaces the stored content, durably.
    pub(super) fn save(&self, content: &Content) -> Result<(), StoreError> {
        let path = self.path();
        let body = toml::to_string(content)
            .map_err(|e| StoreError::io(&path, "write", io::Error::other(e)))?;
        let text = format!("{HEADING}{CHECK}{:08x}\n{body}", crc32fast::hash(body.as_bytes()));
        match self {
            Place::Disk(_) => directory::replace(&path, &text),
            Place::Memory(memory) => {
                *memory.text.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
                Ok(())
            }
        }
    }
}

fn read(path: &Path) -> Result<Option<String>, StoreError> {
    let mut text = String::new();
    let read =
        fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text));
    match read {
        Ok(_) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => {
            Err(StoreError::corrupt(path, "not text"))
        }
        Err(e) => Err(StoreError::io(path, "read", e)),
    }
}

fn parse(path: &Path, text: &str) -> Result<Content, StoreError> {
    /// All that every format has.
    #[derive(Deserialize)]
    struct AnyFormat {
        format: u32,
    }
    let checked = text.strip_prefix(HEADING).and_then(|text| text.strip_prefix(CHECK));
    let (check, body) = checked
        .and_then(|text| text.split_once('\n'))
        .ok_or_else(|| StoreError::corrupt(path, "the first two lines are not this node's"))?;
    if check != format!("{:08x}", crc32fast::hash(body.as_bytes())) {
        return Err(StoreError::corrupt(path, "the checksum is wrong, or it was changed by hand"));
    }
    let unreadable = |e: toml::de::Error| StoreError::corrupt(path, e.message());
    let AnyFormat { format } = toml::from_str(body).map_err(unreadable)?;
    if format > FORMAT {
        return Err(StoreError::TooNew { path: path.into(), format });
    }
    toml::from_str(body).map_err(unreadable)
}

/// 64 bits of the operating system's randomness, never zero.
fn random_id() -> Result<u64, StoreError> {
    let source = Path::new("/dev/urandom");
    let mut bytes = [0; 8];
    fs::File::open(source)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|e| StoreError::io(source, "read", e))?;
    Ok(u64::from_le_bytes(bytes).max(1))
}
