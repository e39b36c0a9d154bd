//! Reads that this router makes itself, of the replicas; [`Routing`](simpledynamo_protocol::routing::Routing)
//! says when.

use super::Router;
use crate::flow::Cause;
use actix::Context;
use simpledynamo_protocol::{
    message::{Message, Query},
    recent::OpId,
    ring::NodeId,
};

impl Router {
    /// Asks a replica for a read of this router.
    pub(super) fn query(&mut self, to: NodeId, op: OpId, query: Query, cause: Cause) {
        // What is asked because others are silent follows from the command itself.
        let begun = self.clients.get(&op.seq).map_or(Cause::NONE, |client| client.cause);
        let cause = if cause.id.is_some() { Cause { keep: begun.keep, ..cause } } else { begun };
        let message = query.into();
        if to == self.me {
            let cause = self.ways.recorder.ask_own(&message, cause.into());
            // Taken when the steps that are under way have been: what is asked of others leaves first.
            if let Message::Query(query) = &message {
                self.own.extend(self.ways.replica.query_of_own(query, cause));
            }
        } else {
            self.ways.bridge.send(to, &message, cause);
        }
    }

    /// Takes what the own replica has answered, and what it answers to what follows: one after the other,
    /// since thousands of reads may turn to it at once.
    pub(super) fn take_own(&mut self, ctx: &mut Context<Self>) {
        while let Some((message, cause)) = self.own.pop() {
            self.decide_told(self.me, message);
            self.carry_out_steps(cause, ctx);
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
        let receipt = self.ways.recorder.receipt(from, &message, cause);
        self.decide_told(from, message);
        self.carry_out(cause, ctx);
        self.ways.recorder.taken_up(receipt);
    }

    fn decide_told(&mut self, from: NodeId, message: Message) {
        #[cfg(feature = "broken-rules")]
        let answers = self.tamper.incoming(from, message);
        #[cfg(not(feature = "broken-rules"))]
        let answers = [(from, message)];
        for (from, message) in answers {
            self.decide(|routing, now, doubtful, out| {
                routing.told(now, from, message, doubtful, out);
            });
        }
    }
}
