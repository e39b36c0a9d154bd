//! Anti-entropy: an actor around [`CatchUp`] and [`Sweep`].
//!
//! A pass starts with the node, when a peer says that messages for this node were dropped, when this
//! node notices that it was stopped for a while, and every `PASS_EVERY`. Keys to repair are read
//! through the router like a client's, at most
//! [`REPAIRS_MAX`](simpledynamo_protocol::register::catchup::REPAIRS_MAX) at once.

use crate::{
    bridge::Outlet,
    clock::Clock,
    coordinator::Forget,
    flow::{Actor as Part, Cause, Event, Recorder},
    membership::{Membership, Progress},
    messages::{Completed, Execute, Verdict},
    metrics::Metrics,
    replica::{Install, Replica, ToReplica},
    shards::{Shard, Shards},
};
use actix::{Actor, Addr, AsyncContext, Context, Handler, Message};
use simpledynamo_protocol::{
    command::Command,
    message,
    record::Key,
    register::{
        catchup::{self, CatchUp},
        sweep::{self, Sweep},
    },
    ring::NodeId,
    time::Time,
};
use std::{sync::Arc, time::Duration};
use tokio::sync::oneshot;

/// A pass is made so often even when nothing seems to be missing.
const PASS_EVERY: Duration = Duration::from_secs(30);
/// How often time-outs are looked for.
const TICK: Duration = Duration::from_millis(50);
/// A tick later than this means that the process was stopped: messages may have been missed.
const STOPPED_FOR: Duration = Duration::from_secs(1);
/// How often the progress of a long pass is told.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// Bridge, own replica → sync: an answer, or the word that messages were missed.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct FromReplica {
    /// Who sent it.
    pub from: NodeId,
    /// What.
    pub message: message::Message,
}

/// Membership → sync: compare and copy.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct StartPass {
    /// The node does not vote until this is done.
    pub learner: bool,
}

/// A repair has ended.
#[derive(Message, Debug)]
#[rtype(result = "()")]
struct Repaired {
    key: Key,
    ok: bool,
}

/// To whom sync speaks.
pub struct Ways {
    /// The node.
    pub me: NodeId,
    /// Its clocks.
    pub clock: Clock,
    /// The own routers.
    pub shards: Shards<Shard>,
    /// The own replica.
    pub replica: Addr<Replica>,
    /// The membership table.
    pub membership: Addr<Membership>,
    /// The peers.
    pub bridge: Outlet,
    /// What the node counts.
    pub metrics: Arc<Metrics>,
    /// Takes down what is done.
    pub recorder: Recorder,
}

/// The anti-entropy of one node.
pub struct Sync {
    ways: Ways,
    catch_up: CatchUp,
    sweep: Option<Sweep>,
    /// Keys are kept by chains, which copy by themselves.
    chains: bool,
    /// Whether membership has let the node in.
    entered: bool,
    learner: bool,
    level: bool,
    copied: u64,
    last_tick: Time,
    last_pass: Time,
    last_told: Time,
    steps: Vec<catchup::Step>,
    #[cfg(feature = "broken-rules")]
    listings: crate::harness::broken::Listings,
}

impl Sync {
    /// Sync of one node; it rests until [`StartPass`].
    #[must_use]
    pub fn new(ways: Ways, catch_up: CatchUp, sweep: Option<Sweep>, chains: bool) -> Sync {
        let now = ways.clock.mono();
        Sync {
            ways,
            catch_up,
            sweep,
            chains,
            entered: false,
            learner: false,
            level: false,
            copied: 0,
            last_tick: now,
            last_pass: now,
            last_told: now,
            steps: Vec::new(),
            #[cfg(feature = "broken-rules")]
            listings: Default::default(),
        }
    }

    fn send(&self, to: NodeId, message: message::Message) {
        if to == self.ways.me {
            self.ways.replica.do_send(ToReplica { from: to, message, cause: Cause::NONE });
        } else {
            self.ways.bridge.send(to, &message, Cause::NONE);
        }
    }

    fn start_pass(&mut self) {
        if self.chains {
            return;
        }
        let now = self.ways.clock.mono();
        self.last_pass = now;
        self.ways.metrics.passes.increment();
        self.catch_up.start(now, &mut self.steps);
    }

    fn carry_out(&mut self, ctx: &mut Context<Self>) {
        for step in std::mem::take(&mut self.steps) {
            match step {
                catchup::Step::Send { to, message } => self.send(to, message),
                catchup::Step::Install { key, record } => {
                    self.copied += 1;
                    self.ways.replica.do_send(Install { key, record });
                }
                catchup::Step::Repair { key } => {
                    self.ways.metrics.repairs.increment();
                    self.execute(key, Command::Rewrite, Some(ctx.address()));
                }
                catchup::Step::Level { copied, repaired } => self.levelled(copied, repaired),
            }
        }
        let now = self.ways.clock.mono();
        if !self.level && self.copied > 0 && now.since(self.last_told) >= TELL_EVERY {
            self.last_told = now;
            log::info!("catching up: {} records copied so far", self.copied);
            self.tell();
        }
    }

