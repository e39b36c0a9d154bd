//! Copying: how a node comes to hold what the chain holds.
//!
//! A replica that is not in the chain first makes its rows those of the tail, whatever it holds
//! (`Purge`): a former member may have the rest of a write that the chain has gone on without. What
//! a tail holds is committed, so afterwards nothing is left here that is not. Then it joins as the
//! new tail by a change of the chain, and pulls what is newer at its predecessor (`Level`): after a
//! handshake in the new epoch, so that all that was committed in earlier ones is there. Writes go on
//! meanwhile; those of the new epoch reach it as the chain's last. It answers no read before it is
//! level.
//!
//! Members pull again where their predecessor may not know what they miss: after its restart, after
//! their own, with a new predecessor, and now and then.
//!
//! Differences are found by digests, as in [`crate::register::catchup`]. Every listing must come from a
//! source that is level when it lists, and every record must be as new as listed: a source may lose
//! its store in between.

use super::{
    Core, Range, Step,
    wire::{Attach, Attached},
};
use crate::{
    ballot::Stamp,
    effect::Write,
    message::{Ask, AskDigests, AskList, Digests, Fetch, Listed, Message, Records, Row},
    record::{Key, Record, stamp_of},
    register::{
        catchup::{ASK_TIMEOUT, LIST_ROWS},
        digest,
    },
    ring::{NodeId, Position},
    time::Time,
};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// Pause before a copy that could not be completed is tried again, and before who was shut out comes
/// back.
const RETRY_EVERY: Duration = Duration::from_millis(250);

/// A level member compares itself with its predecessor so often.
const PASS_EVERY: Duration = Duration::from_secs(30);

/// A pass that changed no more rows than this is the last before joining: what is missing then is
/// copied while reads wait. So is one that changed more than half as many as the one before: where
/// more rows than this are written all the time, no pass comes closer.
const FEW: u64 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Purpose {
    Purge,
    Level,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Resting,
    Attaching,
    Digests { mine: Option<Digests>, theirs: Option<Digests> },
    Listing { to: u64, mine: Option<Listed>, theirs: Option<Listed> },
    Fetching { next: Option<u64>, to: u64 },
}

/// The copying of one range.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Copy {
    stage: Stage,
    purpose: Purpose,
    source: NodeId,
    ask: Ask,
    /// When the stage is given up; at rest, when to begin.
    until: Time,
    intervals: VecDeque<(u64, u64)>,
    wanted: BTreeMap<Key, Stamp>,
    /// Rows that this pass has changed.
    changed: u64,
    /// Rows that the pass before has changed, where it was for the same purpose.
    before: Option<u64>,
}

impl Copy {
    pub(super) fn new(now: Time) -> Copy {
        Copy {
            stage: Stage::Resting,
            purpose: Purpose::Level,
            source: NodeId(0),
            ask: Ask::default(),
            until: now,
            intervals: VecDeque::new(),
            wanted: BTreeMap::new(),
            changed: 0,
            before: None,
        }
    }

    /// Whether one more pass over the same rows would come no closer.
    fn is_close(&self) -> bool {
        self.changed <= FEW || self.before.is_some_and(|before| self.changed > before / 2)
    }

    fn rest(&mut self, until: Time) {
        self.stage = Stage::Resting;
        self.until = until;
        self.intervals.clear();
        self.wanted.clear();
    }
}

impl Range {
    /// A copy under way is of no use any more; another begins `soon`, or when it is time.
    pub(super) fn plan_copy(&mut self, core: &Core, soon: bool, now: Time) {
        let member = self.seat.config.since(core.me).is_some();
        let pause = match (member, soon || !self.seat.is_level(core.me)) {
            (true, true) => Duration::ZERO,
            (true, false) => PASS_EVERY,
            (false, _) => RETRY_EVERY,
        };
        self.copy.before = None;
        self.copy.rest(now + pause);
    }

    pub(super) fn next_copy(&self, core: &Core) -> Option<Time> {
        let under_way = self.copy.stage != Stage::Resting;
        (under_way || self.what_to_copy(core).is_some()).then_some(self.copy.until)
    }

    /// What is to be copied, and from whom; none where nothing is or can be.
    fn what_to_copy(&self, core: &Core) -> Option<(Purpose, NodeId)> {
        let config = &self.seat.config;
        if !core.votes() || config.epoch == 0 {
            return None;
        }
        match config.since(core.me) {
            None if config.members.len() < self.replicas.len() => {
                Some((Purpose::Purge, config.tail()?))
            }
            None => None,
            Some(_) if !self.seat.pure => None,
            Some(_) => Some((Purpose::Level, config.before(core.me)?)),
        }
    }

