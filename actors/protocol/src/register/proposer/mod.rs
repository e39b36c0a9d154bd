//! A key's coordinator: it keeps the key's requests in order and drives the rounds.
//!
//! A node *owns* a key after a quorum promised its ballot. While it does, a write is one round trip:
//! it proposes the new state under its ballot with the next version. All requests that wait when a
//! round starts are folded into it: several writes become one version, reads between them are
//! answered from the states in between once the last is chosen. Requests that change nothing (reads,
//! failed conditions) ask replicas what they hold; a write quorum with one stamp is a chosen state
//! and the answer. Where there is none, the state is written back first. While nobody is doubted
//! ([`Proposer::be_thrifty`]) a write quorum is asked, and the others only if it does not agree
//! within [`LAST_REPLICA_WAIT`]; otherwise all are.
//!
//! ```text
//!            reads, nothing changes          writes, owned
//!   Idle ──────────────────────► Querying   Idle ─────────► Accepting ──► Idle (chosen)
//!     │ writes, not owned           │ no agreement              │ refused, silent
//!     ▼                             ▼                           ▼
//!   Beginning ──► Preparing ◄───────┴───────────────────── Backing off
//! ```
//!
//! Any refusal or silence gives the ballot up. An accept that is refused where nothing was lost lately
//! is followed by the next round without a pause, see [`Config::contended`]; a (ballot, version) is never used for a second
//! content. Whoever keeps silent is asked the same again every [`Config::repeat_after`], where a budget
//! allows it: a connection that broke took the question or the answer with it, and nobody tells. Time decides only when to try
//! again. Source: register.md, "Messages and rules".
//!
//! Caveat: a request that was part of an accept which found no quorum stays *proposed*: if no later
//! round settles it before its patience ends, its outcome is unknown, and is said to be.

mod fold;
mod rounds;
mod tally;

use crate::{
    ballot::{Ballot, Stamp},
    effect::{Effect, Effects, Note, RoundKind},
    message::{Answer, Ask, Message, Outcome, Reason, Request},
    record::{Key, Record},
    ring::NodeId,
    time::{Now, Time},
};
use std::{collections::VecDeque, time::Duration};

pub(crate) use fold::Fold;
use rounds::Phase;
use tally::Tally;

/// Requests that wait at one key before further ones are turned away: a key that slow is stuck.
pub const QUEUE_MAX: usize = 4_096;

/// How long a round waits for the last replica once it cannot end without it. A replica that is
/// only behind answers well within; one that is gone costs this once.
pub const LAST_REPLICA_WAIT: Duration = Duration::from_millis(10);

/// A back-off is at most this, doubled for each lost round that was not followed by a round that went
/// well, up to [`BACKOFF_MAX`].
pub const BACKOFF_FIRST: Duration = Duration::from_millis(2);

/// The longest back-off.
pub const BACKOFF_MAX: Duration = Duration::from_millis(64);

/// Lost rounds that are remembered: so many make the longest back-off.
const LOST_MAX: u32 = 5;

/// What a coordinator goes by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// The coordinating node.
    pub me: NodeId,
    /// The key's preference list.
    pub replicas: Vec<NodeId>,
    /// Promises that make a ballot owned. With `write_quorum` more than all replicas.
    pub read_quorum: usize,
    /// Replicas that make a state chosen. More than half of all.
    pub write_quorum: usize,
    /// Silence after which a round is given up.
    pub round_timeout: Duration,
    /// Silence after which whoever has not answered a round is asked again, as often as the round
    /// lasts; with `round_timeout` or more that never happens.
    pub repeat_after: Duration,
    /// The largest value a command may make, bytes.
    pub value_bytes_max: usize,
    /// Whether several nodes propose at one moment as a rule: then whoever is refused pauses. Else a
    /// first refusal says no more than that the key was taken over once.
    pub contended: bool,
}

/// What a coordinator knows of its key and is worth keeping while nobody asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Known {
    /// The ballot under which this node may write, if any.
    pub owned: Option<Ballot>,
    /// The state last seen chosen, or, while owned, the state to build on.
    pub record: Option<Record>,
    /// Whether the state is known to be held by a write quorum.
    pub chosen: bool,
}

/// A request in the queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Waiting {
    request: Request,
    deadline: Time,
    /// It was part of an accept: it may have been applied.
    proposed: bool,
    /// It was seen to change something: a query cannot answer it.
    changes: bool,
}

