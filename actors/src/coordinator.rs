//! The coordinator of one key: an actor around [`Proposer`], alive while its key is in use.
//!
//! It keeps the key's requests in order. Its messages come from the router only; what it wants done
//! goes to the own replica, to peers through the bridge, and back to the router. It has no timer of
//! its own: it tells the router when to wake it, and asks again only for an earlier time, so a key
//! that serves thousands of requests a second costs a few wakes.

use crate::{
    bridge::Outlet,
    clock::Clock,
    flow::{Cause, Recorder},
    metrics::{Metrics, RoundWatch},
    replica::Front,
    router::{FromNode, Retired, Router, WakeAt},
};
use actix::{Actor, ActorContext, Addr, Context, Handler, Message};
use simpledynamo_protocol::{
    budget::Budget,
    effect::{Effect, Effects, Note},
    message,
    record::Key,
    register::proposer::{Known, Proposer},
    ring::NodeId,
    time::Time,
};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

mod story;

use story::Story;

/// Router → coordinator: a request, or a replica's answer.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Take {
    /// Who sent it.
    pub from: NodeId,
    /// What.
    pub message: message::Message,
    /// What flow records name as its cause.
    pub cause: Cause,
}

/// Router → coordinator, when the time it asked for has come.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Wake;

/// Router → coordinator: end, unless something is under way. Answered by [`Retired`].
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Retire;

/// Router → coordinator: this node has lost its store; what it said before is no vote any more.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Forget(pub NodeId);

/// To whom a coordinator speaks.
pub struct Ways {
    /// The node.
    pub me: NodeId,
    /// Its clocks.
    pub clock: Clock,
    /// The own router.
    pub router: Addr<Router>,
    /// The own replica.
    pub replica: Front,
    /// The peers.
    pub bridge: Outlet,
    /// What the node counts.
    pub metrics: Arc<Metrics>,
    /// Takes down what is done.
    pub recorder: Recorder,
    /// What changes.
    pub common: Common,
}

/// What the coordinators of one thread go by together.
pub struct Common {
    /// No peer is suspected.
    pub calm: Cell<bool>,
    /// What takes longer than the time-out is an exception. Where it is the rule, nothing is asked again:
    /// an overload must not be fed.
    pub prompt: Cell<bool>,
    /// Pays for what is asked again.
    pub repeats: RefCell<Budget>,
}

impl Default for Common {
    fn default() -> Common {
        Common { calm: Cell::new(true), prompt: Cell::new(true), repeats: RefCell::default() }
    }
}

/// The coordinator of one key.
pub struct Coordinator {
    key: Key,
    /// Shared by all keys: what is common to them stays in the caches, and takes no memory for each.
    ways: Rc<Ways>,
    proposer: Option<Proposer>,
    effects: Effects,
    /// The wake that the router has been asked for and has not yet given.
    asked: Option<Time>,
    watch: RoundWatch,
    story: Story,
    #[cfg(feature = "broken-rules")]
    tamper: crate::harness::broken::Tamper,
}

impl Coordinator {
    /// An actor for `key` around its state machine.
    #[must_use]
    pub fn new(key: Key, ways: Rc<Ways>, proposer: Proposer) -> Coordinator {
        let proposer = Some(proposer);
        let (effects, watch, story) = (Effects::new(), RoundWatch::default(), Story::default());
        Coordinator {
            key,
            ways,
            proposer,
            effects,
            asked: None,
            watch,
            story,
            #[cfg(feature = "broken-rules")]
            tamper: Default::default(),
        }
    }

    /// The same with what a control needs to begin anew.
    #[cfg(feature = "broken-rules")]
    #[must_use]
    pub(crate) fn tampered(
        mut self,
        config: simpledynamo_protocol::register::proposer::Config,
        ask: message::Ask,
    ) -> Coordinator {
        self.tamper.begin(self.key.clone(), config, ask);
        self
    }

    /// What the proposer is given, and gives: as they are, unless a rule is taken out.
    #[cfg(feature = "broken-rules")]
    fn step(&mut self, cause: Cause, step: impl FnOnce(&mut Proposer, &mut Effects)) {
        let Some(proposer) = &mut self.proposer else { return };
        self.tamper.step(proposer, self.ways.clock.now(), &mut self.effects, step);
        self.carry_out(cause);
    }

    #[cfg(not(feature = "broken-rules"))]
    fn step(&mut self, cause: Cause, step: impl FnOnce(&mut Proposer, &mut Effects)) {
        let Some(proposer) = &mut self.proposer else { return };
        step(proposer, &mut self.effects);
        self.carry_out(cause);
    }

