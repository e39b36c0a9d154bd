//! Whose directory it is, how often it was started, and when a node must say that it may have
//! forgotten something.

#![allow(clippy::unwrap_used, reason = "clippy knows test functions, not their helpers")]

use simpledynamo_actors::storage::{
    Durability, Expected, Identity, KnownPeer, MemoryPlace, NodeStore, Place, Store, StoreError,
    accept_loss, boot_id,
};
use simpledynamo_protocol::{effect::Write, ring::NodeId};
use std::{fs, path::Path};

fn expected() -> Expected {
    Expected {
        node: NodeId(5554),
        cluster: 0xc1,
        strategy: "quorum, 3 replicas, read 2, write 2".to_owned(),
        durability: Durability::Sync,
        boot: "boot 1".to_owned(),
        first_incarnation: 0,
    }
}

fn with(durability: Durability, boot: &str) -> Expected {
    Expected { durability, boot: boot.to_owned(), ..expected() }
}

fn place() -> Place {
    Place::Memory(MemoryPlace::new(77))
}

fn open(place: &Place, expected: &Expected) -> Identity {
    Identity::open(place.clone(), expected).unwrap()
}

fn open_node(path: &Path) -> NodeStore {
    NodeStore::open(path, &expected()).unwrap()
}

#[test]
fn an_empty_directory_becomes_a_new_store_with_an_id_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let first = open_node(&dir.path().join("deep/a"));
    let second = open_node(&dir.path().join("deep/b"));
    assert!(first.identity.is_new() && !first.identity.is_member());
    assert_eq!((first.identity.incarnation(), first.identity.learner()), (1, None));
    assert_ne!(first.identity.store(), second.identity.store());
    let store = first.identity.store();
    drop(first);
    let again = open_node(&dir.path().join("deep/a"));
    assert!(!again.identity.is_new());
    assert_eq!((again.identity.store(), again.identity.incarnation()), (store, 2));
}

#[test]
fn every_start_is_counted_even_if_nothing_else_happens() {
    let place = place();
    for start in 1..5 {
        assert_eq!(open(&place, &expected()).incarnation(), start);
    }
}

#[test]
fn changes_are_found_by_the_next_life() {
    let place = place();
    let mut identity = open(&place, &expected());
    let known = |store, incarnation| KnownPeer { store, incarnation };
    identity.admit().unwrap();
    identity.remember(NodeId(5558), known(u64::MAX, 1)).unwrap();
    identity.remember(NodeId(5556), known(3, 4)).unwrap();
    identity.remember(NodeId(5558), known(u64::MAX, 2)).unwrap();
    let next = open(&place, &expected());
    assert!(next.is_member());
    assert_eq!(next.store(), 77);
    let peers: Vec<_> = next.peers().into_iter().collect();
    assert_eq!(peers, [(NodeId(5556), known(3, 4)), (NodeId(5558), known(u64::MAX, 2))]);
}

#[test]
fn directory_of_another_node_cluster_or_strategy_is_refused_and_not_touched() {
    let place = place();
    open(&place, &expected());
    let strangers = [
        ("node", Expected { node: NodeId(5556), ..expected() }),
        ("strategy", Expected { strategy: "chain".to_owned(), cluster: 2, ..expected() }),
        ("cluster", Expected { cluster: 2, ..expected() }),
    ];
    for (field, stranger) in strangers {
        let error = Identity::open(place.clone(), &stranger).unwrap_err();
        assert!(matches!(&error, StoreError::Foreign { what, .. } if *what == field), "{error}");
        assert!(error.to_string().contains("correct the configuration"), "{error}");
    }
    assert_eq!(open(&place, &expected()).incarnation(), 2);
}

#[test]
fn unsynced_records_make_a_learner_only_when_the_machine_went_down() {
    let (os, sync) = (Durability::Os, Durability::Sync);
    let life = |runs: &[(Durability, &str)]| {
        let place = place();
        let learner = |(durability, boot): &(_, &str)| {
            open(&place, &with(*durability, boot)).learner().is_some()
        };
        runs.iter().map(learner).collect::<Vec<_>>()
    };
    assert_eq!(life(&[(os, "1"), (os, "1")]), [false, false], "killed, same boot");
    assert_eq!(life(&[(os, "1"), (os, "2")]), [false, true], "another boot");
    assert_eq!(life(&[(os, "1"), (sync, "2")]), [false, true]);
    assert_eq!(life(&[(sync, "1"), (sync, "2"), (os, "3")]), [false; 3]);
    assert_eq!(
        life(&[(os, "1"), (sync, "1"), (sync, "2")]),
        [false, false, true],
        "not yet synced"
    );
    assert_eq!(life(&[(os, ""), (os, "")]), [false, true], "a boot that cannot be told");
    assert_eq!(
        life(&[(os, "1"), (os, "2"), (os, "2")]),
        [false, true, true],
        "until it has learnt"
    );
}

#[test]
fn an_orderly_stop_or_a_sync_proves_that_nothing_is_unsynced() {
    let place = place();
    open(&place, &with(Durability::Os, "1")).stop_clean().unwrap();
    assert_eq!(open(&place, &with(Durability::Os, "2")).learner(), None);
    open(&place, &with(Durability::Sync, "2")).synced().unwrap();
    assert_eq!(open(&place, &with(Durability::Sync, "3")).learner(), None);
}

