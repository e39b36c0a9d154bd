//! The durable store: fjall, a log-structured engine, behind [`Store`].
//!
//! fjall was the best of eight measured for group commit: an append to one journal and one
//! fdatasync a batch, whatever its size. One keyspace, because an idle one would keep journals for
//! ever; two worker threads, because with one, flushes starve behind compactions.
//!
//! Three of its habits are guarded against here. It syncs nothing unless asked: every commit asks.
//! All items of a batch share one sequence number, so two writes of one key in a batch would have
//! no order: only the last is handed on. And where a journal breaks, it drops the rest without an
//! error: [`super::journal`] looks for commits behind the break first.
//!
//! Caveats: a commit waits while the engine flushes a segment beside the journal (measured up to a
//! second under steady load), so it belongs on a thread of its own. A batch that the machine's power
//! loss tore apart in the middle looks like damage: such a node starts as a learner.

use super::{
    DataDir, Durability, Meta, Store, StoreError, chain_row, directory, journal,
    row::{self, ABSENT_FLOOR, CEILING, Damage},
};
use fjall::{
    Database, Keyspace, KeyspaceCreateOptions, LsmError, OwnedWriteBatch, PersistMode, Readable,
};
use simpledynamo_protocol::{
    chain,
    effect::Write,
    message::Row,
    record::{Key, Record},
};
use std::{
    collections::BTreeMap,
    fs, io,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

/// The one keyspace.
const KEYSPACE: &str = "rows";
/// Threads that flush and compact; with one, flushes starve: 1.5 GB of memory were measured.
const WORKER_THREADS: usize = 2;
/// Memory for new rows before they are flushed to a segment, bytes.
const MEMTABLE_BYTES: u64 = 16 * 1024 * 1024;
/// Memory for blocks read from segments, bytes.
const CACHE_BYTES: u64 = 32 * 1024 * 1024;
/// Journals kept before flushes are forced, bytes: bounds the time of a restart.
const JOURNAL_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// Row key of the mark that a new store is complete; its value is a number, the layout's version.
const LAYOUT: &[u8] = b"\x00layout";
/// Which tables and row keys there are.
const LAYOUT_VERSION: u64 = 1;

/// Records on disk.
pub struct EngineStore {
    // Dropped in this order: the keyspace is part of the database.
    rows: Keyspace,
    database: Database,
    path: PathBuf,
    /// The lock of the node's directory, kept while the engine is at work there.
    _dir: Option<DataDir>,
}

impl EngineStore {
    /// Opens the store in the directory `path`, or makes one where there is none.
    ///
    /// A new store is made beside and renamed into place: a store that exists is complete, wherever
    /// the process was killed.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] where its files are damaged, [`StoreError::InUse`], or the operating
    /// system's.
    pub fn open(path: &Path) -> Result<EngineStore, StoreError> {
        if !path.try_exists().map_err(|e| StoreError::io(path, "open", e))? {
            EngineStore::create(path)?;
        }
        check_journals(path)?;
        let store = EngineStore::open_engine(path)?;
        match store.number(LAYOUT)? {
            LAYOUT_VERSION => Ok(store),
            0 => Err(StoreError::corrupt(path, "the layout mark is missing")),
            other => {
                let format = u32::try_from(other).unwrap_or(u32::MAX);
                Err(StoreError::TooNew { path: path.into(), format })
            }
        }
    }

    /// Keeps the node's directory locked for as long as the store lives.
    #[must_use]
    pub(super) fn holding(self, dir: DataDir) -> EngineStore {
        EngineStore { _dir: Some(dir), ..self }
    }

    fn create(path: &Path) -> Result<(), StoreError> {
        let fresh = path.with_extension("new");
        match fs::remove_dir_all(&fresh) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::io(&fresh, "remove", e));
            }
            _ => {}
        }
        let store = EngineStore::open_engine(&fresh)?;
        let mut batch = store.database.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&store.rows, LAYOUT, row::encode_number(LAYOUT, LAYOUT_VERSION));
        batch.commit().map_err(|e| store.error("write", e))?;
        drop(store);
        directory::rename(&fresh, path)
    }

    fn open_engine(path: &Path) -> Result<EngineStore, StoreError> {
        let database = Database::builder(path)
            .worker_threads(WORKER_THREADS)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES_MAX)
            .open()
            .map_err(|e| engine_error(path, "open", e))?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let rows =
            database.keyspace(KEYSPACE, options).map_err(|e| engine_error(path, "open", e))?;
        Ok(EngineStore { rows, database, path: path.into(), _dir: None })
    }

    fn error(&self, doing: &'static str, error: fjall::Error) -> StoreError {
        engine_error(&self.path, doing, error)
    }

    fn damage(&self, row_key: &[u8], damage: Damage) -> StoreError {
        let shown = row_key.get(..40).unwrap_or(row_key);
        StoreError::corrupt(&self.path, format!("row {}: {damage}", shown.escape_ascii()))
    }

    fn number(&self, row_key: &[u8]) -> Result<u64, StoreError> {
        let value = self.rows.get(row_key).map_err(|e| self.error("read", e))?;
        let number = value.map(|value| row::decode_number(row_key, &value)).transpose();
        number.map(Option::unwrap_or_default).map_err(|damage| self.damage(row_key, damage))
    }

    /// What the batch does to each row; the last write of a key wins.
    fn rows_of(&self, batch: &[Write]) -> Result<BTreeMap<Vec<u8>, Option<Vec<u8>>>, StoreError> {
        let mut rows = BTreeMap::new();
        for write in batch {
            match write {
                Write::Put(key, record) => {
                    row::check_key(key)?;
                    let row_key = row::row_key(key);
                    let value = row::encode(&row_key, key, record)
                        .map_err(|damage| self.damage(&row_key, damage))?;
                    rows.insert(row_key, Some(value));
                }
                Write::Remove(key) => {
                    row::check_key(key)?;
                    rows.insert(row::row_key(key), None);
                }
                Write::Ceiling(round) => {
                    rows.insert(CEILING.to_vec(), Some(row::encode_number(CEILING, *round)));
                }
                Write::AbsentFloor(round) => {
                    let value = row::encode_number(ABSENT_FLOOR, *round);
                    rows.insert(ABSENT_FLOOR.to_vec(), Some(value));
                }
                Write::Config(range, record) => {
                    let row_key = chain_row::row_key(chain_row::CONFIG, *range);
                    let value = chain_row::encode(&row_key, record);
                    let value = value.map_err(|damage| self.damage(&row_key, damage))?;
                    rows.insert(row_key, Some(value));
                }
                Write::Seat(range, seat) => {
                    let row_key = chain_row::row_key(chain_row::SEAT, *range);
                    let value = chain_row::encode(&row_key, seat);
                    let value = value.map_err(|damage| self.damage(&row_key, damage))?;
                    rows.insert(row_key, Some(value));
                }
            }
        }
        Ok(rows)
    }

    /// Decodes the rows of an interval, one after another, from one snapshot.
    fn scan<T>(
        &self,
        (from, to): (u64, u64),
        decode: fn(&[u8], &[u8]) -> Result<T, Damage>,
        mut visit: impl FnMut(T) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        if from > to {
            return Ok(());
        }
        let (first, end) = row::row_range(from, to);
        for entry in self.database.snapshot().range(&self.rows, first..end) {
            let (row_key, value) = entry.into_inner().map_err(|e| self.error("read", e))?;
            let row = decode(&row_key, &value).map_err(|damage| self.damage(&row_key, damage))?;
            if visit(row).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Store for EngineStore {
    fn get(&self, key: &[u8]) -> Result<Option<Record>, StoreError> {
        row::check_key(key)?;
        let row_key = row::row_key(key);
        let Some(value) = self.rows.get(&row_key).map_err(|e| self.error("read", e))? else {
            return Ok(None);
        };
        match row::decode(&row_key, &value) {
            Ok((stored, record)) if *stored == *key => Ok(Some(record)),
            Ok(_) => Err(self.damage(&row_key, "the row holds another key")),
            Err(damage) => Err(self.damage(&row_key, damage)),
        }
    }

    fn commit(&self, batch: &[Write], durability: Durability) -> Result<(), StoreError> {
        let rows = self.rows_of(batch)?;
        let mode = match durability {
            Durability::Sync => PersistMode::SyncData,
            Durability::Os => PersistMode::Buffer,
        };
        if rows.is_empty() {
            return self.database.persist(mode).map_err(|e| self.error("write", e));
        }
        let engine_batch = OwnedWriteBatch::with_capacity(self.database.clone(), rows.len());
        let mut engine_batch = engine_batch.durability(Some(mode));
        for (row_key, value) in rows {
            match value {
                Some(value) => engine_batch.insert(&self.rows, row_key, value),
                None => engine_batch.remove(&self.rows, row_key),
            }
        }
        engine_batch.commit().map_err(|e| self.error("write", e))
    }

    fn range(
        &self,
        from: u64,
        to: u64,
        visit: &mut dyn FnMut(Key, Record) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.scan((from, to), row::decode, |(key, record)| visit(key, record))
    }

    fn list(
        &self,
        from: u64,
        to: u64,
        visit: &mut dyn FnMut(Row) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.scan((from, to), row::decode_listed, visit)
    }

    fn meta(&self) -> Result<Meta, StoreError> {
        Ok(Meta { ceiling: self.number(CEILING)?, absent_floor: self.number(ABSENT_FLOOR)? })
    }

    fn chains(&self) -> Result<chain::Kept, StoreError> {
        let mut kept = chain::Kept::default();
        for name in [chain_row::CONFIG, chain_row::SEAT] {
            let (first, end) = chain_row::row_range(name);
            for entry in self.database.snapshot().range(&self.rows, first..end) {
                let (row_key, value) = entry.into_inner().map_err(|e| self.error("read", e))?;
                chain_row::add(&mut kept, &row_key, &value)
                    .map_err(|damage| self.damage(&row_key, damage))?;
            }
        }
        Ok(kept)
    }

    fn disk_bytes(&self) -> u64 {
        self.database.disk_space().unwrap_or(0)
    }
}

/// Looks for commits that the engine would drop without a word.
fn check_journals(path: &Path) -> Result<(), StoreError> {
    let entries = fs::read_dir(path).map_err(|e| engine_error(path, "open", e.into()))?;
    for entry in entries {
        let file = entry.map_err(|e| StoreError::io(path, "read", e))?.path();
        if file.extension().is_some_and(|extension| extension == "jnl") {
            let lost = journal::commits_behind_a_break(&file)
                .map_err(|e| StoreError::io(&file, "read", e))?;
            if let Some(at) = lost {
                let what = format!("the journal breaks at byte {at}, and commits follow");
                return Err(StoreError::corrupt(&file, what));
            }
        }
    }
    Ok(())
}

/// Tells damage from a disk that refuses and from the engine's own refusals.
fn engine_error(path: &Path, doing: &'static str, error: fjall::Error) -> StoreError {
    let reason = format!("{error:?}");
    match error {
        fjall::Error::Io(e) | fjall::Error::Storage(LsmError::Io(e)) => match e.kind() {
            // Files end early or are missing: something took them. Where the file that makes a store
            // of a directory is, the engine tries to make one, and finds the others there.
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::InvalidData
            | io::ErrorKind::NotFound
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::NotADirectory => StoreError::corrupt(path, reason),
            _ => StoreError::io(path, doing, e),
        },
        fjall::Error::Storage(_)
        | fjall::Error::JournalRecovery(_)
        | fjall::Error::InvalidVersion(None)
        | fjall::Error::Decompress(_)
        | fjall::Error::InvalidTrailer
        | fjall::Error::InvalidTag(_)
        | fjall::Error::Unrecoverable => StoreError::corrupt(path, reason),
        fjall::Error::Locked => StoreError::InUse { path: path.into(), by: None },
        fjall::Error::Poisoned => StoreError::Failed { path: path.into() },
        // The engine's list of errors may grow.
        _ => StoreError::Engine { path: path.into(), reason },
    }
}
