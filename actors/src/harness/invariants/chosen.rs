//! Chosen states are contained in later ones. A state is chosen once a majority of the replicas has
//! stored it; among chosen states in order of their stamps the version never goes down, one version
//! is one content, and no operation that one remembers is new to a later one, nor does its result
//! change. Source: CASPaxos (Rystsov, 2018), appendix A; RIFL (Lee et al., SOSP '15), §3.

use simpledynamo_protocol::{
    ballot::Stamp,
    message::Message,
    recent::{OpId, Seen},
    record::{Key, Record},
    ring::NodeId,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Of three replicas.
const MAJORITY: usize = 2;
/// Operations of a key that are followed at a time; those in flight are among them.
const OPERATIONS: usize = 32;

#[derive(Default)]
pub(super) struct Chosen {
    stored: BTreeMap<(Key, Stamp), BTreeSet<NodeId>>,
    states: BTreeMap<Key, BTreeMap<Stamp, Record>>,
    operations: BTreeMap<Key, VecDeque<OpId>>,
    pub(super) count: u64,
}

impl Chosen {
    pub(super) fn sent(&mut self, message: &Message) {
        let Message::Request(request) = message else { return };
        let operations = self.operations.entry(request.key.clone()).or_default();
        if !operations.contains(&request.op) {
            operations.push_back(request.op);
        }
        if operations.len() > OPERATIONS {
            operations.pop_front();
        }
    }

    pub(super) fn stored(&mut self, at: NodeId, key: &Key, record: &Record) -> Result<(), String> {
        let voters = self.stored.entry((key.clone(), record.stamp)).or_default();
        if !voters.insert(at) || voters.len() != MAJORITY {
            return Ok(());
        }
        self.count += 1;
        let none = VecDeque::new();
        let operations = self.operations.get(key).unwrap_or(&none);
        let states = self.states.entry(key.clone()).or_default();
        let before = states.range(..record.stamp).next_back().map(|(_, state)| state);
        let after = states.range(record.stamp..).next().map(|(_, state)| state);
        before.map_or(Ok(()), |before| contains(key, before, record, operations))?;
        after.map_or(Ok(()), |after| contains(key, record, after, operations))?;
        states.insert(record.stamp, record.clone());
        Ok(())
    }

    /// Votes that are gone count only where they made a majority before.
    pub(super) fn wiped(&mut self, node: NodeId) {
        for voters in self.stored.values_mut().filter(|voters| voters.len() < MAJORITY) {
            voters.remove(&node);
        }
    }

    /// A tombstone was collected: the key begins anew.
    pub(super) fn forget(&mut self, key: &Key) {
        self.states.remove(key);
    }
}

fn contains(key: &Key, old: &Record, new: &Record, ops: &VecDeque<OpId>) -> Result<(), String> {
    let same = (&old.datum, &old.recent) == (&new.datum, &new.recent);
    if new.stamp.version < old.stamp.version || (new.stamp.version == old.stamp.version && !same) {
        return Err(format!("chosen states follow one another: {key} {new} after {old}"));
    }
    for op in ops {
        let kept = match (old.recent.seen(*op), new.recent.seen(*op)) {
            (Seen::New, _) | (_, Seen::Stale) => true,
            (Seen::Applied(old), Seen::Applied(new)) => old == new,
            (Seen::Applied(_) | Seen::Stale, _) => false,
        };
        if !kept {
            return Err(format!(
                "a chosen operation stays chosen: {key} {op} is in {old}, not in {new}"
            ));
        }
    }
    Ok(())
}
