//! Clients: each does one operation after the other, at nodes drawn at random, and notes what it saw.
//!
//! A client hands its operation to a node's router as a front end does, without a network between.
//! It picks any node that runs, a paused or cut-off one too: it cannot know. If the node crashes
//! under it, the outcome is unknown, whatever the node was about to say.

use super::{WALL_START, fault::micros_of, ms, node::SimNode, rng::Rng};
use crate::messages::{Completed, Execute, Verdict};
use simpledynamo_protocol::{
    command::{Command, Condition, Expiry, Reply},
    history::{Operation, Outcome},
    record::{Key, Value},
    ring::NodeId,
};
use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    time::Duration,
};
use tokio::sync::oneshot;

/// What clients do: weights of the operations, how many keys, how long they think.
#[derive(Clone, Debug)]
pub struct Mix {
    keys: u64,
    own: bool,
    think: Range<Duration>,
    get: u64,
    set: u64,
    del: u64,
    incr: u64,
    cas: u64,
    append: u64,
    /// So many writes of a thousand are padded to so many bytes.
    large: (u64, usize),
    /// So many operations of a thousand are on keys whose values expire.
    expiring: u64,
}

/// Whether values of this key may expire.
pub(super) fn expires(key: &Key) -> bool {
    key.starts_with(b"e")
}

impl Default for Mix {
    fn default() -> Mix {
        Mix {
            keys: 4,
            own: false,
            think: ms(0)..ms(10),
            get: 40,
            set: 15,
            del: 10,
            incr: 20,
            cas: 10,
            append: 5,
            large: (0, 0),
            expiring: 0,
        }
    }
}

impl Mix {
    /// So many keys, half of them counters.
    #[must_use]
    pub fn keys(mut self, keys: u64) -> Mix {
        self.keys = keys.max(1);
        self
    }

    /// Each client has keys of its own instead of sharing them with all others.
    #[must_use]
    pub fn own_keys(mut self) -> Mix {
        self.own = true;
        self
    }

    /// A pause of so long between a client's operations.
    #[must_use]
    pub fn think(mut self, think: Range<Duration>) -> Mix {
        self.think = think;
        self
    }

    /// Weights of reads and of writes of all kinds, instead of 40 and 60.
    #[must_use]
    pub fn reads_and_writes(self, reads: u64, writes: u64) -> Mix {
        let Mix { set, del, incr, cas, append, .. } = self;
        let sum = (set + del + incr + cas + append).max(1);
        let part = |weight: u64| (weight * writes).div_ceil(sum);
        Mix {
            get: reads,
            set: part(set),
            del: part(del),
            incr: part(incr),
            cas: part(cas),
            append: part(append),
            ..self
        }
    }

    /// How long a client thinks before its next operation.
    pub fn pause(&self, rng: &mut Rng) -> Duration {
        rng.span(&self.think)
    }

    /// Any operation: `n0` counts, `s1` holds text, and so on.
    fn any(&self, client: u32, rng: &mut Rng) -> (Key, bool) {
        let n = rng.below(self.keys);
        let counter = n.is_multiple_of(2);
        let kind = if counter { 'n' } else { 's' };
        let name = if self.own { format!("{kind}{n}-{client}") } else { format!("{kind}{n}") };
        (Key::from(name.as_str()), counter)
    }

    /// So many of a thousand written values have about so many bytes.
    #[must_use]
    pub fn large(mut self, per_mille: u64, bytes: usize) -> Mix {
        self.large = (per_mille, bytes);
        self
    }

    /// So many of a thousand operations are on two further keys, whose values expire. The checker of
    /// plain histories leaves such keys undecided.
    #[must_use]
    pub fn expiring(mut self, per_mille: u64) -> Mix {
        self.expiring = per_mille;
        self
    }

    /// An operation on a key whose values expire; `wall` is the true time.
    fn expiring_command(fresh: &str, wall: u64, rng: &mut Rng) -> Command {
        let set = |expiry| Command::Set {
            value: fresh.into(),
            condition: Condition::Always,
            expiry,
            get: false,
        };
        match rng.below(8) {
            0..=2 => set(Expiry::At(wall + 10 + rng.below(400))),
            3 => set(Expiry::Clear),
            4 => Command::Append(fresh.into()),
            _ => Command::Get,
        }
    }

