//! Rules of chains taken out: what stands between a node's chains and its writer lies, forgets or
//! hurries. The state machine itself stays as it is.

use super::{Rule, is_broken};
use simpledynamo_protocol::{
    chain::{
        Chain, Rows,
        config::Config,
        wire::{Announce, Confirmed, Forward},
    },
    effect::{Effect, Effects, Write},
    message::Message,
    record::{Key, Record, stamp_of},
    ring::{NodeId, RangeId},
    time::{Now, Time},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Silence after which a member is taken for dead where suspicion decides: below what a survey waits.
const SILENCE: Duration = Duration::from_millis(60);

/// What the controls remember of one node's chains.
#[derive(Default)]
pub(crate) struct Tamper {
    /// Of writes that were passed on and not acknowledged: the row before.
    before: BTreeMap<Key, Option<Record>>,
    /// Surveys under way, by range.
    surveys: BTreeMap<RangeId, Surveyed>,
}

/// Who was asked, since when, and who has answered.
struct Surveyed {
    config: Config,
    since: Time,
    heard: BTreeSet<NodeId>,
}

impl Tamper {
    /// Hands a message to the chains, or what is made of it.
    pub(crate) fn message(
        &mut self,
        chain: &mut Chain,
        now: Now,
        from: NodeId,
        mut message: Message,
        rows: Rows<'_>,
        out: &mut Effects,
    ) {
        match &mut message {
            Message::Forward(forward)
                if is_broken(Rule::OldEpochRefused) && take_old(chain, forward, rows, out) =>
            {
                return;
            }
            Message::Acked(acked) => {
                for (key, _) in &acked.entries {
                    self.before.remove(key);
                }
            }
            Message::Present(present) => {
                if let Some(survey) = self.surveys.get_mut(&present.range) {
                    survey.heard.insert(from);
                }
            }
            Message::Listed(listed) if is_broken(Rule::JoinerCopies) && from != chain.me() => {
                listed.rows.clear();
                listed.next = None;
            }
            _ => {}
        }
        self.act(chain, now, rows, out, |chain, rows, out| {
            chain.message(now, from, message, rows, out);
        });
    }

    /// One step of the chains, and what becomes of it.
    pub(crate) fn act(
        &mut self,
        chain: &mut Chain,
        now: Now,
        rows: Rows<'_>,
        out: &mut Effects,
        act: impl FnOnce(&mut Chain, Rows<'_>, &mut Effects),
    ) {
        let mut effects = Effects::new();
        act(chain, &mut *rows, &mut effects);
        if is_broken(Rule::HeadKeeps) {
            effects = self.forgetful(chain.me(), effects, &mut *rows);
        }
        let mut confirmed = Vec::new();
        for mut effect in effects {
            match &mut effect {
                Effect::Send { to, message: Message::Confirm(ask) }
                    if is_broken(Rule::TailConfirms) =>
                {
                    let (range, epoch, ask) = (ask.range, ask.config.epoch, ask.ask);
                    confirmed.push((*to, Confirmed { range, epoch, ask }));
                    continue;
                }
                Effect::Send { message: Message::Survey(ask), .. } => {
                    let (config, heard) = (ask.config.clone(), BTreeSet::from([chain.me()]));
                    let survey = Surveyed { config, since: now.mono, heard };
                    self.surveys.insert(ask.range, survey);
                }
                effect if is_broken(Rule::ExactlyOnce) => forget_results(effect),
                _ => {}
            }
            out.push(effect);
        }
        for (from, confirmed) in confirmed {
            chain.message(now, from, confirmed.into(), &mut *rows, out);
        }
    }

    /// Time has passed: who has not answered a survey is taken for dead, where suspicion decides.
    pub(crate) fn tick(&mut self, chain: &mut Chain, now: Now, rows: Rows<'_>, out: &mut Effects) {
        if !is_broken(Rule::RegisterDecides) {
            return;
        }
        let due = |survey: &Surveyed| survey.since + SILENCE <= now.mono;
        let (over, rest): (BTreeMap<_, _>, _) =
            std::mem::take(&mut self.surveys).into_iter().partition(|(_, survey)| due(survey));
        self.surveys = rest;
        for (range, Surveyed { config, heard, .. }) in over {
            let level = chain.seat(range).is_some_and(|it| it.is_level(chain.me()));
            let silent = config.members.iter().any(|member| !heard.contains(&member.node));
            if level && silent {
                let (me, config) = (chain.me(), config.keeping(|node| heard.contains(&node)));
                chain.message(now, me, Announce { range, config }.into(), &mut *rows, out);
            }
        }
    }

    /// A node that becomes the head, or remains it in a new chain, forgets what it had passed on.
    fn forgetful(&mut self, me: NodeId, effects: Effects, rows: Rows<'_>) -> Effects {
        let mut forgotten = BTreeSet::new();
        let mut tampered = Effects::new();
        for effect in effects {
            match &effect {
                Effect::Persist(Write::Put(key, _)) => {
                    self.before.entry(key.clone()).or_insert_with(|| rows(key));
                }
                Effect::Persist(Write::Seat(_, seat)) if seat.config.head() == Some(me) => {
                    for (key, before) in std::mem::take(&mut self.before) {
                        forgotten.insert(key.clone());
                        tampered.push(Effect::Persist(match before {
                            Some(record) => Write::Put(key, record),
                            None => Write::Remove(key),
                        }));
                    }
                }
                Effect::Send { message: Message::Forward(forward), .. }
                    if forgotten.contains(&forward.key) =>
                {
                    continue;
                }
                _ => {}
            }
            tampered.push(effect);
        }
        tampered
    }
}

fn forget_results(effect: &mut Effect) {
    match effect {
        Effect::Persist(Write::Put(_, record)) => record.recent = Default::default(),
        Effect::Send { message: Message::Forward(forward), .. } => {
            if let Some(record) = &mut forward.record {
                record.recent = Default::default();
            }
        }
        _ => {}
    }
}

/// A write of an older epoch is stored, passed on and answered all the same; whether it was one.
fn take_old(chain: &Chain, forward: &Forward, rows: Rows<'_>, out: &mut Effects) -> bool {
    let Some(seat) = chain.seat(forward.range) else { return false };
    let me = chain.me();
    if forward.config.epoch >= seat.config.epoch || seat.config.since(me).is_none() {
        return false;
    }
    if let Some(record) = &forward.record
        && stamp_of(rows(&forward.key).as_ref()) < Some(record.stamp)
    {
        out.push(Effect::Persist(Write::Put(forward.key.clone(), record.clone())));
    }
    match seat.config.after(me) {
        Some(to) => {
            let forward = Forward { config: seat.config.clone(), ..forward.clone() };
            out.push(Effect::Send { to, message: forward.into() });
        }
        None => {
            out.extend(forward.answers.iter().map(|answer| Effect::Send {
                to: answer.op.router,
                message: answer.clone().into(),
            }))
        }
    }
    true
}
