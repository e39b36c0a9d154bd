//! How records lie in the engine: keys in ring order, values with a checksum.
//!
//! A row's key is a table byte, the position's prefix, big-endian, and the client's key, so that the
//! engine's order is ring order and an interval of prefixes is one scan. A row's value is a format
//! byte, a CRC-32 and the record in postcard. The checksum covers the row's key too: a row that
//! turns up under another key is damage, not data.
//!
//! The engine takes keys of at most 65,535 bytes and panics above; our nine bytes come on top of
//! the client's key. A key too long for that ([`WHOLE_KEY_BYTES_MAX`]) is stored under its first
//! bytes and its SHA-256, with the rest of it in front of the record. Such rows, and only such, have
//! an engine key of the full length. Their true keys are compared on every read: two keys that
//! agree so far would need a collision of SHA-256, and even that is reported, never mixed up.
//!
//! Caveat: the bytes are a contract with existing directories, golden in the tests below. A changed
//! [`Record`] is a new format byte beside the old ones.

use super::StoreError;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use simpledynamo_protocol::{
    ballot::Stamp,
    message::Row,
    recent::Recent,
    record::{Datum, Key, Record, Value},
    ring::Position,
    time::WallMillis,
};

/// Longest key, bytes: 64 KiB, what the client protocol promises.
pub const KEY_BYTES_MAX: usize = 64 * 1024;

/// Longest key of the engine, bytes: it stores lengths in 16 bits and panics above.
const ENGINE_KEY_BYTES_MAX: usize = 65_535;
/// Table byte and prefix of the position, bytes.
const HEADER_BYTES: usize = 9;
/// What a row's value takes beside the client's value and the results, bytes, about: room taken in
/// one go.
const ABOUT_BYTES: usize = 64;
/// SHA-256, bytes.
const DIGEST_BYTES: usize = 32;
/// Longest key stored whole, bytes: one less than fits, so that the full length marks the others.
const WHOLE_KEY_BYTES_MAX: usize = ENGINE_KEY_BYTES_MAX - HEADER_BYTES - 1;
/// What of a longer key is in the engine's key, bytes.
const LONG_KEY_HEAD_BYTES: usize = ENGINE_KEY_BYTES_MAX - HEADER_BYTES - DIGEST_BYTES;

/// Table of the records; the node's own numbers are in table 0.
const DATA_TABLE: u8 = 0x01;
/// The first table that there is not.
const END_TABLE: u8 = 0x02;

/// Row key of [`super::Meta::ceiling`].
pub(super) const CEILING: &[u8] = b"\x00ceiling";
/// Row key of [`super::Meta::absent_floor`].
pub(super) const ABSENT_FLOOR: &[u8] = b"\x00absent_floor";

/// Value: checksum, record.
const FORMAT_RECORD: u8 = 1;
/// Value: checksum, one byte's length of the key's rest, that rest, record.
const FORMAT_LONG_KEY: u8 = 2;
/// Value: checksum, big-endian number.
const FORMAT_NUMBER: u8 = 3;

/// What is wrong with a row.
pub(super) type Damage = &'static str;

/// Whether a key can be stored.
///
/// # Errors
/// [`StoreError::KeySize`] where it is empty or above [`KEY_BYTES_MAX`].
pub fn check_key(key: &[u8]) -> Result<(), StoreError> {
    if (1..=KEY_BYTES_MAX).contains(&key.len()) {
        Ok(())
    } else {
        Err(StoreError::KeySize { bytes: key.len() })
    }
}

/// The engine's key of a client's key that [`check_key`] accepts.
pub(super) fn row_key(key: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(HEADER_BYTES + key.len().min(WHOLE_KEY_BYTES_MAX + 1));
    row.push(DATA_TABLE);
    row.extend(Position::of(key).prefix().to_be_bytes());
    match key.get(..LONG_KEY_HEAD_BYTES) {
        Some(head) if key.len() > WHOLE_KEY_BYTES_MAX => {
            row.extend(head);
            row.extend(Sha256::digest(key));
        }
        _ => row.extend(key),
    }
    row
}

/// The engine's keys of an interval of prefixes, both inclusive: from the first, before the second.
pub(super) fn row_range(from: u64, to: u64) -> (Vec<u8>, Vec<u8>) {
    let bound = |prefix: u64| {
        let mut bound = vec![DATA_TABLE];
        bound.extend(prefix.to_be_bytes());
        bound
    };
    (bound(from), to.checked_add(1).map_or(vec![END_TABLE], bound))
}

/// The value of `key`'s row under `row_key`.
pub(super) fn encode(row_key: &[u8], key: &[u8], record: &Record) -> Result<Vec<u8>, Damage> {
    let datum = record.datum.value().map_or(0, |value| value.len());
    let mut value = Vec::with_capacity(ABOUT_BYTES + datum + record.recent.bytes());
    if row_key.len() == ENGINE_KEY_BYTES_MAX {
        let rest = key.get(LONG_KEY_HEAD_BYTES..).unwrap_or_default();
        value.extend([FORMAT_LONG_KEY, 0, 0, 0, 0]);
        value.push(u8::try_from(rest.len()).map_err(|_| "key too long")?);
        value.extend(rest);
    } else {
        value.extend([FORMAT_RECORD, 0, 0, 0, 0]);
    }
    value = postcard::to_extend(record, value).map_err(|_| "record cannot be encoded")?;
    Ok(seal(row_key, value))
}

