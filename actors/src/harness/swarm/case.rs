//! A case: everything a run of the swarm is made of, drawn from its seed before it begins.
//!
//! How keys are replicated, and whether nodes have shards, is drawn from streams of their own: with quorums and with chains a seed
//! has the same ring, clients and faults. Where a fault names a message of the register, a case of chains names what a chain has
//! in its place.
//!
//! The schedule of faults is a list, so that a run can be repeated without some of them: shrinking
//! does that. The same seed with the same selection is the same run, byte for byte.
//!
//! Faults are drawn within what three copies bear *for safety*: a disk is lost only while all nodes
//! vote, one at a time. How many may be disturbed at once is the [`Temper`]'s matter.

use super::fault::{Fault, Planned};
use crate::{
    harness::{
        Config, Mix, Rng,
        disk::DiskFault,
        fault::{Action, micros},
        ms,
    },
    settings::Replication,
};
use simpledynamo_protocol::{
    chain::wire::{Acked, Announce, ConfigRound, Confirm, Confirmed, Forward},
    message::{Accept, Accepted, Answer, Kind, Prepare, Promise, Query, Records, Request, State},
    ring::NodeId,
};
use std::{collections::BTreeSet, ops::Range, time::Duration};

/// Client operations of a run, at least.
pub const OPERATIONS_MIN: u64 = 500;
/// After this time of the clients nothing more is broken: some draws are so unkind that they would
/// need minutes.
const FAULTS_END: Duration = Duration::from_secs(15);
/// One fault after another: so long after one was mended the next comes.
const RECOVERY: Duration = Duration::from_millis(2_500);
/// A grace that lets tombstones be collected within a run: above twice the deadline, by far above
/// the skew.
const SHORT_GRACE: Duration = Duration::from_secs(8);

/// How much goes wrong at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Temper {
    /// No node fails and nothing is lost; messages may be slow, doubled and out of order.
    Quiet,
    /// One node at a time.
    Single,
    /// Anything at any time.
    Wild,
}

/// What of a case is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Numbers of the faults of the schedule; none: all.
    pub faults: Option<BTreeSet<usize>>,
    /// Client operations; none: as drawn.
    pub operations: Option<u64>,
    /// Clients; none: as drawn.
    pub clients: Option<u32>,
    /// How keys are replicated; none: as drawn.
    pub replication: Option<Replication>,
}

/// Everything a run is made of.
#[derive(Clone, Debug)]
pub struct Case {
    pub(super) config: Config,
    pub(super) temper: Temper,
    pub(super) clients: u32,
    pub(super) operations: u64,
    pub(super) mix: Mix,
    /// Wall clocks are ahead by up to so many milliseconds.
    pub(super) skew: u64,
    pub(super) schedule: Vec<Planned>,
    pub(super) selection: Selection,
}

impl Case {
    /// The case of a seed.
    #[must_use]
    pub fn draw(seed: u64) -> Case {
        let mut case = Draw { rng: Rng::new(seed, 3), seed }.case();
        if Rng::new(seed, 5).chance(500) {
            case.config.replication = Replication::Chain;
        }
        let mut rng = Rng::new(seed, 6);
        if rng.chance(300) {
            case.config.workers = 2 + usize::from(rng.chance(500));
        }
        case
    }

    /// The same with only a part of it.
    #[must_use]
    pub fn select(mut self, selection: Selection) -> Case {
        self.config.replication = selection.replication.unwrap_or(self.config.replication);
        self.selection = selection;
        self
    }

    /// The same with keys replicated so, whatever was drawn.
    #[must_use]
    pub fn replicated(self, replication: Replication) -> Case {
        let selection = Selection { replication: Some(replication), ..self.selection.clone() };
        self.select(selection)
    }

    /// The same with the text of the message log kept.
    #[must_use]
    pub fn keep_log(mut self) -> Case {
        self.config.keep_log = true;
        self
    }

    /// The same with a rule of the protocol taken out.
    #[cfg(feature = "broken-rules")]
    #[must_use]
    pub fn without(mut self, rule: crate::harness::broken::Rule) -> Case {
        self.config.broken = Some(rule);
        self
    }

    /// What selects all of it: nothing is left out.
    #[must_use]
    pub fn whole(&self) -> Selection {
        Selection { replication: self.selection.replication, ..Selection::default() }
    }

    /// How many faults are in the schedule.
    #[must_use]
    pub fn faults(&self) -> usize {
        self.schedule.len()
    }

    /// The selected faults by number, as a person reads them.
    #[must_use]
    pub fn schedule(&self) -> Vec<(usize, String)> {
        self.selected().map(|(number, planned)| (number, planned.to_string())).collect()
    }

    pub(super) fn selected(&self) -> impl Iterator<Item = (usize, Planned)> {
        let kept =
            |number: &usize| self.selection.faults.as_ref().is_none_or(|it| it.contains(number));
        let chains = self.chains();
        let all = self.schedule.iter().enumerate().filter(move |(number, _)| kept(number));
        all.map(move |(number, planned)| {
            let planned = planned.clone();
            (number, if chains { planned.with_tags(in_chains) } else { planned })
        })
    }

