//! The membership table: every node of the ring, what is believed of it, and this node's own part.
//!
//! The view is static, from the configuration; only standings change. This actor also keeps the
//! node's durable identity, and with it the question whether the node may vote:
//!
//! - A member that kept its store votes from its start.
//! - A new or emptied store asks **every** peer under which store it knew this node. If none knew
//!   another, the node is new and votes. Otherwise it has lost what it acknowledged: it learns, with
//!   the largest ceiling of all peers as its floor, and votes when sync says that it is level.
//! - A peer that is greeted remembers the stranger durably before it answers.
//!
//! Source: register.md, "Recovery".

use crate::{
    bridge::{BridgeHandle, PeerIdentity},
    coordinator::Forget,
    detector::StandingChanged,
    flow::Cause,
    messages::{AskStatus, AskTable, AskTraffic, Member, Phase, Standing, Status, Table, Traffic},
    node::Fatal,
    replica::{Part, Replica, Shared},
    router::{AskFigures, Enter, Figures, Restarted},
    settings::Settings,
    shards::{Shard, Shards},
    storage::{Identity, KnownPeer},
    sync::{StartPass, Sync},
};
use actix::{
    Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, MessageResult,
    ResponseFuture, WrapFuture,
};
use futures::future::{join_all, try_join_all};
use simpledynamo_protocol::{
    message::{self, Greet, Welcome},
    ring::NodeId,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

/// How often peers that have not welcomed this node are greeted again.
const GREET_EVERY: Duration = Duration::from_millis(100);
/// How often a waiting start is mentioned in the log, in greetings.
const MENTION_EVERY: u32 = 50;

/// Bridge → membership: a hello was completed.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Met(pub PeerIdentity);

/// Bridge → membership: a greeting or a welcome.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct FromPeer {
    /// Who sent it.
    pub from: NodeId,
    /// What.
    pub message: message::Message,
}

/// Sync → membership: how far the copying is.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Progress {
    /// All that was missed has been copied.
    pub level: bool,
    /// Records copied since the start.
    pub copied: u64,
}

/// To whom the membership table speaks.
pub struct Ways {
    /// The own routers.
    pub shards: Shards<Shard>,
    /// The own replica.
    pub replica: Addr<Replica>,
    /// Catch-up.
    pub sync: Addr<Sync>,
    /// The peers.
    pub bridge: BridgeHandle,
    /// What the writer has published.
    pub shared: Arc<Shared>,
}

/// The membership table of one node.
pub struct Membership {
    settings: Settings,
    identity: Arc<Mutex<Identity>>,
    ways: Ways,
    fatal: Fatal,
    phase: Phase,
    standings: BTreeMap<NodeId, Standing>,
    welcomes: BTreeMap<NodeId, Welcome>,
    met: BTreeMap<NodeId, PeerIdentity>,
    greetings: u32,
    /// All peers have answered.
    admitted: bool,
    progress: Progress,
}

impl Membership {
    /// The table from the configuration; the identity says which part this node may play.
    #[must_use]
    pub fn new(
        settings: Settings,
        identity: Arc<Mutex<Identity>>,
        ways: Ways,
        fatal: Fatal,
    ) -> Membership {
        let standing = |id| if id == settings.me { Standing::Me } else { Standing::Trusted };
        let standings = settings.ring.nodes().map(|id| (id, standing(id))).collect();
        Membership {
            settings,
            identity,
            ways,
            fatal,
            phase: Phase::Starting,
            standings,
            welcomes: BTreeMap::new(),
            met: BTreeMap::new(),
            greetings: 0,
            admitted: false,
            progress: Progress { level: false, copied: 0 },
        }
    }

