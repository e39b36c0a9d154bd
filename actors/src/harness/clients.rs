//! Clients: each does one operation after the other, at nodes drawn at random, and notes what it saw.
//!
//! A client hands its operation to a node's router as a front end does, without a network between.
//! It picks any node that runs, a paused or cut-off one too: it cannot know. If the node crashes
//! under it, the outcome is unknown, whatever the node was about to say.

use super::{ms, rng::Rng};
use crate::messages::{Completed, Execute, NodeHandle, Verdict};
use simpledynamo_protocol::{
    command::{Command, Condition, Expiry, Reply},
    history::{Operation, Outcome},
    record::{Key, Value},
    ring::NodeId,
};
use std::{collections::BTreeMap, ops::Range, time::Duration};
use tokio::sync::oneshot;

/// What clients do: weights of the operations, how many keys, how long they think.
#[derive(Clone, Debug)]
pub struct Mix {
    keys: u64,
    think: Range<Duration>,
    get: u64,
    set: u64,
    del: u64,
    incr: u64,
    cas: u64,
    append: u64,
}

impl Default for Mix {
    fn default() -> Mix {
        Mix {
            keys: 4,
            think: ms(0)..ms(10),
            get: 40,
            set: 15,
            del: 10,
            incr: 20,
            cas: 10,
            append: 5,
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

    /// Key number `n`: `n0` counts, `s1` holds text, and so on.
    fn key(n: u64) -> Key {
        let kind = if n.is_multiple_of(2) { 'n' } else { 's' };
        Key::from(format!("{kind}{n}").as_str())
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

/// An operation under way.
struct Flight {
    node: NodeId,
    place: usize,
    end: oneshot::Receiver<Completed>,
}

#[derive(Default)]
struct Client {
    flight: Option<Flight>,
    /// When it asks next.
    next: u64,
    count: u64,
    seen: BTreeMap<Key, Value>,
}

/// All clients of a run and what they saw.
#[derive(Default)]
pub(super) struct Clients {
    clients: Vec<Client>,
    /// Number of the first client: no two of a run have one number.
    first: u32,
    left: u64,
    mix: Mix,
    pub(super) operations: Vec<Operation>,
}

impl Clients {
    /// So many clients are to do so many operations together.
    pub(super) fn begin(&mut self, count: u32, mix: Mix, operations: u64, now: u64, rng: &mut Rng) {
        self.first += u32::try_from(self.clients.len()).unwrap_or(0);
        self.clients.clear();
        for _ in 0..count {
            let next = now + rng.within(&super::fault::micros_of(&mix.think));
            self.clients.push(Client { next, ..Client::default() });
        }
        (self.left, self.mix) = (operations, mix);
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
    pub(super) fn step(&mut self, now: u64, up: &[(NodeId, NodeHandle)], rng: &mut Rng) -> bool {
        let mut moved = false;
        for number in 0..self.clients.len() {
            moved |= self.finish(number, now, rng) | self.ask(number, now, up, rng);
        }
        moved
    }

    fn finish(&mut self, number: usize, now: u64, rng: &mut Rng) -> bool {
        let Some(client) = self.clients.get_mut(number) else { return false };
        let Some(flight) = &mut client.flight else { return false };
        let outcome = match flight.end.try_recv() {
            Ok(Completed { verdict: Verdict::Reply(reply), .. }) => Outcome::Reply(reply),
            Ok(Completed { verdict: Verdict::NotApplied(_), .. }) => Outcome::NotApplied,
            Ok(Completed { verdict: Verdict::Unknown, .. }) => Outcome::Unknown,
            Err(oneshot::error::TryRecvError::Closed) => Outcome::Unknown,
            Err(oneshot::error::TryRecvError::Empty) => return false,
        };
        self.end(number, now, outcome, rng);
        true
    }

    fn end(&mut self, number: usize, now: u64, outcome: Outcome, rng: &mut Rng) {
        let think = rng.within(&super::fault::micros_of(&self.mix.think));
        let Some(client) = self.clients.get_mut(number) else { return };
        let Some(flight) = client.flight.take() else { return };
        client.next = now + think;
        let Some(operation) = self.operations.get_mut(flight.place) else { return };
        if let Outcome::Reply(Reply::Bulk(value)) = &outcome {
            client.seen.insert(operation.key.clone(), value.clone());
        }
        operation.returned = Some(now);
        operation.outcome = outcome;
    }

    fn ask(&mut self, number: usize, now: u64, up: &[(NodeId, NodeHandle)], rng: &mut Rng) -> bool {
        let id = self.first + u32::try_from(number).unwrap_or(0);
        let Some(client) = self.clients.get_mut(number) else { return false };
        if client.flight.is_some() || client.next > now || self.left == 0 {
            return false;
        }
        let Some((node, handle)) = rng.pick(up) else {
            client.next = now + 5_000;
            return false;
        };
        client.count += 1;
        let number = rng.below(self.mix.keys);
        let key = Mix::key(number);
        let fresh = format!("{id}.{}", client.count);
        let seen = client.seen.get(&key);
        let command = self.mix.command(number.is_multiple_of(2), &fresh, seen, rng);
        let (reply, end) = oneshot::channel();
        handle.execute.do_send(Execute {
            key: key.clone(),
            command: command.clone(),
            keep: false,
            reply,
        });
        let flight = Flight { node: *node, place: self.operations.len(), end };
        client.flight = Some(flight);
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
