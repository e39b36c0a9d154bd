//! The request router, one a shard: the only door between clients, coordinators and peers.
//!
//! It names every client operation, answers reads itself where it can, else picks a coordinator and, on
//! silence, the next one ([`Routing`] decides; this actor executes). It starts a coordinator actor for each key that is
//! coordinated here, keeps a bounded number of them alive, and remembers in a small cache what the
//! ended ones knew. One interval drives all time-outs: those of the operations and, through a queue
//! ordered by deadline, those of the coordinators.

use crate::{
    coordinator::{Coordinator, Forget, Take, Wake, Ways},
    detector::{Detector, Heard, StandingChanged, TimedOut},
    flow::Cause,
    known::KnownCache,
    messages::{Completed, Execute, Phase, Standing, Verdict},
    metrics::CommandKind,
    settings::{Replication, Settings},
    shards::{Pace, Pulse, Share},
};
use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, ResponseFuture};
use due::PopFirstIf;
use simpledynamo_protocol::{
    ballot::Stamp,
    message::{self, Reason, Request},
    recent::OpId,
    record::Key,
    ring::NodeId,
    routing::{self, Routing, Step},
    time::{Now, Time},
};
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::sync::oneshot;

mod apart;
mod coordinators;
mod due;
mod figures;
mod reads;
mod retire;
mod story;

use story::Agreement;

pub use apart::Part;
pub use figures::{AskFigures, Figures};

/// How often time-outs are looked for. A retry is late by half of it on average.
const TICK: Duration = Duration::from_millis(5);

/// A tick later than this means that this process was stopped, or starved: mailboxes are drained
/// before timers run, so a flood of messages does it too.
const STOOD_STILL: Duration = Duration::from_millis(25);

/// The first asker number of coordinators; smaller ones name the node's other askers.
const FIRST_COORDINATOR: u64 = 16;

/// Bridge, coordinators and the own replica → router: a message for the router or a coordinator.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct FromNode {
    /// Who sent it.
    pub from: NodeId,
    /// What.
    pub message: message::Message,
    /// What flow records name as its cause.
    pub cause: Cause,
}

/// Coordinator → router: wake me then.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct WakeAt {
    /// Which coordinator.
    pub key: Key,
    /// When.
    pub at: Time,
}

/// Coordinator → router, after [`Retire`](crate::coordinator::Retire).
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Retired {
    /// Which coordinator.
    pub key: Key,
    /// What it knew; none where it is busy and goes on.
    pub known: Option<simpledynamo_protocol::register::proposer::Known>,
}

/// Node → router, at the start and when it changes: what the node may do.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Enter(pub Phase);

/// Membership → router: this peer was started anew, what its former life was asked is lost.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Restarted(pub NodeId);

/// A client that waits.
struct Client {
    reply: oneshot::Sender<Completed>,
    key: Key,
    command: CommandKind,
    since: Time,
    /// The record of its command.
    cause: Cause,
    retried: bool,
}

enum Entry {
    /// Takes messages. `used` since it was last looked at for retirement.
    Alive { addr: Addr<Coordinator>, used: bool },
    /// Was asked to end; messages wait for its word.
    Retiring { addr: Addr<Coordinator>, held: Vec<Take> },
}

/// The request router of one shard of a node.
pub struct Router {
    me: NodeId,
    settings: Settings,
    phase: Phase,
    routing: Routing,
    steps: Vec<Step>,
    /// What the own replica has answered to reads of this router.
    own: Vec<(message::Message, Cause)>,
    clients: HashMap<u64, Client>,
    /// When the last decision was asked for.
    decided: Time,
    suspected: BTreeSet<NodeId>,
    ways: Rc<Ways>,
    detector: Addr<Detector>,
    coordinators: HashMap<Key, Entry>,
    retire_order: VecDeque<Key>,
    wakes: BTreeSet<(Time, Key)>,
    known: KnownCache,
    incarnation: u64,
    share: Share,
    pulse: Option<Arc<Pulse>>,
    pace: Pace,
    next_asker: u64,
    last_tick: Time,
    /// The present pass over the coordinators: how many there were at its begin, and since when it is
    /// under way.
    pass: (usize, Duration),
    figures: Figures,
    #[cfg(feature = "broken-rules")]
    tamper: crate::harness::broken::Tamper,
}