    /// Does what the state machine wants; `cause` is what it was told.
    fn carry_out(&mut self, cause: Cause) {
        let Ways { me, router, replica, bridge, metrics, recorder, common, .. } = &*self.ways;
        let from = *me;
        let mut cause = Cause { keep: self.story.keeps(cause), ..cause };
        for effect in self.effects.drain(..) {
            self.watch.sent(*me, &effect, metrics);
            match effect {
                Effect::Send { to, message } => {
                    let origin = self.story.origin(cause, &message);
                    if to != from {
                        bridge.send(to, &message, origin);
                        continue;
                    }
                    if let answer @ message::Message::Answer(_) = message {
                        let cause = recorder.local(&answer, origin);
                        router.do_send(FromNode { from, message: answer, cause });
                    } else {
                        let cause = recorder.ask_own(&message, origin);
                        replica.take(from, message, cause);
                    }
                }
                Effect::Begin { key, above } => replica.begin(key, above, cause),
                // Only chains have listings wait.
                Effect::List { .. } => {}
                Effect::Note(note) => {
                    let id = recorder.record(|record| {
                        story::describe(record, note, from, &self.key, cause);
                    });
                    // What follows in the list is caused by what was decided; a request that joins
                    // a round changes nothing about the round.
                    match note {
                        Note::Serves { .. } => {}
                        Note::Round { .. } => {
                            common.repeats.borrow_mut().earn();
                            (cause.id, self.story.round) = (id, id);
                        }
                        Note::Quorum { .. }
                        | Note::WriteBack
                        | Note::GivenUp { .. }
                        | Note::BackOff { .. } => cause.id = id,
                    }
                }
                // Only an acceptor persists.
                Effect::Persist(_) => {}
            }
        }
        let next = self.proposer.as_ref().and_then(Proposer::next_wake);
        if let Some(at) = next.filter(|at| self.asked.is_none_or(|asked| *at < asked)) {
            self.asked = Some(at);
            router.do_send(WakeAt { key: self.key.clone(), at });
        }
    }
}

impl Actor for Coordinator {
    type Context = Context<Self>;
}

impl Handler<Take> for Coordinator {
    type Result = ();

    fn handle(&mut self, take: Take, _: &mut Context<Self>) {
        let receipt = self.ways.recorder.receipt(take.from, &take.message, take.cause);
        let Some(proposer) = &mut self.proposer else {
            return self.ways.recorder.taken_up(receipt);
        };
        proposer.be_thrifty(self.ways.common.calm.get());
        let now = self.ways.clock.now();
        self.watch.heard(&take.message);
        if self.ways.recorder.is_on() {
            self.story.asked(&take.message, take.cause);
        }
        #[cfg(feature = "broken-rules")]
        let takes = self.tamper.incoming(take.from, take.message);
        #[cfg(not(feature = "broken-rules"))]
        let takes = [(take.from, take.message)];
        for (from, message) in takes {
            self.step(take.cause, |proposer, out| proposer.message(now, from, message, out));
        }
        self.ways.recorder.taken_up(receipt);
    }
}

impl Handler<Wake> for Coordinator {
    type Result = ();

    fn handle(&mut self, _: Wake, _: &mut Context<Self>) {
        self.asked = None;
        let now = self.ways.clock.now();
        // What silence leads to is caused by the round that met it.
        let (id, at) = (self.story.round, self.ways.recorder.now());
        let cause = Cause { id, at, keep: false };
        let ways = self.ways.clone();
        let Common { prompt, repeats, .. } = &ways.common;
        let may_repeat = || prompt.get() && repeats.borrow_mut().spend();
        self.step(cause, |proposer, out| proposer.wake(now, may_repeat, out));
    }
}

impl Handler<Forget> for Coordinator {
    type Result = ();

    fn handle(&mut self, Forget(node): Forget, _: &mut Context<Self>) {
        if let Some(proposer) = &mut self.proposer {
            proposer.forget(node);
        }
    }
}

impl Handler<Retire> for Coordinator {
    type Result = ();

    fn handle(&mut self, _: Retire, ctx: &mut Context<Self>) {
        let idle = self.proposer.take_if(|proposer| proposer.is_idle());
        let known: Option<Known> = idle.map(Proposer::into_known);
        if known.is_some() {
            ctx.stop();
        }
        self.ways.router.do_send(Retired { key: self.key.clone(), known });
    }
}
