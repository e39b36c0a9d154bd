//! A swarm: whole runs drawn from a seed.
//!
//! Each seed draws its own ring, clients, network and faults, so that some runs are nearly quiet and
//! others lack a whole kind of fault ("swarm testing", Groce et al., ISSTA '12). After the clients
//! are through, everything is mended. Then the replicas must become equal, every key must be
//! readable at every node, and what clients saw must be linearizable; and nobody may have gone
//! without a reply that was owed one (`owed`).
//!
//! ```
//! let outcome = simpledynamo_actors::harness::swarm(3);
//! assert!(outcome.verdict.is_ok(), "{outcome}");
//! ```
//!
//! | module | what it knows |
//! |---|---|
//! | `case` | what a seed draws |
//! | `fault`, `inject` | faults as data; carrying them out |
//! | `owed` | what clients may expect |
//! | `shrink` | fewer faults that still fail |
//! | `figures` | sums |
//!
//! Caveat: keys with values that expire are judged by a coarser model: the coordinator's clock may
//! have shown any time between call and return, give or take the largest error of any clock.

mod case;
mod fault;
mod figures;
mod inject;
mod owed;
mod shrink;

pub use case::{Case, OPERATIONS_MIN, Selection};
pub use figures::Figures;
pub use shrink::shrink;

use crate::settings::Replication;

use super::{Failure, Rng, Sim, Traffic, clients::expires, ms, node::WALL_START};
use inject::Injector;
use simpledynamo_protocol::{
    checker::{self, expiring},
    command::Command,
    history::{History, Operation, Outcome as End},
    record::Key,
    ring::NodeId,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

/// Simulated time within which tombstones must be collected once nothing is broken any more: some
/// rounds of the sweep.
const COLLECT_TIME_MAX: Duration = Duration::from_secs(90);

/// How often a client asks again whose deadline is short, at the end, when nothing is broken: a
/// connection to each of a key's replicas may have been lost.
const READS_AGAIN: u32 = 3;

/// What a run that failed has broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broke {
    /// A rule of `invariants`.
    Invariant,
    /// What clients saw is not linearizable.
    History,
    /// An operation went without a reply that was owed one.
    Availability,
    /// Replicas did not become equal, tombstones stayed, something never ended.
    Convergence,
    /// An actor died.
    Panic,
}

/// What one seed came to. `Display`: a line of figures, and on failure the command that replays it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What of it was run.
    pub selection: Selection,
    /// How keys were replicated.
    pub replication: Replication,
    /// Client operations, and how many of them ended with a reply, not applied, unknown.
    pub operations: (usize, usize, usize, usize),
    /// Operations that were owed a reply, and got it.
    pub owed: u64,
    /// How often each kind of fault took place.
    pub faults: BTreeMap<&'static str, u64>,
    /// What the network did.
    pub traffic: Traffic,
    /// Nodes that lost their disk and came to vote again.
    pub relearned: u64,
    /// Rows of tombstones collected.
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
    /// Entries of the message log and its digest, to compare two runs by.
    pub digest: (u64, u64),
    /// The log's text, where the case keeps it.
    pub messages: Vec<String>,
    /// What was broken, if anything.
    pub broke: Option<Broke>,
    /// Whether everything held that must.
    pub verdict: Result<(), Failure>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (all, replies, refused, unknown) = self.operations;
        write!(
            f,
            "seed {}: {}, {all} operations ({replies} replied, {refused} not applied, {unknown} \
             unknown), {} messages, {:.1} s simulated; faults:",
            self.seed,
            self.replication.name(),
            self.traffic.sent,
            self.simulated.as_secs_f64()
        )?;
        self.faults.iter().try_for_each(|(kind, count)| write!(f, " {kind} {count}"))?;
        match &self.verdict {
            Ok(()) => Ok(()),
            Err(failure) => {
                let arguments = arguments(self.seed, &self.selection);
                write!(f, "\n{failure}\nreplay: cargo run --release -- {arguments}")
            }
        }
    }
}