    /// Whether keys are replicated by chains.
    #[must_use]
    pub(super) fn chains(&self) -> bool {
        self.config.replication == Replication::Chain
    }

    /// Clients and operations of the run.
    #[must_use]
    pub fn load(&self) -> (u32, u64) {
        let Selection { operations, clients, .. } = &self.selection;
        (clients.unwrap_or(self.clients).max(1), operations.unwrap_or(self.operations).max(1))
    }
}

struct Draw {
    rng: Rng,
    seed: u64,
}

impl Draw {
    fn some(&mut self, of: &[u64]) -> u64 {
        self.rng.pick(of).copied().unwrap_or(0)
    }

    fn span(&mut self, range: Range<Duration>) -> Duration {
        Duration::from_micros(self.rng.within(&(micros(range.start)..micros(range.end))))
    }

    fn node(&mut self, config: &Config) -> NodeId {
        NodeId(self.rng.pick(&config.nodes).copied().unwrap_or(0))
    }

    fn case(mut self) -> Case {
        let temper = match self.some(&[0, 0, 1, 1, 2, 2, 2]) {
            0 => Temper::Quiet,
            1 => Temper::Single,
            _ => Temper::Wild,
        };
        let mut config = self.config(temper);
        // In some runs the tombstones of what is deleted are collected under way.
        let collects = self.some(&[0, 0, 0, 0, 0, 1]) == 1;
        if collects {
            config.tombstone_grace = SHORT_GRACE;
        }
        let mut mix = Mix::default()
            .keys(self.some(&[1, 2, 4, 10]))
            .think(ms(0)..ms(self.some(&[1, 10, 40])))
            .reads_and_writes(self.some(&[20, 40, 80]), 60);
        let clients = u32::try_from(self.some(&[3, 5, 10])).unwrap_or(3);
        if temper == Temper::Single || collects {
            // Long enough for several faults, or for tombstones to become old.
            mix = mix.think(ms(0)..ms(u64::from(clients) * 30));
        }
        if self.some(&[0, 0, 0, 0, 0, 0, 1]) == 1 {
            mix = mix.large(30, usize::try_from(self.some(&[20_000, 100_000])).unwrap_or(0));
        }
        if self.some(&[0, 0, 0, 1]) == 1 {
            mix = mix.expiring(60);
        }
        let operations = OPERATIONS_MIN + self.some(&[0, 100, 199]);
        let skew = self.some(&[0, 30, 400]);
        let mut schedule = self.links(&config, temper);
        match temper {
            Temper::Quiet => {}
            Temper::Single => self.one_at_a_time(&config, &mut schedule),
            Temper::Wild => self.wild(&config, &mut schedule),
        }
        schedule.sort_by_key(|planned| planned.at);
        let selection = Selection::default();
        Case { config, temper, clients, operations, mix, skew, schedule, selection }
    }

    fn config(&mut self, temper: Temper) -> Config {
        let count = usize::try_from(self.some(&[3, 5, 5, 5, 7, 9])).unwrap_or(5);
        let nodes = (0..u32::try_from(count).unwrap_or(5)).map(|at| 5554 + 2 * at).collect();
        let (request_timeout, deadline) = if temper == Temper::Wild {
            (self.some(&[50, 100, 100, 300]), self.some(&[400, 2_000, 2_000]))
        } else {
            (self.some(&[50, 100, 100]), 2_000)
        };
        let sync = self.some(&[1, 2, 10]);
        Config {
            nodes,
            request_timeout: ms(request_timeout),
            deadline: ms(deadline),
            coordinators: usize::try_from(self.some(&[2, 4_096, 4_096])).unwrap_or(2),
            sync: Duration::from_micros(100)..ms(sync),
            ..Config::new(self.seed)
        }
    }

    /// What the links do throughout the run.
    fn links(&mut self, config: &Config, temper: Temper) -> Vec<Planned> {
        let mut links = Vec::new();
        let mut add = |from, to, tag, action| {
            let fault = Fault::Link { from, to, tag, action };
            links.push(Planned { at: Duration::ZERO, lasts: None, fault });
        };
        if temper == Temper::Wild {
            match self.some(&[0, 0, 10, 100]) {
                0 => {}
                part => add(None, None, None, Action::Drop(part)),
            }
        }
        if self.some(&[0, 0, 1]) == 1 {
            add(None, None, None, Action::Duplicate(50));
        }
        if self.some(&[0, 0, 1]) == 1 {
            add(None, None, None, Action::Reorder(500));
        }
        // Paths of different length, as between houses: with no failure at all, this is what finds
        // a missing write-back.
        let wild = if temper == Temper::Wild { 150 } else { 25 };
        let most = self.some(&[0, 8, wild]) * 1_000;
        if most > 0 {
            for from in config.nodes.clone() {
                for to in config.nodes.iter().copied().filter(|to| *to != from) {
                    if self.rng.chance(400) {
                        let low = self.rng.below(most);
                        let delay = Action::Delay(low..low.max(most));
                        add(Some(NodeId(from)), Some(NodeId(to)), None, delay);
                    }
                }
            }
        }
        links
    }

