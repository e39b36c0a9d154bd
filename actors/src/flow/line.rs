//! A flow record as a line of JSON.
//!
//! Written by hand because it is written for every message when everything is recorded: serde's way
//! costs three times as much. Fields that say nothing are left out. The format's version is 1; fields
//! are added, never renamed or given another meaning:
//!
//! | field | meaning |
//! |---|---|
//! | `v` | version of the format |
//! | `wall`, `mono` | microseconds since the Unix epoch; since the node's start |
//! | `node`, `incarnation`, `seq` | where; in which life; counts that life's records from 1 |
//! | `event` | [`super::Event`] |
//! | `message`, `cause` | names of records: the sending of this message; what led to this |
//! | `request`, `attempt` | the request's id, where the node knows it |
//! | `from`, `to` | `node/actor` |
//! | `type`, `key`, `ballot`, `version` | of the message or round; `version` counts the key's writes |
//! | `bytes`, `queue`, `handling` | size of the frame; microseconds waited and worked |
//! | `reason` | why |

use super::record::{Place, Record, RecordId};
use simpledynamo_protocol::{ballot::Ballot, recent::OpId};

/// The version of the format.
pub const VERSION: u32 = 1;

/// Appends `record` of this life of this node to `out`, with a line feed.
pub(super) fn write(record: &Record, node: u32, incarnation: u64, out: &mut Vec<u8>) {
    let mut line = Line { out };
    line.out.extend_from_slice(b"{\"v\":1");
    line.number(",\"wall\":", record.wall);
    line.number(",\"mono\":", record.mono);
    line.number(",\"node\":", node.into());
    line.number(",\"incarnation\":", incarnation);
    line.number(",\"seq\":", record.seq);
    line.word(",\"event\":\"", record.event.name());
    line.id(",\"message\":\"", record.message);
    line.id(",\"cause\":\"", record.cause);
    line.request(record.request, record.attempt);
    line.place(",\"from\":\"", record.from);
    line.place(",\"to\":\"", record.to);
    line.word(",\"type\":\"", record.kind);
    if record.key.is_some() {
        line.key(record);
    }
    line.ballot(record.ballot);
    line.some(",\"version\":", record.version);
    line.some(",\"bytes\":", record.bytes.into());
    line.some(",\"queue\":", record.queue.into());
    line.some(",\"handling\":", record.handling.into());
    line.word(",\"reason\":\"", record.reason);
    line.out.extend_from_slice(b"}\n");
}

struct Line<'a> {
    out: &'a mut Vec<u8>,
}

impl Line<'_> {
    fn digits(&mut self, number: u64) {
        self.out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    fn number(&mut self, name: &str, number: u64) {
        self.out.extend_from_slice(name.as_bytes());
        self.digits(number);
    }

    fn some(&mut self, name: &str, number: u64) {
        if number != 0 {
            self.number(name, number);
        }
    }

    /// Only texts of this program come here: nothing in them needs an escape.
    fn word(&mut self, name: &str, word: &str) {
        if !word.is_empty() {
            self.out.extend_from_slice(name.as_bytes());
            self.out.extend_from_slice(word.as_bytes());
            self.out.push(b'"');
        }
    }

    fn three(&mut self, node: u32, incarnation: u64, seq: u64, between: u8) {
        self.digits(node.into());
        self.out.push(between);
        self.digits(incarnation);
        self.out.push(between);
        self.digits(seq);
        self.out.push(b'"');
    }

    fn id(&mut self, name: &str, id: RecordId) {
        if id.is_some() {
            self.out.extend_from_slice(name.as_bytes());
            self.three(id.node.0, id.incarnation, id.seq, b'.');
        }
    }

    fn request(&mut self, op: OpId, attempt: u32) {
        if op.seq != 0 {
            self.out.extend_from_slice(b",\"request\":\"");
            self.three(op.router.0, op.incarnation, op.seq, b'-');
            self.some(",\"attempt\":", attempt.into());
        }
    }

    fn place(&mut self, name: &str, place: Place) {
        if place.node.0 != 0 {
            self.out.extend_from_slice(name.as_bytes());
            self.digits(place.node.0.into());
            self.out.push(b'/');
            self.out.extend_from_slice(place.actor.name().as_bytes());
            self.out.push(b'"');
        }
    }

    fn ballot(&mut self, ballot: Ballot) {
        if ballot != Ballot::ZERO {
            self.out.extend_from_slice(b",\"ballot\":\"");
            self.digits(ballot.round);
            if ballot.node.0 == u32::MAX {
                self.out.extend_from_slice(b".max\"");
            } else {
                self.out.push(b'.');
                self.digits(ballot.node.0.into());
                self.out.push(b'"');
            }
        }
    }

    /// The key's `Display`, escaped once more for JSON.
    fn key(&mut self, record: &Record) {
        self.out.extend_from_slice(b",\"key\":\"");
        let start = record.key.start();
        if start.iter().all(|byte| matches!(byte, b' '..=b'~') && !b"\"'\\".contains(byte)) {
            self.out.extend_from_slice(start);
        } else {
            for byte in start.escape_ascii() {
                if matches!(byte, b'"' | b'\\') {
                    self.out.push(b'\\');
                }
                self.out.push(byte);
            }
        }
        if let Some((length, crc)) = record.key.cut() {
            self.out.extend_from_slice(format!("…({length} B, crc {crc:08x})").as_bytes());
        }
        self.out.push(b'"');
    }
}
