//! A simulated node's disk: a [`VolatileStore`] that a commit takes time to reach.
//!
//! What a node commits is durable once its simulated sync is over. A node that crashes within a
//! sync may find the batch after the restart or may not, at random: neither was acknowledged.
//!
//! A disk outlives its node. A node that has crashed holds a handle that is dead: what its last
//! tasks still try to store is refused, as if they had never run.
//!
//! Caveat: a batch is atomic, as the engine's journal makes it; what half a batch would do is the
//! engine's matter.

use super::rng::Rng;
use crate::storage::{CommitFault, Durability, Meta, Store, StoreError, VolatileStore};
use simpledynamo_protocol::{
    chain,
    effect::Write,
    message::Row,
    record::{Key, Record},
};
use std::{
    ops::ControlFlow,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// One life's handle on a disk.
#[derive(Clone, Default)]
pub(super) struct SimDisk {
    rows: VolatileStore,
    full: Arc<AtomicBool>,
    dead: Arc<AtomicBool>,
    /// What the sync under way will make durable.
    syncing: Arc<Mutex<Vec<Write>>>,
}

impl SimDisk {
    /// Nothing is stored through this handle any more.
    pub(super) fn die(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }

    /// The handle of the next life, after the crash.
    pub(super) fn next_life(&self, rng: &mut Rng) -> SimDisk {
        let under_way = std::mem::take(&mut *self.syncing());
        if !under_way.is_empty() && rng.chance(500) {
            // Refused only after a fault that the crash itself decides.
            let _ = self.rows.commit(&under_way, Durability::Sync);
        }
        self.rows.crash(true);
        SimDisk { rows: self.rows.clone(), ..SimDisk::default() }
    }

    /// A sync begins.
    pub(super) fn begin(&self, writes: &[Write]) {
        *self.syncing() = writes.to_vec();
    }

    pub(super) fn fail_next(&self, fault: CommitFault) {
        self.rows.fail_next_commit(fault);
    }

    pub(super) fn fill(&self) {
        self.full.store(true, Ordering::Relaxed);
    }

    /// No fault waits for the next commit.
    pub(super) fn mend(&self) {
        self.full.store(false, Ordering::Relaxed);
        self.rows.crash(false);
    }

    /// Every key with its record, in ring order.
    pub(super) fn rows(&self) -> Vec<(Key, Record)> {
        let mut rows = Vec::new();
        // Memory does not fail.
        let _ = self.rows.range(0, u64::MAX, &mut |key, record| {
            rows.push((key, record));
            ControlFlow::Continue(())
        });
        rows
    }

    fn syncing(&self) -> std::sync::MutexGuard<'_, Vec<Write>> {
        self.syncing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for SimDisk {
    fn get(&self, key: &[u8]) -> Result<Option<Record>, StoreError> {
        self.rows.get(key)
    }

    fn commit(&self, batch: &[Write], durability: Durability) -> Result<(), StoreError> {
        self.syncing().clear();
        if self.dead.load(Ordering::Relaxed) || self.full.load(Ordering::Relaxed) {
            return Err(StoreError::Failed { path: PathBuf::from("(simulated disk)") });
        }
        self.rows.commit(batch, durability)
    }

    fn range(
        &self,
        from: u64,
        to: u64,
        visit: &mut dyn FnMut(Key, Record) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.rows.range(from, to, visit)
    }

    fn list(
        &self,
        from: u64,
        to: u64,
        visit: &mut dyn FnMut(Row) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.rows.list(from, to, visit)
    }

    fn meta(&self) -> Result<Meta, StoreError> {
        self.rows.meta()
    }

    fn chains(&self) -> Result<chain::Kept, StoreError> {
        self.rows.chains()
    }
}
