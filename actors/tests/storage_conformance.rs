//! One suite over both stores, so that what holds in tests with the volatile one holds on disk.

#![allow(clippy::unwrap_used, reason = "clippy knows test functions, not their helpers")]

use simpledynamo_actors::storage::{
    CachedStore, Durability, EngineStore, KEY_BYTES_MAX, Meta, RecordCache, Store, StoreError,
    VolatileStore,
};
use simpledynamo_protocol::{
    ballot::{Ballot, Stamp},
    chain::{self, config::Seat},
    effect::Write,
    recent::Recent,
    record::{Datum, Key, Record, Value},
    ring::{NodeId, Position, RangeId},
};
use std::{collections::BTreeMap, ops::ControlFlow};

fn record(version: u64, text: &str) -> Record {
    let stamp = Stamp { ballot: Ballot { round: 1, node: NodeId(5554) }, version };
    let datum = Datum::Live { value: Value::from(text), expires_at: None };
    Record { stamp, datum, recent: Recent::default() }
}

fn put(key: &[u8], version: u64) -> Write {
    Write::Put(Key::from(key), record(version, "value"))
}

fn keys(store: &dyn Store, from: u64, to: u64) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut visit = |key, _| {
        keys.push(key);
        ControlFlow::Continue(())
    };
    store.range(from, to, &mut visit).unwrap();
    keys
}

fn position(key: &[u8]) -> u64 {
    Position::of(key).prefix()
}

fn every_store(test: fn(&dyn Store)) {
    test(&VolatileStore::new());
    let dir = tempfile::tempdir().unwrap();
    test(&EngineStore::open(&dir.path().join("store")).unwrap());
    test(&CachedStore::new(VolatileStore::new(), RecordCache::seeded(1 << 20, 1)));
}

#[test]
fn an_empty_store_holds_nothing() {
    every_store(|store| {
        assert_eq!(store.get(b"k").unwrap(), None);
        assert_eq!(store.meta().unwrap(), Meta::default());
        assert!(keys(store, 0, u64::MAX).is_empty());
        store.commit(&[], Durability::Sync).unwrap();
        store.commit(&[], Durability::Os).unwrap();
    });
}

#[test]
fn what_is_put_is_found_until_removed() {
    every_store(|store| {
        for durability in [Durability::Sync, Durability::Os] {
            store.commit(&[put(b"a", 1), put(b"b", 2)], durability).unwrap();
            assert_eq!(store.get(b"a").unwrap(), Some(record(1, "value")));
            store.commit(&[put(b"a", 3), Write::Remove(Key::from("b"))], durability).unwrap();
            assert_eq!(store.get(b"a").unwrap(), Some(record(3, "value")));
            assert_eq!(store.get(b"b").unwrap(), None);
        }
    });
}

#[test]
fn of_two_writes_of_a_key_in_a_batch_the_later_holds() {
    every_store(|store| {
        let (a, b) = (Key::from("a"), Key::from("b"));
        let batch = [
            put(b"a", 1),
            put(b"a", 2),
            put(b"b", 1),
            Write::Remove(b.clone()),
            Write::Remove(a.clone()),
            put(b"a", 3),
            Write::Ceiling(10),
            Write::Ceiling(20),
        ];
        store.commit(&batch, Durability::Sync).unwrap();
        assert_eq!(store.get(&a).unwrap(), Some(record(3, "value")));
        assert_eq!(store.get(&b).unwrap(), None);
        assert_eq!(store.meta().unwrap().ceiling, 20);
    });
}

#[test]
fn the_nodes_numbers_are_kept_apart_from_records() {
    every_store(|store| {
        let batch = [Write::Ceiling(7), Write::AbsentFloor(u64::MAX), put(b"ceiling", 1)];
        store.commit(&batch, Durability::Sync).unwrap();
        assert_eq!(store.meta().unwrap(), Meta { ceiling: 7, absent_floor: u64::MAX });
        assert_eq!(keys(store, 0, u64::MAX), [Key::from("ceiling")]);
    });
}

#[test]
fn places_in_chains_are_kept_apart_from_records_and_the_last_holds() {
    every_store(|store| {
        assert_eq!(store.chains().unwrap(), chain::Kept::default());
        let first = Seat::first(&[5554, 5556, 5558].map(NodeId));
        let config = first.config.keeping(|node| node != NodeId(5556));
        let later = Seat { config, ..first.clone() };
        let batch = [
            Write::Seat(RangeId(0), first.clone()),
            Write::Seat(RangeId(300), first.clone()),
            Write::Seat(RangeId(0), later.clone()),
            Write::Config(RangeId(0), record(1, "1 5554@1")),
            put(b"chain_seat", 1),
        ];
        store.commit(&batch, Durability::Sync).unwrap();
        let kept = store.chains().unwrap();
        assert_eq!(kept.seats, BTreeMap::from([(RangeId(0), later), (RangeId(300), first)]));
        assert_eq!(kept.configs, BTreeMap::from([(RangeId(0), record(1, "1 5554@1"))]));
        assert_eq!(keys(store, 0, u64::MAX), [Key::from("chain_seat")]);
    });
}

