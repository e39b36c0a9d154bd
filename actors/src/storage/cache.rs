//! Durable records kept in memory, absent keys too.
//!
//! The writer thread puts every record in once its batch is durable; the replica reads, and fills in
//! what it had to fetch. The danger of such a pair is a reader that fetches an old record, is
//! overtaken by a commit, and then puts the old one in for good. So a reader reserves its place first
//! and fills the reservation only if no commit has taken it since (`quick_cache`'s guards; that, a
//! bound in bytes, and eviction that scans do not spoil are why it was chosen).
//!
//! Caveats: bytes are those of key, value and exactly-once results, plus a constant an entry; a record above an
//! eighth of the whole is not cached. What is evicted depends only on the order of calls and the seed. After a failed commit the cache may be
//! behind the disk: the node stops then.

use super::{Durability, Meta, Store, StoreError};
use quick_cache::{
    OptionsBuilder, Weighter,
    sync::{Cache, DefaultLifecycle, GuardResult},
};
use simpledynamo_protocol::{
    chain,
    effect::Write,
    message::Row,
    record::{Key, Record},
};
use std::{
    hash::{BuildHasher, DefaultHasher, Hasher, RandomState},
    ops::ControlFlow,
    sync::Arc,
};

/// What an entry costs beside key, value and results, about: structures here and in the cache.
const ENTRY_BYTES: usize = 256;
/// Parts with a lock each; two threads use the cache, and those of shards read it.
const SHARDS: usize = 4;
/// Bytes expected of an entry: only the first allocation depends on it.
const TYPICAL_ENTRY_BYTES: usize = 512;

/// A cached answer: a record, or that there is none.
pub type Cached = Option<Arc<Record>>;

type Inner = Cache<Key, Entry, Weight, Seeded, DefaultLifecycle<Key, Entry>>;

/// Records in memory, at most so many bytes of them. Any thread may use it.
pub struct RecordCache {
    cache: Inner,
    entry_bytes_max: u64,
}

#[derive(Clone)]
struct Entry {
    cached: Cached,
    /// Weighed once: the cache asks often.
    bytes: u64,
}

impl Entry {
    fn new(key: &Key, cached: Cached) -> Entry {
        let record = cached.as_deref().map_or(0, |record| {
            record.datum.value().map_or(0, |value| value.len()) + record.recent.bytes()
        });
        Entry { cached, bytes: (ENTRY_BYTES + key.len() + record) as u64 }
    }
}

#[derive(Clone)]
struct Weight;

impl Weighter<Key, Entry> for Weight {
    fn weight(&self, _key: &Key, entry: &Entry) -> u64 {
        entry.bytes
    }
}

/// Clients choose the keys, so their hash must not be theirs to choose: the seed goes first.
#[derive(Clone)]
struct Seeded(u64);

impl BuildHasher for Seeded {
    type Hasher = DefaultHasher;
    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}

impl RecordCache {
    /// A cache of about `bytes`, with a seed of its own.
    #[must_use]
    pub fn new(bytes: usize) -> RecordCache {
        RecordCache::seeded(bytes, RandomState::new().hash_one(0))
    }

    /// A cache whose evictions are the same for the same calls and seed.
    #[must_use]
    pub fn seeded(bytes: usize, seed: u64) -> RecordCache {
        let shard_bytes = bytes.div_ceil(SHARDS) as u64;
        let items = bytes / TYPICAL_ENTRY_BYTES;
        let options = OptionsBuilder::new()
            .shards(SHARDS)
            .estimated_items_capacity(items)
            .weight_capacity(bytes as u64)
            .build();
        let (seed, lifecycle) = (Seeded(seed), DefaultLifecycle::default());
        let cache = match options {
            Ok(options) => Cache::with_options(options, Weight, seed, lifecycle),
            // Only for options that contradict each other; these do not.
            Err(_) => Cache::with(items, bytes as u64, Weight, seed, lifecycle),
        };
        RecordCache { cache, entry_bytes_max: shard_bytes / 2 }
    }

    /// What is cached of a key; none where the store must be asked.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Cached> {
        self.cache.get(key).map(|entry| entry.cached)
    }

    /// This is the durable state of a key now. A reader that is under way does not overwrite it.
    pub fn put(&self, key: &Key, cached: Cached) {
        let entry = Entry::new(key, cached);
        if entry.bytes > self.entry_bytes_max {
            // Inserting what is too large would leave a reader's reservation standing, and that
            // reader would fill it with the state before this one. Removing takes it away.
            self.cache.remove(key);
        } else {
            self.cache.insert(key.clone(), entry);
        }
    }

    /// The cached state, or the one that `fetch` reads, which is then cached unless a
    /// [`RecordCache::put`] came between. Another reader of the same key waits for this one.
    ///
    /// # Errors
    /// Those of `fetch`.
    pub fn get_or_fetch<E>(
        &self,
        key: &Key,
        fetch: impl FnOnce() -> Result<Cached, E>,
    ) -> Result<Cached, E> {
        match self.cache.get_value_or_guard(key, None) {
            GuardResult::Value(entry) => Ok(entry.cached),
            GuardResult::Guard(guard) => {
                let cached = fetch()?;
                // Refused where a commit has been there: its state is newer than ours.
                let _refused = guard.insert(Entry::new(key, cached.clone()));
                Ok(cached)
            }
            // Without a time limit there is none to run out.
            GuardResult::Timeout => fetch(),
        }
    }

    /// Bytes cached, about.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.cache.weight()
    }
}

