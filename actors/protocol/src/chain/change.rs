//! Changes of the chain: who fears a break asks all nodes of the range, and proposes a chain of the
//! members that answer.
//!
//! A time-out is no failure: nothing follows from it but a survey, and nothing follows from the
//! survey but a proposal. Only the register's compare-and-set changes the chain, and it can succeed
//! only from the chain that was surveyed. Its accept is the seal of the old epoch: once a majority of
//! the range's nodes has accepted it durably, no tail of the old epoch gets a confirmation any more.
//!
//! Who hears no majority proposes nothing: it may be deaf, and a deaf node's proposals are heard. The
//! new chain keeps the order, drops who was silent and who has lost its data, and begins with a
//! member that is level. So every member holds all that was ever committed, whoever is left.

use super::{
    Core, Range, Step,
    config::Config,
    register::Purpose,
    wire::{Fitness, Present},
};
use crate::{effect::Write, message::Ask, ring::NodeId, time::Time};
use std::{collections::BTreeMap, time::Duration};

/// How long members may be silent, in request time-outs: each of the three that go by, the router's,
/// this one and the rounds of the register, is part of what a client waits.
const SURVEY_WAITS: u32 = 2;

/// Pause after a survey.
const SURVEY_PAUSE: Duration = Duration::from_millis(50);

/// How often the head of a shortened chain tells the others that they are not in it: one that was
/// only paused does not know.
const CALL_EVERY: Duration = Duration::from_millis(500);

/// The look at the members.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Survey {
    /// None.
    Rest,
    /// These have answered.
    Asking { ask: Ask, until: Time, present: BTreeMap<NodeId, Fitness> },
    /// A chain without some is being proposed.
    Changing,
}

impl Survey {
    pub(super) fn is_open(&self) -> bool {
        !matches!(self, Survey::Rest)
    }
}

impl Range {
    /// What the chain may expect of this node.
    fn fitness(&self, core: &Core) -> Fitness {
        let head = self.seat.config.head() == Some(core.me);
        match () {
            () if self.serves(core) => Fitness::Level,
            () if core.votes() && self.seat.is_loss_accepted() => Fitness::LossAccepted,
            () if core.votes() && self.seat.pure && !head => Fitness::Copying,
            () => Fitness::Lost,
        }
    }

    /// Asks all nodes of the range whether they are there, unless that was done just now.
    pub(super) fn start_survey(&mut self, core: &mut Core, step: &mut Step<'_>) {
        let now = step.now.mono;
        if self.survey.is_open() || now < self.survey_after || !core.votes() {
            return;
        }
        if self.seat.config.epoch == 0 || self.is_sealed() {
            self.survey_after = now + SURVEY_PAUSE;
            return self.ask_register(core, Purpose::Settle, step);
        }
        let ask = core.ask();
        let until = now + core.settings.request_timeout * SURVEY_WAITS;
        let mut present = BTreeMap::new();
        for node in &self.replicas {
            if *node == core.me {
                present.insert(core.me, self.fitness(core));
            } else {
                let config = self.seat.config.clone();
                step.send(*node, super::wire::Survey { range: self.id, config, ask });
            }
        }
        self.survey = Survey::Asking { ask, until, present };
        self.judge_survey(core, step);
    }

    /// Somebody surveys.
    pub(super) fn surveyed(
        &mut self,
        core: &mut Core,
        from: NodeId,
        survey: &super::wire::Survey,
        step: &mut Step<'_>,
    ) {
        if !core.votes() || !self.meets(core, from, &survey.config, step) {
            return;
        }
        let (epoch, fitness) = (self.seat.config.epoch, self.fitness(core));
        step.send(from, Present { range: self.id, epoch, ask: survey.ask, fitness });
    }

    /// A member has answered.
    pub(super) fn present(
        &mut self,
        core: &mut Core,
        from: NodeId,
        got: &Present,
        step: &mut Step<'_>,
    ) {
        if let Survey::Asking { ask, present, .. } = &mut self.survey
            && *ask == got.ask
            && got.epoch == self.seat.config.epoch
        {
            present.insert(from, got.fitness);
            self.judge_survey(core, step);
        }
    }

    /// `node` has lost its store: it is not fit as it said.
    pub(super) fn forget_present(&mut self, node: NodeId) {
        if let Survey::Asking { present, .. } = &mut self.survey {
            present.remove(&node);
        }
    }

    /// Ends the survey once all members have answered, and enough of the range's nodes to go on from
    /// there.
    fn judge_survey(&mut self, core: &mut Core, step: &mut Step<'_>) {
        let Survey::Asking { present, .. } = &self.survey else { return };
        let members = &self.seat.config.members;
        let all = members.iter().all(|member| present.contains_key(&member.node));
        let whole = survivors(&self.seat.config, present).members == *members;
        if all && (whole || self.is_majority(present)) {
            self.conclude(core, step);
        }
    }

    fn is_majority(&self, present: &BTreeMap<NodeId, Fitness>) -> bool {
        present.len() * 2 > self.replicas.len()
    }