impl Router {
    /// The router of this life of the node, or of a share of its keys: then it bears its share of
    /// what the node may have in flight, too.
    #[must_use]
    pub fn new(
        mut settings: Settings,
        incarnation: u64,
        Part { share, pulse }: Part,
        ways: Ways,
        detector: Addr<Detector>,
    ) -> Router {
        let config = routing::Config {
            request_timeout: settings.request_timeout,
            deadline: settings.deadline,
            hedge: settings.hedge_after,
            lifetime: settings.tombstone_grace / 2,
            reads: match settings.replication {
                Replication::Quorum => Some(settings.write_quorum),
                Replication::Chain => None,
            },
            chains: settings.replication == Replication::Chain,
        };
        let routing = Routing::new(settings.me, incarnation, settings.ring.clone(), config)
            .one_of(share.of as u64, share.index as u64);
        let limits = &mut settings.limits;
        limits.requests = limits.requests.div_ceil(share.of);
        limits.coordinators = limits.coordinators.div_ceil(share.of);
        Router {
            me: settings.me,
            phase: Phase::Starting,
            routing,
            steps: Vec::new(),
            own: Vec::new(),
            clients: HashMap::new(),
            decided: Time::default(),
            suspected: BTreeSet::new(),
            ways: Rc::new(ways),
            detector,
            coordinators: HashMap::new(),
            retire_order: VecDeque::new(),
            wakes: BTreeSet::new(),
            known: KnownCache::one_of(share.of),
            incarnation,
            share,
            pace: Pace::of(pulse.is_some()),
            pulse,
            next_asker: FIRST_COORDINATOR + share.index as u64,
            last_tick: Time::default(),
            pass: (0, Duration::ZERO),
            figures: Figures::default(),
            #[cfg(feature = "broken-rules")]
            tamper: Default::default(),
            settings,
        }
    }

    /// Asks [`Routing`] for a decision, with what is believed of the nodes. To be followed by
    /// [`Router::carry_out`].
    fn decide<R>(
        &mut self,
        decision: impl FnOnce(&mut Routing, Now, &dyn Fn(NodeId) -> bool, &mut Vec<Step>) -> R,
    ) -> R {
        let now = self.ways.clock.now();
        self.decided = now.mono;
        let (me, voting, suspected) = (self.me, self.phase == Phase::Serving, &self.suspected);
        // A node that does not vote cannot coordinate: it is its own last choice.
        let doubtful = |node: NodeId| suspected.contains(&node) || node == me && !voting;
        decision(&mut self.routing, now, &doubtful, &mut self.steps)
    }

    /// Does what was decided; `cause` is what the router was told.
    fn carry_out(&mut self, cause: Cause, ctx: &mut Context<Self>) {
        self.carry_out_steps(cause, ctx);
        self.take_own(ctx);
    }