    fn command(&self, counter: bool, fresh: &str, seen: Option<&Value>, rng: &mut Rng) -> Command {
        let set = |condition| Command::Set {
            value: fresh.into(),
            condition,
            expiry: Expiry::Clear,
            get: false,
        };
        let weights = [self.get, self.set, self.del, self.incr, self.cas, self.append];
        let mut drawn = rng.below(weights.iter().sum());
        let kind = weights.iter().position(|weight| {
            let here = drawn < *weight;
            drawn = drawn.wrapping_sub(*weight);
            here
        });
        let half = rng.chance(500);
        match (kind, counter) {
            (Some(0), _) | (None, _) => {
                if half {
                    Command::Get
                } else {
                    Command::StrLen
                }
            }
            (Some(2), true) => Command::GetDel,
            (Some(_), true) => Command::IncrBy(if half { 1 } else { 3 }),
            (Some(1), false) => set(Condition::Always),
            (Some(2), false) => {
                if half {
                    Command::Del
                } else {
                    Command::GetDel
                }
            }
            (Some(3), false) => set(if half { Condition::IfAbsent } else { Condition::IfPresent }),
            (Some(4), false) => match seen {
                Some(seen) if half => set(Condition::IfEquals(seen.clone())),
                Some(seen) => Command::DelIfEq(seen.clone()),
                None => set(Condition::IfAbsent),
            },
            (Some(_), false) => Command::Append(fresh.into()),
        }
    }
}

/// Values seen that conditions are made of.
const SEEN_MAX: usize = 50;

/// What one client asks: operations drawn from a [`Mix`], with values that nobody writes twice and
/// conditions made of what it has seen. Every backend's clients are these.
#[derive(Clone, Debug)]
pub struct Asker {
    /// Its number: no two clients of a run have the same.
    pub id: u32,
    count: u64,
    seen: VecDeque<(Key, Value)>,
}

impl Asker {
    /// Client `id`, which has seen nothing.
    #[must_use]
    pub fn new(id: u32) -> Asker {
        Asker { id, count: 0, seen: VecDeque::new() }
    }

    /// What it asks next; `wall` is the true time, Unix milliseconds.
    pub fn next(&mut self, mix: &Mix, wall: u64, rng: &mut Rng) -> (Key, Command) {
        if rng.chance(mix.expiring) {
            let key = Key::from(if rng.chance(500) { "e0" } else { "e1" });
            let fresh = self.fresh();
            return (key, Mix::expiring_command(&fresh, wall, rng));
        }
        let (key, counter) = mix.any(self.id, rng);
        let command = self.command(&key, counter, mix, rng);
        (key, command)
    }

    /// What it asks of this key, which counts or holds text.
    pub fn command(&mut self, key: &Key, counter: bool, mix: &Mix, rng: &mut Rng) -> Command {
        let mut fresh = self.fresh();
        if rng.chance(mix.large.0) {
            fresh.push_str(&"x".repeat(mix.large.1));
        }
        let seen = self.seen.iter().find(|(of, _)| of == key).map(|(_, value)| value);
        mix.command(counter, &fresh, seen, rng)
    }

    /// A value that nobody else writes.
    fn fresh(&mut self) -> String {
        self.count += 1;
        format!("{}.{}", self.id, self.count)
    }

    /// What it was told.
    pub fn saw(&mut self, key: &Key, outcome: &Outcome) {
        if let Outcome::Reply(Reply::Bulk(value)) = outcome {
            self.seen.push_front((key.clone(), value.clone()));
            self.seen.truncate(SEEN_MAX);
        }
    }
}

/// An operation under way.
struct Flight {
    node: NodeId,
    place: usize,
    end: oneshot::Receiver<Completed>,
}

struct Client {
    asker: Asker,
    flight: Option<Flight>,
    /// When it asks next.
    next: u64,
}

/// Operations that [`Clients::refused`] remembers.
const REFUSED_MAX: usize = 20;

/// All clients of a run and what they saw.
#[derive(Default)]
pub(super) struct Clients {
    clients: Vec<Client>,
    /// Number of the first client: no two of a run have one number.
    first: u32,
    left: u64,
    mix: Mix,
    /// Operations that have ended, in all.
    pub(super) ended: u64,
    pub(super) operations: Vec<Operation>,
    /// The first operations that a node ended without a reply, by its own word.
    pub(super) refused: Vec<String>,
    /// By operation: the node that was asked.
    pub(super) asked: Vec<NodeId>,
}

impl Clients {
    /// So many clients are to do so many operations together.
    pub(super) fn begin(&mut self, count: u32, mix: Mix, operations: u64, now: u64, rng: &mut Rng) {
        self.first += u32::try_from(self.clients.len()).unwrap_or(0);
        self.clients.clear();
        for number in 0..count {
            let next = now + rng.within(&micros_of(&mix.think));
            let asker = Asker::new(self.first + number);
            self.clients.push(Client { asker, flight: None, next });
        }
        (self.left, self.mix) = (operations, mix);
    }

    /// No further operation begins.
    pub(super) fn stop(&mut self) {
        self.left = 0;
    }

