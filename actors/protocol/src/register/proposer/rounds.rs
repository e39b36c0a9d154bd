//! The rounds of a coordinator: begin, prepare, accept, query.

use super::{
    Config, LAST_REPLICA_WAIT, LOST_MAX, Proposer, Waiting,
    fold::{FOLD_MAX, Fold, Served},
    tally::Tally,
};
use crate::{
    ballot::{Ballot, Stamp},
    effect::{Effect, Effects, Note, RoundKind},
    message::{Accept, Ask, Held, Message, NoVote, Prepare, Promise, Query, Refused, Round, State},
    record::{Record, stamp_of},
    ring::NodeId,
    time::{Now, Time},
};
use std::collections::BTreeMap;

/// What is under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// Nothing.
    Idle,
    /// The own replica was asked for a ballot.
    Beginning,
    /// Phase one at this ballot.
    Preparing { ballot: Ballot, promises: BTreeMap<NodeId, Option<Record>>, tally: Tally },
    /// Phase two of this record.
    Accepting { record: Record, served: Vec<Served>, lost: bool, tally: Tally },
    /// A read round.
    Querying {
        ask: Ask,
        have: Option<Record>,
        answers: BTreeMap<NodeId, Option<Stamp>>,
        batch: Vec<Waiting>,
        tally: Tally,
        /// Not asked yet: they are when those that were do not agree or keep silent.
        spared: Vec<NodeId>,
    },
    /// A ballot was lost to somebody; a random pause lets one of the two win.
    BackingOff,
}

impl Phase {
    /// The round under way, and its ballot where it has one.
    fn round(&self) -> Option<(RoundKind, Ballot)> {
        match self {
            Phase::Idle | Phase::BackingOff => None,
            Phase::Beginning => Some((RoundKind::Begin, Ballot::ZERO)),
            Phase::Preparing { ballot, .. } => Some((RoundKind::Prepare, *ballot)),
            Phase::Accepting { record, .. } => Some((RoundKind::Accept, record.stamp.ballot)),
            Phase::Querying { .. } => Some((RoundKind::Query, Ballot::ZERO)),
        }
    }
}

impl Proposer {
    // --- a ballot -------------------------------------------------------------------------------

    /// Asks the own replica for a fresh ballot: rounds are never used again, across restarts too,
    /// and only the replica knows which are used.
    pub(super) fn start_ballot(&mut self, now: Now, out: &mut Effects) {
        self.known.owned = None;
        self.enter(Phase::Beginning, now.mono + self.config.round_timeout);
        let batch = self.queue.iter().take(FOLD_MAX);
        Self::note_round(RoundKind::Begin, Stamp::default(), batch, out);
        out.push(Effect::Begin { key: self.key.clone(), above: self.above });
    }

    pub(super) fn promised(&mut self, now: Now, from: NodeId, got: Promise, out: &mut Effects) {
        if matches!(self.phase, Phase::Beginning) {
            if from != self.config.me || got.ballot.node != self.config.me {
                return;
            }
            self.start_prepare(now, got.ballot, out);
        }
        let Phase::Preparing { ballot, promises, tally } = &mut self.phase else { return };
        if *ballot != got.ballot {
            return;
        }
        promises.insert(from, got.record);
        tally.vote(from);
        if promises.len() >= self.config.read_quorum {
            self.own(now, out);
        }
    }

    fn start_prepare(&mut self, now: Now, ballot: Ballot, out: &mut Effects) {
        self.above = self.above.max(ballot.round);
        let phase = Phase::Preparing { ballot, promises: BTreeMap::new(), tally: self.tally() };
        self.enter_round(phase, now);
        let batch = self.queue.iter().take(FOLD_MAX);
        Self::note_round(RoundKind::Prepare, Stamp { ballot, version: 0 }, batch, out);
        for to in self.others() {
            self.send(to, Prepare { key: self.key.clone(), ballot }, out);
        }
    }

