//! Exactly-once records: an operation that is tried at several coordinators is applied once.
//!
//! RIFL (Lee et al., SOSP '15, §3) keeps a completion record beside the object it changed. Here it
//! lies *inside* the register's state, so that adopting a state adopts what has been applied to it.
//! The router that took the request numbers it and says with every request which of its operations
//! **on this key** are over (`done_below`); their results are dropped, and whatever of them still
//! wanders through the network is refused as stale. So a record keeps one result for each request in
//! flight on the key, and no clock is asked.
//!
//! Caveat: results are kept while they fit in [`RESULTS_BYTES_MAX`]. One that does not is
//! remembered as applied without its result, and a retry that meets it says so.

use crate::{command::Reply, ring::NodeId};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{SeqAccess, Visitor},
};
use smallvec::SmallVec;
use std::{fmt, marker::PhantomData, sync::Arc};

/// Bytes of stored results in one record: a frame (2 MiB) less the largest value (1 MiB), the
/// largest key (64 KiB) and as much again for everything else.
pub const RESULTS_BYTES_MAX: usize = 896 * 1024;

/// Results that one record keeps of one router, as long as five routers or fewer write the key; of
/// more each gets its share of five times as many. So many are in flight on one key only while one
/// operation hangs and others overtake it; each of them makes every accept of the key larger.
pub const RESULTS_MAX: usize = 4_096;

/// What a result takes in a message besides its reply, bytes, at most.
const RESULT_BYTES: usize = 16;

/// The name of one client operation, the same at every coordinator it is tried at.
/// `Display`: `5554-17-203`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct OpId {
    /// The node whose router took the request.
    pub router: NodeId,
    /// That node's start count, durable, so that numbers are not used again after a restart.
    pub incarnation: u64,
    /// Counts the router's requests.
    pub seq: u64,
}

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.router, self.incarnation, self.seq)
    }
}

/// What the record says about an operation that wants to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Not yet applied: go ahead.
    New,
    /// Applied before, with this result (none where it was too large to keep).
    Applied(Option<Reply>),
    /// Its router has finished with it, or has died: it must not be applied any more.
    Stale,
}

/// The exactly-once records of one key, one entry a router that ever wrote it. Shared by all copies
/// of a record until one of them notes something: a write copies its record a dozen times between
/// coordinator, messages, store and caches. Every replica reads one from the wire with each accept, so
/// what there is most often, a single result a router, lies in place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Recent {
    #[serde(deserialize_with = "shared_few")]
    routers: Arc<Few<RouterMemory>>,
}

/// Most often one, which then lies in place.
type Few<T> = SmallVec<[T; 1]>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct RouterMemory {
    router: NodeId,
    incarnation: u64,
    done_below: u64,
    /// Nearly always one: the router's last operation on the key.
    #[serde(deserialize_with = "few")]
    results: Few<(u64, Option<Reply>)>,
}

fn shared_few<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Arc<Few<T>>, D::Error> {
    few(deserializer).map(Arc::new)
}

/// Takes memory as elements come, whatever length is announced.
fn few<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Few<T>, D::Error> {
    /// Elements for which an announced length is believed.
    const BELIEVED: usize = 64;

    struct Elements<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Elements<T> {
        type Value = Few<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a sequence")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Few<T>, A::Error> {
            let mut all = Few::new();
            all.reserve_exact(elements.size_hint().unwrap_or(0).min(BELIEVED));
            while let Some(element) = elements.next_element()? {
                all.push(element);
            }
            Ok(all)
        }
    }

    deserializer.deserialize_seq(Elements(PhantomData))
}

impl Recent {
    /// What is known of `op`.
    #[must_use]
    pub fn seen(&self, op: OpId) -> Seen {
        let Some(memory) = self.routers.iter().find(|memory| memory.router == op.router) else {
            return Seen::New;
        };
        if op.incarnation > memory.incarnation {
            return Seen::New;
        }
        if op.incarnation < memory.incarnation || op.seq < memory.done_below {
            return Seen::Stale;
        }
        let known = memory.results.iter().find(|(seq, _)| *seq == op.seq);
        known.map_or(Seen::New, |(_, reply)| Seen::Applied(reply.clone()))
    }

