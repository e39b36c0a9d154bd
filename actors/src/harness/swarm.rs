//! A swarm: whole runs drawn from a seed.
//!
//! Each seed draws its own ring, clients, network and faults, so that some runs are nearly quiet and
//! others lack a whole kind of fault ("swarm testing", Groce et al., ISSTA '12). After the clients
//! are through, everything is mended; the replicas must become equal and the history linearizable.
//!
//! ```
//! let outcome = simpledynamo_actors::harness::swarm(3);
//! assert!(outcome.verdict.is_ok(), "{outcome}");
//! ```
//!
//! Faults are drawn within what three copies bear: a disk is wiped, or fails in a way that loses
//! nothing acknowledged, at any time; but a wipe comes only while all nodes vote, one at a time.
//!
//! Caveat: values that expire are left out, because the checker does not model clocks.

use super::{Config, Failure, Mix, Rng, Traffic, World, ms};
use simpledynamo_protocol::ring::NodeId;
use std::{cell::RefCell, collections::BTreeMap, fmt, ops::Range, rc::Rc, time::Duration};

/// Client operations of a run.
const OPERATIONS: Range<u64> = 500..700;
/// Simulated time after which nothing more is broken: some draws are so unkind that clients would
/// need minutes.
const FAULTS_END: Duration = Duration::from_secs(15);

/// What one seed came to. `Display`: a line of figures, and on failure the command that replays it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Client operations, and how many of them ended with a reply, not applied, unknown.
    pub operations: (usize, usize, usize, usize),
    /// How often each kind of fault was injected into nodes and links.
    pub faults: BTreeMap<&'static str, u64>,
    /// What the network did.
    pub traffic: Traffic,
    /// Simulated time.
    pub simulated: Duration,
    /// Entries of the message log and its digest, to compare two runs by.
    pub digest: (u64, u64),
    /// The log's text, from [`logged`].
    pub messages: Vec<String>,
    /// Whether everything held that must.
    pub verdict: Result<(), Failure>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (all, replies, refused, unknown) = self.operations;
        write!(
            f,
            "seed {}: {all} operations ({replies} replied, {refused} not applied, {unknown} \
             unknown), {} messages, {:.1} s simulated; faults:",
            self.seed,
            self.traffic.sent,
            self.simulated.as_secs_f64()
        )?;
        self.faults.iter().try_for_each(|(kind, count)| write!(f, " {kind} {count}"))?;
        match &self.verdict {
            Ok(()) => Ok(()),
            Err(failure) => {
                write!(f, "\n{failure}\nreplay: harness::swarm({})", self.seed)
            }
        }
    }
}

/// Rates of one run.
#[derive(Clone, Debug)]
struct Plan {
    config: Config,
    clients: u32,
    operations: u64,
    mix: Mix,
    /// Kinds of faults of nodes and links, by weight.
    weights: [u64; FAULTS.len()],
    /// Between two faults; none where there are none.
    every: Option<Duration>,
    lasts: Range<Duration>,
    loss: f64,
    duplication: f64,
    reorder: bool,
    slow: Option<Range<Duration>>,
    skew: u64,
}

const FAULTS: [&str; 7] =
    ["crash", "pause", "cut one way", "partition", "wipe", "fail sync", "slow disk"];

impl Plan {
    fn draw(seed: u64) -> Plan {
        let mut rng = Rng::new(seed, 3);
        let mut some = |of: &[u64]| rng.pick(of).copied().unwrap_or(0);
        let nodes: Vec<u32> = match some(&[3, 5, 5, 7]) {
            3 => vec![5554, 5556, 5558],
            7 => vec![5554, 5556, 5558, 5560, 5562, 5564, 5566],
            _ => vec![5554, 5556, 5558, 5560, 5562],
        };
        let sync = some(&[1, 2, 10]);
        let config = Config {
            nodes,
            request_timeout: ms(some(&[50, 100, 100, 300])),
            deadline: ms(some(&[400, 2_000, 2_000])),
            coordinators: usize::try_from(some(&[2, 4_096])).unwrap_or(2),
            sync: Duration::from_micros(100)..ms(sync),
            ..Config::new(seed)
        };
        let mix = Mix::default()
            .keys(some(&[1, 2, 4, 10]))
            .think(ms(0)..ms(some(&[1, 10, 40])))
            .reads_and_writes(some(&[20, 40, 80]), 60);
        let last = some(&[50, 400, 4_000]);
        Plan {
            config,
            clients: u32::try_from(some(&[3, 5, 10])).unwrap_or(3),
            operations: OPERATIONS.start + some(&[0, 100, 199]),
            mix,
            weights: [
                some(&[0, 1, 3]),
                some(&[0, 1, 2]),
                some(&[0, 1, 2]),
                some(&[0, 1, 2]),
                some(&[0, 0, 1]),
                some(&[0, 0, 1]),
                some(&[0, 0, 1]),
            ],
            every: [None, Some(ms(40)), Some(ms(150)), Some(ms(500))]
                .get(usize::try_from(some(&[0, 1, 2, 2, 3, 3])).unwrap_or(0))
                .copied()
                .flatten(),
            lasts: ms(5)..ms(5 + last),
            loss: f64::from(u32::try_from(some(&[0, 0, 1, 10])).unwrap_or(0)) / 100.0,
            duplication: if some(&[0, 0, 1]) == 1 { 0.05 } else { 0.0 },
            reorder: some(&[0, 0, 1]) == 1,
            slow: match some(&[0, 0, 20, 150]) {
                0 => None,
                most => Some(ms(0)..ms(most)),
            },
            skew: some(&[0, 30, 400]),
        }
    }
}

/// Runs one seed.
#[must_use]
pub fn swarm(seed: u64) -> Outcome {
    outcome(seed, false)
}