    /// The same without what the own replica answers meanwhile.
    fn carry_out_steps(&mut self, cause: Cause, ctx: &mut Context<Self>) {
        // A step may finish an operation but never starts another, so the list only gets shorter.
        let mut steps = std::mem::take(&mut self.steps);
        // The time-out that a further attempt follows.
        let mut silent: Option<(OpId, Cause)> = None;
        // What the end of a read follows from, and why one is left to a coordinator.
        let mut agreed: Option<(OpId, Agreement)> = None;
        let mut left: Option<(OpId, &'static str)> = None;
        for step in steps.drain(..) {
            match step {
                Step::Ask { to, request } => {
                    let silence = silent.filter(|(op, _)| *op == request.op);
                    let cause = silence.map_or(cause, |(_, silence)| silence);
                    let why = left.filter(|(op, _)| *op == request.op).map(|(_, why)| why);
                    self.ask(to, request, why, cause, ctx);
                }
                Step::Query { to, op, query, first } => {
                    self.ways.metrics.read_round(first);
                    self.query(to, op, query, cause);
                }
                Step::Agreed { op, stamp } => {
                    agreed = Some((op, self.note_agreement(op, stamp, cause)));
                }
                Step::Leave { op, why } => left = Some((op, why)),
                Step::Finish { op, verdict } => {
                    let agreement = agreed.filter(|(of, _)| *of == op).map(|(_, it)| it);
                    let cause = agreement.map_or(cause, |agreement| agreement.cause);
                    let silence = silent.filter(|(of, _)| *of == op);
                    let cause = silence.map_or(cause, |(_, silence)| silence);
                    self.finish(op, verdict, cause, agreement.and_then(|it| it.untold));
                }
                Step::TimedOut { op, node, by, sent } => {
                    let silence = self.note_silence(op, node, by, sent);
                    silent = Some((op, silence));
                    if node != self.me {
                        let (heard, cause) = (self.routing.last_heard(node), silence.id);
                        self.detector.do_send(TimedOut { node, sent, heard, op, cause });
                    }
                }
            }
        }
        // Back with its capacity: one allocation less an operation.
        self.steps = steps;
    }

    /// Asks a coordinator; `left`: why a read is left to it.
    fn ask(
        &mut self,
        to: NodeId,
        request: Request,
        left: Option<&'static str>,
        cause: Cause,
        ctx: &mut Context<Self>,
    ) {
        if request.attempt > 1 {
            self.figures.retries += 1;
            log::debug!("{} key={} is tried again, at {to}", request.op, request.key);
        }
        let cause = self.note_choice(to, &request, left, cause);
        if to == self.me {
            let message = request.into();
            let cause = self.ways.recorder.local(&message, cause.into());
            if let message::Message::Request(request) = message {
                self.coordinate(self.me, request, cause, ctx);
            }
        } else {
            self.ways.bridge.send(to, &request.into(), cause);
        }
    }

    /// An operation has ended; `agreed`: on what, where no record of that was taken down.
    fn finish(&mut self, op: OpId, verdict: routing::Verdict, cause: Cause, agreed: Option<Stamp>) {
        self.figures.operations += 1;
        let client = self.clients.remove(&op.seq);
        if let Some(client) = &client {
            let took = self.decided.since(client.since);
            self.ways.metrics.ended(client.command, &verdict, took);
            self.note_end(op, &verdict, client, cause, agreed);
        }
        let verdict = match verdict {
            routing::Verdict::Reply(reply) => Verdict::Reply(reply),
            routing::Verdict::NotApplied(reason) => {
                self.figures.refused += 1;
                Verdict::NotApplied(reason)
            }
            routing::Verdict::Unknown => {
                self.figures.unknown += 1;
                Verdict::Unknown
            }
        };
        if let Some(client) = client {
            // A client that is gone does not need to know.
            let _ = client.reply.send(Completed { op, verdict });
        }
    }

    /// What a coordinator at another node answers.
    fn answered(
        &mut self,
        from: NodeId,
        message: message::Message,
        cause: Cause,
        ctx: &mut Context<Self>,
    ) {
        let receipt = self.ways.recorder.receipt(from, &message, cause);
        if let message::Message::Answer(answer) = message {
            self.decide(|routing, now, doubtful, out| {
                routing.answer(now.mono, from, answer, doubtful, out);
            });
            self.carry_out(cause, ctx);
        }
        self.ways.recorder.taken_up(receipt);
    }

    /// An answer of `from`.
    fn note_life(&mut self, from: NodeId) {
        if from == self.me {
            return;
        }
        let now = self.ways.clock.mono();
        self.routing.heard(now, from);
        self.tell_others(now, from);
        if self.suspected.contains(&from) {
            self.detector.do_send(Heard { node: from });
        }
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        self.ways.recorder.rest();
        self.ways.recorder.turn();
        let now = self.ways.clock.mono();
        if !self.hears(now) {
            return;
        }
        let gap = now.since(self.last_tick);
        self.last_tick = now;
        if gap > STOOD_STILL {
            let span = gap.saturating_sub(TICK);
            self.routing.stood_still(span);
        }
        self.retire_idle(gap.min(STOOD_STILL));
        self.ways.common.prompt.set(self.routing.is_prompt());
        while let Some((_, key)) = self.wakes.pop_first_if(|(at, _)| *at <= now) {
            match self.coordinators.get(&key) {
                Some(Entry::Alive { addr, .. } | Entry::Retiring { addr, .. }) => {
                    addr.do_send(Wake)
                }
                None => {}
            }
        }
        if self.routing.next_wake().is_some_and(|at| at <= now) {
            self.decide(|routing, now, doubtful, out| routing.wake(now.mono, doubtful, out));
            self.carry_out(Cause::NONE, ctx);
        }
    }
}

impl Actor for Router {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.run_interval(TICK, Router::tick);
    }
}

impl Handler<Enter> for Router {
    type Result = ();

