//! What the router's flow records say beyond its messages: where a request begins and ends, why it is
//! tried elsewhere, and whether its records are worth keeping.

use super::{Client, Router};
use crate::flow::{Actor, Cause, Event, Place, Record, ShortKey};
use simpledynamo_protocol::{
    message::{Keep, Request},
    recent::OpId,
    record::Key,
    ring::NodeId,
    routing::Verdict,
    time::Time,
};

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
            record.event = Event::Command;
            record.from = Place { node: self.me, actor: Actor::Client };
            record.to = Place { node: self.me, actor: Actor::Router };
            (record.request, record.kind, record.keep) = (op, name, keep);
            record.key = ShortKey::of(key);
        });
        Cause { id, keep, at }
    }

    /// A coordinator did not answer.
    pub(super) fn note_silence(&self, op: OpId, node: NodeId, sent: Time) -> Cause {
        let waited = self.ways.clock.mono().since(sent);
        let keep = self.clients.get(&op.seq).is_some_and(|client| client.cause.keep);
        let id = self.ways.recorder.record(|record| {
            (record.event, record.keep) = (Event::TimeOut, keep);
            self.about(record, op, node);
            record.handling = u32::try_from(waited.as_micros()).unwrap_or(u32::MAX);
        });
        Cause { id, ..Cause::NONE }
    }

    /// A coordinator is picked. `because` of a time-out, an answer, or nothing: then the request is
    /// the client's first. Gives the cause of the message to it.
    pub(super) fn note_choice(&mut self, to: NodeId, request: &Request, because: Cause) -> Cause {
        let Request { op, attempt, .. } = *request;
        if !self.ways.recorder.is_on() {
            return Cause::NONE;
        }
        let Some(client) = self.clients.get_mut(&op.seq) else { return because };
        let begun = client.cause;
        client.retried |= attempt > 1;
        let first = || self.settings.ring.replicas_of(&request.key).first() == Some(&to);
        let (event, reason) = match attempt {
            1 if self.suspected.is_empty() || first() => return begun,
            1 => (Event::Choose, "those before it are suspected"),
            _ if because.at != 0 => (Event::Retry, "turned away"),
            _ if because.id.is_some() => (Event::Retry, "no answer"),
            _ => (Event::Retry, "late, so asked as well"),
        };
        let keep = begun.keep || attempt > 1;
        let id = self.ways.recorder.record(|record| {
            record.event = event;
            self.about(record, op, to);
            (record.attempt, record.reason, record.keep) = (attempt, reason, keep);
            record.cause = if because.id.is_some() { because.id } else { begun.id };
        });
        Cause { id, keep, at: begun.at }
    }

    /// The client is answered. Where that took long, or went wrong, what is remembered of the
    /// request is written, here and at the key's replicas.
    pub(super) fn note_end(&self, op: OpId, verdict: &Verdict, client: &Client, cause: Cause) {
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
            self.about(record, op, self.me);
            record.event = Event::Reply;
            record.to.actor = Actor::Client;
            record.cause = if cause.id.is_some() { cause.id } else { client.cause.id };
            record.reason = reason;
            record.keep = client.cause.keep;
            record.key = ShortKey::of(&client.key);
            record.handling = u32::try_from(took).unwrap_or(u32::MAX);
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

    fn about(&self, record: &mut Record, op: OpId, node: NodeId) {
        record.request = op;
        record.from = Place { node: self.me, actor: Actor::Router };
        record.to = Place { node, actor: Actor::Coordinator };
    }
}
