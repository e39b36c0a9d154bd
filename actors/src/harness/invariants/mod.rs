//! What must hold at every message that leaves a node, one rule a file.
//!
//! A rule sees what a peer would see, and what the disks have made durable. It speaks up at the very
//! step that breaks it, long before a client could notice.
//!
//! Caveat: what a node says to itself does not travel, so rules about messages see what is said to
//! others. Rows that are removed (collected tombstones) end what is known of their key.

mod ballots;
mod ceiling;
mod chosen;
mod durable;
mod epochs;
mod held;
mod promises;
mod stamps;

use super::disk::SimDisk;
use simpledynamo_protocol::{effect::Write, message::Message, ring::NodeId};
use std::collections::BTreeSet;

/// Rules that are asked at each message.
const RULES: u64 = 7;

/// All rules and what they remember.
#[derive(Default)]
pub(super) struct Invariants {
    ballots: ballots::Ballots,
    stamps: stamps::Stamps,
    epochs: epochs::Epochs,
    promises: promises::Promises,
    chosen: chosen::Chosen,
    held: held::Held,
    /// Whether keys are kept by chains: then only the rules of both strategies are asked.
    pub(super) chains: bool,
    /// Nodes that lost their disk and are not known to vote again.
    unsure: BTreeSet<NodeId>,
    violation: Option<String>,
    /// How often a rule was asked.
    pub(super) checks: u64,
    /// Rows of tombstones that were collected.
    pub(super) collected: u64,
}

impl Invariants {
    /// A message leaves `from`, whose disk is this.
    pub(super) fn sent(
        &mut self,
        from: NodeId,
        to: NodeId,
        message: &Message,
        disk: Option<&SimDisk>,
    ) {
        for write in disk.map(SimDisk::take_fresh).unwrap_or_default() {
            self.stored(from, &write);
        }
        self.checks += RULES;
        let mut checked = self
            .stamps
            .check(message)
            .and_then(|()| self.epochs.check(message))
            .and_then(|()| disk.map_or(Ok(()), |disk| durable::check(from, message, disk)));
        if !self.chains {
            self.chosen.sent(message);
            self.held.sent(to, message);
            checked = checked
                .and_then(|()| self.ballots.check(from, message))
                .and_then(|()| self.promises.check(from, to, message))
                .and_then(|()| disk.map_or(Ok(()), |disk| ceiling::check(message, disk)));
        }
        if let Err(rule) = checked {
            self.object(|| format!("{rule}: {from} sends {message}"));
        }
    }

    /// A write became durable.
    fn stored(&mut self, at: NodeId, write: &Write) {
        match write {
            // A chain's rows have no ballots of their own; the rules of promises are the register's.
            Write::Put(..) if self.chains => {}
            Write::Put(key, record) => {
                self.checks += 3;
                let accepted = match self.held.stored(at, key, record.stamp) {
                    Ok(held::Way::Accepted) => self.promises.accepted(at, key, record.stamp),
                    Ok(held::Way::Copied) => Ok(()),
                    Err(rule) => Err(rule),
                };
                if let Err(rule) = accepted {
                    self.object(|| format!("{rule}: {at} stores {key} {record}"));
                }
                if self.unsure.contains(&at) {
                    return;
                }
                if let Err(what) = self.chosen.stored(at, key, record) {
                    self.object(|| what);
                }
            }
            Write::Remove(key) => {
                self.collected += 1;
                self.chosen.forget(key);
            }
            Write::Ceiling(_) | Write::AbsentFloor(_) | Write::Config(..) | Write::Seat(..) => {}
        }
    }

    /// A node starts on an empty disk.
    pub(super) fn wiped(&mut self, node: NodeId) {
        self.unsure.insert(node);
        self.chosen.wiped(node);
        self.ballots.wiped(node);
    }

    /// A node that was wiped was seen to vote.
    pub(super) fn votes(&mut self, node: NodeId) {
        self.unsure.remove(&node);
    }

    /// States chosen so far, all keys together.
    pub(super) fn chosen(&self) -> u64 {
        self.chosen.count
    }

    /// The first rule that was broken.
    pub(super) fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    fn object(&mut self, what: impl FnOnce() -> String) {
        self.violation.get_or_insert_with(what);
    }
}