/// The arguments of `dynamo` that run this part of a seed: `simulate --seed 7 --faults 3,12`.
#[must_use]
pub fn arguments(seed: u64, selection: &Selection) -> String {
    let mut text = format!("simulate --seed {seed}");
    if let Some(faults) = &selection.faults {
        let numbers: Vec<_> = faults.iter().map(ToString::to_string).collect();
        let numbers = if numbers.is_empty() { "none".to_owned() } else { numbers.join(",") };
        text.push_str(&format!(" --faults {numbers}"));
    }
    if let Some(operations) = selection.operations {
        text.push_str(&format!(" --operations {operations}"));
    }
    if let Some(clients) = selection.clients {
        text.push_str(&format!(" --clients {clients}"));
    }
    text + &replicated(selection)
}

/// The part of these arguments that says how keys are replicated; empty where that is as drawn.
#[must_use]
pub fn replicated(selection: &Selection) -> String {
    let option = |replication: Replication| format!(" --replication {}", replication.name());
    selection.replication.map(option).unwrap_or_default()
}

/// Runs one seed.
#[must_use]
pub fn swarm(seed: u64) -> Outcome {
    Case::draw(seed).run()
}

impl Case {
    /// Runs it.
    #[must_use]
    pub fn run(&self) -> Outcome {
        let mut outcome = Outcome {
            seed: self.config.seed,
            selection: self.selection.clone(),
            replication: self.config.replication,
            operations: (0, 0, 0, 0),
            owed: 0,
            faults: BTreeMap::new(),
            traffic: Traffic::default(),
            relearned: 0,
            collected: 0,
            copied: 0,
            chosen: 0,
            checks: 0,
            undecided: 0,
            simulated: Duration::ZERO,
            digest: (0, 0),
            messages: Vec::new(),
            broke: None,
            verdict: Ok(()),
        };
        let judged = match Sim::start(self.config.clone()) {
            Ok(mut t) => {
                let judged = self.play(&mut t, &mut outcome);
                outcome.sum_up(&t);
                judged.map_err(|(broke, failure)| (broke.of(&t), failure))
            }
            Err(failure) => Err((Broke::Convergence, failure)),
        };
        if let Err((broke, failure)) = judged {
            (outcome.broke, outcome.verdict) = (Some(broke), Err(failure));
        }
        outcome
    }

    /// The clients' time, the healing, the verdict.
    fn play(&self, t: &mut Sim, outcome: &mut Outcome) -> Result<(), (Broke, Failure)> {
        let mut rng = Rng::new(self.config.seed, 4);
        for id in t.ids() {
            t.skew(id, i64::try_from(rng.below(self.skew + 1)).unwrap_or(0));
        }
        let injector = Injector::begin(self, t);
        let (clients, operations) = self.load();
        let done = t.clients(clients).run(self.mix.clone()).operations(operations);
        injector.end(t);
        outcome.faults.clone_from(&injector.met.borrow().faults);
        done.map_err(|failure| (Broke::Convergence, failure))?;
        t.heal_and_settle().map_err(|failure| (Broke::Convergence, failure))?;
        // Those that were still learning vote now.
        injector.look(t);
        outcome.relearned = injector.met.borrow().relearned;
        let history = History { operations: t.clients.operations.clone() };
        let (replies, refused, unknown) = history.outcomes();
        outcome.operations = (history.operations.len(), replies, refused, unknown);
        let asked: Vec<_> =
            t.clients.asked.iter().copied().zip(history.operations.iter().cloned()).collect();
        let history = self.read_everything(t, history)?;
        self.judge_histories(t, history, injector.met.borrow().clocks, outcome)?;
        self.until_collected(t).map_err(|failure| (Broke::Convergence, failure))?;
        outcome.owed = owed::judge(self, t, &injector.met.borrow(), &asked)
            .map_err(|text| (Broke::Availability, Failure { text }))?;
        Ok(())
    }

    /// Nothing is broken: every key must be readable at every node.
    fn read_everything(
        &self,
        t: &mut Sim,
        mut history: History,
    ) -> Result<History, (Broke, Failure)> {
        let keys: BTreeSet<Key> =
            history.operations.iter().map(|operation| operation.key.clone()).collect();
        for key in keys.into_iter().filter(|key| !expires(key)) {
            for node in t.ids() {
                let call = t.now();
                let outcome =
                    self.read(t, node, &key).map_err(|failure| (Broke::Convergence, failure))?;
                if !matches!(outcome, End::Reply(_)) {
                    let text = format!("after healing node {node} cannot read {key}: {outcome}");
                    return Err((Broke::Availability, Failure { text }));
                }
                let (key, command, returned) = (key.clone(), Command::Get, Some(t.now()));
                let operation = Operation { client: 0, key, command, call, returned, outcome };
                history.operations.push(operation);
            }
        }
        Ok(history)
    }

