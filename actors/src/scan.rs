//! Scans: the keys of the whole ring, a page at a time, each range by a quorum, or by its chain's tail.
//!
//! Any read quorum of a range's replicas holds every acknowledged write, so the union of their
//! listings misses no live key. Where two disagree on a key, the key is read through its coordinator.
//! Of a chain's members the tail alone answers, once its epoch was confirmed, as it does reads.
//! Per key, not a snapshot: a key written or deleted while a scan runs may be in it or not.
//!
//! Caveat: pages are cut at the leading 64 bits of positions. A key whose prefix is that of a node's
//! position (one in 2⁶¹ for five nodes) and that belongs to the range after it is not listed.

use crate::{
    bridge::Outlet,
    clock::Clock,
    flow::Cause,
    messages::{Completed, CountKeys, Execute, Page, ScanPage, Verdict},
    replica::{Replica, ToReplica},
    shards::{Shard, Shards},
};
use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, ResponseFuture};
use futures::{StreamExt, TryStreamExt, stream};
use simpledynamo_protocol::{
    ballot::Stamp,
    command::{Command, Reply},
    message::{self, Ask, AskDigests, AskList, Digests, Listed, Reason, Row},
    record::Key,
    ring::{NodeId, Position, RangeId, Ring},
    time::{Time, WallMillis},
};
use std::{collections::BTreeMap, time::Duration};
use tokio::sync::oneshot;

/// How often it is looked which questions are over, and which to ask again.
const TICK: Duration = Duration::from_millis(100);

/// Silence after which replicas are asked again: a frame may be lost, and a chain may have changed.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Keys on which replicas disagree that are read at once.
const DOUBTFUL_AT_ONCE: usize = 64;

/// Bridge, own replica → scan: an answer.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct FromReplica {
    /// Who sent it.
    pub from: NodeId,
    /// What.
    pub message: message::Message,
}

/// To whom scans speak.
pub struct Ways {
    /// The node.
    pub me: NodeId,
    /// Its clocks.
    pub clock: Clock,
    /// The own routers.
    pub shards: Shards<Shard>,
    /// The own replica.
    pub replica: Addr<Replica>,
    /// The peers.
    pub bridge: Outlet,
}

/// What a scan goes by.
pub struct Config {
    /// The ring.
    pub ring: Ring,
    /// Listings that make a page.
    pub read_quorum: usize,
    /// When a page is given up.
    pub deadline: Duration,
}

struct Question {
    ends: Time,
    /// When to ask again.
    again: Time,
    range: RangeId,
    message: message::Message,
    answers: BTreeMap<NodeId, message::Message>,
    back: oneshot::Sender<Vec<message::Message>>,
}

/// The scans of one node.
pub struct Scan {
    ways: Ways,
    config: Config,
    ask: Ask,
    questions: BTreeMap<Ask, Question>,
}

impl Scan {
    /// `ask` names the questions.
    #[must_use]
    pub fn new(ways: Ways, config: Config, ask: Ask) -> Scan {
        Scan { ways, config, ask, questions: BTreeMap::new() }
    }

    /// Asks all replicas of a range; the answers of a read quorum come back, or nothing.
    fn question(
        &mut self,
        range: RangeId,
        message: impl Fn(Ask) -> message::Message,
    ) -> oneshot::Receiver<Vec<message::Message>> {
        self.ask.n += 1;
        let ask = self.ask;
        let (back, answers) = oneshot::channel();
        let (now, message) = (self.ways.clock.mono(), message(ask));
        let (ends, again) = (now + self.config.deadline, now + ASK_AGAIN);
        let question = Question { ends, again, range, message, answers: BTreeMap::new(), back };
        self.send(&question);
        self.questions.insert(ask, question);
        answers
    }

    /// Asks those replicas that have not answered.
    fn send(&self, question: &Question) {
        let silent = |node: &NodeId| !question.answers.contains_key(node);
        for to in self.config.ring.preference_list(question.range).into_iter().filter(silent) {
            let cause = Cause::NONE;
            if to == self.ways.me {
                let message = question.message.clone();
                self.ways.replica.do_send(ToReplica { from: to, message, cause });
            } else {
                self.ways.bridge.send(to, &question.message, cause);
            }
        }
    }

    /// Questions that nobody waits for any more are dropped, the others asked again.
    fn tick(&mut self) {
        let now = self.ways.clock.mono();
        self.questions.retain(|_, question| question.ends > now && !question.back.is_closed());
        for question in self.questions.values().filter(|question| question.again <= now) {
            self.send(question);
        }
        for question in self.questions.values_mut().filter(|question| question.again <= now) {
            question.again = now + ASK_AGAIN;
        }
    }

    /// The ranges as intervals of prefixes, in order, the whole ring covered once.
    fn segments(&self) -> Vec<(u64, u64, RangeId)> {
        let ring = &self.config.ring;
        let mut ends: Vec<_> = ring
            .nodes()
            .filter_map(|id| ring.position(id))
            .map(|position| (position.prefix(), ring.range_at(position)))
            .collect();
        ends.push((u64::MAX, RangeId(0)));
        let mut from = 0;
        let mut segments = Vec::new();
        for (to, range) in ends {
            segments.push((from, to, range));
            from = to.saturating_add(1);
        }
        segments
    }
}