    /// A quorum promised: the largest record among the answers is the state to build on.
    fn own(&mut self, now: Now, out: &mut Effects) {
        let Phase::Preparing { ballot, promises, .. } =
            std::mem::replace(&mut self.phase, Phase::Idle)
        else {
            return;
        };
        let state = promises.values().flatten().max_by_key(|record| record.stamp).cloned();
        let stamp = Stamp { ballot, version: stamp_of(state.as_ref()).map_or(0, |at| at.version) };
        out.push(Effect::Note(Note::Quorum { kind: RoundKind::Prepare, stamp }));
        let same =
            promises.values().filter(|held| stamp_of(held.as_ref()) == stamp_of(state.as_ref()));
        self.known.chosen = same.count() >= self.config.write_quorum;
        self.known.record = state;
        self.known.owned = Some(ballot);
        self.advance(now, out);
    }

    // --- a write --------------------------------------------------------------------------------

    /// Owned: proposes what the waiting requests make of the state. Where they change nothing, the
    /// state itself must be chosen before they are answered: it is written back, or, if that was
    /// done, asked for, since another coordinator may have taken the key over.
    pub(super) fn write_or_confirm(&mut self, now: Now, out: &mut Effects) {
        let Some(ballot) = self.known.owned else { return };
        let (fold, served) = self.fold(now);
        if fold.changed() {
            let record = fold.into_record(ballot, self.known.record.as_ref());
            return self.start_accept(now, record, served, out);
        }
        match self.known.record.clone() {
            Some(state) if !self.known.chosen => {
                // A stamp that this ballot has sent before may have old acknowledgements under way.
                // They say what was chosen once, not that nobody has taken the key over since.
                let again = state.stamp.ballot == ballot;
                let version = state.stamp.version + u64::from(again);
                let record = Record { stamp: Stamp { ballot, version }, ..state };
                self.start_accept(now, record, served, out);
            }
            _ => {
                let unchanging = |served: Served| Waiting { changes: false, ..served.waiting };
                self.requeue(served.into_iter().map(unchanging));
                self.start_query(now, out);
            }
        }
    }

    fn start_accept(&mut self, now: Now, record: Record, served: Vec<Served>, out: &mut Effects) {
        let batch = served.iter().map(|served| &served.waiting);
        Self::note_round(RoundKind::Accept, record.stamp, batch, out);
        for to in self.config.replicas.clone() {
            self.send(to, Accept { key: self.key.clone(), record: record.clone() }, out);
        }
        self.known.record = Some(record.clone());
        self.known.chosen = false;
        let phase = Phase::Accepting { record, served, lost: false, tally: self.tally() };
        self.enter_round(phase, now);
    }

    pub(super) fn accepted(&mut self, now: Now, from: NodeId, stamp: Stamp, out: &mut Effects) {
        let Phase::Accepting { record, tally, .. } = &mut self.phase else { return };
        if record.stamp != stamp {
            return;
        }
        tally.vote(from);
        if tally.votes.len() < self.config.write_quorum {
            return;
        }
        let Phase::Accepting { served, lost, .. } = std::mem::replace(&mut self.phase, Phase::Idle)
        else {
            return;
        };
        out.push(Effect::Note(Note::Quorum { kind: RoundKind::Accept, stamp }));
        self.known.chosen = true;
        self.lost = self.lost.saturating_sub(1);
        if lost {
            self.known.owned = None;
        }
        for served in served {
            served.tell(out);
        }
        self.advance(now, out);
    }

    // --- a read ---------------------------------------------------------------------------------