#[test]
fn learning_lasts_over_restarts_and_ends_in_membership() {
    let place = place();
    open(&place, &expected()).start_learning("peers know another store").unwrap();
    let mut identity = open(&place, &expected());
    assert_eq!(identity.learner(), Some("peers know another store"));
    identity.end_learning().unwrap();
    let next = open(&place, &expected());
    assert_eq!((next.learner(), next.is_member()), (None, true));
}

#[test]
fn identity_file_that_was_changed_or_cut_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open_node(dir.path()));
    let file = dir.path().join("identity.toml");
    let good = fs::read_to_string(&file).unwrap();
    let tampered = good.replace("incarnation = 1", "incarnation = 0");
    assert_ne!(good, tampered);
    for bad in [tampered.as_str(), &good[..good.len() - 3], "", "format = 1\n"] {
        fs::write(&file, bad).unwrap();
        let error = NodeStore::open(dir.path(), &expected()).err().unwrap();
        assert!(error.is_corrupt(), "{error}");
    }
    fs::write(&file, [0xff, 0xfe]).unwrap();
    assert!(NodeStore::open(dir.path(), &expected()).err().unwrap().is_corrupt());
    fs::write(&file, good).unwrap();
    assert_eq!(open_node(dir.path()).identity.incarnation(), 2);
}

#[test]
fn records_without_an_identity_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open_node(dir.path()));
    fs::remove_file(dir.path().join("identity.toml")).unwrap();
    let error = NodeStore::open(dir.path(), &expected()).err().unwrap();
    assert!(matches!(error, StoreError::Unclaimed { .. }), "{error}");
}

#[test]
fn a_member_whose_store_is_gone_is_a_learner() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = open_node(dir.path());
    drop(node.store);
    fs::remove_dir_all(dir.path().join("store")).unwrap();
    node.identity.admit().unwrap();
    drop(node.identity);
    let node = open_node(dir.path());
    assert_eq!(node.identity.learner(), Some("its store is gone"));
}

#[test]
fn a_store_marked_damaged_is_set_aside_and_learnt_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = open_node(dir.path());
    node.identity.admit().unwrap();
    node.store.commit(&[Write::Ceiling(5)], Durability::Sync).unwrap();
    node.identity.mark_damaged("a row's checksum is wrong").unwrap();
    drop(node);
    for _ in 0..2 {
        let node = open_node(dir.path());
        assert!(node.identity.learner().unwrap().contains("damaged"));
        assert_eq!(node.identity.damaged(), None);
        assert_eq!(node.store.meta().unwrap().ceiling, 0);
    }
    assert!(dir.path().join("store.damaged-2").is_dir(), "the old one is kept");
    assert!(!dir.path().join("store.damaged-3").exists(), "only once");
}

#[test]
fn a_store_that_does_not_open_for_damage_is_set_aside_at_once() {
    let damages: [fn(&Path); 4] = [
        |store| fs::write(store.join("version"), b"nonsense").unwrap(),
        |store| fs::remove_file(store.join("version")).unwrap(),
        |store| fs::remove_file(store.join("keyspaces/0/current")).unwrap(),
        |store| {
            fs::remove_dir_all(store).unwrap();
            fs::write(store, b"nonsense").unwrap();
        },
    ];
    for (n, damage) in damages.iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let mut node = open_node(dir.path());
        node.identity.admit().unwrap();
        drop(node);
        damage(&dir.path().join("store"));
        let node = open_node(dir.path());
        assert!(node.identity.learner().unwrap().contains("damaged"), "{n}");
        node.store.commit(&[Write::Ceiling(5)], Durability::Sync).unwrap();
        assert!(dir.path().join("store.damaged-2").exists(), "{n}");
    }
}

#[test]
fn directory_stays_locked_while_either_part_lives() {
    let dir = tempfile::tempdir().unwrap();
    let NodeStore { identity, store } = open_node(dir.path());
    drop(identity);
    let refused = NodeStore::open(dir.path(), &expected()).err().unwrap();
    assert!(matches!(refused, StoreError::InUse { .. }), "{refused}");
    drop(store);
    open_node(dir.path());
}

#[test]
fn this_machine_tells_its_boot() {
    assert!(!boot_id().is_empty());
    assert_eq!(boot_id(), boot_id());
}

#[test]
fn only_a_person_lets_a_learner_vote_with_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = open_node(dir.path());
    running.identity.start_learning("a test took its records").unwrap();
    assert!(accept_loss(dir.path(), &[]).is_err(), "not while it runs");
    drop(running);
    assert!(open_node(dir.path()).identity.learner().is_some());
    assert_eq!(accept_loss(dir.path(), &[]).unwrap().as_deref(), Some("a test took its records"));
    let after = open_node(dir.path());
    assert!(after.identity.is_member() && after.identity.learner().is_none());
    assert!(after.store.meta().unwrap().ceiling >= 1 << 40, "no forgotten round is used again");
    drop(after);
    assert_eq!(accept_loss(dir.path(), &[]).unwrap(), None, "nothing to accept");
}
