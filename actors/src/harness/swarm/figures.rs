//! What many runs came to, added up.

use super::Outcome;
use crate::settings::Replication;
use std::{collections::BTreeMap, fmt, time::Duration};

/// Figures of a swarm. `Display`: a few lines.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Seeds run.
    pub seeds: u64,
    /// Of these, with chains; the others with quorums.
    pub chains: u64,
    /// Of all seeds, with a fault of a node, or with lost messages.
    pub faulty: u64,
    /// Client operations that ended with a reply.
    pub replied: u64,
    /// That certainly had no effect.
    pub not_applied: u64,
    /// Whose outcome is not known.
    pub unknown: u64,
    /// That were owed a reply.
    pub owed: u64,
    /// Messages sent.
    pub messages: u64,
    /// Messages lost, doubled, allowed to overtake, held back by a cut link or a dead host.
    pub disturbed: [u64; 4],
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Nodes that lost their disk and copied everything back.
    pub relearned: u64,
    /// Tombstones collected, rows of all replicas.
    pub collected: u64,
    /// Records copied by catch-up.
    pub copied: u64,
    /// States that became chosen.
    pub chosen: u64,
    /// How often an invariant was asked.
    pub checks: u64,
    /// Keys whose history could not be decided.
    pub undecided: u64,
    /// Simulated time.
    pub simulated: Duration,
}

impl Figures {
    /// Adds one run.
    pub fn add(&mut self, outcome: &Outcome) {
        let count = |count: usize| count as u64;
        let (_, replied, not_applied, unknown) = outcome.operations;
        self.seeds += 1;
        self.chains += u64::from(outcome.replication == Replication::Chain);
        self.faulty += u64::from(!outcome.faults.is_empty());
        self.replied += count(replied);
        self.not_applied += count(not_applied);
        self.unknown += count(unknown);
        self.owed += outcome.owed;
        let traffic = &outcome.traffic;
        self.messages += traffic.sent;
        let disturbed = [traffic.lost, traffic.doubled, traffic.reordered, traffic.held];
        for (sum, count) in self.disturbed.iter_mut().zip(disturbed) {
            *sum += count;
        }
        for (kind, count) in &outcome.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        self.relearned += outcome.relearned;
        self.collected += outcome.collected;
        self.copied += outcome.copied;
        self.chosen += outcome.chosen;
        self.checks += outcome.checks;
        self.undecided += outcome.undecided;
        self.simulated += outcome.simulated;
    }
}

/// `1234 (5.6 %)`
struct Share {
    count: u64,
    of: u64,
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // In parts of a thousand, rounded down: what is not all must not look like all.
        let parts = self.count.saturating_mul(1_000) / self.of.max(1);
        write!(f, "{} ({}.{} %)", self.count, parts / 10, parts % 10)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operations = self.replied + self.not_applied + self.unknown;
        let [lost, doubled, reordered, held] = self.disturbed;
        writeln!(
            f,
            "seeds       {}: {} with quorums, {} with chains; {} with faults",
            self.seeds,
            self.seeds - self.chains,
            self.chains,
            self.faulty
        )?;
        let share = |count: u64| Share { count, of: operations };
        writeln!(
            f,
            "operations  {operations}: {} replied, {} not applied, {} unknown; {} were owed a reply and got it",
            share(self.replied),
            share(self.not_applied),
            share(self.unknown),
            share(self.owed)
        )?;
        writeln!(f, "simulated   {:.1} hours", self.simulated.as_secs_f64() / 3_600.0)?;
        writeln!(
            f,
            "messages    {}: {lost} lost, {doubled} doubled, {reordered} out of order, {held} held back",
            self.messages
        )?;
        write!(f, "faults     ")?;
        for (at, (kind, count)) in self.faults.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let line = if at > 0 && at.is_multiple_of(6) { "\n           " } else { "" };
            write!(f, "{comma}{line} {kind} {count}")?;
        }
        if self.faults.is_empty() {
            write!(f, " none")?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "recovery    {} emptied nodes copied everything back; {} records copied in all; {} rows of tombstones collected",
            self.relearned, self.copied, self.collected
        )?;
        write!(
            f,
            "checked     {} questions to invariants, {} chosen states",
            self.checks, self.chosen
        )?;
        if self.undecided > 0 {
            write!(f, ", {} keys undecided", self.undecided)?;
        }
        Ok(())
    }
}