    fn conclude(&mut self, core: &mut Core, step: &mut Step<'_>) {
        let Survey::Asking { present, .. } = std::mem::replace(&mut self.survey, Survey::Rest)
        else {
            return;
        };
        let now = step.now.mono;
        self.survey_after = now + SURVEY_PAUSE;
        let (next, heard) = (survivors(&self.seat.config, &present), self.is_majority(&present));
        self.broken = next.members != self.seat.config.members;
        if !self.broken {
            self.has_betters(core, step);
            let lost = now.0.saturating_sub(core.settings.request_timeout.as_micros() as u64);
            self.resend(core, Time(lost), step);
            self.release(core, step);
        } else if heard && !next.members.is_empty() {
            self.change(core, next, step);
        }
    }

    /// The chain works: nothing is to begin with what this node has.
    fn has_betters(&mut self, core: &Core, step: &mut Step<'_>) {
        if self.seat.is_loss_accepted() && self.seat.config.since(core.me).is_none() {
            self.seat.level = 0;
            step.persist(Write::Seat(self.id, self.seat.clone()));
        }
    }

    /// Proposes the chain that follows.
    pub(super) fn change(&mut self, core: &mut Core, next: Config, step: &mut Step<'_>) {
        if !self.register.is_busy() {
            self.survey = Survey::Changing;
            self.ask_register(core, Purpose::Change(next), step);
        }
    }

    pub(super) fn change_failed(&mut self, _: &Core, step: &Step<'_>) {
        self.survey = Survey::Rest;
        self.survey_after = step.now.mono + SURVEY_PAUSE;
    }

    pub(super) fn wake_survey(&mut self, core: &mut Core, step: &mut Step<'_>) {
        match &self.survey {
            Survey::Asking { until, .. } if *until <= step.now.mono => self.conclude(core, step),
            Survey::Rest if self.wants_survey(core) => self.start_survey(core, step),
            Survey::Rest | Survey::Asking { .. } | Survey::Changing => {}
        }
    }

    fn wants_survey(&self, core: &Core) -> bool {
        let lost = self.fitness(core) == Fitness::Lost;
        let must_leave = core.votes() && lost && self.seat.config.since(core.me).is_some();
        let knows_none = core.votes() && self.seat.config.epoch == 0;
        let may_begin = core.votes() && self.seat.is_loss_accepted();
        !self.parked.is_empty() || self.broken || must_leave || knows_none || may_begin
    }

    pub(super) fn next_survey(&self, core: &Core) -> Option<Time> {
        match &self.survey {
            Survey::Asking { until, .. } => Some(*until),
            Survey::Rest if self.wants_survey(core) => Some(self.survey_after),
            Survey::Rest | Survey::Changing => None,
        }
    }

    /// Whether it is for this node to call those who are missing.
    pub(super) fn calls(&self, core: &Core) -> bool {
        let config = &self.seat.config;
        config.head() == Some(core.me) && config.members.len() < self.replicas.len()
    }

    pub(super) fn wake_call(&mut self, core: &Core, step: &mut Step<'_>) {
        if !self.calls(core) || step.now.mono < self.call_at {
            return;
        }
        self.call_at = step.now.mono + CALL_EVERY;
        for node in self.replicas.iter().filter(|node| self.seat.config.since(**node).is_none()) {
            self.tell(*node, step);
        }
    }

    /// A later chain is known to be chosen: the old one ends here, durably, before anything is done
    /// or said in the new one.
    pub(super) fn adopt(&mut self, core: &mut Core, config: Config, step: &mut Step<'_>) {
        if config.epoch <= self.seat.config.epoch {
            return;
        }
        let source = self.seat.config.before(core.me);
        self.seat = self.seat.moved_to(config, core.me);
        step.persist(Write::Seat(self.id, self.seat.clone()));
        self.survey = Survey::Rest;
        self.broken = false;
        for read in self.reads.take() {
            self.parked.push_back(read);
        }
        self.settle_unacked(core, step);
        let stays = source.is_some() && self.seat.config.before(core.me) == source;
        self.plan_copy(core, !stays, step.now.mono);
        self.release(core, step);
    }

    /// Somebody says what the chain is.
    pub(super) fn announced(
        &mut self,
        core: &mut Core,
        from: NodeId,
        config: Config,
        step: &mut Step<'_>,
    ) {
        if config.epoch < self.seat.config.epoch {
            return self.tell(from, step);
        }
        let known = config == self.seat.config;
        self.adopt(core, config, step);
        if known && self.seat.config.before(core.me) == Some(from) {
            // The predecessor was started anew: it does not know what it has not passed on.
            self.plan_copy(core, true, step.now.mono);
        }
    }
}

/// The chain of those that answered, from the first that is level on. Where none is, it begins anew
/// with one whose loss was accepted: the first in the chain, which held most.
fn survivors(config: &Config, present: &BTreeMap<NodeId, Fitness>) -> Config {
    let level = |node| present.get(&node) == Some(&Fitness::Level);
    let first = config.members.iter().position(|member| level(member.node));
    if first.is_none() {
        let members = config.members.iter().map(|member| member.node);
        let accepted = |node: &NodeId| present.get(node) == Some(&Fitness::LossAccepted);
        if let Some(node) = members.chain(present.keys().copied()).find(accepted) {
            return config.begun_by(node);
        }
    }
    let behind = |node| {
        let at = config.members.iter().position(|member| member.node == node);
        first.is_some() && at >= first
    };
    config.keeping(|node| {
        level(node) || present.get(&node) == Some(&Fitness::Copying) && behind(node)
    })
}