    /// Reads a key. A node that knows a connection only by a peer's former life learns of that by
    /// what it sends, and loses it: where the deadline leaves no time for it, the client asks again.
    fn read(&self, t: &mut Sim, node: NodeId, key: &Key) -> Result<End, Failure> {
        let mut outcome = t.ask_key(node, key.clone(), Command::Get)?;
        for _ in 0..READS_AGAIN {
            if matches!(outcome, End::Reply(_)) || owed::has_time(self) {
                break;
            }
            outcome = t.ask_key(node, key.clone(), Command::Get)?;
        }
        Ok(outcome)
    }

    fn judge_histories(
        &self,
        t: &Sim,
        history: History,
        clocks: (i64, i64),
        outcome: &mut Outcome,
    ) -> Result<(), (Broke, Failure)> {
        let (timed, plain): (Vec<_>, Vec<_>) =
            history.operations.into_iter().partition(|operation| expires(&operation.key));
        let plain: History = plain.into_iter().collect();
        let report = checker::check(&plain);
        if !report.wrong.is_empty() || !report.unchecked.is_empty() {
            return Err((Broke::History, Box::new(report).into()));
        }
        // Some keys with very many unknown outcomes would take for ever: they are counted.
        outcome.undecided += report.undecided.len() as u64;
        let shown = |at: u64| {
            let wall = WALL_START + at / 1_000;
            (wall.saturating_add_signed(clocks.0), (wall + 1).saturating_add_signed(clocks.1))
        };
        let mut by_key: BTreeMap<&Key, Vec<&Operation>> = BTreeMap::new();
        for operation in &timed {
            by_key.entry(&operation.key).or_default().push(operation);
        }
        for (key, operations) in by_key {
            match expiring::explains(operations.iter().copied(), shown) {
                Some(true) => {}
                Some(false) => {
                    let text =
                        format!("no order explains what clients saw of {key}, whose values expire");
                    return Err((Broke::History, t.failure(&text)));
                }
                None => outcome.undecided += 1,
            }
        }
        Ok(())
    }

    /// Where the grace is short enough, every tombstone must go.
    fn until_collected(&self, t: &mut Sim) -> Result<(), Failure> {
        if self.config.tombstone_grace > COLLECT_TIME_MAX / 4 {
            return Ok(());
        }
        let until = t.elapsed() + COLLECT_TIME_MAX;
        loop {
            let left = t.tombstones();
            match left.first() {
                None => return Ok(()),
                Some((node, key)) if t.elapsed() > until => {
                    let what =
                        format!("long after all was mended {node} still holds {key}'s tombstone");
                    return Err(t.failure(&what));
                }
                Some(_) => t.advance(ms(500))?,
            }
        }
    }
}

impl Broke {
    /// What a failure at this stage really is: a rule that was broken or an actor that died ends
    /// every stage.
    fn of(self, t: &Sim) -> Broke {
        match &t.world.died {
            None => self,
            Some(_) if t.world.wire.borrow().invariants.violation().is_some() => Broke::Invariant,
            Some(_) => Broke::Panic,
        }
    }
}

impl Outcome {
    fn sum_up(&mut self, t: &Sim) {
        (self.traffic, self.simulated, self.digest) = (t.traffic(), t.elapsed(), t.digest());
        self.messages = t.messages();
        let wire = t.world.wire.borrow();
        let invariants = &wire.invariants;
        (self.checks, self.chosen) = (invariants.checks, invariants.chosen());
        (self.collected, self.copied) = (invariants.collected, wire.copied);
    }
}

impl Sim {
    /// Every tombstone on a disk.
    fn tombstones(&self) -> Vec<(NodeId, Key)> {
        let rows = self.nodes.values().flat_map(|node| {
            node.disk.rows().into_iter().map(|(key, record)| (node.id(), key, record))
        });
        rows.filter(|(_, _, record)| record.datum.value().is_none())
            .map(|(node, key, _)| (node, key))
            .collect()
    }
}