/// A store with a [`RecordCache`] in front that is always as new as the store.
pub struct CachedStore<S> {
    store: S,
    cache: RecordCache,
}

impl<S: Store> CachedStore<S> {
    /// Puts `cache`, which must be empty, in front of `store`.
    #[must_use]
    pub fn new(store: S, cache: RecordCache) -> CachedStore<S> {
        CachedStore { store, cache }
    }

    /// The store behind it.
    #[must_use]
    pub fn inner(&self) -> &S {
        &self.store
    }

    /// The record where the cache knows it; none where the disk would have to be read.
    #[must_use]
    pub fn peek(&self, key: &Key) -> Option<Cached> {
        self.cache.get(key)
    }

    /// As [`Store::get`], without copying the record.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn read(&self, key: &Key) -> Result<Cached, StoreError> {
        self.cache.get_or_fetch(key, || Ok(self.store.get(key)?.map(Arc::new)))
    }
}

impl<S: Store> Store for CachedStore<S> {
    fn get(&self, key: &[u8]) -> Result<Option<Record>, StoreError> {
        Ok(self.read(&Key::from(key))?.map(Arc::unwrap_or_clone))
    }

    fn commit(&self, batch: &[Write], durability: Durability) -> Result<(), StoreError> {
        self.store.commit(batch, durability)?;
        for write in batch {
            match write {
                Write::Put(key, record) => self.cache.put(key, Some(Arc::new(record.clone()))),
                Write::Remove(key) => self.cache.put(key, None),
                Write::Ceiling(_) | Write::AbsentFloor(_) | Write::Config(..) | Write::Seat(..) => {
                }
            }
        }
        Ok(())
    }

    fn range(
        &self,
        from: u64,
        to: u64,
        visit: &mut dyn FnMut(Key, Record) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.store.range(from, to, visit)
    }

    fn list(
        &self,
        from: u64,
        to: u64,
        visit: &mut dyn FnMut(Row) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.store.list(from, to, visit)
    }

    fn meta(&self) -> Result<Meta, StoreError> {
        self.store.meta()
    }

    fn chains(&self) -> Result<chain::Kept, StoreError> {
        self.store.chains()
    }

    fn disk_bytes(&self) -> u64 {
        self.store.disk_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use simpledynamo_protocol::{
        ballot::{Ballot, Stamp},
        recent::Recent,
        record::{Datum, Value},
    };
    use std::convert::Infallible;

    fn record(version: u64, bytes: usize) -> Cached {
        let stamp = Stamp { ballot: Ballot::ZERO, version };
        let value = Value::from(vec![b'x'; bytes]);
        let datum = Datum::Live { value, expires_at: None };
        Some(Arc::new(Record { stamp, datum, recent: Recent::default() }))
    }

    fn fetch(cache: &RecordCache, key: &Key, cached: Cached) -> Cached {
        let Ok(cached) = cache.get_or_fetch(key, || Ok::<_, Infallible>(cached));
        cached
    }

    #[test]
    fn absence_is_cached_and_superseded() {
        let (cache, key) = (RecordCache::seeded(1 << 20, 1), Key::from("k"));
        assert_eq!(cache.get(&key), None);
        assert_eq!(fetch(&cache, &key, None), None);
        assert_eq!(cache.get(&key), Some(None));
        cache.put(&key, record(1, 10));
        assert_eq!(fetch(&cache, &key, None), record(1, 10), "the store is not asked");
    }

    #[test]
    fn commit_during_a_fetch_is_not_overwritten_by_it() {
        for (name, bytes) in [("small", 10), ("too large to cache", 1 << 18)] {
            let (cache, key) = (RecordCache::seeded(1 << 20, 1), Key::from("k"));
            let fetched = cache.get_or_fetch(&key, || {
                cache.put(&key, record(2, bytes));
                Ok::<_, Infallible>(record(1, 10))
            });
            assert_eq!(fetched, Ok(record(1, 10)));
            assert_ne!(cache.get(&key), Some(record(1, 10)), "{name}");
        }
    }

    #[test]
    fn record_too_large_to_cache_removes_the_old_one() {
        let (cache, key) = (RecordCache::seeded(1 << 20, 1), Key::from("k"));
        cache.put(&key, record(1, 10));
        cache.put(&key, record(2, 1 << 18));
        assert_eq!(cache.get(&key), None);
        let none = RecordCache::seeded(0, 1);
        none.put(&key, record(1, 10));
        assert_eq!(none.get(&key), None, "a cache of no bytes caches nothing");
    }

    #[test]
    fn bytes_are_bounded_and_evictions_repeat() {
        let run = |seed| {
            let cache = RecordCache::seeded(64 << 10, seed);
            for i in 0..2_000u32 {
                cache.put(&Key::from(i.to_be_bytes().to_vec()), record(1, (i % 700) as usize));
                assert!(cache.bytes() <= 64 << 10);
            }
            let kept =
                (0..2_000u32).filter(|i| cache.get(&Key::from(i.to_be_bytes().to_vec())).is_some());
            kept.collect::<Vec<_>>()
        };
        assert!(run(1).len() > 50);
        assert_eq!(run(1), run(1));
    }
}