    fn levelled(&mut self, copied: u64, repaired: u64) {
        if !self.level || copied > 0 || repaired > 0 {
            log::info!(
                "level with the other replicas: {copied} records copied, {repaired} repaired"
            );
        }
        let me = self.ways.me;
        self.ways.recorder.node_fact(Event::Level, me, |record| {
            record.from(NodeId(0), Part::Sync);
            record.bytes(copied);
        });
        self.level = true;
        self.learner = false;
        self.tell();
    }

    fn tell(&self) {
        let Sync { level, copied, .. } = *self;
        self.ways.membership.do_send(Progress { level, copied });
    }

    /// Has a key's coordinator do this; the end comes back as [`Repaired`] where it is wanted.
    fn execute(&self, key: Key, command: Command, back: Option<Addr<Sync>>) {
        let (reply, end) = oneshot::channel();
        let execute = Execute { key: key.clone(), command, keep: false, reply };
        self.ways.shards.of(&execute.key).router.do_send(execute);
        let Some(back) = back else { return };
        actix::spawn(async move {
            let ok = matches!(end.await, Ok(Completed { verdict: Verdict::Reply(_), .. }));
            back.do_send(Repaired { key, ok });
        });
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        let now = self.ways.clock.now();
        let gap = now.mono.since(self.last_tick);
        self.last_tick = now.mono;
        if !self.entered {
            return;
        }
        if gap > STOPPED_FOR && !self.chains {
            log::warn!("this process stood still for {} ms: comparing digests", gap.as_millis());
            self.start_pass();
        } else if !self.chains && now.mono.since(self.last_pass) >= PASS_EVERY {
            if self.learner {
                log::warn!(
                    "still copying what this node lost: both other replicas of each range must \
                     answer and vote; where all have lost something, see dynamo accept-loss"
                );
            }
            self.start_pass();
        }
        if self.catch_up.next_wake().is_some_and(|at| at <= now.mono) {
            self.catch_up.wake(now.mono, &mut self.steps);
        }
        self.carry_out(ctx);
        let mut steps = Vec::new();
        if let Some(sweep) = self.sweep.as_mut().filter(|_| !self.learner) {
            sweep.wake(now, &mut steps);
        }
        self.swept(steps);
    }

    fn swept(&self, steps: Vec<sweep::Step>) {
        for step in steps {
            match step {
                sweep::Step::Send { to, message } => self.send(to, message),
                // A read that finds the value expired writes the tombstone.
                sweep::Step::Expire { key } => self.execute(key, Command::Exists, None),
            }
        }
    }
}

impl Actor for Sync {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.run_interval(TICK, Sync::tick);
    }
}

impl Handler<StartPass> for Sync {
    type Result = ();

    fn handle(&mut self, start: StartPass, ctx: &mut Context<Self>) {
        self.entered = true;
        self.learner = start.learner && !self.chains;
        self.catch_up.set_learner(start.learner);
        self.start_pass();
        self.carry_out(ctx);
    }
}

impl Handler<FromReplica> for Sync {
    type Result = ();

    fn handle(&mut self, FromReplica { from, message }: FromReplica, ctx: &mut Context<Self>) {
        let now = self.ways.clock.now();
        match message {
            message::Message::Missed(_) if self.entered => self.start_pass(),
            message::Message::Listed(listed)
                if listed.ask.asker == crate::replica::askers::SWEEP =>
            {
                let mut steps = Vec::new();
                if let Some(sweep) = &mut self.sweep {
                    sweep.message(now, from, listed, &mut steps);
                }
                self.swept(steps);
            }
            #[cfg(feature = "broken-rules")]
            message::Message::Listed(listed) => {
                for (from, listed) in self.listings.incoming(self.ways.me, from, listed) {
                    self.catch_up.message(now.mono, from, listed.into(), &mut self.steps);
                }
            }
            message => self.catch_up.message(now.mono, from, message, &mut self.steps),
        }
        self.carry_out(ctx);
    }
}

impl Handler<Forget> for Sync {
    type Result = ();

    fn handle(&mut self, Forget(node): Forget, ctx: &mut Context<Self>) {
        self.catch_up.forget(self.ways.clock.mono(), node, &mut self.steps);
        self.carry_out(ctx);
    }
}

impl Handler<Repaired> for Sync {
    type Result = ();

    fn handle(&mut self, Repaired { key, ok }: Repaired, ctx: &mut Context<Self>) {
        self.catch_up.repaired(self.ways.clock.mono(), &key, ok, &mut self.steps);
        self.carry_out(ctx);
    }
}
