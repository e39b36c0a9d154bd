//! Shards: a node's keys spread over threads.
//!
//! Usually one thread serves a node: there is one shard, with all keys. With `workers` in the
//! configuration each shard is a thread with a router, its coordinators and a replica of its own, for
//! its share of the keys; the node's own thread is left with connections, the bridge, and what
//! concerns the node as a whole. So what is done for one key is done on one thread, in order and
//! without locks, as before. The writer stays one: it commits for all keys together.
//!
//! ```text
//! clients, peers ── node's thread ──▸ of(key) ──▸ shard: router ⇄ coordinators ⇄ replica
//!                        ▴                            │ Outlet           │ Queue
//!                        │ let out                    ▾                  ▾
//!                   main replica ◂── Committed ── writer thread     links to peers
//! ```
//!
//! An operation's key decides its shard; its number says it again, for answers that name no key
//! ([`Share`]). Shards share nothing but the store, the links and counters.
//!
//! Source of the idea: Scylla's shard per core; here a shard is no replica of its own, and its number
//! is no part of what is stored: `workers` may change from start to start.
//!
//! Caveat: `requests` and `coordinators` are divided evenly: where one key takes all the load, only its
//! shard's part counts.

mod pulse;
mod start;

pub(crate) use pulse::BEAT;
pub use pulse::Pulse;
pub(crate) use start::{Parts, Place, Threads, Waiting};

use crate::{
    replica::Replica,
    router::{FromNode, Router},
};
use actix::{Actor, Addr, AsyncContext, Context, fut::wrap_future};
use simpledynamo_protocol::{message::Message, ring::Position};
use std::{fmt, iter, sync::Arc};

/// Bits of a position that tell its slice of the ring: 4,096 slices, dealt out in turn.
const SLICE_BITS: u32 = 12;

/// Which of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// From 0 on.
    pub index: usize,
    /// At least 1.
    pub of: usize,
}

impl Share {
    /// All of it.
    pub const ALL: Share = Share { index: 0, of: 1 };
}

/// The actors of a shard that are spoken to from outside it.
#[derive(Clone)]
pub struct Shard {
    /// Of its operations and coordinators.
    pub router: Addr<Router>,
    /// Answers queries.
    pub replica: Addr<Replica>,
}

/// Something of each shard; there is at least one. Cheap to clone.
#[derive(Clone)]
pub struct Shards<T> {
    first: T,
    others: Arc<[T]>,
}

impl<T> From<T> for Shards<T> {
    fn from(only: T) -> Shards<T> {
        Shards { first: only, others: Arc::default() }
    }
}

impl<T> fmt::Debug for Shards<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} shards", self.count())
    }
}

impl<T> Shards<T> {
    /// All of them; none where there is none.
    fn all(each: impl IntoIterator<Item = T>) -> Option<Shards<T>> {
        let mut each = each.into_iter();
        Some(Shards { first: each.next()?, others: each.collect() })
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        1 + self.others.len()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        iter::once(&self.first).chain(self.others.iter())
    }

    /// What `f` makes of each.
    #[must_use]
    pub fn map<U>(&self, f: impl FnMut(&T) -> U + Clone) -> Shards<U> {
        let mut of_first = f.clone();
        Shards { first: of_first(&self.first), others: self.others.iter().map(f).collect() }
    }

    /// The one of this key.
    #[must_use]
    pub fn of(&self, key: &[u8]) -> &T {
        if self.others.is_empty() {
            return &self.first;
        }
        self.at(Position::of(key).prefix() >> (u64::BITS - SLICE_BITS))
    }

    /// The one of a number, of a slice or an operation.
    fn at(&self, number: u64) -> &T {
        let index = usize::try_from(number % self.count() as u64).unwrap_or(0);
        index.checked_sub(1).and_then(|other| self.others.get(other)).unwrap_or(&self.first)
    }

    /// The one that a message concerns; none: it concerns all, or what is no matter of shards.
    #[must_use]
    pub fn of_message(&self, message: &Message) -> Option<&T> {
        if self.others.is_empty() {
            return Some(&self.first);
        }
        match message {
            Message::Answer(answer) => Some(self.at(answer.op.seq)),
            Message::Request(request) => Some(self.of(&request.key)),
            Message::Query(query) => Some(self.of(&query.key)),
            Message::State(state) => Some(self.of(&state.key)),
            Message::Promise(promise) => Some(self.of(&promise.key)),
            Message::Accepted(accepted) => Some(self.of(&accepted.key)),
            Message::Refused(refused) => Some(self.of(&refused.key)),
            Message::NoVote(no_vote) => Some(self.of(&no_vote.key)),
            _ => None,
        }
    }
}

