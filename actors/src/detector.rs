//! The failure detector: time-outs of requests make a node suspected, any answer clears it.
//!
//! An actor around [`Suspicion`]. The router reports time-outs and, for suspected nodes, signs of
//! life; this actor probes the suspected ones and tells the router and the membership table what
//! changes. Connection events play no part. A node that comes back is told that it missed messages,
//! so that it compares digests at once: one that was merely paused could not know.

use crate::{
    bridge::Outlet,
    clock::Clock,
    flow::{Actor as Part, Cause, Event, Name, Recorder},
    membership::Membership,
    messages::Standing,
    metrics::Metrics,
    shards::{Shard, Shards},
};
use actix::{Actor, Addr, AsyncContext, Context, Handler, Message};
use simpledynamo_protocol::{
    message::{Alive, Ask, Missed, Probe},
    recent::OpId,
    ring::NodeId,
    suspicion::{Change, Suspicion},
    time::Time,
};
use std::{sync::Arc, time::Duration};

/// How often due probes are looked for; probes themselves go out every
/// [`PROBE_EVERY`](simpledynamo_protocol::suspicion::PROBE_EVERY).
const TICK: Duration = Duration::from_millis(25);

/// Router → detector: a request was not answered in time.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct TimedOut {
    /// By this node.
    pub node: NodeId,
    /// Sent then.
    pub sent: Time,
    /// When the router last heard anything of the node.
    pub heard: Option<Time>,
    /// The operation that waited.
    pub op: OpId,
    /// What flow records name as its cause.
    pub cause: Name,
}

/// Router, bridge → detector: something came from a suspected node.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Heard {
    /// From this one.
    pub node: NodeId,
}

/// Bridge → detector: a peer asks whether this node is there. Probed at once: the detector waits
/// for nothing, least of all for the disk.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Probed {
    /// Who asks.
    pub node: NodeId,
    /// Its question.
    pub probe: Probe,
    /// What flow records name as its cause.
    pub cause: Cause,
}

/// Detector → router, membership: what is believed of a node has changed.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct StandingChanged {
    /// Of this one.
    pub node: NodeId,
    /// To this.
    pub standing: Standing,
}

/// To whom the detector speaks.
pub struct Ways {
    /// The node's clocks.
    pub clock: Clock,
    /// The peers.
    pub bridge: Outlet,
    /// The own routers.
    pub shards: Shards<Shard>,
    /// The membership table.
    pub membership: Addr<Membership>,
    /// What the node counts.
    pub metrics: Arc<Metrics>,
    /// Takes down what is done.
    pub recorder: Recorder,
}

/// The failure detector of one node.
pub struct Detector {
    ways: Ways,
    suspicion: Suspicion,
    ask: Ask,
}

impl Detector {
    /// A detector that trusts all `peers`. `ask` names its probes.
    #[must_use]
    pub fn new(peers: impl IntoIterator<Item = NodeId>, ways: Ways, ask: Ask) -> Detector {
        Detector { ways, suspicion: Suspicion::new(peers), ask }
    }

    /// Tells of a change; `because` of an operation that found nobody.
    fn publish(&self, change: Change, because: Option<(OpId, Name)>) {
        let (node, standing) = match change {
            Change::Suspected(node) => {
                self.ways.metrics.suspicions.increment();
                let op = because.map_or_else(String::new, |(op, _)| format!(" ({op})"));
                log::warn!("node {node} does not answer: its keys go to their next replica{op}");
                self.ways.recorder.node_fact(Event::Suspect, node, |record| {
                    record.from(NodeId(0), Part::Detector);
                    if let Some((op, cause)) = because {
                        record.request(op, 0);
                        record.cause(cause);
                    }
                });
                (node, Standing::Suspected)
            }
            Change::Trusted(node, after) => {
                log::info!("node {node} answers again after {} ms", after.as_millis());
                self.ways.recorder.node_fact(Event::Trust, node, |record| {
                    record.from(NodeId(0), Part::Detector);
                    record.handling(u64::try_from(after.as_micros()).unwrap_or(u64::MAX));
                });
                self.ways.bridge.send(node, &Missed {}.into(), Cause::NONE);
                (node, Standing::Trusted)
            }
        };
        for shard in self.ways.shards.iter() {
            shard.router.do_send(StandingChanged { node, standing });
        }
        self.ways.membership.do_send(StandingChanged { node, standing });
    }
}

impl Actor for Detector {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.run_interval(TICK, |detector, _| {
            for node in detector.suspicion.due(detector.ways.clock.mono()) {
                detector.ask.n += 1;
                let probe = Probe { ask: detector.ask };
                detector.ways.bridge.send(node, &probe.into(), Cause::NONE);
            }
        });
    }
}

impl Handler<TimedOut> for Detector {
    type Result = ();

    fn handle(&mut self, report: TimedOut, _: &mut Context<Self>) {
        if report.heard.is_some_and(|heard| heard >= report.sent) {
            return;
        }
        if let Some(change) =
            self.suspicion.timed_out(self.ways.clock.mono(), report.node, report.sent)
        {
            self.publish(change, Some((report.op, report.cause)));
        }
    }
}

impl Handler<Heard> for Detector {
    type Result = ();

    fn handle(&mut self, heard: Heard, _: &mut Context<Self>) {
        if let Some(change) = self.suspicion.heard(self.ways.clock.mono(), heard.node) {
            self.publish(change, None);
        }
    }
}

impl Handler<Probed> for Detector {
    type Result = ();

    fn handle(&mut self, Probed { node, probe, cause }: Probed, _: &mut Context<Self>) {
        self.ways.bridge.send(node, &Alive { ask: probe.ask }.into(), cause);
    }
}