/// The coordinator of one key at one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proposer {
    key: Key,
    config: Config,
    known: Known,
    queue: VecDeque<Waiting>,
    phase: Phase,
    /// When the phase is given up; meaningless while idle.
    until: Time,
    /// When those that have not answered are asked again.
    again: Option<Time>,
    /// Larger than any round met.
    above: u64,
    /// Rounds lost lately: each that goes well makes good for one.
    lost: u32,
    /// Queries ask no more than they need.
    thrifty: bool,
    ask: Ask,
    seed: u64,
}

impl Proposer {
    /// A coordinator that starts from what the node still `known`s. `ask` names its questions: its
    /// (incarnation, asker) must never have been given out before. `seed` feeds the back-off.
    #[must_use]
    pub fn new(key: Key, config: Config, known: Known, ask: Ask, seed: u64) -> Proposer {
        Proposer {
            key,
            config,
            known,
            queue: VecDeque::new(),
            phase: Phase::Idle,
            until: Time::default(),
            again: None,
            above: 0,
            lost: 0,
            thrifty: false,
            ask,
            seed: seed | 1,
        }
    }

    /// Takes a client's operation.
    pub fn request(&mut self, now: Now, request: Request, out: &mut Effects) {
        let deadline = now.mono + Duration::from_millis(u64::from(request.patience));
        let waiting = Waiting { request, deadline, proposed: false, changes: false };
        if waiting.request.expires < now.wall {
            return answer(&waiting, Outcome::NotProposed(Reason::Stale), out);
        }
        if self.queue.len() >= QUEUE_MAX {
            return answer(&waiting, Outcome::NotProposed(Reason::Overloaded), out);
        }
        self.queue.push_back(waiting);
        self.advance(now, out);
    }

    /// Takes a replica's answer.
    pub fn message(&mut self, now: Now, from: NodeId, message: Message, out: &mut Effects) {
        match message {
            Message::Promise(promise) => self.promised(now, from, promise, out),
            Message::Accepted(accepted) => self.accepted(now, from, accepted.stamp, out),
            Message::Refused(refused) => self.refused(now, from, &refused, out),
            Message::State(state) => self.state(now, from, state, out),
            Message::NoVote(no_vote) => self.no_vote(now, from, &no_vote, out),
            Message::Request(request) => self.request(now, request, out),
            Message::Answer(_)
            | Message::Prepare(_)
            | Message::Accept(_)
            | Message::Query(_)
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
            | Message::Keep(_)
            | Message::ConfigRound(_)
            | Message::Forward(_)
            | Message::Acked(_)
            | Message::Confirm(_)
            | Message::Confirmed(_)
            | Message::Survey(_)
            | Message::Present(_)
            | Message::Announce(_)
            | Message::Attach(_)
            | Message::Attached(_) => {}
        }
    }

    /// Whether queries ask no more replicas than a quorum at first: right while all are believed to
    /// answer. One that does not costs a read [`LAST_REPLICA_WAIT`].
    pub fn be_thrifty(&mut self, thrifty: bool) {
        self.thrifty = thrifty;
    }

    /// To be called when `node` is found to have lost its store, **before it is welcomed**, and
    /// nothing it said before may be handed in afterwards. The rounds under way no longer count it.
    ///
    /// Why: it learns from the two others what was chosen with the votes it has forgotten. A vote of
    /// its former life that is still counted after they have answered could choose something that
    /// neither of them showed it.
    pub fn forget(&mut self, node: NodeId) {
        self.forget_votes(node);
    }

    /// To be called at or after [`Proposer::next_wake`]; calling it at other times does no harm.
    /// `may_repeat`: whether those that keep silent may be asked again; asked where they would be.
    pub fn wake(&mut self, now: Now, may_repeat: impl FnOnce() -> bool, out: &mut Effects) {
        if matches!(self.phase, Phase::Idle) {
            return;
        }
        if now.mono >= self.until {
            self.timed_out(now, out);
        } else if self.again.is_some_and(|again| now.mono >= again) {
            self.again = self.repeat_at(now);
            if may_repeat() {
                self.ask_again(out);
            }
        }
    }

    /// When to call [`Proposer::wake`] at the latest; none while idle.
    #[must_use]
    pub fn next_wake(&self) -> Option<Time> {
        let until = (!matches!(self.phase, Phase::Idle)).then_some(self.until)?;
        Some(self.again.map_or(until, |again| again.min(until)))
    }