impl Shards<Shard> {
    /// Hands a message to the router that it concerns, or to all.
    pub(crate) fn tell_routers(&self, told: FromNode) {
        if let Some(shard) = self.of_message(&told.message) {
            return shard.router.do_send(told);
        }
        let FromNode { from, message, cause } = told;
        for shard in self.iter() {
            let message = message.clone();
            shard.router.do_send(FromNode { from, message, cause });
        }
    }
}

/// Messages that an actor of a shard takes in one go.
const AT_ONE_GO: u32 = 256;

/// Lets others on an actor's thread have their turn: a mailbox is drained until it is empty, and other
/// threads may fill it meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    apart: bool,
    taken: u32,
}

impl Pace {
    /// That of an actor that gets messages of other threads, or of none but its own.
    pub(crate) fn of(apart: bool) -> Pace {
        Pace { apart, taken: 0 }
    }

    /// Whether to pause after this message.
    fn ends(&mut self) -> bool {
        if !self.apart {
            return false;
        }
        self.taken = (self.taken + 1) % AT_ONE_GO;
        self.taken == 0
    }

    /// To be called with each message that may come from another thread.
    pub(crate) fn keep<A: Actor<Context = Context<A>>>(&mut self, ctx: &mut Context<A>) {
        if self.ends() {
            ctx.wait(wrap_future(tokio::task::yield_now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use simpledynamo_protocol::{
        command::Command,
        message::{Answer, Missed, Outcome},
        record::Key,
        ring::{NodeId, Ring},
        routing::{Config, Routing},
        time::Now,
    };
    use std::{collections::BTreeMap, time::Duration};

    fn numbered(count: usize) -> Shards<usize> {
        Shards::all(0..count).unwrap()
    }

    #[test]
    fn every_shard_has_its_share_of_the_keys() {
        for count in [1, 2, 3, 8] {
            let (shards, mut keys) = (numbered(count), BTreeMap::<usize, u32>::new());
            for key in 0..8_000 {
                *keys.entry(*shards.of(format!("key-{key}").as_bytes())).or_default() += 1;
            }
            let fair = 8_000 / u32::try_from(count).unwrap();
            assert_eq!(keys.len(), count);
            assert!(keys.values().all(|of| of.abs_diff(fair) < fair / 4), "{keys:?}");
        }
    }

    #[test]
    fn there_is_none_without_a_first() {
        assert!(Shards::<usize>::all([]).is_none());
        assert_eq!(numbered(3).iter().copied().collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(Shards::from(7).count(), 1);
    }

    #[test]
    fn an_operation_comes_back_to_the_shard_that_named_it() {
        let me = NodeId(1);
        let config = Config {
            request_timeout: Duration::from_millis(100),
            deadline: Duration::from_secs(2),
            hedge: Duration::from_millis(10),
            lifetime: Duration::from_secs(60),
            reads: None,
            chains: false,
        };
        for count in [1, 2, 3, 8] {
            let shards = numbered(count);
            for index in 0..count {
                let routing = Routing::new(me, 1, Ring::new([me], 1), config.clone());
                let mut routing = routing.one_of(count as u64, index as u64);
                for _ in 0..5 {
                    let (key, get) = (Key::from("k"), Command::Get);
                    let op = routing.submit(Now::default(), key, get, |_| false, &mut Vec::new());
                    let outcome = Outcome::Unknown;
                    let answer = Answer { op, attempt: 1, outcome }.into();
                    assert_eq!(shards.of_message(&answer), Some(&index), "{op} of {count}");
                    assert_ne!(op.seq, 0, "the number of what was turned away");
                }
            }
        }
    }

    #[test]
    fn what_names_no_key_concerns_all() {
        assert_eq!(numbered(3).of_message(&Missed {}.into()), None);
    }

    #[test]
    fn only_actors_that_other_threads_talk_to_pause() {
        let mut pace = Pace::of(true);
        assert_eq!((0..3 * AT_ONE_GO).filter(|_| pace.ends()).count(), 3);
        let mut alone = Pace::default();
        assert!(!(0..3 * AT_ONE_GO).any(|_| alone.ends()));
    }
}
