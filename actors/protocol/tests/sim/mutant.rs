//! Rules broken on purpose, each from outside: the protocol's code stays as it is, the simulated
//! node around it lies, forgets or hurries.

use simpledynamo_protocol::{
    ballot::Ballot,
    effect::Effect,
    message::{Ask, Held, Message, Outcome, Reason, Request, State},
    record::Key,
    register::proposer::{Known, Proposer},
    ring::NodeId,
    routing::Verdict,
};
use std::collections::BTreeMap;

/// A broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// One replica chooses.
    QuorumOfOne,
    /// A read answers from the larger of two answers that disagree.
    NoWriteBack,
    /// States carry no record of what was applied.
    NoExactlyOnce,
    /// A restarted node's floor is 0.
    VolatileCeiling,
    /// A replica answers before its write is durable.
    AnswerBeforeSync,
    /// After a time-out the next content goes out under the same ballot and version.
    BallotReused,
    /// Anti-entropy installs whatever is larger: register.md's first rule.
    InstallLarger,
    /// The failed condition of a retried operation leaves no trace.
    FailureUnrecorded,
    /// A node that lost its store votes as soon as it is back.
    LearnerVotes,
    /// What a node said before it lost its store is still counted when it is back.
    FormerLifeVotes,
    /// A router that cannot tell says that nothing was applied.
    UnknownToldAsNotApplied,
    /// Chain: a tail answers reads without asking whether its epoch stands.
    TailUnconfirmed,
    /// Chain: who suspects a member goes on without it, without asking the register.
    SuspicionChanges,
    /// Chain: writes of an older epoch are taken in.
    OldEpochAccepted,
    /// Chain: a new head has forgotten what it had passed on as a member.
    HeadForgets,
    /// Chain: a node joins without having copied anything.
    CopiesNothing,
    /// Chain: a restarted node has forgotten its epochs.
    VolatileSeat,
}

/// The mutant's own memory at one node.
#[derive(Clone, Debug, Default)]
pub struct Tamper {
    pub mutant: Option<Mutant>,
    /// First answers to queries.
    answers: BTreeMap<Ask, (NodeId, State)>,
    /// What a coordinator knew before it proposed under the ballot it owned.
    before: BTreeMap<Key, (Ballot, Known)>,
    /// Requests not yet answered.
    open: BTreeMap<Key, Vec<Request>>,
    pub(super) in_flight: super::chain_mutant::InFlight,
}

impl Tamper {
    pub fn new(mutant: Option<Mutant>) -> Tamper {
        Tamper { mutant, ..Tamper::default() }
    }

    pub fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Changes what reaches a node; what is to be handled in its place, in order.
    pub fn incoming(&mut self, from: NodeId, message: Message) -> Vec<(NodeId, Message)> {
        let message = match (self.mutant, message) {
            (Some(Mutant::FailureUnrecorded), Message::Request(request)) => {
                Message::Request(Request { record: false, ..request })
            }
            (Some(Mutant::FailureUnrecorded), Message::Answer(mut answer)) => {
                if let Outcome::Done { recorded, .. } = &mut answer.outcome {
                    *recorded = true;
                }
                Message::Answer(answer)
            }
            (Some(Mutant::NoWriteBack), Message::State(state)) => return self.agree(from, state),
            (Some(Mutant::BallotReused), Message::Request(request)) => {
                self.open.entry(request.key.clone()).or_default().push(request.clone());
                Message::Request(request)
            }
            (_, message) => message,
        };
        vec![(from, message)]
    }

    /// Two answers that disagree are made to agree on the larger.
    fn agree(&mut self, from: NodeId, state: State) -> Vec<(NodeId, Message)> {
        let stamp = |state: &State| state.held.stamp();
        match self.answers.remove(&state.ask) {
            Some((first, other)) if first != from && stamp(&other) != stamp(&state) => {
                let larger = if stamp(&other) > stamp(&state) { other } else { state };
                let whole = matches!(larger.held, Held::Record(_) | Held::Same(_));
                assert!(whole, "nothing is below everything");
                vec![(first, larger.clone().into()), (from, larger.into())]
            }
            _ => {
                self.answers.insert(state.ask, (from, state.clone()));
                vec![(from, state.into())]
            }
        }
    }

    /// Changes what a client is told.
    pub fn verdict(&self, verdict: Verdict) -> Verdict {
        match verdict {
            Verdict::Unknown if self.is(Mutant::UnknownToldAsNotApplied) => {
                Verdict::NotApplied(Reason::NoQuorum)
            }
            verdict => verdict,
        }
    }

    /// Changes what a coordinator sends.
    pub fn outgoing(&mut self, key: &Key, known: &Known, effects: &mut [Effect]) {
        for effect in effects {
            let Effect::Send { message, .. } = effect else { continue };
            match message {
                Message::Accept(accept) => {
                    if self.is(Mutant::NoExactlyOnce) {
                        accept.record.recent = Default::default();
                    }
                    let ballot = accept.record.stamp.ballot;
                    if known.owned == Some(ballot) {
                        self.before.insert(key.clone(), (ballot, known.clone()));
                    }
                }
                Message::Answer(answer) => {
                    if let Some(open) = self.open.get_mut(key) {
                        open.retain(|request| {
                            (request.op, request.attempt) != (answer.op, answer.attempt)
                        });
                    }
                }
                _ => {}
            }
        }
    }

    /// After a time-out: the state of mind of before the proposal, and the requests again.
    pub fn relapse(
        &mut self,
        key: &Key,
        known: &Known,
        proposer: &Proposer,
    ) -> Option<(Known, Vec<Request>)> {
        if !self.is(Mutant::BallotReused) || proposer.is_idle() {
            return None;
        }
        let (ballot, before) = self.before.get(key)?;
        let gave_up = known.owned == Some(*ballot) && proposer.clone().into_known().owned.is_none();
        gave_up.then(|| (before.clone(), self.open.get(key).cloned().unwrap_or_default()))
    }

    /// A crash forgets.
    pub fn crash(&mut self) {
        *self = Tamper::new(self.mutant);
    }
}