    /// Asks replicas what they hold, for every request at the front that a query can answer. Only
    /// requests that are here now: a later one must not be answered from an older question.
    pub(super) fn start_query(&mut self, now: Now, out: &mut Effects) {
        let owned = self.known.owned.is_some();
        let fits = |waiting: &Waiting| !waiting.changes && (owned || waiting.may_query());
        let count = self.queue.iter().take(FOLD_MAX).take_while(|waiting| fits(waiting)).count();
        let batch: Vec<_> = self.queue.drain(..count).collect();
        self.ask.n += 1;
        let (ask, have) = (self.ask, self.known.record.clone());
        let stamp = stamp_of(have.as_ref()).unwrap_or_default();
        Self::note_round(RoundKind::Query, stamp, batch.iter(), out);
        let mut asked = self.config.replicas.clone();
        let mut spared = Vec::new();
        if self.thrifty {
            // The own replica is the nearest.
            asked.sort_by_key(|node| *node != self.config.me);
            spared = asked.split_off(self.config.write_quorum);
        }
        for to in asked {
            let query = Query { key: self.key.clone(), ask, have: stamp_of(have.as_ref()) };
            self.send(to, query, out);
        }
        let (answers, tally) = (BTreeMap::new(), self.tally());
        let hastens = !spared.is_empty();
        let phase = Phase::Querying { ask, have, answers, batch, tally, spared };
        self.enter_query(phase, now, hastens);
    }

    /// Asks those that a query has spared. Where enough have answered already, and differ, these are
    /// waited for no longer than any last replica: they may be dead without anybody knowing it yet.
    fn ask_spared(&mut self, now: Now, out: &mut Effects) {
        let Phase::Querying { ask, have, spared, answers, .. } = &mut self.phase else { return };
        let (ask, have, spared) = (*ask, stamp_of(have.as_ref()), std::mem::take(spared));
        let enough = answers.len() >= self.config.write_quorum;
        for to in spared {
            self.send(to, Query { key: self.key.clone(), ask, have }, out);
        }
        let phase = std::mem::replace(&mut self.phase, Phase::Idle);
        self.enter_query(phase, now, enough);
    }

    /// `hastens`: there is more to do where it finds no agreement soon.
    fn enter_query(&mut self, phase: Phase, now: Now, hastens: bool) {
        if hastens {
            self.enter(phase, now.mono + LAST_REPLICA_WAIT);
        } else {
            self.enter_round(phase, now);
        }
    }

    pub(super) fn state(&mut self, now: Now, from: NodeId, got: State, out: &mut Effects) {
        let Phase::Querying { ask, have, answers, tally, .. } = &mut self.phase else { return };
        if *ask != got.ask {
            return;
        }
        tally.vote(from);
        answers.insert(from, got.held.stamp());
        let stamp = got.held.stamp();
        let same = answers.values().filter(|held| **held == stamp).count();
        if same >= self.config.write_quorum {
            let record = match got.held {
                Held::Nothing => None,
                Held::Same(_) => have.take(),
                Held::Record(record) => Some(record),
            };
            return self.settled(now, record, out);
        }
        self.judge_query(now, out);
    }

    /// A write quorum holds `state`: it is chosen. Answers the requests that it answers; the first
    /// that would change it goes back to the queue with all behind it.
    fn settled(&mut self, now: Now, state: Option<Record>, out: &mut Effects) {
        let Phase::Querying { batch, .. } = std::mem::replace(&mut self.phase, Phase::Idle) else {
            return;
        };
        let stamp = stamp_of(state.as_ref()).unwrap_or_default();
        out.push(Effect::Note(Note::Quorum { kind: RoundKind::Query, stamp }));
        if stamp_of(self.known.record.as_ref()) != stamp_of(state.as_ref()) {
            self.known.owned = None;
        }
        self.known.record = state;
        self.known.chosen = true;
        self.lost = self.lost.saturating_sub(1);
        let mut batch = batch.into_iter();
        let mut back = Vec::new();
        for mut waiting in batch.by_ref() {
            let mut fold = Fold::new(self.known.record.as_ref(), self.context(now));
            let outcome = fold.serve(&waiting.request, waiting.proposed);
            if fold.changed() {
                waiting.changes = true;
                back.push(waiting);
                break;
            }
            Served { waiting, outcome }.tell(out);
        }
        back.extend(batch);
        self.requeue(back.into_iter());
        self.advance(now, out);
    }

    /// Ends a query that cannot agree any more: the state is written back under a ballot of our own.
    fn judge_query(&mut self, now: Now, out: &mut Effects) {
        let Phase::Querying { answers, tally, spared, .. } = &self.phase else { return };
        if !spared.is_empty() {
            if tally.complete_but(spared.len()) {
                self.ask_spared(now, out);
            }
        } else if tally.complete_but(0) {
            if answers.len() >= self.config.read_quorum {
                self.write_back(now, out);
            } else {
                self.give_up(now, out);
            }
        } else if answers.len() >= self.config.write_quorum {
            self.until = self.until.min(now.mono + LAST_REPLICA_WAIT);
        }
    }

