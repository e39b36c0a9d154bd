//! What a record says of a message.

use super::{packed::Draft, record::Actor};
use crate::replica::askers;
use simpledynamo_protocol::{
    message::{Message, NoVote, Round},
    ring::NodeId,
};

/// The actors between which a message travels.
#[must_use]
#[inline]
pub fn actors(message: &Message) -> (Actor, Actor) {
    let who_reads = |asker: u64| match asker {
        askers::ROUTER => Actor::Router,
        _ => Actor::Coordinator,
    };
    let asker = |asker: u64| match asker {
        askers::SCAN => Actor::Scan,
        askers::CHAIN => Actor::Replica,
        _ => Actor::Sync,
    };
    match message {
        Message::Request(_) => (Actor::Router, Actor::Coordinator),
        Message::Answer(_) => (Actor::Coordinator, Actor::Router),
        Message::Prepare(_) | Message::Accept(_) => (Actor::Coordinator, Actor::Replica),
        Message::Query(m) => (who_reads(m.ask.asker), Actor::Replica),
        Message::State(m) => (Actor::Replica, who_reads(m.ask.asker)),
        Message::NoVote(NoVote { round: Round::Query(ask), .. }) => {
            (Actor::Replica, who_reads(ask.asker))
        }
        Message::Promise(_) | Message::Accepted(_) | Message::Refused(_) | Message::NoVote(_) => {
            (Actor::Replica, Actor::Coordinator)
        }
        Message::Probe(_) | Message::Alive(_) => (Actor::Detector, Actor::Detector),
        Message::Missed(_) => (Actor::Detector, Actor::Sync),
        Message::AskDigests(m) => (asker(m.ask.asker), Actor::Replica),
        Message::AskList(m) => (asker(m.ask.asker), Actor::Replica),
        Message::Fetch(m) => (asker(m.ask.asker), Actor::Replica),
        Message::Digests(m) => (Actor::Replica, asker(m.ask.asker)),
        Message::Listed(m) => (Actor::Replica, asker(m.ask.asker)),
        Message::Records(m) => (Actor::Replica, asker(m.ask.asker)),
        Message::Collect(_) => (Actor::Sync, Actor::Replica),
        Message::Greet(_) | Message::Welcome(_) => (Actor::Membership, Actor::Membership),
        Message::Keep(_) => (Actor::Router, Actor::Flow),
        Message::ConfigRound(_)
        | Message::Forward(_)
        | Message::Acked(_)
        | Message::Confirm(_)
        | Message::Confirmed(_)
        | Message::Survey(_)
        | Message::Present(_)
        | Message::Announce(_)
        | Message::Attach(_)
        | Message::Attached(_) => (Actor::Replica, Actor::Replica),
    }
}

impl Draft<'_> {
    /// Notes what a message is and says.
    pub(super) fn describe(&mut self, from: NodeId, to: NodeId, message: &Message) {
        (self.packed.from, self.packed.to) = (from, to);
        // Each frequent one names itself: within its branch the compiler knows which it is.
        match message {
            Message::Request(m) => {
                self.named(message);
                self.request(m.op, m.attempt);
                self.key(&m.key);
                self.reason(m.command.name());
            }
            Message::Answer(m) => {
                self.named(message);
                self.request(m.op, m.attempt);
                self.reason(m.outcome.name());
            }
            Message::Prepare(m) => {
                self.named(message);
                self.key(&m.key);
                self.ballot(m.ballot);
            }
            Message::Promise(m) => {
                self.named(message);
                self.key(&m.key);
                self.ballot(m.ballot);
                self.version(m.record.as_ref().map_or(0, |record| record.stamp.version));
            }
            Message::Accept(m) => {
                self.named(message);
                self.key(&m.key);
                self.stamp(m.record.stamp);
            }
            Message::Accepted(m) => {
                self.named(message);
                self.key(&m.key);
                self.stamp(m.stamp);
            }
            Message::Refused(m) => {
                self.named(message);
                self.key(&m.key);
                self.ballot(m.promised);
            }
            Message::Query(m) => {
                self.named(message);
                self.key(&m.key);
                self.stamp(m.have.unwrap_or_default());
            }
            Message::State(m) => {
                self.named(message);
                self.key(&m.key);
                self.stamp(m.held.stamp().unwrap_or_default());
            }
            Message::NoVote(m) => {
                self.named(message);
                self.key(&m.key);
                self.reason(m.reason.name());
            }
            message => {
                self.named(message);
                self.other(message);
            }
        }
    }

    #[inline(always)]
    fn named(&mut self, message: &Message) {
        (self.packed.from_actor, self.packed.to_actor) = actors(message);
        self.kind(message.name());
    }

    /// What neither a request nor a round says, where it is about a key.
    fn other(&mut self, message: &Message) {
        match message {
            Message::Collect(m) => {
                self.key(&m.key);
                self.stamp(m.stamp);
            }
            Message::Forward(m) => {
                self.key(&m.key);
                self.stamp(m.record.as_ref().map(|record| record.stamp).unwrap_or_default());
            }
            Message::Acked(m) => {
                // Of the keys acknowledged together one stands for all.
                if let Some((key, stamp)) = m.entries.first() {
                    self.key(key);
                    self.stamp(stamp.unwrap_or_default());
                }
            }
            Message::Keep(m) => {
                self.key(&m.key);
                self.request(m.op, 0);
            }
            _ => {}
        }
    }
}