    pub(super) fn done(&self) -> bool {
        self.left == 0 && self.clients.iter().all(|client| client.flight.is_none())
    }

    /// When somebody asks next.
    pub(super) fn next_due(&self) -> Option<u64> {
        let waiting = self.clients.iter().filter(|client| client.flight.is_none());
        waiting.map(|client| client.next).min().filter(|_| self.left > 0)
    }

    /// Takes what has been answered and asks what is due; whether anything happened.
    pub(super) fn step(
        &mut self,
        now: u64,
        nodes: &BTreeMap<NodeId, SimNode>,
        rng: &mut Rng,
    ) -> bool {
        let mut moved = false;
        for number in 0..self.clients.len() {
            moved |= self.finish(number, now, rng) | self.ask(number, now, nodes, rng);
        }
        moved
    }

    fn finish(&mut self, number: usize, now: u64, rng: &mut Rng) -> bool {
        let Some(client) = self.clients.get_mut(number) else { return false };
        let Some(flight) = &mut client.flight else { return false };
        let outcome = match flight.end.try_recv() {
            Ok(Completed { verdict: Verdict::Reply(reply), .. }) => Outcome::Reply(reply),
            Ok(Completed { verdict: Verdict::NotApplied(_), .. }) => Outcome::NotApplied,
            #[cfg(feature = "broken-rules")]
            Ok(Completed { verdict: Verdict::Unknown, .. })
                if super::broken::is_broken(super::broken::Rule::HonestUnknown) =>
            {
                Outcome::NotApplied
            }
            Ok(Completed { verdict: Verdict::Unknown, .. }) => Outcome::Unknown,
            Err(oneshot::error::TryRecvError::Closed) => {
                // The node is ending: no word of its own.
                self.end(number, now, Outcome::Unknown, rng);
                return true;
            }
            Err(oneshot::error::TryRecvError::Empty) => return false,
        };
        self.note_refused(number, &outcome);
        self.end(number, now, outcome, rng);
        true
    }

    fn note_refused(&mut self, number: usize, outcome: &Outcome) {
        if matches!(outcome, Outcome::Reply(reply) if !matches!(reply, Reply::Error(_))) {
            return;
        }
        let flight = self.clients.get(number).and_then(|client| client.flight.as_ref());
        let Some(Flight { node, place, .. }) = flight else { return };
        let Some(Operation { key, command, .. }) = self.operations.get(*place) else { return };
        if self.refused.len() < REFUSED_MAX {
            self.refused.push(format!("{node}: {command} of {key} → {outcome}"));
        }
    }

    fn end(&mut self, number: usize, now: u64, outcome: Outcome, rng: &mut Rng) {
        let think = rng.within(&micros_of(&self.mix.think));
        let Some(client) = self.clients.get_mut(number) else { return };
        let Some(flight) = client.flight.take() else { return };
        client.next = now + think;
        self.ended += 1;
        let Some(operation) = self.operations.get_mut(flight.place) else { return };
        client.asker.saw(&operation.key, &outcome);
        operation.returned = Some(now);
        operation.outcome = outcome;
    }

    fn ask(
        &mut self,
        number: usize,
        now: u64,
        nodes: &BTreeMap<NodeId, SimNode>,
        rng: &mut Rng,
    ) -> bool {
        let Some(client) = self.clients.get_mut(number) else { return false };
        if client.flight.is_some() || client.next > now || self.left == 0 {
            return false;
        }
        let up: Vec<&SimNode> = nodes.values().filter(|node| node.serves()).collect();
        let Some((node, handle)) = rng.pick(&up).and_then(|node| Some((node.id(), node.handle()?)))
        else {
            client.next = now + 5_000;
            return false;
        };
        let id = client.asker.id;
        let (key, command) = client.asker.next(&self.mix, WALL_START + now / 1_000, rng);
        let (reply, end) = oneshot::channel();
        handle.execute.do_send(Execute {
            key: key.clone(),
            command: command.clone(),
            keep: false,
            reply,
        });
        let flight = Flight { node, place: self.operations.len(), end };
        client.flight = Some(flight);
        self.asked.push(node);
        self.left -= 1;
        let outcome = Outcome::Unknown;
        self.operations.push(Operation {
            client: id,
            key,
            command,
            call: now,
            returned: None,
            outcome,
        });
        true
    }

    /// The node is gone: whoever waits there does not know, and will not.
    pub(super) fn abandon(&mut self, node: NodeId, now: u64, rng: &mut Rng) {
        for number in 0..self.clients.len() {
            let waits = self.clients.get(number).and_then(|client| client.flight.as_ref());
            if waits.is_some_and(|flight| flight.node == node) {
                self.end(number, now, Outcome::Unknown, rng);
            }
        }
    }
}