    pub(super) fn wake_copy(&mut self, core: &mut Core, step: &mut Step<'_>) {
        let now = step.now.mono;
        if now < self.copy.until {
            return;
        }
        if self.copy.stage != Stage::Resting {
            return self.copy.rest(now + RETRY_EVERY);
        }
        self.copy.until = now + RETRY_EVERY;
        let Some((purpose, source)) = self.what_to_copy(core) else { return };
        let ask = core.ask();
        (self.copy.purpose, self.copy.source, self.copy.ask) = (purpose, source, ask);
        self.copy.changed = 0;
        self.copy.stage = Stage::Attaching;
        step.send(source, Attach { range: self.id, config: self.seat.config.clone(), ask });
    }

    /// Somebody wants to copy from here.
    pub(super) fn attach(
        &mut self,
        core: &mut Core,
        from: NodeId,
        ask: &Attach,
        step: &mut Step<'_>,
    ) {
        if !self.meets(core, from, &ask.config, step) || !self.serves(core) {
            return;
        }
        let config = &self.seat.config;
        let source = match config.since(from) {
            Some(_) => config.before(from),
            None => config.tail(),
        };
        if source == Some(core.me) {
            step.send(from, Attached { range: self.id, epoch: config.epoch, ask: ask.ask });
        }
    }

    pub(super) fn attached(
        &mut self,
        core: &mut Core,
        from: NodeId,
        got: &Attached,
        step: &mut Step<'_>,
    ) {
        let fits = self.copy.stage == Stage::Attaching && self.copy.ask == got.ask;
        if !fits || self.copy.source != from || got.epoch != self.seat.config.epoch {
            return;
        }
        self.copy.stage = Stage::Digests { mine: None, theirs: None };
        let (ask, range) = (self.next_ask(core, step.now.mono), self.id);
        for to in [core.me, from] {
            step.send(to, AskDigests { ask, range });
        }
    }

    fn next_ask(&mut self, core: &mut Core, now: Time) -> Ask {
        self.copy.ask = core.ask();
        self.copy.until = now + ASK_TIMEOUT;
        self.copy.ask
    }

    /// An answer to what a copy asked.
    pub(super) fn copy_message(
        &mut self,
        core: &mut Core,
        from: NodeId,
        message: &Message,
        step: &mut Step<'_>,
    ) {
        let (ask, me, source) = (self.copy.ask, core.me, self.copy.source);
        match (&mut self.copy.stage, message) {
            (Stage::Digests { mine, theirs }, Message::Digests(got)) if got.ask == ask => {
                let place = if from == me { mine } else { theirs };
                *place = Some(got.clone());
                self.compare(core, step);
            }
            (Stage::Listing { mine, theirs, .. }, Message::Listed(got)) if got.ask == ask => {
                let place = if from == me { mine } else { theirs };
                *place = Some(got.clone());
                self.merge(core, step);
            }
            (Stage::Fetching { .. }, Message::Records(got)) if got.ask == ask && from == source => {
                self.fetched(core, got, step);
            }
            _ => {}
        }
    }

    fn compare(&mut self, core: &mut Core, step: &mut Step<'_>) {
        let Stage::Digests { mine: Some(mine), theirs: Some(theirs) } = &self.copy.stage else {
            return;
        };
        if !theirs.votes {
            return self.give_up(step.now.mono);
        }
        let ring = &core.settings.ring;
        self.copy.intervals = (0..digest::BUCKETS)
            .filter(|bucket| mine.buckets.get(*bucket) != theirs.buckets.get(*bucket))
            .flat_map(|bucket| digest::interval(ring, self.id, bucket))
            .collect();
        self.next_interval(core, step);
    }

    fn next_interval(&mut self, core: &mut Core, step: &mut Step<'_>) {
        match self.copy.intervals.pop_front() {
            Some((from, to)) => self.list(core, from, to, step),
            None => self.copied(core, step),
        }
    }

    fn list(&mut self, core: &mut Core, from: u64, to: u64, step: &mut Step<'_>) {
        self.copy.stage = Stage::Listing { to, mine: None, theirs: None };
        let (ask, range) = (self.next_ask(core, step.now.mono), self.id);
        for node in [core.me, self.copy.source] {
            step.send(node, AskList { ask, range, from, to, rows: LIST_ROWS });
        }
    }