    /// Whether nothing waits and nothing is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle) && self.queue.is_empty()
    }

    /// Requests that wait or are under way.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
            + match &self.phase {
                Phase::Accepting { served, .. } => served.len(),
                Phase::Querying { batch, .. } => batch.len(),
                Phase::Idle | Phase::Beginning | Phase::Preparing { .. } | Phase::BackingOff => 0,
            }
    }

    /// Ends the coordinator and gives back what is worth keeping.
    #[must_use]
    pub fn into_known(self) -> Known {
        self.known
    }

    /// Starts the next round if there is one to start.
    fn advance(&mut self, now: Now, out: &mut Effects) {
        if !matches!(self.phase, Phase::Idle) {
            return;
        }
        self.expire(now, out);
        if self.queue.is_empty() {
            return;
        }
        if self.known.owned.is_some() {
            self.write_or_confirm(now, out);
        } else if self.queue.front().is_some_and(Waiting::may_query) {
            self.start_query(now, out);
        } else {
            self.start_ballot(now, out);
        }
    }

    /// Answers the requests whose patience has ended.
    fn expire(&mut self, now: Now, out: &mut Effects) {
        if self.queue.iter().all(|waiting| waiting.deadline > now.mono) {
            return;
        }
        let (over, rest) = std::mem::take(&mut self.queue)
            .into_iter()
            .partition::<VecDeque<_>, _>(|waiting| waiting.deadline <= now.mono);
        self.queue = rest;
        for waiting in &over {
            let outcome = if waiting.proposed && !waiting.request.command.is_read() {
                Outcome::Unknown
            } else {
                Outcome::NotProposed(Reason::NoQuorum)
            };
            answer(waiting, outcome, out);
        }
    }

    /// Puts a batch back at the front of the queue, in its order.
    fn requeue(&mut self, batch: impl DoubleEndedIterator<Item = Waiting>) {
        for waiting in batch.rev() {
            self.queue.push_front(waiting);
        }
    }

    /// A phase that can do no harm when it ends early is looked at again when the first of the
    /// waiting requests runs out of patience; an accept is not given up for that.
    fn enter(&mut self, phase: Phase, until: Time) {
        let batch = match &phase {
            Phase::Accepting { .. } => None,
            Phase::Querying { batch, .. } => Some(batch.as_slice()),
            Phase::Idle | Phase::Beginning | Phase::Preparing { .. } | Phase::BackingOff => {
                Some([].as_slice())
            }
        };
        let patience = batch
            .into_iter()
            .flat_map(|batch| batch.iter().chain(&self.queue))
            .map(|waiting| waiting.deadline)
            .min();
        self.until = patience.map_or(until, |patience| until.min(patience));
        self.again = None;
        self.phase = phase;
    }

    fn tally(&self) -> Tally {
        Tally::new(self.config.replicas.len())
    }

    /// A random span up to the back-off of this many lost rounds (xorshift; any seed will do, the
    /// spans of two duelling nodes only have to differ).
    fn backoff(&mut self) -> Duration {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        let most = BACKOFF_FIRST.saturating_mul(1 << self.lost.min(LOST_MAX)).min(BACKOFF_MAX);
        let micros = u64::try_from(most.as_micros()).unwrap_or(1).max(1);
        Duration::from_micros(1 + self.seed % micros)
    }

    /// Notes that a round begins for these requests.
    fn note_round<'a>(
        kind: RoundKind,
        stamp: Stamp,
        mut batch: impl Iterator<Item = &'a Waiting>,
        out: &mut Effects,
    ) {
        let name = |waiting: &Waiting| (waiting.request.op, waiting.request.attempt);
        let lead = batch.next().map(name);
        out.push(Effect::Note(Note::Round { kind, stamp, lead }));
        out.extend(batch.map(|waiting| {
            let (op, attempt) = name(waiting);
            Effect::Note(Note::Serves { op, attempt })
        }));
    }

    fn send(&self, to: NodeId, message: impl Into<Message>, out: &mut Effects) {
        out.push(Effect::Send { to, message: message.into() });
    }
}

impl Waiting {
    /// Whether a query can answer it as far as is known.
    fn may_query(&self) -> bool {
        self.request.command.is_read() && !self.changes
    }
}

fn answer(waiting: &Waiting, outcome: Outcome, out: &mut Effects) {
    let Request { op, attempt, .. } = waiting.request;
    out.push(Effect::Send { to: op.router, message: Answer { op, attempt, outcome }.into() });
}
