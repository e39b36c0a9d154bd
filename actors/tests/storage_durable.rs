//! The durable store: what was acknowledged is there after any end of the process, and damage is
//! reported, never served and never skipped.

#![allow(clippy::unwrap_used, reason = "clippy knows test functions, not their helpers")]

use simpledynamo_actors::storage::{DataDir, Durability, EngineStore, Store, StoreError};
use simpledynamo_protocol::{
    ballot::{Ballot, Stamp},
    effect::Write,
    recent::Recent,
    record::{Datum, Key, Record, Value},
};
use std::{
    fs,
    io::{BufRead, BufReader, Write as _},
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Set for the process that writes until it is killed: the store's directory.
const WRITER_DIR: &str = "STORAGE_TEST_WRITER_DIR";
/// Set for the process that holds a directory until its input closes.
const HOLDER_DIR: &str = "STORAGE_TEST_HOLDER_DIR";
/// Printed before each acknowledgement, to tell it from the test runner's own lines.
const ACK: &str = "ack ";

fn put(key: &str, version: u64) -> Write {
    let stamp = Stamp { ballot: Ballot::ZERO, version };
    let datum = Datum::Live { value: Value::from(key.repeat(20).as_str()), expires_at: None };
    Write::Put(Key::from(key), Record { stamp, datum, recent: Recent::default() })
}

fn version(store: &dyn Store, key: &str) -> Option<u64> {
    store.get(key.as_bytes()).unwrap().map(|record| record.stamp.version)
}

/// This test binary again, running only `test`.
fn again(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

fn the_journal(store: &Path) -> PathBuf {
    let files = fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|file| file.extension().is_some_and(|ext| ext == "jnl")).max().unwrap()
}

#[test]
fn everything_is_there_after_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    for version in 1..4u64 {
        let store = EngineStore::open(&path).unwrap();
        assert_eq!(store.meta().unwrap().ceiling, version - 1);
        let long = "k".repeat(65_530);
        let batch = [put("a", version), put(&long, version), Write::Ceiling(version)];
        store.commit(&batch, Durability::Sync).unwrap();
        drop(store);
        let store = EngineStore::open(&path).unwrap();
        assert_eq!(self::version(&store, "a"), Some(version));
        assert_eq!(self::version(&store, &long), Some(version));
    }
}

#[test]
fn rows_flushed_to_segments_are_found_whatever_their_keys_length() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let keys = [1, 2, 65_525, 65_526, 65_535, 65_536].map(|length| "k".repeat(length));
    let store = EngineStore::open(&path).unwrap();
    for key in &keys {
        store.commit(&[put(key, 1)], Durability::Sync).unwrap();
    }
    drop(store);
    let database = fjall::Database::builder(&path).open().unwrap();
    let rows = database.keyspace("rows", fjall::KeyspaceCreateOptions::default).unwrap();
    rows.rotate_memtable_and_wait().unwrap();
    assert!(rows.table_count() > 0);
    drop((rows, database));
    let store = EngineStore::open(&path).unwrap();
    store.commit(&[put(&keys[0], 2), Write::Remove(Key::from(&*keys[4]))], Durability::Os).unwrap();
    let versions = keys.each_ref().map(|key| version(&store, key));
    assert_eq!(versions, [Some(2), Some(1), Some(1), Some(1), None, Some(1)]);
    assert_eq!(count(&store), 5);
}

/// Not a test by itself: the process that the next test kills.
#[test]
fn writer_that_is_killed() {
    let Ok(dir) = std::env::var(WRITER_DIR) else { return };
    let store = EngineStore::open(Path::new(&dir)).unwrap();
    for version in store.meta().unwrap().ceiling + 1.. {
        let keys = (0..8).map(|i| put(&format!("key {}", (version * 8 + i) % 512), version));
        let batch: Vec<_> = keys.chain([Write::Ceiling(version)]).collect();
        let durability = if version % 2 == 0 { Durability::Sync } else { Durability::Os };
        store.commit(&batch, durability).unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "\n{ACK}{version}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let mut last = 0u64;
    for round in 1..=4u64 {
        let mut writer = again("writer_that_is_killed").env(WRITER_DIR, &path).spawn().unwrap();
        let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        let wanted = last + 100 * round;
        let mut acked = 0;
        let mut note = |line: String| {
            if let Some(version) = line.strip_prefix(ACK).and_then(|text| text.parse().ok()) {
                acked = version;
            }
            acked
        };
        while note(lines.next().unwrap().unwrap()) < wanted {}
        writer.kill().unwrap();
        writer.wait().unwrap();
        // What it had still acknowledged counts too; its last line may be cut off.
        for line in lines.map_while(Result::ok) {
            note(line);
        }
        let store = EngineStore::open(&path).unwrap();
        last = store.meta().unwrap().ceiling;
        assert!(last == acked || last == acked + 1, "acknowledged {acked}, found {last}");
        for back in 0..64.min(last) {
            let expected = last - back;
            for i in 0..8 {
                let key = format!("key {}", (expected * 8 + i) % 512);
                assert_eq!(version(&store, &key), Some(expected), "{key}: batches are whole");
            }
        }
    }
}

#[test]
fn a_store_half_made_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    // What a kill in the middle of making it leaves behind.
    fs::create_dir_all(path.with_extension("new")).unwrap();
    fs::write(path.with_extension("new").join("0.jnl"), [0; 64]).unwrap();
    let store = EngineStore::open(&path).unwrap();
    store.commit(&[put("a", 1)], Durability::Sync).unwrap();
    assert!(!path.with_extension("new").exists());
}

