//! The volatile store's faults, and the cache's agreement with the store behind it.

#![allow(clippy::unwrap_used, reason = "clippy knows test functions, not their helpers")]

use simpledynamo_actors::storage::{
    CachedStore, CommitFault, Durability, RecordCache, Store, StoreError, VolatileStore,
};
use simpledynamo_protocol::{
    ballot::{Ballot, Stamp},
    effect::Write,
    recent::Recent,
    record::{Datum, Key, Record, Value},
};

fn put(key: &str, version: u64) -> Write {
    let stamp = Stamp { ballot: Ballot::ZERO, version };
    let datum = Datum::Live { value: Value::from("v"), expires_at: None };
    Write::Put(Key::from(key), Record { stamp, datum, recent: Recent::default() })
}

fn version(store: &dyn Store, key: &str) -> Option<u64> {
    store.get(key.as_bytes()).unwrap().map(|record| record.stamp.version)
}

#[test]
fn a_machine_crash_loses_exactly_what_was_not_synced() {
    let store = VolatileStore::new();
    store.commit(&[put("a", 1), Write::Ceiling(5)], Durability::Sync).unwrap();
    let unsynced = [put("a", 2), put("b", 1), put("a", 3), Write::Ceiling(9)];
    store.commit(&unsynced, Durability::Os).unwrap();
    store.crash(false);
    assert_eq!((version(&store, "a"), version(&store, "b")), (Some(3), Some(1)));
    store.crash(true);
    assert_eq!((version(&store, "a"), version(&store, "b")), (Some(1), None));
    assert_eq!(store.meta().unwrap().ceiling, 5);
}

#[test]
fn a_later_sync_keeps_earlier_unsynced_writes() {
    let store = VolatileStore::new();
    store.commit(&[put("a", 1)], Durability::Os).unwrap();
    store.commit(&[], Durability::Sync).unwrap();
    store.crash(true);
    assert_eq!(version(&store, "a"), Some(1));
}

#[test]
fn after_a_failed_commit_nothing_is_accepted_until_the_restart() {
    for (fault, after) in [(CommitFault::Lost, Some(1)), (CommitFault::Kept, Some(2))] {
        let store = VolatileStore::new();
        store.commit(&[put("a", 1)], Durability::Sync).unwrap();
        store.fail_next_commit(fault);
        assert!(store.commit(&[put("a", 2)], Durability::Sync).is_err());
        assert_eq!(version(&store, "a"), Some(1));
        let next = store.commit(&[put("b", 1)], Durability::Sync);
        assert!(matches!(next, Err(StoreError::Failed { .. })));
        store.crash(false);
        assert_eq!((version(&store, "a"), version(&store, "b")), (after, None), "{fault:?}");
        store.commit(&[put("b", 1)], Durability::Sync).unwrap();
    }
}

#[test]
fn cached_store_is_as_new_as_the_store() {
    let inner = VolatileStore::new();
    let store = CachedStore::new(inner.clone(), RecordCache::seeded(1 << 20, 1));
    let key = Key::from("a");
    assert_eq!(store.peek(&key), None);
    assert_eq!(store.read(&key).unwrap(), None);
    assert_eq!(store.peek(&key), Some(None), "absence is remembered");
    store.commit(&[put("a", 1)], Durability::Sync).unwrap();
    assert_eq!(version(&store, "a"), Some(1));
    store.commit(&[put("a", 2), Write::Remove(key.clone())], Durability::Sync).unwrap();
    assert_eq!(store.peek(&key), Some(None));
    inner.fail_next_commit(CommitFault::Lost);
    assert!(store.commit(&[put("a", 3)], Durability::Sync).is_err());
    assert_eq!(store.peek(&key), Some(None), "what failed is not shown");
}
