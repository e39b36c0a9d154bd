//! Reads that this router makes itself, of the replicas; [`Routing`](simpledynamo_protocol::routing::Routing)
//! says when.

use super::Router;
use crate::{flow::Cause, replica::ToReplica};
use actix::Context;
use simpledynamo_protocol::{
    message::{Message, Query},
    recent::OpId,
    ring::NodeId,
};

impl Router {
    /// Asks a replica for a read of this router.
    pub(super) fn query(&self, to: NodeId, op: OpId, query: Query, cause: Cause) {
        // What is asked because others are silent follows from the command itself.
        let begun = self.clients.get(&op.seq).map_or(Cause::NONE, |client| client.cause);
        let cause = if cause.id.is_some() { Cause { keep: begun.keep, ..cause } } else { begun };
        let message = query.into();
        if to == self.me {
            let cause = self.ways.recorder.ask_own(&message, cause.into());
            self.ways.replica.do_send(ToReplica { from: self.me, message, cause });
        } else {
            self.ways.bridge.send(to, &message, cause);
        }
    }

    /// A replica's answer to a read of this router.
    pub(super) fn told(
        &mut self,
        from: NodeId,
        message: Message,
        cause: Cause,
        ctx: &mut Context<Self>,
    ) {
        #[cfg(feature = "broken-rules")]
        let answers = self.tamper.incoming(from, message);
        #[cfg(not(feature = "broken-rules"))]
        let answers = [(from, message)];
        for (from, message) in answers {
            self.decide(|routing, now, doubtful, out| {
                routing.told(now, from, message, doubtful, out);
            });
        }
        self.carry_out(cause, ctx);
    }
}