#[test]
fn a_changed_row_is_reported_as_damage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = EngineStore::open(&path).unwrap();
    store.commit(&[put("a", 1), put("b", 1), Write::Ceiling(3)], Durability::Sync).unwrap();
    drop(store);
    // Through the engine itself, so that none of its own checksums objects.
    let database = fjall::Database::builder(&path).open().unwrap();
    let rows = database.keyspace("rows", fjall::KeyspaceCreateOptions::default).unwrap();
    for entry in rows.iter() {
        let (key, value) = entry.into_inner().unwrap();
        let mut value = value.to_vec();
        if !key.ends_with(b"b") && !key.ends_with(b"layout") {
            *value.last_mut().unwrap() ^= 0x10;
            rows.insert(key, value).unwrap();
        }
    }
    database.persist(fjall::PersistMode::SyncAll).unwrap();
    drop((rows, database));
    let store = EngineStore::open(&path).unwrap();
    assert!(store.get(b"a").unwrap_err().is_corrupt());
    assert!(store.meta().unwrap_err().is_corrupt());
    assert_eq!(version(&store, "b"), Some(1));
    assert!(store.range(0, u64::MAX, &mut |_, _| ControlFlow::Continue(())).is_err());
    assert!(store.list(0, u64::MAX, &mut |_| ControlFlow::Continue(())).is_err());
}

/// A store of forty commits, and its journal's bytes without the zeros allocated ahead.
struct Sample {
    dir: tempfile::TempDir,
    journal: Vec<u8>,
    copies: u32,
}

impl Sample {
    fn new() -> Sample {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sample");
        let store = EngineStore::open(&path).unwrap();
        for i in 1..=40 {
            let batch = [put(&format!("key {i}"), 1), put("same", i)];
            store.commit(&batch, Durability::Sync).unwrap();
        }
        drop(store);
        let mut journal = fs::read(the_journal(&path)).unwrap();
        journal.truncate(journal.iter().rposition(|byte| *byte != 0).unwrap() + 1);
        fs::write(the_journal(&path), &journal).unwrap();
        Sample { dir, journal, copies: 0 }
    }

    /// Opens a copy of it with `damage` done to the journal.
    fn open_after(&mut self, damage: impl FnOnce(&mut Vec<u8>)) -> Result<EngineStore, StoreError> {
        self.copies += 1;
        let copy = self.dir.path().join(self.copies.to_string());
        copy_dir(&self.dir.path().join("sample"), &copy);
        let mut journal = self.journal.clone();
        damage(&mut journal);
        fs::write(the_journal(&copy), journal).unwrap();
        EngineStore::open(&copy)
    }
}

/// Whether the first so many commits of a sample are there, and no more.
fn assert_commits(store: &EngineStore, commits: u64, context: &str) {
    assert_eq!(count(store) as u64, commits + 1, "{context}");
    assert_eq!(version(store, "same"), Some(commits), "{context}: an old state");
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn count(store: &EngineStore) -> usize {
    let mut rows = 0;
    let mut visit = |_| {
        rows += 1;
        ControlFlow::Continue(())
    };
    store.list(0, u64::MAX, &mut visit).unwrap();
    rows
}

#[test]
fn a_torn_last_write_is_dropped_and_all_before_it_kept() {
    let mut sample = Sample::new();
    assert_commits(&sample.open_after(|_| ()).unwrap(), 40, "whole");
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 1);
    assert_commits(&sample.open_after(cut).unwrap(), 39, "the last cut off");
    let begun = |bytes: &mut Vec<u8>| bytes.extend([1, 1, 0, 0, 0, 9, 9]);
    assert_commits(&sample.open_after(begun).unwrap(), 40, "another begun");
    let begun_before_zeros = |bytes: &mut Vec<u8>| {
        bytes.extend([1, 1, 0, 0, 0, 9, 9]);
        bytes.resize(1 << 20, 0);
    };
    assert_commits(&sample.open_after(begun_before_zeros).unwrap(), 40, "begun before zeros");
}

#[test]
fn no_changed_byte_of_the_journal_loses_a_commit_silently() {
    let mut sample = Sample::new();
    let (length, middle) = (sample.journal.len() / 40 + 20, sample.journal.len() / 2);
    let mut reported = 0;
    // One whole batch and more, from the middle of the journal: tags, lengths, keys, values, sums.
    for at in middle..middle + length {
        match sample.open_after(|bytes| bytes[at] ^= 0x41) {
            Ok(store) => assert_commits(&store, 40, &format!("byte {at}")),
            Err(error) => {
                assert!(error.is_corrupt(), "byte {at}: {error}");
                reported += 1;
            }
        }
    }
    assert!(reported > length - 20, "only {reported} of {length} were reported");
}

/// Not a test by itself: the process that has the directory in the next one.
#[test]
fn holder_of_a_directory() {
    let Ok(dir) = std::env::var(HOLDER_DIR) else { return };
    let _dir = DataDir::open(Path::new(&dir)).unwrap();
    println!("\n{ACK}");
    let _closed = std::io::stdin().read_line(&mut String::new());
}

#[test]
fn a_directory_in_use_is_refused_with_the_process_that_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node");
    let mut holder = again("holder_of_a_directory").env(HOLDER_DIR, &path).spawn().unwrap();
    let lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    lines.map(Result::unwrap).find(|line| line.starts_with(ACK)).unwrap();
    let refused = DataDir::open(&path).unwrap_err();
    let named = matches!(refused, StoreError::InUse { by: Some(pid), .. } if pid == holder.id());
    assert!(named, "{refused:?}");
    assert!(refused.to_string().contains("stop that node first"), "{refused}");
    holder.kill().unwrap();
    holder.wait().unwrap();
    DataDir::open(&path).unwrap();
}
