//! What ended coordinators knew: ballots still owned, states last seen chosen.
//!
//! Losing an entry costs one more round trip for the next write of its key, nothing else, so the
//! cache is small and bounded in bytes.

use quick_cache::{Weighter, unsync::Cache};
use simpledynamo_protocol::{record::Key, register::proposer::Known};

/// Bytes of a node's caches together, about: some 100,000 keys of 100 B.
const KNOWN_BYTES: u64 = 32 * 1024 * 1024;
/// Bytes of an entry beside key and value, about.
const ENTRY_BYTES: usize = 256;

#[derive(Clone)]
struct Weight;

/// Weighed once: the cache asks often.
#[derive(Clone)]
struct Entry {
    known: Known,
    bytes: u64,
}

impl Entry {
    fn new(key: &Key, known: Known) -> Entry {
        let record = known.record.as_ref().map_or(0, |record| {
            record.datum.value().map_or(0, |value| value.len()) + record.recent.bytes()
        });
        Entry { known, bytes: (ENTRY_BYTES + key.len() + record) as u64 }
    }
}

impl Weighter<Key, Entry> for Weight {
    fn weight(&self, _: &Key, entry: &Entry) -> u64 {
        entry.bytes
    }
}

/// A bounded cache of [`Known`]; what was used longest ago goes first, about.
pub(crate) struct KnownCache(Cache<Key, Entry, Weight>);

impl KnownCache {
    /// An empty cache, one of so many of the node.
    #[must_use]
    pub(crate) fn one_of(count: usize) -> KnownCache {
        let bytes = KNOWN_BYTES / count.max(1) as u64;
        let items = usize::try_from(bytes).unwrap_or(usize::MAX) / (2 * ENTRY_BYTES);
        KnownCache(Cache::with_weighter(items, bytes, Weight))
    }

    /// Remembers what the coordinator of `key` knew.
    pub(crate) fn put(&mut self, key: Key, known: Known) {
        if known.owned.is_some() || known.record.is_some() {
            let entry = Entry::new(&key, known);
            self.0.insert(key, entry);
        }
    }

    /// Takes out what is known of `key`: a running coordinator knows better from then on.
    pub(crate) fn take(&mut self, key: &Key) -> Known {
        self.0.remove(key).map(|(_, entry)| entry.known).unwrap_or_default()
    }
}

impl Default for KnownCache {
    fn default() -> KnownCache {
        KnownCache::one_of(1)
    }
}
