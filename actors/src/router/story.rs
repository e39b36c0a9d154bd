//! What the router's flow records say beyond its messages: where a request begins and ends, why it is
//! tried elsewhere, and whether its records are worth keeping.

use super::{Client, Router};
use crate::flow::{Actor, Cause, Draft, Event};
use simpledynamo_protocol::{
    ballot::Stamp,
    effect::RoundKind,
    message::{Keep, Request},
    recent::OpId,
    record::Key,
    ring::NodeId,
    routing::{Asked, Verdict},
    time::Time,
};

/// What the end of a read follows from.
#[derive(Clone, Copy)]
pub(super) struct Agreement {
    /// What the reply names as its cause.
    pub(super) cause: Cause,
    /// On what replicas agree, where no record of its own says it.
    pub(super) untold: Option<Stamp>,
}

impl Router {
    /// A request begins.
    pub(super) fn note_command(
        &self,
        op: OpId,
        name: &'static str,
        key: &Key,
        keep: bool,
    ) -> Cause {
        let recorder = &self.ways.recorder;
        if !recorder.is_on() {
            return Cause::NONE;
        }
        let keep = recorder.sample() || keep;
        let at = recorder.now();
        let id = recorder.record(|record| {
            record.event(Event::Command);
            record.from(self.me, Actor::Client);
            record.to(self.me, Actor::Router);
            record.request(op, 0);
            record.kind(name);
            record.keep(keep);
            record.key(key);
        });
        Cause { id, keep, at }
    }

    /// A coordinator did not answer, or a replica that was asked for a read.
    pub(super) fn note_silence(&self, op: OpId, node: NodeId, by: Asked, sent: Time) -> Cause {
        let waited = self.ways.clock.mono().since(sent);
        // None where it ended meanwhile, at another coordinator.
        let begun = self.clients.get(&op.seq).map_or(Cause::NONE, |client| client.cause);
        let id = self.ways.recorder.record(|record| {
            self.about(record, (op, 0), node);
            match by {
                Asked::Coordinator => {}
                Asked::Replica => record.to(node, Actor::Replica),
            }
            record.event(Event::TimeOut);
            record.keep(begun.keep);
            record.cause(begun.id);
            record.handling(u64::try_from(waited.as_micros()).unwrap_or(u64::MAX));
        });
        Cause { id, ..Cause::NONE }
    }

    /// A coordinator is picked. `because` of a time-out, an answer, or nothing: then the request is
    /// the client's first; or a read is `left` to it. Gives the cause of the message to it.
    pub(super) fn note_choice(
        &mut self,
        to: NodeId,
        request: &Request,
        left: Option<&'static str>,
        because: Cause,
    ) -> Cause {
        let Request { op, attempt, .. } = *request;
        if !self.ways.recorder.is_on() {
            return Cause::NONE;
        }
        let Some(client) = self.clients.get_mut(&op.seq) else { return because };
        let begun = client.cause;
        client.retried |= attempt > 1;
        let first = || self.settings.ring.replicas_of(&request.key).first() == Some(&to);
        let (event, reason) = match (attempt, left) {
            (1, Some(why)) => (Event::Choose, why),
            (1, None) if self.suspected.is_empty() || first() => return begun,
            (1, None) => (Event::Choose, "those before it are suspected"),
            _ if because.at != 0 => (Event::Retry, "turned away"),
            _ if because.id.is_some() => (Event::Retry, "no answer"),
            _ => (Event::Retry, "late, so asked as well"),
        };
        let keep = begun.keep || attempt > 1;
        let id = self.ways.recorder.record(|record| {
            self.about(record, (op, attempt), to);
            record.event(event);
            record.reason(reason);
            record.keep(keep);
            record.cause(if because.id.is_some() { because.id } else { begun.id });
        });
        Cause { id, keep, at: begun.at }
    }

    /// Replicas agree on what a read asked for. The reply, which follows at once, says it, too: unless
    /// everything is recorded, or the request is kept, by that alone.
    pub(super) fn note_agreement(&self, op: OpId, stamp: Stamp, cause: Cause) -> Agreement {
        let begun = self.clients.get(&op.seq).map_or(Cause::NONE, |client| client.cause);
        if !self.ways.recorder.takes_all(begun.keep) {
            return Agreement { cause, untold: Some(stamp) };
        }
        let id = self.ways.recorder.record(|record| {
            record.request(op, 0);
            record.from(self.me, Actor::Router);
            record.event(Event::Quorum);
            record.kind(RoundKind::Query.name());
            record.stamp(stamp);
            record.cause(cause.id);
            record.keep(begun.keep);
        });
        Agreement { cause: Cause { id, ..cause }, untold: None }
    }

    /// The client is answered. Where that took long, or went wrong, what is remembered of the
    /// request is written, here and at the key's replicas.
    pub(super) fn note_end(
        &self,
        op: OpId,
        verdict: &Verdict,
        client: &Client,
        cause: Cause,
        agreed: Option<Stamp>,
    ) {
        let recorder = &self.ways.recorder;
        if !recorder.is_on() {
            return;
        }
        let (failed, reason) = match verdict {
            Verdict::Reply(_) => (false, "done"),
            Verdict::NotApplied(reason) => (true, reason.name()),
            Verdict::Unknown => (true, "outcome unknown"),
        };
        let took = recorder.now().saturating_sub(client.cause.at);
        recorder.record(|record| {
            self.about(record, (op, 0), self.me);
            record.event(Event::Reply);
            record.to(self.me, Actor::Client);
            record.cause(if cause.id.is_some() { cause.id } else { client.cause.id });
            record.reason(reason);
            record.keep(client.cause.keep);
            record.key(&client.key);
            record.handling(took);
            if let Some(stamp) = agreed {
                record.kind(RoundKind::Query.name());
                record.stamp(stamp);
            }
        });
        if (failed || client.retried || recorder.is_slow(took))
            && recorder.keep(op, &client.key, client.cause.at)
        {
            let ago = u32::try_from(took / 1_000 + 1).unwrap_or(u32::MAX);
            let keep = Keep { key: client.key.clone(), op, ago }.into();
            for to in self.settings.ring.replicas_of(&client.key) {
                if to != self.me {
                    self.ways.bridge.send(to, &keep, Cause::NONE);
                }
            }
        }
    }

    fn about(&self, record: &mut Draft<'_>, (op, attempt): (OpId, u32), node: NodeId) {
        record.request(op, attempt);
        record.from(self.me, Actor::Router);
        record.to(node, Actor::Coordinator);
    }
}
