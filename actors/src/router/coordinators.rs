//! The coordinators of this node: a request starts one for its key, and what comes for one is handed to
//! it.

use super::{Entry, FromNode, Retired, Router};
use crate::{
    coordinator::{Coordinator, Take},
    flow::Cause,
    messages::Phase,
    settings::Replication,
};
use actix::{Actor, Addr, AsyncContext, Context, Handler};
use simpledynamo_protocol::{
    message::{self, Answer, Ask, Outcome, Reason, Request},
    record::Key,
    register::proposer::{Config, Proposer},
    ring::NodeId,
};

/// A round is given up after so many request time-outs. It ends early with any two of three replicas,
/// so only an overload or a double failure makes it wait; under an overload giving up the round
/// would only add another.
const ROUND: u32 = 5;

impl Router {
    /// A request for a coordinator of this node.
    pub(super) fn coordinate(
        &mut self,
        from: NodeId,
        request: Request,
        cause: Cause,
        ctx: &mut Context<Self>,
    ) {
        let replica = self.settings.ring.replicas_of(&request.key).contains(&self.me);
        let refusal = match (replica, self.phase) {
            (false, _) => Some(Reason::NotReplica),
            (true, Phase::Starting | Phase::Learning) => Some(Reason::Learning),
            (true, Phase::Serving) => None,
        };
        let Some(reason) = refusal else {
            if self.settings.replication == Replication::Chain {
                let message = request.into();
                // The writer's thread takes it up, later.
                self.ways.recorder.put_aside(from, &message, cause);
                return self.ways.replica.take(from, message, cause);
            }
            let key = request.key.clone();
            return self.hand_over(&key, Take { from, message: request.into(), cause }, true);
        };
        let Request { op, attempt, .. } = request;
        let message = Answer { op, attempt, outcome: Outcome::NotProposed(reason) }.into();
        if op.router == self.me {
            let cause = self.ways.recorder.local(&message, cause.into());
            ctx.notify(FromNode { from: self.me, message, cause });
        } else {
            self.ways.bridge.send(op.router, &message, cause);
        }
    }

    /// Hands a message to the key's coordinator; only a request starts one.
    pub(super) fn hand_over(&mut self, key: &Key, take: Take, start: bool) {
        match self.coordinators.get_mut(key) {
            Some(Entry::Alive { addr, used }) => {
                *used = true;
                addr.do_send(take);
            }
            Some(Entry::Retiring { held, .. }) => held.push(take),
            None if start => {
                let addr = self.start_coordinator(key);
                addr.do_send(take);
                self.coordinators.insert(key.clone(), Entry::Alive { addr, used: false });
                self.retire_order.push_back(key.clone());
                self.retire_some();
            }
            // An answer to a round that is long over.
            None => self.ways.recorder.put_aside(take.from, &take.message, take.cause),
        }
    }

    fn start_coordinator(&mut self, key: &Key) -> Addr<Coordinator> {
        let config = Config {
            me: self.me,
            replicas: self.settings.ring.replicas_of(key),
            read_quorum: self.settings.read_quorum,
            write_quorum: self.settings.write_quorum,
            round_timeout: self.settings.request_timeout * ROUND,
            repeat_after: self.settings.request_timeout,
            value_bytes_max: self.settings.limits.value_bytes,
            contended: false,
        };
        let ask = Ask { incarnation: self.incarnation, asker: self.next_asker, n: 0 };
        self.next_asker += self.share.of as u64;
        let seed = self.next_asker ^ self.incarnation << 32 ^ u64::from(self.me.0) << 48;
        let known = self.known.take(key);
        #[cfg(feature = "broken-rules")]
        let tampered = config.clone();
        let proposer = Proposer::new(key.clone(), config, known, ask, seed);
        let coordinator = Coordinator::new(key.clone(), self.ways.clone(), proposer);
        #[cfg(feature = "broken-rules")]
        let coordinator = coordinator.tampered(tampered, ask);
        coordinator.start()
    }
}

impl Handler<Retired> for Router {
    type Result = ();

    fn handle(&mut self, Retired { key, known }: Retired, _: &mut Context<Self>) {
        let Some(Entry::Retiring { addr, held }) = self.coordinators.remove(&key) else { return };
        if let Some(known) = known {
            self.known.put(key.clone(), known);
            for take in held {
                let start = matches!(take.message, message::Message::Request(_));
                self.hand_over(&key, take, start);
            }
        } else {
            for take in held {
                addr.do_send(take);
            }
            self.retire_order.push_back(key.clone());
            self.coordinators.insert(key, Entry::Alive { addr, used: true });
        }
    }
}
