//! A node's store: what is written is kept only once it is synced, and whatever was to be sent
//! behind a write leaves only then. A crash loses the writes and all that waited behind them.

use simpledynamo_protocol::{
    chain,
    effect::Write,
    record::{Key, Record},
    register::acceptor::Durable,
};
use std::collections::{BTreeMap, VecDeque};

/// Why a record is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was accepted.
    Accepted,
    /// Anti-entropy brought it.
    Installed,
}

/// What survives a crash.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    pub rows: BTreeMap<Key, Record>,
    pub durable: Durable,
    pub chain: chain::Kept,
}

impl Kept {
    fn apply(&mut self, write: &Write) {
        match write {
            Write::Put(key, record) => {
                self.rows.insert(key.clone(), record.clone());
            }
            Write::Remove(key) => {
                self.rows.remove(key);
            }
            Write::Ceiling(ceiling) => self.durable.ceiling = *ceiling,
            Write::AbsentFloor(floor) => self.durable.absent_floor = *floor,
            Write::Config(range, record) => {
                self.chain.configs.insert(*range, record.clone());
            }
            Write::Seat(range, seat) => {
                self.chain.seats.insert(*range, seat.clone());
            }
        }
    }
}

/// One step of the queue to the disk.
#[derive(Clone, Debug)]
enum Step<T> {
    Write(Write, Origin),
    Release(T),
}

/// The store; `T` is what waits behind writes.
#[derive(Clone, Debug)]
pub struct Disk<T> {
    kept: Kept,
    /// `kept` with all that is not yet synced: what the replica sees.
    view: Kept,
    queue: VecDeque<Step<T>>,
    unsynced: usize,
}

impl<T> Default for Disk<T> {
    fn default() -> Self {
        Disk { kept: Kept::default(), view: Kept::default(), queue: VecDeque::new(), unsynced: 0 }
    }
}

impl<T> Disk<T> {
    /// A disk that holds this.
    pub fn of(kept: Kept) -> Disk<T> {
        Disk { view: kept.clone(), kept, ..Disk::default() }
    }

    /// The record as the replica sees it.
    pub fn get(&self, key: &Key) -> Option<&Record> {
        self.view.rows.get(key)
    }

    /// All that is written, synced or not.
    pub fn view(&self) -> &Kept {
        &self.view
    }

    /// What would survive a crash now.
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Whether anything waits for a sync.
    pub fn is_dirty(&self) -> bool {
        self.unsynced > 0
    }

    /// Queues a write.
    pub fn write(&mut self, write: Write, origin: Origin) {
        self.view.apply(&write);
        self.unsynced += 1;
        self.queue.push_back(Step::Write(write, origin));
    }

    /// Queues something behind all writes so far; gives it back where there is none to wait for.
    pub fn release(&mut self, item: T) -> Option<T> {
        if self.unsynced == 0 {
            return Some(item);
        }
        self.queue.push_back(Step::Release(item));
        None
    }

    /// Syncs the first `count` writes: what became durable, and what may leave.
    pub fn sync(&mut self, count: usize) -> (Vec<(Write, Origin)>, Vec<T>) {
        let (mut writes, mut released) = (Vec::new(), Vec::new());
        while let Some(step) = self.queue.pop_front() {
            match step {
                Step::Write(..) if writes.len() == count => {
                    self.queue.push_front(step);
                    break;
                }
                Step::Write(write, origin) => {
                    self.kept.apply(&write);
                    self.unsynced -= 1;
                    writes.push((write, origin));
                }
                Step::Release(item) => released.push(item),
            }
        }
        (writes, released)
    }

    /// How many writes wait.
    pub fn unsynced(&self) -> usize {
        self.unsynced
    }

    /// Loses what is not synced.
    pub fn crash(&mut self) {
        self.queue.clear();
        self.unsynced = 0;
        self.view = self.kept.clone();
    }
}