/// The value of a row that holds a number.
pub(super) fn encode_number(row_key: &[u8], number: u64) -> Vec<u8> {
    let mut value = vec![FORMAT_NUMBER, 0, 0, 0, 0];
    value.extend(number.to_be_bytes());
    seal(row_key, value)
}

/// The key and the record of a row.
pub(super) fn decode(row_key: &[u8], value: &[u8]) -> Result<(Key, Record), Damage> {
    let (key, body) = open(row_key, value)?;
    let (record, rest) =
        postcard::take_from_bytes(body).map_err(|_| "the record cannot be decoded")?;
    if rest.is_empty() { Ok((key, record)) } else { Err("bytes follow the record") }
}

/// What a listing shows of a row.
pub(super) fn decode_listed(row_key: &[u8], value: &[u8]) -> Result<Row, Damage> {
    let (key, body) = open(row_key, value)?;
    let (listed, _recent): (Listed<'_>, _) =
        postcard::take_from_bytes(body).map_err(|_| "the record cannot be decoded")?;
    let (expires_at, deleted_at) = match listed.datum {
        ListedDatum::Live { expires_at, .. } => (expires_at, None),
        ListedDatum::Tombstone { at } => (None, Some(at)),
    };
    Ok(Row { key, stamp: listed.stamp, expires_at, deleted_at })
}

/// The number of a row.
pub(super) fn decode_number(row_key: &[u8], value: &[u8]) -> Result<u64, Damage> {
    match checked(row_key, value)? {
        (FORMAT_NUMBER, body) => {
            body.try_into().map(u64::from_be_bytes).map_err(|_| "not a number")
        }
        _ => Err("not a number's format"),
    }
}

/// The start of a [`Record`] with the value left where it lies.
#[derive(Deserialize)]
struct Listed<'a> {
    stamp: Stamp,
    #[serde(borrow)]
    datum: ListedDatum<'a>,
}

/// As `Datum`, in the same order: postcard knows fields by their places only.
#[derive(Deserialize)]
enum ListedDatum<'a> {
    Live { _value: &'a [u8], expires_at: Option<WallMillis> },
    Tombstone { at: WallMillis },
}

/// Writes the checksum into the four bytes after the format.
pub(super) fn seal(row_key: &[u8], mut value: Vec<u8>) -> Vec<u8> {
    let (format, body) = (value.first().copied().unwrap_or(0), value.get(5..).unwrap_or_default());
    let sum = checksum(row_key, format, body).to_be_bytes();
    if let Some(place) = value.get_mut(1..5) {
        place.copy_from_slice(&sum);
    }
    value
}

/// The format and the bytes after the checksum, where that is right.
pub(super) fn checked<'a>(row_key: &[u8], value: &'a [u8]) -> Result<(u8, &'a [u8]), Damage> {
    let [format, a, b, c, d, body @ ..] = value else { return Err("the row is too short") };
    if checksum(row_key, *format, body) == u32::from_be_bytes([*a, *b, *c, *d]) {
        Ok((*format, body))
    } else {
        Err("the checksum is wrong")
    }
}

fn checksum(row_key: &[u8], format: u8, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[format]);
    hasher.update(row_key);
    hasher.update(body);
    hasher.finalize()
}

/// A row's client key and its encoded record.
fn open<'a>(row_key: &[u8], value: &'a [u8]) -> Result<(Key, &'a [u8]), Damage> {
    let (format, body) = checked(row_key, value)?;
    let stored = row_key.get(HEADER_BYTES..).ok_or("the row's key is too short")?;
    match (format, row_key.len() == ENGINE_KEY_BYTES_MAX) {
        (FORMAT_RECORD, false) => Ok((Key::from(stored), body)),
        (FORMAT_LONG_KEY, true) => {
            let (length, body) = body.split_first().ok_or("the row is too short")?;
            let (rest, body) =
                body.split_at_checked(usize::from(*length)).ok_or("the row is too short")?;
            let head = stored.get(..LONG_KEY_HEAD_BYTES).unwrap_or_default();
            Ok((Key::from([head, rest].concat()), body))
        }
        _ => Err("the format is unknown"),
    }
}

/// Reads a row of any bytes, as it is and with a right checksum: a record that comes out is listed
/// as what it is and written back as the same. The body of a fuzz target.
#[doc(hidden)]
pub fn fuzz(row_key: &[u8], value: &[u8]) {
    for value in [value.to_vec(), seal(row_key, value.to_vec())] {
        let listed = decode_listed(row_key, &value);
        // A number or a damage: that neither panics is all there is to say.
        let _ = decode_number(row_key, &value);
        let Ok((key, record)) = decode(row_key, &value) else { continue };
        let stamp = listed.map(|row| (row.key, row.stamp));
        assert_eq!(stamp, Ok((key.clone(), record.stamp)), "the listing differs");
        if let Ok(again) = encode(row_key, &key, &record) {
            assert_eq!(decode(row_key, &again), Ok((key, record)), "it is not written as read");
        }
    }
}

