//! The end of a run: everything is mended, and the replicas must become equal by themselves.

use super::{Failure, Sim, ms};
use crate::messages::Status;
use simpledynamo_protocol::{
    ballot::Stamp,
    record::{Datum, Key},
    ring::NodeId,
};
use std::{collections::BTreeMap, time::Duration};

/// Simulated time for replicas to become equal once nothing is broken: three passes of anti-entropy.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(120);
/// How often it is looked at.
const LOOK_EVERY: Duration = ms(250);

impl Sim {
    /// Mends all links and disks, lets paused nodes go on, starts those that are down, and runs until every node
    /// serves and the three replicas of each key hold the same record.
    ///
    /// # Errors
    /// They do not within two minutes, an actor has died, or a rule was broken.
    pub fn heal_and_settle(&mut self) -> Result<(), Failure> {
        self.world.wire.borrow_mut().triggers.clear();
        self.heal();
        for id in self.ids() {
            self.set_paused(id, false);
            if let Some(node) = self.nodes.get(&id) {
                node.disk.mend();
            }
            if self.nodes.get(&id).is_some_and(|node| !node.is_up()) {
                self.boot(id, false);
            }
        }
        let until = self.elapsed() + SETTLE_TIME_MAX;
        loop {
            let differs = self.difference();
            let Some(what) = differs else {
                let statuses = self.statuses()?;
                let serve = statuses.values().all(|status| self.is_whole(status));
                if serve && statuses.len() == self.ids().len() && self.difference().is_none() {
                    return Ok(());
                }
                if self.elapsed() > until {
                    return Err(self.failure(&self.who_lags(&statuses)));
                }
                self.advance(LOOK_EVERY)?;
                continue;
            };
            if self.elapsed() > until {
                return Err(self.failure(&what));
            }
            self.advance(LOOK_EVERY)?;
        }
    }

    /// Which nodes do not serve as they should, with what they say of themselves.
    fn who_lags(&self, statuses: &BTreeMap<NodeId, Status>) -> String {
        let lagging = self.ids().into_iter().filter_map(|id| match statuses.get(&id) {
            Some(status) if self.is_whole(status) => None,
            Some(Status { phase, level, .. }) => Some(format!("{id} is {phase:?}, level: {level}")),
            None => Some(format!("{id} is down")),
        });
        let lagging: Vec<_> = lagging.chain(self.difference()).collect();
        format!("not every node serves, long after all was mended: {}", lagging.join("; "))
    }

    /// The first key whose replicas are not equal, with what they hold.
    fn difference(&self) -> Option<String> {
        let mut held: BTreeMap<Key, BTreeMap<NodeId, (Stamp, Datum)>> = BTreeMap::new();
        for node in self.nodes.values() {
            for (key, record) in node.disk.rows() {
                let row = (record.stamp, record.datum);
                held.entry(key).or_default().insert(node.id(), row);
            }
        }
        let ring = &self.nodes.values().next()?.settings.ring;
        held.into_iter().find_map(|(key, rows)| {
            let replicas = ring.replicas_of(&key);
            let mut expected: Vec<_> = replicas;
            expected.sort_unstable();
            let complete = rows.keys().copied().eq(expected.iter().copied());
            let mut states = rows.values();
            let first = states.next();
            let equal = states.all(|state| Some(state) == first);
            (!complete || !equal).then(|| {
                let rows: Vec<_> =
                    rows.iter().map(|(node, (stamp, _))| format!("{node} {stamp}")).collect();
                format!("the replicas of {key} differ after healing: {}", rows.join(", "))
            })
        })
    }
}