    /// Both listings are in. What lies behind the end of the shorter one is left to the next.
    fn merge(&mut self, core: &mut Core, step: &mut Step<'_>) {
        let Stage::Listing { to, mine: Some(mine), theirs: Some(theirs) } = &self.copy.stage else {
            return;
        };
        if !theirs.votes {
            return self.give_up(step.now.mono);
        }
        let to = *to;
        let next = [mine.next, theirs.next].into_iter().flatten().min();
        let within = |row: &&Row| next.is_none_or(|next| Position::of(&row.key).prefix() < next);
        let rows = |listed: &Listed| -> BTreeMap<Key, Stamp> {
            listed.rows.iter().filter(within).map(|row| (row.key.clone(), row.stamp)).collect()
        };
        let (mine, theirs) = (rows(mine), rows(theirs));
        let purge = self.copy.purpose == Purpose::Purge;
        for (key, stamp) in &theirs {
            let own = mine.get(key);
            if own < Some(stamp) || purge && own != Some(stamp) {
                self.copy.wanted.insert(key.clone(), *stamp);
            }
        }
        if purge {
            for key in mine.keys().filter(|key| !theirs.contains_key(*key)) {
                self.copy.changed += 1;
                step.remove(key);
            }
        }
        self.copy.stage = Stage::Fetching { next, to };
        self.fetch(core, step);
    }

    fn fetch(&mut self, core: &mut Core, step: &mut Step<'_>) {
        let Stage::Fetching { next, to } = &self.copy.stage else { return };
        let (next, to) = (*next, *to);
        if !self.copy.wanted.is_empty() {
            let keys = self.copy.wanted.keys().cloned().collect();
            let ask = self.next_ask(core, step.now.mono);
            return step.send(self.copy.source, Fetch { ask, keys });
        }
        match next {
            Some(next) if next <= to => self.list(core, next, to, step),
            _ => self.next_interval(core, step),
        }
    }

    fn fetched(&mut self, core: &mut Core, got: &Records, step: &mut Step<'_>) {
        let fits = |(key, record): &&(Key, Record)| {
            self.copy.wanted.get(key).is_some_and(|listed| record.stamp >= *listed)
        };
        let news: Vec<_> = got.records.iter().filter(fits).collect();
        if news.is_empty() {
            // Collected in the meantime, or the source has lost what it had listed.
            return self.give_up(step.now.mono);
        }
        for (key, record) in news {
            self.copy.wanted.remove(key);
            self.copy.changed += 1;
            self.take_over(core, key, record, step);
        }
        self.fetch(core, step);
    }

    fn give_up(&mut self, now: Time) {
        self.copy.rest(now + RETRY_EVERY);
    }

    /// `node` has lost its store: what it showed before is no part of a copy any more.
    pub(super) fn forget_source(&mut self, node: NodeId) {
        if self.copy.stage != Stage::Resting && self.copy.source == node {
            self.copy.rest(self.copy.until);
        }
    }

    fn take_over(&mut self, core: &mut Core, key: &Key, record: &Record, step: &mut Step<'_>) {
        match self.copy.purpose {
            Purpose::Purge if stamp_of(step.row(key).as_ref()) != Some(record.stamp) => {
                step.put(key, record.clone());
            }
            Purpose::Purge => {}
            Purpose::Level => {
                if self.store_newer(key, record, step) {
                    self.pass_on(core, key.clone(), Some(record.clone()), Vec::new(), step);
                }
            }
        }
    }

    /// The range was gone through.
    fn copied(&mut self, core: &mut Core, step: &mut Step<'_>) {
        let now = step.now.mono;
        match self.copy.purpose {
            Purpose::Level => {
                self.copy.rest(now + PASS_EVERY);
                if !self.seat.is_level(core.me) {
                    self.seat.level = self.seat.config.since(core.me).unwrap_or(0);
                    step.persist(Write::Seat(self.id, self.seat.clone()));
                    self.release(core, step);
                }
            }
            Purpose::Purge => {
                let close = self.copy.is_close();
                self.copy.before = Some(self.copy.changed);
                self.copy.rest(if close { now + RETRY_EVERY } else { now });
                if !self.seat.pure {
                    self.seat.pure = true;
                    step.persist(Write::Seat(self.id, self.seat.clone()));
                }
                if close && !self.survey.is_open() {
                    self.change(core, self.seat.config.joined_by(core.me), step);
                }
            }
        }
    }
}
