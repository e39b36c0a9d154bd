//! Anti-entropy and learning, as far as the register's safety is concerned: which record may be
//! installed, and when a node that lost its store may vote again.
//!
//! A record is installed only if **both** other replicas were seen to hold its very stamp, in two
//! answers of different times: two replicas that have each accepted it are a majority, so it is
//! chosen. "Larger than the own" alone is not enough: see the control `InstallLarger`.
//!
//! A learner copies each key so. Where the two others differ, an ordinary read through a
//! coordinator writes the larger back, and they are compared again.

use super::{
    disk::Origin,
    mutant::Mutant,
    node::{Around, Node, Out},
};
use simpledynamo_protocol::{
    command::Command,
    effect::Effects,
    message::{Ask, Fetch, Greet, Records, Welcome},
    record::{Key, Record, stamp_of},
    register::acceptor::Standing,
    ring::NodeId,
};
use std::collections::{BTreeMap, BTreeSet};

/// A node's comparisons.
#[derive(Clone, Debug, Default)]
pub struct Sync {
    compares: BTreeMap<Ask, Compare>,
    /// Ceilings of the peers that have welcomed a learner.
    welcomes: BTreeMap<NodeId, u64>,
    /// Keys that a learner has still to copy.
    missing: BTreeSet<Key>,
}

#[derive(Clone, Debug)]
struct Compare {
    key: Key,
    seen: BTreeMap<NodeId, Option<Record>>,
}

impl Sync {
    /// What a peer showed in a life that is over proves nothing.
    pub fn forget(&mut self, peer: NodeId) {
        for compare in self.compares.values_mut() {
            compare.seen.remove(&peer);
        }
    }
}

impl Node {
    /// Starts to compare a key with both other replicas: two questions, to be sent at two times.
    pub fn compare(&mut self, key: &Key) -> Vec<(NodeId, Fetch)> {
        if self.chain.is_some() {
            return Vec::new();
        }
        let replicas = self.setup.ring.replicas_of(key);
        if !replicas.contains(&self.id) || self.standing() == Standing::Outside {
            return Vec::new();
        }
        let ask = self.ask();
        self.sync.compares.insert(ask, Compare { key: key.clone(), seen: BTreeMap::new() });
        let others = replicas.into_iter().filter(|id| *id != self.id);
        others.map(|to| (to, Fetch { ask, keys: vec![key.clone()] })).collect()
    }

    /// The keys to compare next: a learner's are all those that it misses.
    pub fn to_compare(&self, any: &Key) -> Vec<Key> {
        if self.standing() == Standing::Learner {
            self.sync.missing.iter().cloned().collect()
        } else {
            vec![any.clone()]
        }
    }

    pub(super) fn compared(&mut self, from: NodeId, got: Records, step: &mut Around<'_>) {
        let Some(compare) = self.sync.compares.get_mut(&got.ask) else { return };
        let record = got.records.into_iter().map(|(_, record)| record).next();
        compare.seen.insert(from, record);
        let larger = self.tamper.is(Mutant::InstallLarger);
        if compare.seen.len() < 2 && !larger {
            return;
        }
        let Compare { key, seen } = compare.clone();
        let stamps: BTreeSet<_> = seen.values().map(|record| stamp_of(record.as_ref())).collect();
        let agreed = stamps.len() == 1;
        if seen.len() == 2 {
            self.sync.compares.remove(&got.ask);
        }
        if agreed || larger {
            let record = seen.into_values().flatten().max_by_key(|record| record.stamp);
            self.install(&key, record, step);
            if agreed {
                self.learned(&key);
            }
        } else if self.standing() == Standing::Learner {
            self.submit(&key, Command::Get, step);
        }
    }

    fn install(&mut self, key: &Key, record: Option<Record>, step: &mut Around<'_>) {
        let Some(record) = record else { return };
        let mut effects = Effects::new();
        let stored = self.disk.get(key).cloned();
        self.acceptor.install(key.clone(), record, stored.as_ref(), &mut effects);
        self.replicate(effects, Origin::Installed, step);
    }

    // --- learners -------------------------------------------------------------------------------

    pub(super) fn start_learning(&mut self, step: &mut Around<'_>) {
        let (id, ring) = (self.id, &self.setup.ring);
        let mine = |key: &&Key| ring.replicas_of(key).contains(&id);
        self.sync.missing = self.setup.keys.iter().filter(mine).cloned().collect();
        self.greet(step);
    }

    /// Asks again those that have not yet answered.
    pub fn greet(&mut self, step: &mut Around<'_>) {
        if self.standing() != Standing::Outside {
            return;
        }
        for to in self.others().into_iter().filter(|id| !self.sync.welcomes.contains_key(id)) {
            step.out.push(Out::Send { to, message: Greet { store: self.life }.into() });
        }
    }

    pub(super) fn welcomed(&mut self, from: NodeId, got: &Welcome, step: &mut Around<'_>) {
        if self.standing() != Standing::Outside || got.store != self.life {
            return;
        }
        self.sync.welcomes.insert(from, got.ceiling);
        if self.sync.welcomes.len() < self.others().len() {
            return;
        }
        let ceiling = self.sync.welcomes.values().copied().max().unwrap_or(0);
        self.learn(ceiling, step);
        if self.chain.is_some() {
            return;
        }
        if self.tamper.is(Mutant::LearnerVotes) {
            self.sync.missing.clear();
        }
        if self.sync.missing.is_empty() {
            self.acceptor.vote();
        }
    }

    fn learned(&mut self, key: &Key) {
        if self.standing() == Standing::Learner {
            self.sync.missing.remove(key);
            if self.sync.missing.is_empty() {
                self.acceptor.vote();
            }
        }
    }
}