#[test]
fn ranges_are_inclusive_and_in_ring_order() {
    every_store(|store| {
        let mut expected: Vec<Vec<u8>> = (0..300u32).map(|i| i.to_string().into_bytes()).collect();
        let batch: Vec<_> = expected.iter().map(|key| put(key, 1)).collect();
        store.commit(&batch, Durability::Sync).unwrap();
        expected.sort_by_key(|key| position(key));
        let all = keys(store, 0, u64::MAX);
        assert!(all.iter().map(|key| &key[..]).eq(expected.iter().map(|key| &key[..])));
        let (from, to) = (position(&all[10]), position(&all[20]));
        assert_eq!(keys(store, from, to), all[10..=20]);
        assert_eq!(keys(store, from + 1, to - 1), all[11..20]);
        assert_eq!(keys(store, from, from), all[10..=10]);
        assert!(keys(store, to, from).is_empty(), "from above to");
        let mut seen = 0;
        let mut visit = |_, _| {
            seen += 1;
            if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        store.range(0, u64::MAX, &mut visit).unwrap();
        assert_eq!(seen, 3, "the visitor stops the scan");
    });
}

#[test]
fn a_listing_shows_stamps_expiry_and_deletion() {
    every_store(|store| {
        let mut expiring = record(1, "value");
        expiring.datum = Datum::Live { value: Value::from("v"), expires_at: Some(99) };
        let mut deleted = record(2, "value");
        deleted.datum = Datum::Tombstone { at: 77 };
        let batch = [
            Write::Put(Key::from("expiring"), expiring.clone()),
            Write::Put(Key::from("deleted"), deleted.clone()),
        ];
        store.commit(&batch, Durability::Sync).unwrap();
        let mut rows = Vec::new();
        let mut visit = |row| {
            rows.push(row);
            ControlFlow::Continue(())
        };
        store.list(0, u64::MAX, &mut visit).unwrap();
        rows.sort_by_key(|row| row.stamp);
        assert_eq!((&rows[0].key[..], rows[0].stamp), (&b"expiring"[..], expiring.stamp));
        assert_eq!((rows[0].expires_at, rows[0].deleted_at), (Some(99), None));
        assert_eq!((&rows[1].key[..], rows[1].stamp), (&b"deleted"[..], deleted.stamp));
        assert_eq!((rows[1].expires_at, rows[1].deleted_at), (None, Some(77)));
    });
}

#[test]
fn keys_of_every_allowed_length_are_kept_apart() {
    every_store(|store| {
        let lengths = [1, 255, 65_494, 65_524, 65_525, 65_526, 65_535, KEY_BYTES_MAX];
        let all: Vec<Vec<u8>> = lengths
            .iter()
            .flat_map(|length| {
                [b'a', b'b'].map(|last| [&vec![b'a'; length - 1][..], &[last]].concat())
            })
            .collect();
        for (version, key) in (0..).zip(&all) {
            store.commit(&[put(key, version)], Durability::Os).unwrap();
        }
        for (version, key) in (0..).zip(&all) {
            assert_eq!(store.get(key).unwrap().unwrap().stamp.version, version);
        }
        assert_eq!(keys(store, 0, u64::MAX).len(), all.len());
        store.commit(&[Write::Remove(Key::from(all[15].clone()))], Durability::Os).unwrap();
        assert_eq!(store.get(&all[15]).unwrap(), None);
        assert!(store.get(&all[14]).unwrap().is_some());
    });
}

#[test]
fn keys_of_other_lengths_are_refused_before_anything_is_written() {
    every_store(|store| {
        let long = vec![b'a'; KEY_BYTES_MAX + 1];
        for key in [&b""[..], &long] {
            let batch = [put(b"good", 1), put(key, 1)];
            let refused = store.commit(&batch, Durability::Sync);
            assert!(matches!(refused, Err(StoreError::KeySize { .. })), "{refused:?}");
            assert!(matches!(store.get(key), Err(StoreError::KeySize { .. })));
            assert_eq!(store.get(b"good").unwrap(), None);
        }
        store.commit(&[put(b"good", 1)], Durability::Sync).unwrap();
    });
}

#[test]
fn a_visitor_may_use_the_store() {
    every_store(|store| {
        store.commit(&[put(b"a", 1), put(b"b", 1)], Durability::Sync).unwrap();
        let mut visit = |key: Key, _| {
            store.commit(&[Write::Remove(key)], Durability::Os).unwrap();
            ControlFlow::Continue(())
        };
        store.range(0, u64::MAX, &mut visit).unwrap();
        assert!(keys(store, 0, u64::MAX).is_empty());
    });
}