    fn identity(&self) -> MutexGuard<'_, Identity> {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.let_in(phase);
        if phase != Phase::Starting {
            self.ways.sync.do_send(StartPass { learner: phase == Phase::Learning });
        }
    }

    /// Tells the routers what the node may do.
    fn let_in(&self, phase: Phase) {
        for shard in self.ways.shards.iter() {
            shard.router.do_send(Enter(phase));
        }
    }

    fn peers(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.settings.peers.iter().map(|peer| peer.id)
    }

    /// Greets the peers that have not answered yet.
    fn greet(&mut self, ctx: &mut Context<Self>) {
        if self.phase != Phase::Starting {
            return;
        }
        let store = self.identity().store();
        let silent: Vec<_> =
            self.peers().filter(|peer| !self.welcomes.contains_key(peer)).collect();
        if silent.is_empty() {
            return self.admit(ctx);
        }
        for peer in &silent {
            self.ways.bridge.send(*peer, &Greet { store }.into(), Cause::NONE);
        }
        self.greetings += 1;
        if self.greetings.is_multiple_of(MENTION_EVERY) {
            let silent: Vec<_> = silent.iter().map(ToString::to_string).collect();
            log::info!(
                "this store is new: waiting until all nodes have said whether they knew another \
                 one of this node; not yet heard: {}",
                silent.join(", ")
            );
        }
        ctx.run_later(GREET_EVERY, Membership::greet);
    }

    /// All peers have answered.
    fn admit(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.admitted, true) {
            return;
        }
        let (store, incarnation) = {
            let identity = self.identity();
            (identity.store(), identity.incarnation())
        };
        if let Some(welcome) = self.welcomes.values().find(|it| it.incarnation > incarnation) {
            return self.fatal.tell(&format!(
                "peers know a later start of this node ({} against {incarnation}): the clock of \
                 this machine was set back; set it right and start again",
                welcome.incarnation
            ));
        }
        let known_otherwise = self.welcomes.values().any(|welcome| welcome.known_store != store);
        let learning = known_otherwise || self.identity().learner().is_some();
        if learning {
            let started =
                self.identity().start_learning("its peers know another store of this node");
            if let Err(error) = started {
                return self.fatal.store(&error);
            }
            let ceiling = self.welcomes.values().map(|welcome| welcome.ceiling).max().unwrap_or(0);
            log::warn!("this node lost what it stored: it copies all from its peers, then votes");
            let again = self.identity().has_begun_learning();
            self.once_durable(Part::Learn { ceiling, again }, ctx, |membership| {
                let begun = membership.identity().begin_learning();
                if let Err(error) = begun {
                    membership.fatal.store(&error);
                }
            });
            self.enter(Phase::Learning);
            #[cfg(feature = "broken-rules")]
            if crate::harness::broken::is_broken(crate::harness::broken::Rule::LearnerSilent) {
                let me = self.ways.replica.clone();
                me.do_send(Part::Vote);
                self.phase = Phase::Serving;
                self.let_in(Phase::Serving);
            }
        } else {
            // Its first seats in its chains must be there before a later life counts on them.
            self.once_durable(Part::Vote, ctx, |membership| {
                let admitted = membership.identity().admit();
                if let Err(error) = admitted {
                    return membership.fatal.store(&error);
                }
                log::info!("this store is new and so is the node: it votes");
                membership.enter(Phase::Serving);
            });
        }
    }

    /// Changes the replica's part; does something when that is durable.
    fn once_durable(
        &self,
        part: Part,
        ctx: &mut Context<Self>,
        then: impl FnOnce(&mut Membership) + 'static,
    ) {
        let durable = self.ways.replica.send(part).into_actor(self);
        ctx.spawn(durable.map(move |done, membership, _| {
            // Err: this node is stopping.
            if done.is_ok() {
                then(membership);
            }
        }));
    }

    /// A peer starts with a store that may be new: says under which one it is known here.
    fn welcome(&mut self, from: NodeId, greet: &Greet) {
        let incarnation = self.met.get(&from).map_or(0, |met| met.incarnation);
        let known = self.identity().peers().get(&from).copied();
        let known = known.unwrap_or(KnownPeer { store: greet.store, incarnation });
        if let Err(error) = self.remember(from, known) {
            return self.fatal.store(&error);
        }
        let (store, known_store, incarnation) = (greet.store, known.store, known.incarnation);
        let (shards, sync) = (self.ways.shards.clone(), self.ways.sync.clone());
        let (shared, bridge) = (self.ways.shared.clone(), self.ways.bridge.clone());
        let replica = self.ways.replica.clone();
        // Before it is welcomed, nothing here may still count a vote of its former life: it is
        // about to learn from the others what was chosen with votes that it has forgotten.
        actix::spawn(async move {
            let routers = shards.iter().map(|shard| shard.router.send(Forget(from)));
            let forgotten = (
                try_join_all(routers).await.map(drop),
                sync.send(Forget(from)).await,
                replica.send(Forget(from)).await,
            );
            // Err: this node is stopping; another welcome would come too early.
            if let (Ok(()), Ok(()), Ok(())) = forgotten {
                let ceiling = shared.ceiling.load(Ordering::SeqCst);
                let welcome = Welcome { store, known_store, incarnation, ceiling };
                bridge.send(from, &welcome.into(), Cause::NONE);
            }
        });
    }

    /// Durable before anyone is told; nothing is written where nothing changes.
    fn remember(&self, peer: NodeId, known: KnownPeer) -> Result<(), crate::storage::StoreError> {
        let mut identity = self.identity();
        if identity.peers().get(&peer) == Some(&known) {
            return Ok(());
        }
        identity.remember(peer, known)
    }

    fn member(&self, id: NodeId) -> Member {
        let own = self.settings.listen;
        let peer = self.settings.peers.iter().find(|peer| peer.id == id);
        let position = self.settings.ring.position(id);
        Member {
            id,
            peer: peer.map_or(own, |peer| peer.address),
            position: position.map(|position| format!("{position:?}")).unwrap_or_default(),
            share: self.settings.ring.share(id),
            standing: self.standings.get(&id).copied().unwrap_or(Standing::Trusted),
        }
    }
}

