//! A store in memory, for tests and simulated nodes, with faults on demand.
//!
//! Clones share the "disk": a simulated node that restarts opens a clone. Records go through plain
//! maps, not through rows, so that it errs differently from the engine; one suite checks both.
//!
//! Caveat: like a real disk after a failed sync, it refuses every commit until [`VolatileStore::crash`].

use super::{Durability, Meta, Store, StoreError, row};
use simpledynamo_protocol::{
    chain::{self, config::Seat},
    effect::Write,
    message::Row,
    record::{Datum, Key, Record},
    ring::{Position, RangeId},
};
use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// How a commit fails. Its caller learns the same from both: nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitFault {
    /// The batch never reached the disk.
    Lost,
    /// The batch is found after the restart.
    Kept,
}

/// Where a row stands: prefix of the position, then the key.
type Place = (u64, Key);

#[derive(Clone, Debug)]
enum Undo {
    Row(Place, Option<Record>),
    Meta(Meta),
    Config(RangeId, Option<Record>),
    Seat(RangeId, Option<Seat>),
}

#[derive(Debug, Default)]
struct Disk {
    rows: BTreeMap<Place, Record>,
    meta: Meta,
    chains: chain::Kept,
    /// What to put back, in reverse, if unsynced commits are lost.
    unsynced: Vec<Undo>,
    fault: Option<CommitFault>,
    /// A batch that shows up only after the crash.
    hidden: Vec<Write>,
    failed: bool,
}

/// Records in memory.
#[derive(Clone, Debug, Default)]
pub struct VolatileStore {
    disk: Arc<Mutex<Disk>>,
}

impl VolatileStore {
    /// An empty one.
    #[must_use]
    pub fn new() -> VolatileStore {
        VolatileStore::default()
    }

    /// The next commit fails, and all after it until a crash.
    pub fn fail_next_commit(&self, fault: CommitFault) {
        self.disk().fault = Some(fault);
    }

    /// The process ends; with `machine`, so does the machine, and what was never synced is lost.
    pub fn crash(&self, machine: bool) {
        let mut disk = self.disk();
        disk.failed = false;
        disk.fault = None;
        for write in std::mem::take(&mut disk.hidden) {
            disk.apply(&write);
        }
        let undo = std::mem::take(&mut disk.unsynced);
        if machine {
            undo.into_iter().rev().for_each(|undo| disk.undo(undo));
        } else {
            disk.unsynced = undo;
        }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rows of the interval, copied: a visitor may use the store.
    fn interval(&self, from: u64, to: u64) -> Vec<(Key, Record)> {
        let disk = self.disk();
        let after = (from, Key::from(&b""[..]));
        let rows = disk.rows.range(after..).take_while(|((prefix, _), _)| *prefix <= to);
        rows.map(|((_, key), record)| (key.clone(), record.clone())).collect()
    }
}

impl Disk {
    fn apply(&mut self, write: &Write) {
        let undo = match write {
            Write::Put(key, record) => {
                let place = place(key);
                Undo::Row(place.clone(), self.rows.insert(place, record.clone()))
            }
            Write::Remove(key) => {
                let place = place(key);
                let old = self.rows.remove(&place);
                Undo::Row(place, old)
            }
            Write::Ceiling(round) => {
                let old = self.meta;
                self.meta.ceiling = *round;
                Undo::Meta(old)
            }
            Write::AbsentFloor(round) => {
                let old = self.meta;
                self.meta.absent_floor = *round;
                Undo::Meta(old)
            }
            Write::Config(range, record) => {
                Undo::Config(*range, self.chains.configs.insert(*range, record.clone()))
            }
            Write::Seat(range, seat) => {
                Undo::Seat(*range, self.chains.seats.insert(*range, seat.clone()))
            }
        };
        self.unsynced.push(undo);
    }

    fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Row(place, Some(record)) => {
                self.rows.insert(place, record);
            }
            Undo::Row(place, None) => {
                self.rows.remove(&place);
            }
            Undo::Meta(meta) => self.meta = meta,
            Undo::Config(range, Some(record)) => {
                self.chains.configs.insert(range, record);
            }
            Undo::Config(range, None) => {
                self.chains.configs.remove(&range);
            }
            Undo::Seat(range, Some(seat)) => {
                self.chains.seats.insert(range, seat);
            }
            Undo::Seat(range, None) => {
                self.chains.seats.remove(&range);
            }
        }
    }
}

fn place(key: &Key) -> Place {
    (Position::of(key).prefix(), key.clone())
}

fn failed() -> StoreError {
    StoreError::Failed { path: PathBuf::from("(memory)") }
}

impl Store for VolatileStore {
    fn get(&self, key: &[u8]) -> Result<Option<Record>, StoreError> {
        row::check_key(key)?;
        Ok(self.disk().rows.get(&place(&Key::from(key))).cloned())
    }

    fn commit(&self, batch: &[Write], durability: Durability) -> Result<(), StoreError> {
        for write in batch {
            match write {
                Write::Put(key, _) | Write::Remove(key) => row::check_key(key)?,
                Write::Ceiling(_) | Write::AbsentFloor(_) | Write::Config(..) | Write::Seat(..) => {
                }
            }
        }
        let mut disk = self.disk();
        if disk.failed {
            return Err(failed());
        }
        if let Some(fault) = disk.fault.take() {
            disk.failed = true;
            if fault == CommitFault::Kept {
                disk.hidden = batch.to_vec();
            }
            return Err(failed());
        }
        batch.iter().for_each(|write| disk.apply(write));
        if durability == Durability::Sync {
            disk.unsynced.clear();
        }
        Ok(())
    }

    fn range(
        &self,
        from: u64,
        to: u64,
        visit: &mut dyn FnMut(Key, Record) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        for (key, record) in self.interval(from, to) {
            if visit(key, record).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn list(
        &self,
        from: u64,
        to: u64,
        visit: &mut dyn FnMut(Row) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.range(from, to, &mut |key, record| {
            let (expires_at, deleted_at) = match record.datum {
                Datum::Live { expires_at, .. } => (expires_at, None),
                Datum::Tombstone { at } => (None, Some(at)),
            };
            visit(Row { key, stamp: record.stamp, expires_at, deleted_at })
        })
    }

    fn meta(&self) -> Result<Meta, StoreError> {
        Ok(self.disk().meta)
    }

    fn chains(&self) -> Result<chain::Kept, StoreError> {
        Ok(self.disk().chains.clone())
    }
}