/// The key and the value of a valid row.
#[doc(hidden)]
#[must_use]
pub fn fuzz_seed() -> (Vec<u8>, Vec<u8>) {
    let datum = Datum::Live { value: Value::from("hello"), expires_at: Some(1_700_000_000_000) };
    let record = Record { stamp: Stamp::default(), datum, recent: Recent::default() };
    let key = row_key(b"greeting");
    let value = encode(&key, b"greeting", &record).unwrap_or_default();
    (key, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use simpledynamo_protocol::{
        ballot::Ballot,
        command::Reply,
        recent::{OpId, Recent},
        record::{Datum, Value},
        ring::NodeId,
    };

    fn record(datum: Datum) -> Record {
        let mut recent = Recent::default();
        let op = OpId { router: NodeId(5554), incarnation: 2, seq: 300 };
        recent.note(op, 299, &Reply::Int(-1));
        let stamp = Stamp { ballot: Ballot { round: 3, node: NodeId(5556) }, version: 7 };
        Record { stamp, datum, recent }
    }

    fn live() -> Record {
        record(Datum::Live { value: Value::from("hello"), expires_at: Some(1_700_000_000_000) })
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn rows_have_the_bytes_they_always_had() {
        let key = row_key(b"greeting");
        assert_eq!(hex(&key), "01a0f7e779f92475666772656574696e67");
        let expected = "013d5897d603b42b07000568656c6c6f0180d095ffbc3101b22b02ab0201ac02010201";
        assert_eq!(hex(&encode(&key, b"greeting", &live()).unwrap()), expected);
        let gone = record(Datum::Tombstone { at: 1_700_000_000_000 });
        let expected = "0126613bb303b42b070180d095ffbc3101b22b02ab0201ac02010201";
        assert_eq!(hex(&encode(&key, b"greeting", &gone).unwrap()), expected);
        assert_eq!(hex(&encode_number(CEILING, 4096)), "03f301f79a0000000000001000");
    }

    #[test]
    fn every_flipped_bit_of_a_row_is_found() {
        let key = row_key(b"greeting");
        let value = encode(&key, b"greeting", &live()).unwrap();
        for bit in 0..value.len() * 8 {
            let mut bad = value.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&key, &bad).is_err(), "bit {bit}");
            assert!(decode_listed(&key, &bad).is_err(), "bit {bit}");
        }
        for cut in 0..value.len() {
            assert!(decode(&key, &value[..cut]).is_err(), "cut at {cut}");
        }
        assert!(decode(&row_key(b"greetinG"), &value).is_err(), "under another key");
    }

    #[test]
    fn listing_agrees_with_the_record() {
        let key = row_key(b"k");
        for record in [live(), record(Datum::Tombstone { at: 9 })] {
            let row = decode_listed(&key, &encode(&key, b"k", &record).unwrap()).unwrap();
            assert_eq!((&*row.key, row.stamp), (&b"k"[..], record.stamp));
            match record.datum {
                Datum::Live { expires_at, .. } => {
                    assert_eq!((row.expires_at, row.deleted_at), (expires_at, None));
                }
                Datum::Tombstone { at } => {
                    assert_eq!((row.expires_at, row.deleted_at), (None, Some(at)));
                }
            }
        }
    }

    #[test]
    fn keys_of_every_length_around_the_engines_bound_come_back_whole() {
        let mut seen = std::collections::BTreeSet::new();
        for length in (WHOLE_KEY_BYTES_MAX - 2)..=KEY_BYTES_MAX {
            for last in [b'a', b'b'] {
                let mut key = vec![b'a'; length];
                *key.last_mut().unwrap() = last;
                check_key(&key).unwrap();
                let row = row_key(&key);
                assert!(row.len() <= ENGINE_KEY_BYTES_MAX);
                let value = encode(&row, &key, &live()).unwrap();
                assert_eq!(&*decode(&row, &value).unwrap().0, &key[..]);
                assert!(seen.insert(row), "two keys under one row");
            }
        }
        assert!(check_key(&vec![b'a'; KEY_BYTES_MAX + 1]).is_err());
        assert!(check_key(b"").is_err());
    }

    #[test]
    fn rows_lie_in_ring_order() {
        let mut rows: Vec<_> = (0..500u32).map(|i| row_key(&i.to_be_bytes())).collect();
        rows.sort();
        let prefixes: Vec<_> =
            rows.iter().map(|row| Position::of(&row[HEADER_BYTES..]).prefix()).collect();
        assert!(prefixes.is_sorted());
        let (from, to) = row_range(prefixes[3], prefixes[9]);
        assert_eq!(rows.iter().filter(|row| (&from..&to).contains(row)).count(), 7);
        assert_eq!(row_range(0, u64::MAX).1, [END_TABLE]);
        assert!(CEILING < &row_range(0, 0).0[..] && ABSENT_FLOOR < &row_range(0, 0).0[..]);
    }
}