    fn write_back(&mut self, now: Now, out: &mut Effects) {
        let Phase::Querying { mut batch, .. } = std::mem::replace(&mut self.phase, Phase::Idle)
        else {
            return;
        };
        out.push(Effect::Note(Note::WriteBack));
        self.known.chosen = false;
        if self.known.owned.is_none() || self.known.record.is_none() {
            self.known.owned = None;
            if let Some(first) = batch.first_mut() {
                first.changes = true;
            }
        }
        self.requeue(batch.into_iter());
        self.advance(now, out);
    }

    // --- refusals, silence ----------------------------------------------------------------------

    /// A round that lasts as long as it may, and asks whoever keeps silent again.
    fn enter_round(&mut self, phase: Phase, now: Now) {
        self.enter(phase, now.mono + self.config.round_timeout);
        self.again = self.repeat_at(now);
    }

    pub(super) fn repeat_at(&self, now: Now) -> Option<Time> {
        let Config { repeat_after, round_timeout, .. } = self.config;
        (repeat_after < round_timeout).then(|| now.mono + repeat_after)
    }

    /// Asks the peers that have not answered the same once more: the same ballot, the same stamp with
    /// the same content, the same question, so that it does not matter which of the two arrives.
    pub(super) fn ask_again(&self, out: &mut Effects) {
        let key = self.key.clone();
        let (message, tally): (Message, _) = match &self.phase {
            Phase::Preparing { ballot, tally, .. } => {
                (Prepare { key, ballot: *ballot }.into(), tally)
            }
            Phase::Accepting { record, tally, .. } => {
                (Accept { key, record: record.clone() }.into(), tally)
            }
            Phase::Querying { ask, have, tally, .. } => {
                (Query { key, ask: *ask, have: stamp_of(have.as_ref()) }.into(), tally)
            }
            Phase::Idle | Phase::Beginning | Phase::BackingOff => return,
        };
        for to in self.others().into_iter().filter(|to| !tally.has(*to)) {
            self.send(to, message.clone(), out);
        }
    }

    pub(super) fn refused(&mut self, now: Now, from: NodeId, got: &Refused, out: &mut Effects) {
        let met = self.above;
        self.above = self.above.max(got.promised.round);
        if self.known.owned == Some(got.asked) && !matches!(self.phase, Phase::Accepting { .. }) {
            self.known.owned = None;
        }
        match &mut self.phase {
            Phase::Preparing { ballot, tally, .. } if *ballot == got.asked => {
                tally.refuse(from);
                self.lost_vote(now, self.config.read_quorum, out);
            }
            Phase::Accepting { record, tally, lost, .. } if record.stamp.ballot == got.asked => {
                tally.refuse(from);
                *lost = true;
                self.lost_vote(now, self.config.write_quorum, out);
            }
            // Only a fresh ballot is above all met; an older one's refusal comes late.
            Phase::Beginning if from == self.config.me && got.asked.round > met => {
                self.give_up(now, out);
            }
            Phase::Preparing { .. }
            | Phase::Accepting { .. }
            | Phase::Beginning
            | Phase::Idle
            | Phase::Querying { .. }
            | Phase::BackingOff => {}
        }
    }

    pub(super) fn no_vote(&mut self, now: Now, from: NodeId, got: &NoVote, out: &mut Effects) {
        match (&mut self.phase, got.round) {
            (Phase::Beginning, Round::Begin) if from == self.config.me => self.give_up(now, out),
            (Phase::Preparing { ballot, tally, .. }, Round::Ballot(asked)) if *ballot == asked => {
                tally.refuse(from);
                self.judge_votes(now, self.config.read_quorum, out);
            }
            (Phase::Accepting { record, tally, .. }, Round::Ballot(asked))
                if record.stamp.ballot == asked =>
            {
                tally.refuse(from);
                self.judge_votes(now, self.config.write_quorum, out);
            }
            (Phase::Querying { ask, tally, .. }, Round::Query(asked)) if *ask == asked => {
                tally.refuse(from);
                self.judge_query(now, out);
            }
            _ => {}
        }
    }

