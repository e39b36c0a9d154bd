//! A simulated node's disk: a [`VolatileStore`] that a commit takes time to reach.
//!
//! What a node commits is durable once its simulated sync is over. A node that crashes within a
//! sync finds, after the restart, all of that batch, nothing of it, or its first writes only, at
//! random: none of it was acknowledged.
//!
//! A disk outlives its node. A node that has crashed holds a handle that is dead: what its last
//! tasks still try to store is refused, as if they had never run.
//!
//! What became durable is noted, in order, for the rules of `invariants`.
//!
//! Caveat: here a batch may be cut anywhere between two writes, which is harsher than the engine,
//! whose journal makes it atomic. A write itself is whole: damage within one is the engine's matter.

use super::rng::Rng;
use crate::storage::{Durability, Meta, Store, StoreError, VolatileStore};
use simpledynamo_protocol::{
    chain,
    effect::Write,
    message::Row,
    record::{Key, Record},
    ring::{NodeId, RangeId},
};
use std::{
    ops::ControlFlow,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What the next commit suffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DiskFault {
    /// It fails, and nothing of it is found after the restart.
    Lost,
    /// It fails, and its first writes, one at least, are found after the restart.
    Torn,
    /// It fails for want of room, as all do until the restart.
    Full,
}

/// What one life knows of its disk.
#[derive(Debug, Default)]
struct Life {
    /// The process is gone.
    dead: bool,
    /// A commit has failed: no other succeeds.
    failed: bool,
    fault: Option<DiskFault>,
    /// What the sync under way will make durable.
    syncing: Vec<Write>,
    /// Of a commit that was torn: how the batch began.
    torn: Vec<Write>,
    /// A disk that lies: see [`SimDisk::lie`].
    lies: bool,
}

/// One life's handle on a disk.
#[derive(Clone, Default)]
pub(super) struct SimDisk {
    rows: VolatileStore,
    life: Arc<Mutex<Life>>,
    /// What has become durable since it was last asked.
    fresh: Arc<Mutex<Vec<Write>>>,
}

impl SimDisk {
    /// Nothing is stored through this handle any more.
    pub(super) fn die(&self) {
        self.life().dead = true;
    }

    /// The handle of the next life, after the crash.
    pub(super) fn next_life(&self, rng: &mut Rng) -> SimDisk {
        let (mut under_way, mut torn) = {
            let mut life = self.life();
            (std::mem::take(&mut life.syncing), std::mem::take(&mut life.torn))
        };
        if !under_way.is_empty() {
            let kept = match rng.below(3) {
                0 => 0,
                1 => under_way.len(),
                _ => usize::try_from(rng.below(under_way.len() as u64)).unwrap_or(0),
            };
            under_way.truncate(kept);
        }
        if !torn.is_empty() {
            torn.truncate(1 + usize::try_from(rng.below(torn.len() as u64)).unwrap_or(0));
        }
        // What a disk that lies had not yet written is gone.
        self.rows.crash(true);
        for found in [under_way, torn] {
            // Memory does not fail; keys were checked when they were first stored.
            if !found.is_empty() && self.rows.commit(&found, Durability::Sync).is_ok() {
                self.fresh().extend(found);
            }
        }
        SimDisk { rows: self.rows.clone(), life: Arc::default(), fresh: self.fresh.clone() }
    }

    /// A sync begins.
    pub(super) fn begin(&self, writes: &[Write]) {
        self.life().syncing = writes.to_vec();
    }

    pub(super) fn fail_next(&self, fault: DiskFault) {
        self.life().fault = Some(fault);
    }

    /// No fault waits for the next commit.
    pub(super) fn mend(&self) {
        self.life().fault = None;
    }

    /// From now on a commit counts as done before it is durable; [`SimDisk::catch_up`] makes it so.
    #[cfg(feature = "broken-rules")]
    pub(super) fn lie(&self) {
        self.life().lies = true;
    }

    /// A lying disk has written what it said it had.
    #[cfg(feature = "broken-rules")]
    pub(super) fn catch_up(&self) {
        if !self.life().dead {
            // Memory does not fail.
            let _ = self.rows.commit(&[], Durability::Sync);
        }
    }

    /// The node's ceiling is forgotten.
    #[cfg(feature = "broken-rules")]
    pub(super) fn forget_ceiling(&self) {
        // Memory does not fail.
        let _ = self.rows.commit(&[Write::Ceiling(0)], Durability::Sync);
    }

    /// The node's seats are those of the first chains again, where it has any.
    #[cfg(feature = "broken-rules")]
    pub(super) fn forget_seats(&self, ring: &simpledynamo_protocol::ring::Ring, me: NodeId) {
        // Memory does not fail.
        let kept = self.rows.chains().unwrap_or_default();
        let mut first = chain::Kept::first(ring, me).seats;
        first.retain(|range, _| kept.seats.contains_key(range));
        let writes: Vec<_> =
            first.into_iter().map(|(range, seat)| Write::Seat(range, seat)).collect();
        let _ = self.rows.commit(&writes, Durability::Sync);
    }

    /// What has become durable since this was last asked, in order.
    pub(super) fn take_fresh(&self) -> Vec<Write> {
        std::mem::take(&mut *self.fresh())
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

    /// Whether `me`, whose disk this is, holds all that is committed in the chains of its ranges.
    pub(super) fn is_level(&self, me: NodeId) -> bool {
        // Memory does not fail.
        let kept = self.rows.chains().unwrap_or_default();
        kept.seats.values().all(|seat| seat.is_level(me))
    }

    /// The node's seat in a chain.
    pub(super) fn seat(&self, range: RangeId) -> Option<chain::config::Seat> {
        // Memory does not fail.
        let kept = self.rows.chains().unwrap_or_default();
        kept.seats.get(&range).cloned()
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fresh(&self) -> MutexGuard<'_, Vec<Write>> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for SimDisk {
    fn get(&self, key: &[u8]) -> Result<Option<Record>, StoreError> {
        self.rows.get(key)
    }

    fn commit(&self, batch: &[Write], durability: Durability) -> Result<(), StoreError> {
        let lies = {
            let mut life = self.life();
            life.syncing.clear();
            let fault = if batch.is_empty() { None } else { life.fault.take() };
            match fault {
                Some(DiskFault::Torn) => life.torn = batch.to_vec(),
                Some(DiskFault::Lost | DiskFault::Full) | None => {}
            }
            life.failed |= fault.is_some();
            if life.dead || life.failed {
                return Err(StoreError::Failed { path: PathBuf::from("(simulated disk)") });
            }
            life.lies
        };
        self.rows.commit(batch, if lies { Durability::Os } else { durability })?;
        self.fresh().extend_from_slice(batch);
        Ok(())
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