    fn one_at_a_time(&mut self, config: &Config, schedule: &mut Vec<Planned>) {
        let mut at = ms(50) + self.span(ms(0)..ms(400));
        while at < FAULTS_END {
            let lasts = self.span(ms(5)..ms(900));
            let fault = match self.rng.below(8) {
                // Two nodes would suffer from these.
                0 => Fault::Partition {
                    group: vec![self.node(config)],
                    outward: self.rng.chance(500),
                },
                _ => self.fault(config),
            };
            if !matches!(fault, Fault::Cut { .. } | Fault::Link { .. }) {
                schedule.push(Planned { at, lasts: Some(lasts), fault });
                at += lasts + RECOVERY;
            }
        }
    }

    fn wild(&mut self, config: &Config, schedule: &mut Vec<Planned>) {
        let every = match self.some(&[0, 1, 1, 2, 2, 2]) {
            0 => ms(40),
            1 => ms(150),
            _ => ms(500),
        };
        let most = self.some(&[50, 400, 4_000]);
        // Each run lacks some kinds of fault altogether.
        let lacking: BTreeSet<u64> = (0..KINDS).filter(|_| self.rng.chance(350)).collect();
        let mut at = Duration::ZERO;
        loop {
            at += self.span(every / 2..every * 2);
            if at >= FAULTS_END {
                return;
            }
            let kind = self.rng.below(KINDS);
            let fault = self.of_kind(kind, config);
            let lasts = Some(self.span(ms(5)..ms(5 + most)));
            if !lacking.contains(&kind) {
                schedule.push(Planned { at, lasts, fault });
            }
        }
    }

    fn fault(&mut self, config: &Config) -> Fault {
        let kind = self.rng.below(KINDS);
        self.of_kind(kind, config)
    }

    fn of_kind(&mut self, kind: u64, config: &Config) -> Fault {
        let (node, other) = (self.node(config), self.node(config));
        match kind {
            0 | 1 => Fault::Crash { node },
            2 | 3 => {
                let (sent, tag) = (self.rng.chance(500), self.rng.pick(&STEPS).copied());
                Fault::CrashAt { node, sent, tag: tag.unwrap_or(1), nth: 1 + self.rng.below(8) }
            }
            4 => Fault::Pause { node },
            5 if node != other => Fault::Cut { from: node, to: other },
            6 => {
                let mut group = vec![node];
                if config.nodes.len() > 3 && node != other && self.rng.chance(400) {
                    group.push(other);
                }
                Fault::Partition { group, outward: self.rng.chance(400) }
            }
            7 => Fault::Wipe { node },
            8 => {
                let faults = [DiskFault::Lost, DiskFault::Torn, DiskFault::Torn, DiskFault::Full];
                let fault = self.rng.pick(&faults).copied().unwrap_or(DiskFault::Lost);
                Fault::Disk { node, fault }
            }
            9 => Fault::SlowDisk { node, most: ms(120) },
            10 => {
                Fault::Clock { node, millis: 1 + i64::try_from(self.rng.below(900)).unwrap_or(0) }
            }
            11 => {
                let tag = self.rng.pick(&STEPS).copied();
                let (from, to) = (Some(node), (node != other).then_some(other));
                let action = match self.rng.below(3) {
                    0 => Action::DropFirst(1 + self.rng.below(3)),
                    1 => Action::Drop(300),
                    _ => Action::Delay(0..400_000),
                };
                Fault::Link { from, to, tag, action }
            }
            _ => Fault::Pause { node },
        }
    }
}

/// Kinds that [`Draw::of_kind`] knows.
const KINDS: u64 = 12;

/// Messages at which a node may crash, and which a link may single out.
const STEPS: [u16; 9] = [
    Accept::TAG,
    Accepted::TAG,
    Answer::TAG,
    Prepare::TAG,
    Promise::TAG,
    Query::TAG,
    Records::TAG,
    Request::TAG,
    State::TAG,
];

/// What a chain has in the place of a message of the register.
fn in_chains(tag: u16) -> u16 {
    match tag {
        Accept::TAG => Forward::TAG,
        Accepted::TAG => Acked::TAG,
        Prepare::TAG => ConfigRound::TAG,
        Promise::TAG => Announce::TAG,
        Query::TAG => Confirm::TAG,
        State::TAG => Confirmed::TAG,
        tag => tag,
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let temper = match self.temper {
            Temper::Quiet => "no node fails, nothing is lost",
            Temper::Single => "one fault at a time",
            Temper::Wild => "any fault at any time",
        };
        let (clients, operations) = self.load();
        let Config { seed, nodes, replication, request_timeout, deadline, workers, .. } =
            &self.config;
        let shards = match workers {
            0 => String::new(),
            workers => format!(" of {workers} shards"),
        };
        write!(
            f,
            "seed {seed}: {}, {} nodes{shards}, {clients} clients, {operations} operations, time-out {} ms, \
             deadline {} ms; {temper}; {} of {} faults",
            replication.name(),
            nodes.len(),
            request_timeout.as_millis(),
            deadline.as_millis(),
            self.selected().count(),
            self.schedule.len()
        )
    }
}
