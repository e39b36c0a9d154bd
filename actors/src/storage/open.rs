//! Opening a node's directory: lock, identity, engine, in the one safe order.
//!
//! The identity comes first into a new directory, so records without one are never our own doing. A
//! store that is damaged or gone is no reason to stay down while the peers have the records: it is
//! set aside, untouched, and the node starts empty as a learner. Disks that refuse (full, no
//! permission, I/O errors) are reported instead: they may have lost nothing.

use super::{
    DataDir, Durability, EngineStore, Expected, Identity, Place, Store, StoreError, directory,
};
use std::path::Path;

/// The engine's directory in a node's directory.
pub(super) const STORE: &str = "store";

/// A node's durable parts.
pub struct NodeStore {
    /// Who it is; says whether it is a learner, and why.
    pub identity: Identity,
    /// Its records.
    pub store: EngineStore,
}

impl NodeStore {
    /// Opens the directory at `path`, which this process then has to itself.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Foreign`], [`StoreError::Unclaimed`], a corrupt
    /// identity, or the operating system's. A corrupt store is no error: see [`Identity::learner`].
    pub fn open(path: &Path, expected: &Expected) -> Result<NodeStore, StoreError> {
        let dir = DataDir::open(path)?;
        let place = Place::Disk(dir.clone());
        let rows = path.join(STORE);
        let had_rows = rows.try_exists().map_err(|e| StoreError::io(&rows, "open", e))?;
        if had_rows && place.load()?.is_none() {
            return Err(StoreError::Unclaimed { path: path.into() });
        }
        let mut identity = Identity::open(place, expected)?;
        if identity.is_member() && !had_rows {
            identity.start_learning("its store is gone")?;
        }
        let store = open_rows(&mut identity, &rows)?.holding(dir);
        if expected.durability == Durability::Sync {
            // An earlier life may have run without.
            store.commit(&[], Durability::Sync)?;
            identity.synced()?;
        }
        Ok(NodeStore { identity, store })
    }
}

fn open_rows(identity: &mut Identity, rows: &Path) -> Result<EngineStore, StoreError> {
    if let Some(what) = identity.damaged() {
        let what = what.to_owned();
        set_aside(identity, rows, &what)?;
    }
    match EngineStore::open(rows) {
        Err(damage) if damage.is_corrupt() => {
            // On the record first: a crash while setting aside must not hide it.
            let what = damage.finding();
            identity.mark_damaged(&what)?;
            set_aside(identity, rows, &what)?;
            EngineStore::open(rows)
        }
        other => other,
    }
}

/// Moves the damaged store away, for a person to look at; the node becomes a learner.
fn set_aside(identity: &mut Identity, rows: &Path, what: &str) -> Result<(), StoreError> {
    let aside = rows.with_extension(format!("damaged-{}", identity.incarnation()));
    if rows.try_exists().map_err(|e| StoreError::io(rows, "open", e))? {
        directory::rename(rows, &aside)?;
    }
    log::error!(
        "{what}: kept as {}, and its records are copied anew from peers; check the disk",
        aside.display()
    );
    identity.damage_set_aside(format!("its store was damaged, kept as {}", aside.display()))
}