/// Runs one seed and keeps the text of its message log.
#[must_use]
pub fn logged(seed: u64) -> Outcome {
    outcome(seed, true)
}

fn outcome(seed: u64, keep_log: bool) -> Outcome {
    let mut plan = Plan::draw(seed);
    plan.config.keep_log = keep_log;
    let mut outcome = Outcome {
        seed,
        operations: (0, 0, 0, 0),
        faults: BTreeMap::new(),
        traffic: Traffic::default(),
        simulated: Duration::ZERO,
        digest: (0, 0),
        messages: Vec::new(),
        verdict: Ok(()),
    };
    outcome.verdict = run(plan, &mut outcome);
    outcome
}

fn run(plan: Plan, outcome: &mut Outcome) -> Result<(), Failure> {
    let mut t = plan.config.clone().start();
    let mut rng = Rng::new(plan.config.seed, 4);
    for id in t.ids() {
        let ahead = i64::try_from(rng.below(plan.skew + 1)).unwrap_or(0);
        t.skew(id, ahead);
    }
    disturb(&plan, &mut t, &mut rng);
    let counts = Rc::new(RefCell::new(BTreeMap::new()));
    let faults = Faults { plan: Rc::new(plan.clone()), rng: Rc::new(RefCell::new(rng)), counts };
    let counts = faults.counts.clone();
    faults.plan_next(&mut t);
    let done = t.clients(plan.clients).run(plan.mix).operations(plan.operations);
    counts.borrow_mut().insert("over", 0);
    let settled = done.and_then(|history| t.heal_and_settle().map(|()| history));
    outcome.faults = counts.take();
    outcome.faults.remove("over");
    (outcome.traffic, outcome.simulated, outcome.digest) = (t.traffic(), t.elapsed(), t.digest());
    outcome.messages = t.messages();
    let history = settled?;
    let (replies, refused, unknown) = history.outcomes();
    outcome.operations = (history.operations.len(), replies, refused, unknown);
    Ok(history.assert_linearizable()?)
}

/// What the links do throughout the run.
fn disturb(plan: &Plan, world: &mut World, rng: &mut Rng) {
    world.every_link(|link| {
        let slow = plan.slow.clone().filter(|_| rng.chance(300));
        let mut link = link.drop(plan.loss).duplicate(plan.duplication);
        if plan.reorder {
            link = link.reorder();
        }
        if let Some(slow) = slow {
            let _ = link.delay(slow);
        }
    });
}

/// Injects faults for as long as the clients run.
#[derive(Clone)]
struct Faults {
    plan: Rc<Plan>,
    rng: Rc<RefCell<Rng>>,
    /// With the entry "over" once the clients are through.
    counts: Rc<RefCell<BTreeMap<&'static str, u64>>>,
}

impl Faults {
    fn plan_next(self, world: &mut World) {
        let Some(every) = self.plan.every else { return };
        let wait = self.span(&(every / 2..every * 2));
        world.after(wait, move |world| {
            let over = self.counts.borrow().contains_key("over");
            if !over && world.elapsed() < FAULTS_END {
                self.inject(world);
                self.plan_next(world);
            }
        });
    }

    fn span(&self, range: &Range<Duration>) -> Duration {
        let micros = super::fault::micros_of(range);
        Duration::from_micros(self.rng.borrow_mut().within(&micros))
    }

    fn inject(&self, world: &mut World) {
        let ids = world.ids();
        let (Some(node), Some(other)) = ({
            let mut rng = self.rng.borrow_mut();
            (rng.pick(&ids).copied(), rng.pick(&ids).copied())
        }) else {
            return;
        };
        let Some(kind) = self.kind() else { return };
        if self.strike(kind, node, other, self.span(&self.plan.lasts), world) {
            *self.counts.borrow_mut().entry(kind).or_default() += 1;
        }
    }

    fn kind(&self) -> Option<&'static str> {
        let mut drawn = self.rng.borrow_mut().below(self.plan.weights.iter().sum());
        let kinds = FAULTS.iter().zip(self.plan.weights);
        kinds.into_iter().find_map(|(kind, weight)| {
            let here = drawn < weight;
            drawn = drawn.wrapping_sub(weight);
            here.then_some(*kind)
        })
    }

    /// Whether the fault had a place.
    fn strike(
        &self,
        kind: &str,
        node: NodeId,
        other: NodeId,
        lasts: Duration,
        world: &mut World,
    ) -> bool {
        let back = move |world: &mut World| {
            if !world.is_running(node) {
                world.restart(node).keep_disk();
            }
        };
        match kind {
            _ if !world.is_running(node) => return false,
            "crash" => {
                world.crash(node);
                world.after(lasts, back);
            }
            "pause" => world.pause(node, lasts),
            "cut one way" if node != other => {
                world.cut(node, other, true);
                world.after(lasts, move |world| world.cut(node, other, false));
            }
            "partition" => {
                world.partition(&[node]);
                world.after(lasts, move |world| world.rejoin(node));
            }
            "wipe" if world.all_vote() => {
                world.crash(node);
                world.after(lasts, move |world| {
                    if !world.is_running(node) {
                        world.restart(node).wipe_disk();
                    }
                });
            }
            "fail sync" => {
                let torn = self.rng.borrow_mut().chance(500);
                let disk = world.disk(node);
                if torn {
                    disk.torn_write()
                } else {
                    disk.fail_sync()
                }
                world.after(lasts + ms(50), back);
            }
            "slow disk" => {
                world.disk(node).slow(ms(5)..ms(120));
                let usual = self.plan.config.sync.clone();
                world.after(lasts, move |world| world.disk(node).slow(usual));
            }
            _ => return false,
        }
        true
    }
}