    /// The ballot is refused, so it is probably lost: the others get a moment to contradict.
    fn lost_vote(&mut self, now: Now, quorum: usize, out: &mut Effects) {
        self.until = self.until.min(now.mono + LAST_REPLICA_WAIT);
        self.judge_votes(now, quorum, out);
    }

    /// A replica does not vote: with a quorum out of reach the round ends. Else the others keep
    /// their full time, since now every one of them is needed.
    fn judge_votes(&mut self, now: Now, quorum: usize, out: &mut Effects) {
        let (Phase::Preparing { tally, .. } | Phase::Accepting { tally, .. }) = &self.phase else {
            return;
        };
        if tally.possible() < quorum {
            self.give_up(now, out);
        }
    }

    /// Drops the ballot and puts the requests back. Where an accept was refused and nothing was lost
    /// lately, it goes on at once: whoever took the key over, with a hedged request as a rule, is most
    /// likely done with it. Otherwise it pauses for a random moment.
    fn give_up(&mut self, now: Now, out: &mut Effects) {
        if let Some((kind, ballot)) = self.phase.round() {
            out.push(Effect::Note(Note::GivenUp { kind, ballot }));
        }
        let taken_over = matches!(self.phase, Phase::Accepting { lost: true, .. });
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Accepting { served, .. } => {
                self.known = super::Known::default();
                self.requeue(served.into_iter().map(|served| Waiting {
                    proposed: served.waiting.proposed || served.is_in_state(),
                    ..served.waiting
                }));
            }
            Phase::Querying { batch, .. } => self.requeue(batch.into_iter()),
            Phase::Idle | Phase::Beginning | Phase::Preparing { .. } | Phase::BackingOff => {
                self.known.owned = None;
            }
        }
        self.expire(now, out);
        if self.queue.is_empty() {
            return;
        }
        if taken_over && self.lost == 0 && !self.config.contended {
            // Two, so that one success does not make it as eager again: that would be a duel without
            // a pause.
            self.lost = 2;
            return self.advance(now, out);
        }
        self.lost = (self.lost + 1).min(LOST_MAX);
        let span = self.backoff();
        out.push(Effect::Note(Note::BackOff { span }));
        self.enter(Phase::BackingOff, now.mono + span);
    }

    pub(super) fn timed_out(&mut self, now: Now, out: &mut Effects) {
        match &self.phase {
            Phase::BackingOff => {
                self.phase = Phase::Idle;
                self.advance(now, out);
            }
            Phase::Querying { spared, .. } if !spared.is_empty() => {
                self.ask_spared(now, out);
                // Where patience has ended too.
                if now.mono >= self.until {
                    self.timed_out(now, out);
                }
            }
            Phase::Querying { answers, .. } if answers.len() >= self.config.read_quorum => {
                self.write_back(now, out);
            }
            Phase::Idle
            | Phase::Beginning
            | Phase::Preparing { .. }
            | Phase::Accepting { .. }
            | Phase::Querying { .. } => self.give_up(now, out),
        }
    }

    /// `from` has lost its store: what it said in its former life is no vote any more. Promises too
    /// are taken back, though its floor would keep them.
    pub(super) fn forget_votes(&mut self, from: NodeId) {
        match &mut self.phase {
            Phase::Preparing { promises, tally, .. } => {
                promises.remove(&from);
                tally.forget(from);
            }
            Phase::Accepting { tally, .. } => tally.forget(from),
            Phase::Querying { answers, tally, .. } => {
                answers.remove(&from);
                tally.forget(from);
            }
            Phase::Idle | Phase::Beginning | Phase::BackingOff => {}
        }
    }

    fn others(&self) -> Vec<NodeId> {
        self.config.replicas.iter().copied().filter(|to| *to != self.config.me).collect()
    }
}
