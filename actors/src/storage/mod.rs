//! The replica store below the actors: what a node keeps of its keys, and how it knows its own disk.
//!
//! [`Store`] is all that the replica needs of an engine: one record, an atomic batch, a range in
//! ring order. [`EngineStore`] keeps them durably, [`VolatileStore`] in memory for tests, with
//! injected faults. [`RecordCache`] holds durable records in memory above either. [`Identity`] says
//! whose directory this is, how often it was started, and whether it can still prove that it kept
//! all it acknowledged. [`NodeStore::open`] puts the durable ones together in the one safe order.
//!
//! A directory of a node:
//!
//! | entry | content |
//! |---|---|
//! | `lock` | held by the running process, and its id |
//! | `identity.toml` | [`Identity`], replaced as a whole |
//! | `store/` | the engine's files |
//! | `store.damaged-N/` | a store set aside at start N because it was corrupt; nothing reads it |
//!
//! Caveat: reads may see a batch shortly before `commit` returns, never before it is durable
//! (for [`Durability::Os`]: before the operating system has it).

mod accept_loss;
mod cache;
mod chain_row;
mod directory;
mod engine;
mod error;
mod identity;
mod identity_file;
mod journal;
mod open;
mod row;
mod volatile;

pub use crate::settings::Durability;
pub use accept_loss::accept_loss;
pub use cache::{Cached, CachedStore, RecordCache};
pub use directory::DataDir;
pub use engine::EngineStore;
pub use error::StoreError;
pub use identity::{Expected, Identity, KnownPeer, boot_id};
pub use identity_file::{MemoryPlace, Place};
pub use open::NodeStore;
pub use row::{KEY_BYTES_MAX, check_key};
#[doc(hidden)]
pub use row::{fuzz, fuzz_seed};
pub use volatile::{CommitFault, VolatileStore};

use simpledynamo_protocol::{
    chain,
    effect::Write,
    message::Row,
    record::{Key, Record},
};
use std::{ops::ControlFlow, sync::Arc};

/// What the replica keeps beside its records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// No round above it has been promised or used.
    pub ceiling: u64,
    /// The largest round of a collected tombstone.
    pub absent_floor: u64,
}

/// A replica's storage. Any thread may read; commits come from one writer thread.
pub trait Store: Send + Sync + 'static {
    /// The record of a key.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] where its row is damaged; never "not found" instead.
    fn get(&self, key: &[u8]) -> Result<Option<Record>, StoreError>;

    /// Carries out the whole batch or nothing of it; of two writes of one key the later holds.
    /// Returns once it is durable as asked. An empty batch with [`Durability::Sync`] makes durable
    /// all that was committed before.
    ///
    /// # Errors
    /// [`StoreError::KeySize`] before anything is written. After any other error nobody knows what
    /// the disk holds: the store refuses further commits and the node must stop.
    fn commit(&self, batch: &[Write], durability: Durability) -> Result<(), StoreError>;

    /// Visits the records whose position's prefix lies between `from` and `to`, both inclusive, in
    /// ring order, as they stood at one moment. Nothing where `from` is above `to`.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] at the first damaged row.
    fn range(
        &self,
        from: u64,
        to: u64,
        visit: &mut dyn FnMut(Key, Record) -> ControlFlow<()>,
    ) -> Result<(), StoreError>;

    /// As [`Store::range`], without values and exactly-once records.
    ///
    /// # Errors
    /// As [`Store::range`].
    fn list(
        &self,
        from: u64,
        to: u64,
        visit: &mut dyn FnMut(Row) -> ControlFlow<()>,
    ) -> Result<(), StoreError>;

    /// The node's own numbers; zero where none was ever committed.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] where a row is damaged.
    fn meta(&self) -> Result<Meta, StoreError>;

    /// The node's places in chains; empty where none was ever committed.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] where a row is damaged.
    fn chains(&self) -> Result<chain::Kept, StoreError>;
}

impl<S: Store + ?Sized> Store for Arc<S> {
    fn get(&self, key: &[u8]) -> Result<Option<Record>, StoreError> {
        (**self).get(key)
    }

    fn commit(&self, batch: &[Write], durability: Durability) -> Result<(), StoreError> {
        (**self).commit(batch, durability)
    }

    fn range(
        &self,
        from: u64,
        to: u64,
        visit: &mut dyn FnMut(Key, Record) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        (**self).range(from, to, visit)
    }

    fn list(
        &self,
        from: u64,
        to: u64,
        visit: &mut dyn FnMut(Row) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        (**self).list(from, to, visit)
    }

    fn meta(&self) -> Result<Meta, StoreError> {
        (**self).meta()
    }

    fn chains(&self) -> Result<chain::Kept, StoreError> {
        (**self).chains()
    }
}
