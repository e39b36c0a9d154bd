//! Negative controls: rules of the protocol taken out on purpose, each from outside. The protocol's
//! code stays as it is; what surrounds it lies, forgets or hurries.
//!
//! Only with the feature `broken-rules`, which no other feature and no package asks for, and which a
//! build that aborts on panic (the release build of `dynamo`) refuses. The rule belongs to the
//! thread, as a simulated ring does.
//!
//! Caveat: a control shows that the harness notices this way to break a rule, not every way.

mod chain;

pub(crate) use chain::Tamper as ChainTamper;

use crate::settings::Replication;
use simpledynamo_protocol::{
    ballot::Ballot,
    effect::{Effect, Effects},
    message::{Ask, Listed, Message, Outcome, Request, Row, State},
    record::Key,
    register::proposer::{Config, Known, Proposer},
    ring::NodeId,
    time::Now,
};
use std::{cell::Cell, collections::BTreeMap};

#[cfg(panic = "abort")]
compile_error!(
    "the feature `broken-rules` takes rules of the protocol out and is for one test only: build \
     without it"
);

/// A rule that can be taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A quorum is a majority. Without: one replica chooses.
    Majority,
    /// A read that found no agreement writes back. Without: it answers with the larger of two.
    WriteBack,
    /// Exactly-once records. Without: states carry no record of what was applied.
    ExactlyOnce,
    /// The ceiling is durable. Without: a restarted node's floor is 0.
    DurableCeiling,
    /// Answers leave after the sync. Without: before it.
    AnswerAfterSync,
    /// A ballot is given up after a time-out. Without: the next content goes out under the same
    /// ballot and version.
    FreshBallot,
    /// Catch-up installs only what is chosen. Without: whatever is larger.
    InstallChosen,
    /// A retried condition that failed is recorded. Without: it leaves no trace.
    RecordFailure,
    /// A learner does not vote. Without: it votes as soon as it is back.
    LearnerSilent,
    /// "Not applied" is said only when it is certain. Without: also when it is not.
    HonestUnknown,
    /// A tail asks another node before it answers reads. Without: it asks nobody.
    TailConfirms,
    /// Only the register changes a chain. Without: who is silent is left out at once.
    RegisterDecides,
    /// A write of an older epoch is refused. Without: it is stored, passed on and answered.
    OldEpochRefused,
    /// A new head keeps what it had passed on. Without: it goes back to the rows before.
    HeadKeeps,
    /// Who joins a chain holds what the chain holds. Without: it takes nothing over.
    JoinerCopies,
    /// An epoch that was learned is durable. Without: a restarted node is back in the first chain.
    DurableSeat,
}

impl Rule {
    /// All of them.
    pub const ALL: [Rule; 16] = [
        Rule::Majority,
        Rule::WriteBack,
        Rule::ExactlyOnce,
        Rule::DurableCeiling,
        Rule::AnswerAfterSync,
        Rule::FreshBallot,
        Rule::InstallChosen,
        Rule::RecordFailure,
        Rule::LearnerSilent,
        Rule::HonestUnknown,
        Rule::TailConfirms,
        Rule::RegisterDecides,
        Rule::OldEpochRefused,
        Rule::HeadKeeps,
        Rule::JoinerCopies,
        Rule::DurableSeat,
    ];

    /// The strategies that rest on the rule.
    #[must_use]
    pub fn strategies(self) -> &'static [Replication] {
        match self {
            Rule::Majority
            | Rule::WriteBack
            | Rule::DurableCeiling
            | Rule::FreshBallot
            | Rule::InstallChosen
            | Rule::RecordFailure
            | Rule::LearnerSilent => &[Replication::Quorum],
            Rule::ExactlyOnce | Rule::AnswerAfterSync | Rule::HonestUnknown => {
                &[Replication::Quorum, Replication::Chain]
            }
            Rule::TailConfirms
            | Rule::RegisterDecides
            | Rule::OldEpochRefused
            | Rule::HeadKeeps
            | Rule::JoinerCopies
            | Rule::DurableSeat => &[Replication::Chain],
        }
    }
}

thread_local! {
    static BROKEN: Cell<Option<Rule>> = const { Cell::new(None) };
}

/// From here on, nodes of this thread do without the rule.
pub(super) fn take_out(rule: Option<Rule>) {
    BROKEN.set(rule);
}

/// Whether the nodes of this thread do without this rule.
pub(crate) fn is_broken(rule: Rule) -> bool {
    BROKEN.get() == Some(rule)
}

/// What the controls remember at one coordinator.
#[derive(Default)]
pub(crate) struct Tamper {
    /// What a proposer is made of; its questions get names of their own.
    made_of: Option<(Key, Config, Ask)>,
    /// First answers to queries.
    answers: BTreeMap<Ask, (NodeId, State)>,
    /// What the coordinator knew before it proposed under the ballot it owned.
    before: Option<(Ballot, Known)>,
    /// The last ballot that was used again: once, or coordinators would flood each other for ever.
    reused: Option<Ballot>,
    /// Requests not yet answered.
    open: Vec<Request>,
}