impl Actor for Membership {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let kept = {
            let identity = self.identity();
            identity.is_member() && identity.learner().is_none()
        };
        if kept { self.enter(Phase::Serving) } else { self.greet(ctx) }
    }
}

impl Handler<Met> for Membership {
    type Result = ();

    fn handle(&mut self, Met(peer): Met, _: &mut Context<Self>) {
        let before = self.met.insert(peer.id, peer);
        if before.is_some_and(|before| before.incarnation != peer.incarnation) {
            for shard in self.ways.shards.iter() {
                shard.router.do_send(Restarted(peer.id));
            }
        }
        // The store stays the first one; of the lives the latest counts, and an older one that comes
        // back with an older data directory is refused from then on.
        let known = self.identity().peers().get(&peer.id).copied();
        let store = known.map_or(peer.store, |known| known.store);
        let incarnation = known.map_or(0, |known| known.incarnation).max(peer.incarnation);
        if let Err(error) = self.remember(peer.id, KnownPeer { store, incarnation }) {
            self.fatal.store(&error);
        }
    }
}

impl Handler<FromPeer> for Membership {
    type Result = ();

    fn handle(&mut self, FromPeer { from, message }: FromPeer, ctx: &mut Context<Self>) {
        match message {
            message::Message::Greet(greet) => self.welcome(from, &greet),
            message::Message::Welcome(welcome) => {
                if self.phase == Phase::Starting && welcome.store == self.identity().store() {
                    self.welcomes.insert(from, welcome);
                    if self.peers().all(|peer| self.welcomes.contains_key(&peer)) {
                        self.admit(ctx);
                    }
                }
            }
            other => log::debug!("from {from}: not for membership: {other}"),
        }
    }
}

impl Handler<StandingChanged> for Membership {
    type Result = ();

    fn handle(&mut self, changed: StandingChanged, _: &mut Context<Self>) {
        self.standings.insert(changed.node, changed.standing);
    }
}

impl Handler<Progress> for Membership {
    type Result = ();

    fn handle(&mut self, progress: Progress, ctx: &mut Context<Self>) {
        self.progress = progress;
        if progress.level && self.phase == Phase::Learning {
            // Behind all installs in the replica's queue. With chains it votes already.
            self.once_durable(Part::Vote, ctx, |membership| {
                if membership.phase != Phase::Learning {
                    return;
                }
                let ended = membership.identity().end_learning();
                if let Err(error) = ended {
                    return membership.fatal.store(&error);
                }
                log::info!("this node holds again what it had lost: it votes");
                membership.phase = Phase::Serving;
                membership.let_in(Phase::Serving);
            });
        }
    }
}

impl Handler<AskTable> for Membership {
    type Result = MessageResult<AskTable>;

    fn handle(&mut self, _: AskTable, _: &mut Context<Self>) -> Self::Result {
        let nodes = self.settings.ring.nodes().map(|id| self.member(id)).collect();
        MessageResult(Table { me: self.settings.me, nodes })
    }
}

impl Handler<AskStatus> for Membership {
    type Result = ResponseFuture<Status>;

    fn handle(&mut self, _: AskStatus, _: &mut Context<Self>) -> Self::Result {
        let (incarnation, store) = {
            let identity = self.identity();
            (identity.incarnation(), identity.store())
        };
        let shared = &self.ways.shared;
        let status = Status {
            phase: self.phase,
            incarnation,
            store,
            rows: shared.rows.load(Ordering::Relaxed),
            live: shared.live.load(Ordering::Relaxed),
            level: self.progress.level,
            copied: self.progress.copied,
            dropped: self.ways.bridge.counters().dropped(),
            commits: shared.commits.load(Ordering::Relaxed),
            committed: shared.committed.load(Ordering::Relaxed),
            ..Status::default()
        };
        let asked: Vec<_> =
            self.ways.shards.iter().map(|shard| shard.router.send(AskFigures)).collect();
        Box::pin(async move {
            let figures = join_all(asked).await.into_iter().flatten();
            let figures = figures.fold(Figures::default(), Figures::and);
            Status {
                in_flight: figures.in_flight,
                coordinators: figures.coordinators,
                operations: figures.operations,
                refused: figures.refused,
                unknown: figures.unknown,
                retries: figures.retries,
                hedges: figures.hedges,
                ..status
            }
        })
    }
}

impl Handler<AskTraffic> for Membership {
    type Result = MessageResult<AskTraffic>;

    fn handle(&mut self, _: AskTraffic, _: &mut Context<Self>) -> Self::Result {
        let Ways { bridge, shared, .. } = &self.ways;
        MessageResult(Traffic {
            counters: bridge.counters(),
            links: bridge.links(),
            frames_per_write: bridge.frames_per_write(),
            queued: shared.queued.load(Ordering::Relaxed) as u64,
            queued_bytes: shared.waiting.load(Ordering::Relaxed) as u64,
            disk_bytes: shared.disk_bytes.load(Ordering::Relaxed),
        })
    }
}
