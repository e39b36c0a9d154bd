//! Going on with what is left, where nobody has more: a person's decision.
//!
//! Beside the mark of the learner, the ceiling must change: with the writes, a raise of it may have
//! been lost, and a round used twice would give one stamp to two contents. So it jumps by more
//! rounds than any cluster uses.
//!
//! With chains a node also gives up its places in them: it may begin a range's chain anew, from what
//! it has, where the range's other nodes have no more.

use super::{DataDir, Durability, EngineStore, Place, Store, StoreError, open::STORE};
use simpledynamo_protocol::{chain::config::Seat, effect::Write, ring::RangeId};
use std::path::Path;

/// Rounds that may have been used and forgotten: at a million prepares a second, two weeks' worth.
const LOST_ROUNDS: u64 = 1 << 40;

/// Lets the stopped node of this directory vote with what it has, without copying first: for a range
/// whose replicas have **all** lost something, since then nobody is left to copy from. Writes that
/// were acknowledged may be gone for good. `chains` are the ranges that it has a part in where chains
/// keep them. Returns why it was a learner; none where it was not.
///
/// # Errors
/// [`StoreError::InUse`] while the node runs, a corrupt store, or the operating system's.
pub fn accept_loss(path: &Path, chains: &[RangeId]) -> Result<Option<String>, StoreError> {
    let dir = DataDir::open(path)?;
    let place = Place::Disk(dir.clone());
    let Some(mut content) = place.load()? else { return Ok(None) };
    if content.member && content.learner.is_none() {
        return Ok(None);
    }
    let why = content.learner.take().unwrap_or_else(|| "its store was new".to_owned());
    let store = EngineStore::open(&path.join(STORE))?.holding(dir);
    let ceiling = store.meta()?.ceiling.saturating_add(LOST_ROUNDS);
    let seats = chains.iter().map(|range| Write::Seat(*range, Seat::loss_accepted()));
    let writes: Vec<_> = seats.chain([Write::Ceiling(ceiling)]).collect();
    store.commit(&writes, Durability::Sync)?;
    content.member = true;
    place.save(&content)?;
    Ok(Some(why))
}
