//! What must hold at every message that leaves a node, one rule a file.
//!
//! A rule sees what a peer would see, and the sender's disk as a crash would leave it. It speaks up
//! at the very step that breaks it, long before a client could notice.

mod ballots;
mod ceiling;
mod durable;
mod stamps;

use super::disk::SimDisk;
use simpledynamo_protocol::{message::Message, ring::NodeId};

/// All rules and what they remember.
#[derive(Default)]
pub(super) struct Invariants {
    stamps: stamps::Stamps,
    violation: Option<String>,
}

impl Invariants {
    /// A message leaves `from`.
    pub(super) fn sent(&mut self, from: NodeId, message: &Message, disk: Option<&SimDisk>) {
        let checked = ballots::check(from, message)
            .and_then(|()| self.stamps.check(message))
            .and_then(|()| disk.map_or(Ok(()), |disk| ceiling::check(message, disk)))
            .and_then(|()| disk.map_or(Ok(()), |disk| durable::check(message, disk)));
        if let Err(rule) = checked {
            self.violation.get_or_insert_with(|| format!("{rule}: {from} sends {message}"));
        }
    }

    /// The first rule that was broken.
    pub(super) fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }
}
