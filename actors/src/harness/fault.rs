//! What can be asked to go wrong with messages: rules of links, and the message step that crashes a
//! node.

use super::{Id, ms, rng::Rng};
use simpledynamo_protocol::{
    message::{Kind, Message},
    ring::NodeId,
};
use std::{ops::Range, time::Duration};

/// What a rule does with a message that it concerns.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    /// The next so many are lost.
    DropFirst(u64),
    /// So many of a thousand are lost.
    Drop(u64),
    /// It takes so much longer, microseconds.
    Delay(Range<u64>),
    /// So many of a thousand come twice.
    Duplicate(u64),
    /// So many of a thousand may be overtaken.
    Reorder(u64),
}

/// A rule of one directed link.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) tag: Option<u16>,
    pub(super) action: Action,
    /// By what a rule is taken back; 0 where nothing does.
    pub(super) mark: u64,
}

/// What the rules have decided about one message.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fate {
    pub(super) lost: bool,
    pub(super) late: u64,
    pub(super) twice: bool,
    pub(super) overtakes: bool,
}

/// Asks all rules about a message.
pub(super) fn fate(
    rules: &mut [Rule],
    rng: &mut Rng,
    from: NodeId,
    to: NodeId,
    message: &Message,
) -> Fate {
    let mut fate = Fate::default();
    for rule in rules.iter_mut().filter(|rule| (rule.from, rule.to) == (from, to)) {
        if rule.tag.is_some_and(|tag| tag != message.tag()) {
            continue;
        }
        match &mut rule.action {
            Action::DropFirst(0) => {}
            Action::DropFirst(left) => {
                *left -= 1;
                fate.lost = true;
            }
            Action::Drop(chance) => fate.lost |= rng.chance(*chance),
            Action::Delay(range) => fate.late += rng.within(range),
            Action::Duplicate(chance) => {
                fate.twice |= bears_disorder(message) && rng.chance(*chance)
            }
            Action::Reorder(chance) => {
                fate.overtakes |= bears_disorder(message) && rng.chance(*chance);
            }
        }
    }
    fate
}

/// Messages that the rules of the register and of chains allow to be doubled and reordered. All others rely on what a
/// TCP stream gives: an operation's request, once taken, must not come again when it is long over.
fn bears_disorder(message: &Message) -> bool {
    match message {
        Message::Prepare(_)
        | Message::Promise(_)
        | Message::Accept(_)
        | Message::Accepted(_)
        | Message::Refused(_)
        | Message::Query(_)
        | Message::State(_)
        | Message::NoVote(_)
        | Message::ConfigRound(_)
        | Message::Forward(_)
        | Message::Acked(_)
        | Message::Confirm(_)
        | Message::Confirmed(_)
        | Message::Survey(_)
        | Message::Present(_)
        | Message::Announce(_)
        | Message::Attach(_)
        | Message::Attached(_) => true,
        Message::Request(_)
        | Message::Answer(_)
        | Message::Probe(_)
        | Message::Alive(_)
        | Message::Missed(_)
        | Message::AskDigests(_)
        | Message::Digests(_)
        | Message::AskList(_)
        | Message::Listed(_)
        | Message::Fetch(_)
        | Message::Records(_)
        | Message::Collect(_)
        | Message::Greet(_)
        | Message::Welcome(_)
        | Message::Keep(_) => false,
    }
}

/// Which end of a message's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Sent,
    Received,
}

/// Builds a [`Trigger`]; what [`super::World::crash_when`] hands to its closure.
#[derive(Clone, Copy, Debug)]
pub struct When;

impl When {
    /// A message of this type has come to a node, which has not yet looked at it and never will.
    #[must_use]
    pub fn received<K: Kind>(&self) -> Trigger {
        Trigger { step: Step::Received, tag: K::TAG, at: None, peer: None, left: 1 }
    }

    /// A message of this type has left a node: it will arrive.
    #[must_use]
    pub fn sent<K: Kind>(&self) -> Trigger {
        Trigger { step: Step::Sent, tag: K::TAG, at: None, peer: None, left: 1 }
    }
}

/// A message step. Messages of a node to itself do not travel and are no steps.
#[derive(Clone, Copy, Debug)]
pub struct Trigger {
    step: Step,
    tag: u16,
    at: Option<NodeId>,
    peer: Option<NodeId>,
    left: u64,
}

impl Trigger {
    /// The `nth` message of a type that leaves `at`, or reaches it.
    pub(super) fn of(step: Step, tag: u16, at: NodeId, nth: u64) -> Trigger {
        Trigger { step, tag, at: Some(at), peer: None, left: nth }
    }

    /// Only at this node, the one that sends or receives. It is the one that crashes.
    #[must_use]
    pub fn at(mut self, node: impl Id) -> Trigger {
        self.at = Some(node.id());
        self
    }

    /// Only messages from, or to, this other node.
    #[must_use]
    pub fn with(mut self, peer: impl Id) -> Trigger {
        self.peer = Some(peer.id());
        self
    }

    /// The `n`th such message, from 1.
    #[must_use]
    pub fn nth(mut self, n: u64) -> Trigger {
        self.left = n;
        self
    }

    /// Counts a message; whether it is the one.
    pub(super) fn meets(&mut self, step: Step, at: NodeId, peer: NodeId, tag: u16) -> bool {
        let concerned = self.step == step
            && self.tag == tag
            && self.at.is_none_or(|node| node == at)
            && self.peer.is_none_or(|node| node == peer);
        if concerned {
            self.left = self.left.saturating_sub(1);
        }
        concerned && self.left == 0
    }
}

/// A span of time as the network counts it.
pub(super) fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// A range of spans as the network counts it.
pub(super) fn micros_of(range: &Range<Duration>) -> Range<u64> {
    micros(range.start)..micros(range.end)
}

/// What a link does unless told otherwise: half a millisecond, as in one building.
pub(super) fn usual_delay() -> Range<u64> {
    100..micros(ms(1))
}
