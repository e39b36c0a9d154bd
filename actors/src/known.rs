//! What ended coordinators knew: ballots still owned, states last seen chosen.
//!
//! Losing an entry costs one more round trip for the next write of its key, nothing else, so the
//! cache is small and bounded in bytes.

use quick_cache::{Weighter, unsync::Cache};
use simpledynamo_protocol::{
    record::{Datum, Key},
    register::proposer::Known,
};

/// Bytes of the cache, about: some 100,000 keys of 100 B.
const KNOWN_BYTES: u64 = 32 * 1024 * 1024;
/// Bytes of an entry beside key and value, about.
const ENTRY_BYTES: usize = 256;

#[derive(Clone)]
struct Weight;

impl Weighter<Key, Known> for Weight {
    fn weight(&self, key: &Key, known: &Known) -> u64 {
        let value = known.record.as_ref().map_or(0, |record| match &record.datum {
            Datum::Live { value, .. } => value.len(),
            Datum::Tombstone { .. } => 0,
        });
        let recent = known.record.as_ref().map_or(0, |record| record.recent.bytes());
        (ENTRY_BYTES + key.len() + value + recent) as u64
    }
}

/// A bounded cache of [`Known`]; what was used longest ago goes first, about.
pub(crate) struct KnownCache(Cache<Key, Known, Weight>);

impl KnownCache {
    /// An empty cache.
    #[must_use]
    pub(crate) fn new() -> KnownCache {
        let items = usize::try_from(KNOWN_BYTES).unwrap_or(usize::MAX) / (2 * ENTRY_BYTES);
        KnownCache(Cache::with_weighter(items, KNOWN_BYTES, Weight))
    }

    /// Remembers what the coordinator of `key` knew.
    pub(crate) fn put(&mut self, key: Key, known: Known) {
        if known.owned.is_some() || known.record.is_some() {
            self.0.insert(key, known);
        }
    }

    /// Takes out what is known of `key`: a running coordinator knows better from then on.
    pub(crate) fn take(&mut self, key: &Key) -> Known {
        self.0.remove(key).map(|(_, known)| known).unwrap_or_default()
    }
}

impl Default for KnownCache {
    fn default() -> KnownCache {
        KnownCache::new()
    }
}