impl Tamper {
    /// The coordinator of this key begins.
    pub(crate) fn begin(&mut self, key: Key, config: Config, ask: Ask) {
        self.made_of = Some((key, config, ask));
    }

    /// One step of the proposer, and what becomes of it.
    pub(crate) fn step(
        &mut self,
        proposer: &mut Proposer,
        now: Now,
        out: &mut Effects,
        step: impl FnOnce(&mut Proposer, &mut Effects),
    ) {
        let before = proposer.clone().into_known();
        step(proposer, out);
        if let (Some((known, requests)), Some((key, config, ask))) =
            (self.relapse(&before, proposer), &mut self.made_of)
        {
            ask.asker += 1 << 40;
            *proposer = Proposer::new(key.clone(), config.clone(), known, *ask, ask.asker);
            // Another order: the next content, not the same one again.
            for request in requests.into_iter().rev() {
                proposer.request(now, request, out);
            }
        }
        self.outgoing(&before, out);
    }

    /// Changes what reaches a coordinator; what is to be handled in its place, in order.
    pub(crate) fn incoming(&mut self, from: NodeId, message: Message) -> Vec<(NodeId, Message)> {
        match message {
            Message::Request(request) if is_broken(Rule::RecordFailure) => {
                vec![(from, Request { record: false, ..request }.into())]
            }
            Message::Request(request) if is_broken(Rule::FreshBallot) => {
                self.open.push(request.clone());
                vec![(from, request.into())]
            }
            Message::State(state) if is_broken(Rule::WriteBack) => self.agree(from, state),
            message => vec![(from, message)],
        }
    }

    /// Two answers that disagree are made to agree on the larger.
    fn agree(&mut self, from: NodeId, state: State) -> Vec<(NodeId, Message)> {
        let stamp = |state: &State| state.held.stamp();
        match self.answers.remove(&state.ask) {
            Some((first, other)) if first != from && stamp(&other) != stamp(&state) => {
                let larger = if stamp(&other) > stamp(&state) { other } else { state };
                vec![(first, larger.clone().into()), (from, larger.into())]
            }
            _ => {
                self.answers.insert(state.ask, (from, state.clone()));
                vec![(from, state.into())]
            }
        }
    }

    /// Changes what a coordinator sends; `known` is what it knew before this step.
    fn outgoing(&mut self, known: &Known, effects: &mut Effects) {
        for effect in effects {
            let Effect::Send { message, .. } = effect else { continue };
            match message {
                Message::Accept(accept) => {
                    if is_broken(Rule::ExactlyOnce) {
                        accept.record.recent = Default::default();
                    }
                    let ballot = accept.record.stamp.ballot;
                    if known.owned == Some(ballot) {
                        self.before = Some((ballot, known.clone()));
                    }
                }
                Message::Answer(answer) => {
                    let ended = |it: &Request| (it.op, it.attempt) == (answer.op, answer.attempt);
                    self.open.retain(|request| !ended(request));
                    if let (true, Outcome::Done { recorded, .. }) =
                        (is_broken(Rule::RecordFailure), &mut answer.outcome)
                    {
                        *recorded = true;
                    }
                }
                _ => {}
            }
        }
    }

    /// After a time-out: the state of mind of before the proposal, and the requests again.
    fn relapse(&mut self, known: &Known, proposer: &Proposer) -> Option<(Known, Vec<Request>)> {
        if !is_broken(Rule::FreshBallot) || proposer.is_idle() {
            return None;
        }
        let (ballot, before) = self.before.clone()?;
        let gave_up = known.owned == Some(ballot) && proposer.clone().into_known().owned.is_none();
        if !gave_up || self.reused == Some(ballot) {
            return None;
        }
        self.reused = Some(ballot);
        Some((before, self.open.clone()))
    }
}

/// Listings of one question, until both others' are there.
#[derive(Default)]
pub(crate) struct Listings(BTreeMap<NodeId, Listed>);

impl Listings {
    /// Changes what the listings of the other replicas say: each seems to hold the larger of both.
    pub(crate) fn incoming(
        &mut self,
        me: NodeId,
        from: NodeId,
        listed: Listed,
    ) -> Vec<(NodeId, Listed)> {
        if from == me || !is_broken(Rule::InstallChosen) {
            return vec![(from, listed)];
        }
        self.0.retain(|_, other| other.ask == listed.ask);
        self.0.insert(from, listed);
        if self.0.len() < 2 {
            return Vec::new();
        }
        let mut rows: BTreeMap<Key, Row> = BTreeMap::new();
        for row in self.0.values().flat_map(|listed| &listed.rows) {
            let newer = |known: &Row| known.stamp < row.stamp;
            if rows.get(&row.key).is_none_or(newer) {
                rows.insert(row.key.clone(), row.clone());
            }
        }
        let larger: Vec<Row> = rows.into_values().collect();
        let all = std::mem::take(&mut self.0).into_iter();
        all.map(|(node, listed)| (node, Listed { rows: larger.clone(), ..listed })).collect()
    }
}