    fn handle(&mut self, Enter(phase): Enter, _: &mut Context<Self>) {
        self.phase = phase;
    }
}

impl Handler<Execute> for Router {
    type Result = ();

    fn handle(&mut self, execute: Execute, ctx: &mut Context<Self>) {
        let Execute { key, command, keep, reply } = execute;
        self.pace.keep(ctx);
        let full = self.routing.in_flight() >= self.settings.limits.requests;
        if full || self.phase == Phase::Starting {
            let reason = if full { Reason::Overloaded } else { Reason::Learning };
            let op = OpId { router: self.me, incarnation: self.incarnation, seq: 0 };
            self.figures.refused += 1;
            self.ways.metrics.turned_away(CommandKind::from(&command));
            let _ = reply.send(Completed { op, verdict: Verdict::NotApplied(reason) });
            return;
        }
        let (kind, name, of) = (CommandKind::from(&command), command.name(), key.clone());
        let op = self
            .decide(|routing, now, doubtful, out| routing.submit(now, of, command, doubtful, out));
        self.ways.recorder.turn_at(self.decided);
        let cause = self.note_command(op, name, &key, keep);
        let since = self.decided;
        let client = Client { reply, key, command: kind, since, cause, retried: false };
        self.clients.insert(op.seq, client);
        self.carry_out(cause, ctx);
    }
}

impl Handler<FromNode> for Router {
    type Result = ();

    fn handle(&mut self, told: FromNode, ctx: &mut Context<Self>) {
        let FromNode { from, message, cause } = told;
        self.ways.recorder.turn_apart();
        self.pace.keep(ctx);
        if let message::Message::Request(request) = message {
            return self.coordinate(from, request, cause, ctx);
        }
        if let message::Message::Announce(announce) = message {
            // Said without being asked: it proves no life.
            return self.routing.announced(announce.range, &announce.config);
        }
        self.note_life(from);
        if routing::answers_router(&message) {
            return self.told(from, message, cause, ctx);
        }
        let key = match message {
            message::Message::Answer(_) => return self.answered(from, message, cause, ctx),
            message::Message::Promise(ref promise) => promise.key.clone(),
            message::Message::Accepted(ref accepted) => accepted.key.clone(),
            message::Message::Refused(ref refused) => refused.key.clone(),
            message::Message::State(ref state) => state.key.clone(),
            message::Message::NoVote(ref no_vote) => no_vote.key.clone(),
            other => {
                log::debug!("from {from}: not for a router: {other}");
                return;
            }
        };
        self.hand_over(&key, Take { from, message, cause }, false);
    }
}

impl Handler<StandingChanged> for Router {
    type Result = ();

    fn handle(&mut self, changed: StandingChanged, _: &mut Context<Self>) {
        match changed.standing {
            Standing::Suspected => self.suspected.insert(changed.node),
            Standing::Trusted | Standing::Me => self.suspected.remove(&changed.node),
        };
        self.ways.common.calm.set(self.suspected.is_empty());
    }
}

impl Handler<Restarted> for Router {
    type Result = ();

    fn handle(&mut self, Restarted(node): Restarted, ctx: &mut Context<Self>) {
        self.routing.restarted(self.ways.clock.mono(), node);
        self.decide(|routing, now, doubtful, out| routing.wake(now.mono, doubtful, out));
        self.carry_out(Cause::NONE, ctx);
    }
}

impl Handler<Forget> for Router {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, forget: Forget, _: &mut Context<Self>) -> Self::Result {
        self.routing.forget(self.ways.clock.mono(), forget.0);
        let mut told = Vec::new();
        for entry in self.coordinators.values_mut() {
            let (Entry::Alive { addr, .. } | Entry::Retiring { addr, .. }) = entry;
            told.push(addr.send(forget));
            if let Entry::Retiring { held, .. } = entry {
                held.retain(|take| {
                    let stays = take.from != forget.0;
                    if !stays {
                        self.ways.recorder.put_aside(take.from, &take.message, take.cause);
                    }
                    stays
                });
            }
        }
        Box::pin(async move {
            // Err: that coordinator has ended, and its rounds with it.
            let _ = futures::future::join_all(told).await;
        })
    }
}

impl Handler<WakeAt> for Router {
    type Result = ();

    fn handle(&mut self, wake: WakeAt, _: &mut Context<Self>) {
        self.wakes.insert((wake.at, wake.key));
    }
}
