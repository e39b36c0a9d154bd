//! Chosen states are contained in later ones. A state is chosen once a majority of the replicas has
//! accepted it durably; among chosen states in order of their stamps the version never goes down,
//! one version is one content, and no operation that one remembers is new to a later one, nor does
//! its result change. Source: CASPaxos (Rystsov, 2018), appendix A; RIFL (Lee et al., 2015), §3.

use super::{Fact, Violation, known, object};
use simpledynamo_protocol::{
    ballot::Stamp,
    recent::{OpId, Seen},
    record::{Key, Record},
    ring::NodeId,
};
use std::collections::{BTreeMap, BTreeSet};

/// Of three replicas.
const MAJORITY: usize = 2;

#[derive(Debug, Default)]
pub struct Chosen {
    accepted: BTreeMap<(Key, Stamp), BTreeSet<NodeId>>,
    states: BTreeMap<Key, BTreeMap<Stamp, Record>>,
    ops: BTreeMap<Key, BTreeSet<OpId>>,
}

impl Chosen {
    /// Gives the state that this fact made chosen.
    pub fn check(&mut self, fact: &Fact) -> Result<Option<(Key, Record)>, Violation> {
        match fact {
            Fact::Asked { key, op, .. } => {
                self.ops.entry(key.clone()).or_default().insert(*op);
            }
            Fact::Accepted { at, key, record } => {
                let voters = self.accepted.entry((key.clone(), record.stamp)).or_default();
                if voters.insert(*at) && voters.len() == MAJORITY {
                    self.add(key, record)?;
                    return Ok(Some((key.clone(), record.clone())));
                }
            }
            Fact::Learns { at } => {
                // Votes that are gone count only where they were counted before.
                for voters in self.accepted.values_mut().filter(|voters| voters.len() < MAJORITY) {
                    voters.remove(at);
                }
            }
            Fact::Committed { key, record } => {
                self.add(key, record)?;
                return Ok(Some((key.clone(), record.clone())));
            }
            Fact::Began { .. }
            | Fact::Stored { .. }
            | Fact::Seated { .. }
            | Fact::Proposed { .. }
            | Fact::Installed { .. }
            | Fact::Told { .. }
            | Fact::Stands { .. }
            | Fact::Wiped { .. } => {}
        }
        Ok(None)
    }

    pub fn is_chosen(&self, key: &Key, stamp: Stamp) -> bool {
        self.states.get(key).is_some_and(|states| states.contains_key(&stamp))
    }

    pub fn len(&self) -> usize {
        self.states.values().map(BTreeMap::len).sum()
    }

    fn add(&mut self, key: &Key, record: &Record) -> Result<(), Violation> {
        let ops = self.ops.entry(key.clone()).or_default();
        let states = self.states.entry(key.clone()).or_default();
        let before = states.range(..record.stamp).next_back().map(|(_, state)| state);
        let after = states.range(record.stamp..).next().map(|(_, state)| state);
        before.map_or(Ok(()), |before| contains(key, before, record, ops))?;
        after.map_or(Ok(()), |after| contains(key, record, after, ops))?;
        states.insert(record.stamp, record.clone());
        Ok(())
    }
}

fn contains(key: &Key, old: &Record, new: &Record, ops: &BTreeSet<OpId>) -> Result<(), Violation> {
    let same = (&old.datum, &old.recent) == (&new.datum, &new.recent);
    if new.stamp.version < old.stamp.version || (new.stamp.version == old.stamp.version && !same) {
        return object("chosen", format!("{key}: {new} does not follow {old}"));
    }
    for op in known(old, ops) {
        let kept = match (old.recent.seen(*op), new.recent.seen(*op)) {
            (_, Seen::Stale) => true,
            (Seen::Applied(old), Seen::Applied(new)) => old == new,
            (Seen::Applied(_) | Seen::Stale | Seen::New, _) => false,
        };
        if !kept {
            return object("chosen", format!("{key}: {op} is in {old}, not so in {new}"));
        }
    }
    Ok(())
}