    /// Remembers that `op` was applied with `reply`, and forgets what its router has finished; what
    /// is forgotten makes room for `reply`. For an `op` that [`Recent::seen`] calls new: of one that
    /// is stale nothing is remembered, and the first result of one that was applied stays.
    pub fn note(&mut self, op: OpId, done_below: u64, reply: &Reply) {
        self.forget(op, done_below);
        if self.seen(op) != Seen::New {
            return;
        }
        let kept = self.results_bytes() + RESULT_BYTES + reply.size() <= RESULTS_BYTES_MAX;
        let result = (op.seq, kept.then(|| reply.clone()));
        let mut routers = Arc::make_mut(&mut self.routers).iter_mut();
        if let Some(memory) = routers.find(|memory| memory.router == op.router) {
            memory.results.push(result);
        }
    }

    /// Whether there is room for the result of `op`, once what its router has finished is forgotten.
    /// What other routers left here does not count: they may never come back to clear it away.
    #[must_use]
    pub fn has_room(&self, op: OpId, done_below: u64) -> bool {
        let Some(memory) = self.routers.iter().find(|memory| memory.router == op.router) else {
            return true;
        };
        let share = RESULTS_MAX.min(5 * RESULTS_MAX / self.routers.len());
        if memory.incarnation != op.incarnation || memory.results.len() < share {
            return true;
        }
        memory.results.iter().filter(|(seq, _)| *seq >= done_below).count() < share
    }