impl Actor for Scan {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.run_interval(TICK, |scan, _| scan.tick());
    }
}

impl Handler<FromReplica> for Scan {
    type Result = ();

    fn handle(&mut self, FromReplica { from, message }: FromReplica, _: &mut Context<Self>) {
        let (ask, votes) = match &message {
            message::Message::Listed(Listed { ask, votes, .. })
            | message::Message::Digests(Digests { ask, votes, .. }) => (*ask, *votes),
            other => return log::debug!("from {from}: not for a scan: {other}"),
        };
        let Some(question) = self.questions.get_mut(&ask).filter(|_| votes) else { return };
        question.answers.insert(from, message);
        if question.answers.len() < self.config.read_quorum {
            return;
        }
        if let Some(question) = self.questions.remove(&ask) {
            // Whoever asked may be gone.
            let _ = question.back.send(question.answers.into_values().collect());
        }
    }
}

impl Handler<ScanPage> for Scan {
    type Result = ResponseFuture<Result<Page, Reason>>;

    fn handle(&mut self, page: ScanPage, _: &mut Context<Self>) -> Self::Result {
        let segment = self.segments().into_iter().find(|(_, to, _)| *to >= page.from);
        let Some((from, to, range)) = segment else {
            return Box::pin(async { Ok(Page::default()) });
        };
        let (from, rows) = (page.from.max(from), page.rows);
        let answers = self.question(range, |ask| AskList { ask, range, from, to, rows }.into());
        let (shards, wall) = (self.ways.shards.clone(), self.ways.clock.now().wall);
        Box::pin(async move {
            let answers = answers.await.map_err(|_| Reason::NoQuorum)?;
            let listings = answers.into_iter().filter_map(|answer| match answer {
                message::Message::Listed(listed) => Some(listed),
                _ => None,
            });
            let merged = Merged::of(listings.collect(), wall);
            let mut keys = merged.live;
            let mut doubtful = stream::iter(merged.doubtful)
                .map(|key| exists(&shards, key))
                .buffer_unordered(DOUBTFUL_AT_ONCE);
            while let Some(key) = doubtful.try_next().await? {
                keys.extend(key);
            }
            keys.sort_by_cached_key(|key| Position::of(key));
            let next = merged.next.or_else(|| to.checked_add(1));
            Ok(Page { keys, next })
        })
    }
}

impl Handler<CountKeys> for Scan {
    type Result = ResponseFuture<Result<u64, Reason>>;

    fn handle(&mut self, _: CountKeys, _: &mut Context<Self>) -> Self::Result {
        let questions: Vec<_> = self
            .config
            .ring
            .ranges()
            .map(|range| self.question(range, |ask| AskDigests { ask, range }.into()))
            .collect();
        Box::pin(async move {
            let mut count = 0;
            for question in questions {
                let answers = question.await.map_err(|_| Reason::NoQuorum)?;
                // A replica that is behind may miss writes or deletes; the larger count is taken.
                let live = answers.iter().filter_map(|answer| match answer {
                    message::Message::Digests(digests) => Some(digests.live),
                    _ => None,
                });
                count += live.max().unwrap_or(0);
            }
            Ok(count)
        })
    }
}

/// The key, if it lives, by its coordinator.
async fn exists(shards: &Shards<Shard>, key: Key) -> Result<Option<Key>, Reason> {
    let (reply, end) = oneshot::channel();
    let execute = Execute { key: key.clone(), command: Command::Exists, keep: false, reply };
    shards.of(&key).router.do_send(execute);
    match end.await {
        Ok(Completed { verdict: Verdict::Reply(reply), .. }) => {
            Ok((reply == Reply::Int(1)).then_some(key))
        }
        Ok(Completed { verdict: Verdict::NotApplied(reason), .. }) => Err(reason),
        Ok(Completed { verdict: Verdict::Unknown, .. }) | Err(_) => Err(Reason::NoQuorum),
    }
}

/// Several replicas' listings of one interval, as one.
struct Merged {
    /// All agree that these live.
    live: Vec<Key>,
    /// They disagree on these.
    doubtful: Vec<Key>,
    /// Where the shortest listing ends.
    next: Option<u64>,
}

impl Merged {
    fn of(listings: Vec<Listed>, wall: WallMillis) -> Merged {
        let next = listings.iter().filter_map(|listed| listed.next).min();
        let replicas = listings.len();
        let mut seen: BTreeMap<Key, Vec<(Stamp, bool)>> = BTreeMap::new();
        for row in listings.into_iter().flat_map(|listed| listed.rows) {
            if next.is_none_or(|next| Position::of(&row.key).prefix() < next) {
                let lives = lives(&row, wall);
                seen.entry(row.key).or_default().push((row.stamp, lives));
            }
        }
        let (mut live, mut doubtful) = (Vec::new(), Vec::new());
        for (key, held) in seen {
            let agreed =
                held.len() == replicas && held.windows(2).all(|two| two.first() == two.last());
            match held.first() {
                Some((_, true)) if agreed => live.push(key),
                _ if agreed || held.iter().all(|(_, lives)| !lives) => {}
                _ => doubtful.push(key),
            }
        }
        Merged { live, doubtful, next }
    }
}

fn lives(row: &Row, wall: WallMillis) -> bool {
    row.deleted_at.is_none() && row.expires_at.is_none_or(|at| at > wall)
}