    /// Results kept, all routers together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.routers.iter().map(|memory| memory.results.len()).sum()
    }

    /// Whether no result is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that it takes in a message, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        const ROUTER: usize = 32;
        self.results_bytes() + ROUTER * self.routers.len()
    }

    /// All kept results together, bytes.
    fn results_bytes(&self) -> usize {
        let results = self.routers.iter().flat_map(|memory| &memory.results);
        results.map(|(_, reply)| RESULT_BYTES + reply.as_ref().map_or(0, Reply::size)).sum()
    }

    /// Brings the memory of the op's router up to its incarnation and to `done_below`.
    fn forget(&mut self, op: OpId, done_below: u64) {
        let fresh = RouterMemory {
            router: op.router,
            incarnation: op.incarnation,
            done_below,
            results: SmallVec::new(),
        };
        let routers = Arc::make_mut(&mut self.routers);
        let known = routers.iter_mut().find(|memory| memory.router == op.router);
        match known {
            None => {
                // Copies share this memory, for as long as the key is cached anywhere.
                routers.reserve_exact(1);
                routers.push(fresh);
            }
            Some(memory) if memory.incarnation < op.incarnation => *memory = fresh,
            Some(memory) if memory.incarnation > op.incarnation => {}
            Some(memory) => {
                memory.done_below = memory.done_below.max(done_below);
                let below = memory.done_below;
                memory.results.retain(|(seq, _)| *seq >= below);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Value;
    use serde::de::value::{self, SeqDeserializer};

    fn op(router: u32, incarnation: u64, seq: u64) -> OpId {
        OpId { router: NodeId(router), incarnation, seq }
    }

    fn bulk(bytes: usize) -> Reply {
        Reply::Bulk(Value::from(vec![b'x'; bytes]))
    }

    fn noted(ops: &[(OpId, u64)]) -> Recent {
        let mut recent = Recent::default();
        for (op, done_below) in ops {
            recent.note(*op, *done_below, &Reply::Int(op.seq as i64));
        }
        recent
    }

    fn applied(seq: i64) -> Seen {
        Seen::Applied(Some(Reply::Int(seq)))
    }

    #[test]
    fn an_announced_length_is_no_promise() {
        struct Liar;
        impl Iterator for Liar {
            type Item = u64;
            fn next(&mut self) -> Option<u64> {
                None
            }
            fn size_hint(&self) -> (usize, Option<usize>) {
                (usize::MAX, Some(usize::MAX))
            }
        }
        let liar = SeqDeserializer::<_, value::Error>::new(Liar);
        assert_eq!(few::<_, u64>(liar), Ok(Few::new()));
    }

    #[test]
    fn an_operation_never_noted_is_new() {
        assert_eq!(Recent::default().seen(op(1, 1, 1)), Seen::New);
        let recent = noted(&[(op(1, 1, 5), 3)]);
        for new in [op(2, 1, 5), op(1, 1, 3), op(1, 1, 4), op(1, 1, 6), op(1, 2, 1)] {
            assert_eq!(recent.seen(new), Seen::New, "{new}");
        }
    }

    #[test]
    fn a_noted_operation_is_applied_with_its_first_result() {
        let mut recent = noted(&[(op(1, 1, 5), 0), (op(2, 1, 5), 0), (op(1, 1, 4), 0)]);
        assert_eq!(recent.seen(op(1, 1, 4)), applied(4));
        assert_eq!(recent.seen(op(1, 1, 5)), applied(5));
        assert_eq!(recent.len(), 3);
        recent.note(op(1, 1, 5), 0, &Reply::Nil);
        assert_eq!(recent.seen(op(1, 1, 5)), applied(5));
        assert_eq!(recent.len(), 3);
    }

    #[test]
    fn what_a_router_has_finished_is_stale_and_forgotten_its_own_only() {
        let recent = noted(&[
            (op(1, 1, 5), 0),
            (op(1, 1, 6), 0),
            (op(2, 1, 5), 0),
            (op(1, 1, 7), 6),
            (op(1, 1, 8), 2),
        ]);
        assert_eq!(recent.seen(op(1, 1, 5)), Seen::Stale, "a lower bound takes nothing back");
        assert_eq!(recent.seen(op(1, 1, 6)), applied(6), "the bound itself is not finished");
        assert_eq!(recent.seen(op(2, 1, 5)), applied(5));
        assert_eq!(recent.len(), 4);
    }

    #[test]
    fn a_stale_operation_leaves_no_trace() {
        let mut recent = noted(&[(op(1, 2, 5), 5)]);
        let before = recent.clone();
        recent.note(op(1, 2, 4), 0, &Reply::Ok);
        recent.note(op(1, 1, 9), 9, &Reply::Ok);
        assert_eq!(recent, before);
    }

    #[test]
    fn an_older_incarnation_is_stale() {
        let recent = noted(&[(op(1, 2, 5), 0)]);
        assert_eq!(recent.seen(op(1, 1, 5)), Seen::Stale);
        assert_eq!(recent.seen(op(1, 1, 99)), Seen::Stale);
    }

    #[test]
    fn a_newer_incarnation_replaces_what_the_older_left() {
        let recent = noted(&[(op(1, 1, 50), 40), (op(1, 2, 3), 2)]);
        assert_eq!(recent.len(), 1);
        assert_eq!(recent.seen(op(1, 2, 3)), applied(3));
        assert_eq!(recent.seen(op(1, 2, 2)), Seen::New, "the older bound is gone with its life");
        assert_eq!(recent.seen(op(1, 2, 1)), Seen::Stale);
        assert_eq!(recent.seen(op(1, 1, 50)), Seen::Stale);
    }

    /// The largest reply that is kept.
    const LARGEST: usize = RESULTS_BYTES_MAX - RESULT_BYTES;

    #[test]
    fn a_result_too_large_to_keep_is_remembered_without_it() {
        let mut recent = Recent::default();
        recent.note(op(1, 1, 1), 0, &bulk(LARGEST - RESULT_BYTES));
        recent.note(op(2, 1, 1), 0, &bulk(1));
        recent.note(op(2, 1, 2), 0, &bulk(0));
        assert_eq!(recent.seen(op(1, 1, 1)), Seen::Applied(Some(bulk(LARGEST - RESULT_BYTES))));
        assert_eq!(recent.seen(op(2, 1, 1)), Seen::Applied(None));
        assert_eq!(recent.seen(op(2, 1, 2)), Seen::Applied(None), "the one without took its place");
        let mut recent = Recent::default();
        recent.note(op(1, 1, 1), 0, &bulk(LARGEST + 1));
        assert_eq!(recent.seen(op(1, 1, 1)), Seen::Applied(None));
        assert!(!recent.is_empty());
    }

    #[test]
    fn what_a_note_forgets_makes_room_for_its_own_result() {
        for next in [(op(1, 1, 2), 2), (op(1, 2, 1), 0)] {
            let mut recent = Recent::default();
            recent.note(op(1, 1, 1), 0, &bulk(LARGEST));
            recent.note(next.0, next.1, &bulk(LARGEST));
            let kept = Seen::Applied(Some(bulk(LARGEST)));
            assert_eq!(recent.seen(next.0), kept, "{}", next.0);
            assert_eq!(recent.len(), 1);
        }
    }
}
