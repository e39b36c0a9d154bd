//! What is measured, in which order, and about how long it takes.
//!
//! A [`Block`] is what is done with servers that are started once; a [`Part`] is the least that can be
//! chosen, left out or measured again. Blocks take turns: every round has each system once, so that a
//! machine that becomes slower does so for all.
//!
//! Caveat: the times are those of a quiet machine with two processors; a slower one takes longer, and
//! nothing is cut short for it.

use super::servers::{Group, IDS};
use crate::plan::{Blow, Workload};
use clap::ValueEnum;

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Size {
    Quick,
    Default,
    Full,
}

impl Size {
    pub fn name(self) -> &'static str {
        match self {
            Size::Quick => "quick",
            Size::Default => "default",
            Size::Full => "full",
        }
    }
}

/// The settings of a size.
pub struct Settings {
    pub rounds: u32,
    /// Seconds of a run that are counted, and before.
    pub seconds: f64,
    pub warmup: f64,
    /// Keys written before, where nothing else is said.
    pub keys: u64,
    /// Clients and depth of pipeline.
    shapes: &'static [(usize, usize)],
    workloads: &'static [Workload],
    /// Seconds of a failover run after the blow; two come before it.
    pub after_blow: f64,
    /// Nodes of a ring that are struck, by place.
    victims: &'static [usize],
    /// Keys of the runs about memory, restart and catch-up.
    pub many_keys: u64,
    key_counts: &'static [u64],
    value_sizes: &'static [usize],
    client_counts: &'static [usize],
    /// Values of [`CACHE_VALUE`] bytes, for more data than memory.
    pub cache_keys: u64,
    ring_sizes: &'static [u32],
}

/// Bytes of a value where there is to be more data than memory.
pub const CACHE_VALUE: usize = 4_000;
/// All values of a run over sizes together, at most: the ring's cache is no part of that question.
const SIZES_BYTES: u64 = 32 << 20;
/// Operations offered in a second when a server is struck, and by how many clients.
pub const FAILOVER_RATE: f64 = 2_000.0;
pub const FAILOVER_CLIENTS: usize = 32;
/// Seconds from the start of counting to the blow.
pub const BLOW_AFTER: f64 = 2.0;

use Workload::{Mixed, Read, Write, Zipf};

const QUICK: Settings = Settings {
    rounds: 1,
    seconds: 0.4,
    warmup: 0.1,
    keys: 20_000,
    shapes: &[(1, 1), (64, 1), (64, 16)],
    workloads: &[Write, Read, Mixed, Zipf],
    after_blow: 4.0,
    victims: &[2],
    many_keys: 100_000,
    key_counts: &[10_000, 100_000],
    value_sizes: &[10, 1_000, 100_000, 1 << 20],
    client_counts: &[1, 64, 1_000],
    cache_keys: 20_000,
    ring_sizes: &[5, 20],
};

const DEFAULT: Settings = Settings {
    rounds: 3,
    seconds: 1.0,
    warmup: 0.2,
    keys: 100_000,
    shapes: &[(1, 1), (16, 1), (64, 1), (256, 1), (1, 16), (16, 16), (64, 16), (256, 16)],
    after_blow: 6.0,
    victims: &[0, 1, 2, 3, 4],
    many_keys: 1_000_000,
    key_counts: &[10_000, 100_000, 1_000_000],
    value_sizes: &[10, 100, 1_000, 10_000, 100_000, 1 << 20],
    client_counts: &[1, 16, 64, 256, 1_000, 5_000],
    // 384 MB a node on average: ten times the 4 MiB for records and the engine's own 32 MiB.
    cache_keys: 160_000,
    ring_sizes: &[5, 10, 20, 30, 50],
    ..QUICK
};

const FULL: Settings = Settings {
    seconds: 5.0,
    warmup: 1.0,
    key_counts: &[10_000, 100_000, 1_000_000, 10_000_000],
    ..DEFAULT
};

impl Size {
    pub fn settings(self) -> &'static Settings {
        match self {
            Size::Quick => &QUICK,
            Size::Default => &DEFAULT,
            Size::Full => &FULL,
        }
    }
}

/// What is done with servers that are started once.
pub struct Block {
    pub title: String,
    /// Which servers; none where there are none.
    pub group: Option<Group>,
    /// Lines of the ring's `[limits]`.
    pub limits: &'static str,
    /// Keys of 100 B written before the first part.
    pub fill: u64,
    pub parts: Vec<Part>,
}

/// The least that can be chosen.
pub struct Part {
    /// Words with slashes between, such as `throughput/ring-sync/write/64/1/r2`.
    pub name: String,
    /// About how long it takes.
    pub seconds: f64,
    pub task: Task,
}

/// What a part does.
pub enum Task {
    /// One run in a closed loop, perhaps over keys and values of its own.
    Run {
        kind: &'static str,
        system: &'static str,
        round: u32,
        workload: Workload,
        connections: usize,
        pipeline: usize,
        /// Written again before it, where that has not just been done: keys, bytes of a value.
        refill: Option<(u64, usize)>,
    },
    /// An open loop at half of the best rate that was measured.
    HalfPeak { system: &'static str, workload: Workload },
    /// A server is struck; the place of a node, or whoever leads.
    Failover { blow: Blow, victim: Option<usize> },
    /// How long the start on an empty directory took.
    Start,
    /// Resident memory of every server.
    Memory,
    /// All are stopped and started again.
    Restart,
    /// A node loses its disk.
    CatchUp,
    /// Resident memory beside what is on disk.
    CacheMemory,
    /// A ring of so many nodes in simulation.
    Simulation(u32),
    /// The micro-benchmarks.
    Micro,
}

fn part(name: String, seconds: f64, task: Task) -> Part {
    Part { name, seconds, task }
}

/// What the report calls one way to drive a group: `-wait` sends WAIT 1.
pub fn systems(group: Group) -> &'static [&'static str] {
    match group {
        Group::Redis => &["redis", "redis-wait"],
        Group::RedisAof => &["redis-aof", "redis-aof-wait"],
        Group::Etcd => &["etcd"],
        Group::Ring { chain: false, sync: true } => &["ring-sync"],
        Group::Ring { chain: false, sync: false } => &["ring-os"],
        Group::Ring { chain: true, sync: true } => &["chain-sync"],
        Group::Ring { chain: true, sync: false } => &["chain-os"],
    }
}

/// Replicas that each write waits for.
pub fn wait(system: &str) -> u32 {
    u32::from(system.ends_with("-wait"))
}

fn word(workload: Workload) -> &'static str {
    match workload {
        Write => "write",
        Read => "read",
        Mixed => "mixed",
        Zipf => "zipf",
    }
}

impl Settings {
    /// All blocks, in order.
    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        for round in 1..=self.rounds {
            blocks.extend(Group::ALL.iter().map(|group| self.throughput(*group, round)));
        }
        let [quorum, chain] = [false, true].map(|chain| Group::Ring { chain, sync: true });
        for group in [Group::Etcd, Group::Redis, quorum, chain] {
            blocks.extend([Blow::Kill, Blow::Stop].map(|blow| self.failover(group, blow)));
        }
        for group in [Group::Etcd, Group::RedisAof, quorum, chain] {
            blocks.push(self.at_rest(group));
        }
        blocks.extend([self.sizes(quorum), self.key_counts(quorum), self.client_counts(quorum)]);
        blocks.push(self.cache(quorum));
        blocks.push(self.simulation());
        blocks.push(alone("micro-benchmarks", part("micro".to_owned(), 25.0, Task::Micro)));
        blocks
    }

    fn run_seconds(&self) -> f64 {
        self.warmup + self.seconds + 0.1
    }

    fn throughput(&self, group: Group, round: u32) -> Block {
        let mut parts = Vec::new();
        for system in systems(group) {
            // A WAIT changes nothing for a read.
            let makes_sense = |workload: &&Workload| wait(system) == 0 || **workload != Read;
            for workload in self.workloads.iter().filter(makes_sense).copied() {
                for (connections, pipeline) in self.shapes.iter().copied() {
                    let word = word(workload);
                    let name =
                        format!("throughput/{system}/{word}/{connections}/{pipeline}/r{round}");
                    let kind = "throughput";
                    let task = Task::Run {
                        kind,
                        system,
                        round,
                        workload,
                        connections,
                        pipeline,
                        refill: None,
                    };
                    parts.push(part(name, self.run_seconds(), task));
                }
            }
            if round == self.rounds {
                for workload in [Write, Read].iter().filter(makes_sense).copied() {
                    let name = format!("half-peak/{system}/{}", word(workload));
                    let task = Task::HalfPeak { system, workload };
                    parts.push(part(name, 2.0 * self.run_seconds(), task));
                }
            }
        }
        let title = format!("{}, round {round} of {}", group.name(), self.rounds);
        Block { title, group: Some(group), limits: "", fill: self.keys, parts }
    }

    fn failover(&self, group: Group, blow: Blow) -> Block {
        let word = if blow == Blow::Kill { "kill" } else { "stop" };
        let victims: Vec<Option<usize>> = if group.is_ring() {
            self.victims.iter().map(|at| Some(*at)).collect()
        } else {
            vec![None]
        };
        let parts = victims.into_iter().map(|victim| {
            let whom = victim.map_or("leader".to_owned(), |at| IDS[at].to_string());
            let name = format!("failover/{}/{word}/{whom}", group.name());
            let seconds = BLOW_AFTER + self.after_blow + 1.0;
            part(name, seconds, Task::Failover { blow, victim })
        });
        let title = format!("failover of {}, {word}", group.name());
        Block { title, group: Some(group), limits: "", fill: self.keys, parts: parts.collect() }
    }

    fn at_rest(&self, group: Group) -> Block {
        let name = group.name();
        let mut parts = vec![
            part(format!("start/{name}"), 0.1, Task::Start),
            part(format!("memory/{name}"), 5.0, Task::Memory),
            part(format!("restart/{name}"), 3.0, Task::Restart),
        ];
        if group.is_ring() {
            let seconds = 2.0 + self.many_keys as f64 / 50_000.0;
            parts.push(part(format!("catch-up/{name}"), seconds, Task::CatchUp));
        }
        let title = format!("{name} with {} keys", self.many_keys);
        Block { title, group: Some(group), limits: "", fill: self.many_keys, parts }
    }

    /// Two runs, writes and reads, that differ from the next two in one setting.
    fn sweep<T: Copy>(
        &self,
        group: Group,
        kind: &'static str,
        values: &[T],
        shape: impl Fn(T) -> (String, usize, Option<(u64, usize)>),
    ) -> Vec<Part> {
        let mut parts = Vec::new();
        for (value, workload) in values.iter().flat_map(|value| [(*value, Write), (*value, Read)]) {
            let (word_of, connections, refill) = shape(value);
            let name = format!("{kind}/{}/{word_of}/{}", group.name(), word(workload));
            // Reads find what the writes before them found.
            let (keys, bytes) = refill.filter(|_| workload == Write).unwrap_or_default();
            let seconds = self.run_seconds() + fill_seconds(keys, bytes);
            let system = group.name();
            let task =
                Task::Run { kind, system, round: 1, workload, connections, pipeline: 1, refill };
            parts.push(part(name, seconds, task));
        }
        parts
    }

    fn sizes(&self, group: Group) -> Block {
        let shape = |bytes: usize| {
            let keys = (SIZES_BYTES / bytes as u64).min(self.keys);
            (bytes.to_string(), 16, Some((keys, bytes)))
        };
        let parts = self.sweep(group, "sizes", self.value_sizes, shape);
        Block {
            title: "sizes of values".to_owned(),
            group: Some(group),
            limits: "",
            fill: 0,
            parts,
        }
    }

    fn key_counts(&self, group: Group) -> Block {
        let shape = |keys: u64| (keys.to_string(), 64, Some((keys, 100)));
        let parts = self.sweep(group, "keys", self.key_counts, shape);
        Block {
            title: "numbers of keys".to_owned(),
            group: Some(group),
            limits: "",
            fill: 0,
            parts,
        }
    }

    fn client_counts(&self, group: Group) -> Block {
        let shape = |clients: usize| (clients.to_string(), clients, None);
        let parts = self.sweep(group, "clients", self.client_counts, shape);
        let title = "numbers of clients".to_owned();
        Block { title, group: Some(group), limits: "", fill: self.keys, parts }
    }

    fn cache(&self, group: Group) -> Block {
        let shape = |keys: u64| (keys.to_string(), 64, Some((keys, CACHE_VALUE)));
        let mut parts = self.sweep(group, "cache", &[self.cache_keys], shape);
        parts.push(part("cache/memory".to_owned(), 0.1, Task::CacheMemory));
        let title = "more data than memory".to_owned();
        Block { title, group: Some(group), limits: "cache_bytes = \"4MiB\"", fill: 0, parts }
    }

    fn simulation(&self) -> Block {
        let of = |nodes: &u32| {
            part(format!("simulation/{nodes}"), 0.2 * f64::from(*nodes), Task::Simulation(*nodes))
        };
        let parts = self.ring_sizes.iter().map(of).collect();
        Block { title: "rings in simulation".to_owned(), group: None, limits: "", fill: 0, parts }
    }
}

fn alone(title: &str, part: Part) -> Block {
    Block { title: title.to_owned(), group: None, limits: "", fill: 0, parts: vec![part] }
}

/// How long so many keys and their values take to be written, about.
fn fill_seconds(keys: u64, bytes: usize) -> f64 {
    keys as f64 / 50_000.0 + (keys * bytes as u64) as f64 / 20e6
}

impl Block {
    /// About how long it takes with these of its parts.
    pub fn seconds(&self, parts: &[&Part]) -> f64 {
        let start = if self.group.is_some() { 1.5 } else { 0.0 };
        start + fill_seconds(self.fill, 100) + parts.iter().map(|part| part.seconds).sum::<f64>()
    }
}

/// Whether a part is among those asked for: one of them stands in its name, whole words.
pub fn chosen(name: &str, only: &[String]) -> bool {
    let name = format!("/{name}/");
    only.is_empty() || only.iter().any(|wanted| name.contains(&format!("/{wanted}/")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn minutes(size: Size) -> f64 {
        let blocks = size.settings().blocks();
        let of = |block: &Block| block.seconds(&block.parts.iter().collect::<Vec<_>>());
        blocks.iter().map(of).sum::<f64>() / 60.0
    }

    #[test]
    fn every_part_has_a_name_of_its_own() {
        for size in [Size::Quick, Size::Default, Size::Full] {
            let blocks = size.settings().blocks();
            let names: Vec<_> =
                blocks.iter().flat_map(|block| &block.parts).map(|it| &it.name).collect();
            assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        }
    }

    #[test]
    fn plans_fit_into_the_time_they_promise() {
        assert!(minutes(Size::Quick) < 5.0, "{}", minutes(Size::Quick));
        assert!(minutes(Size::Default) < 35.0, "{}", minutes(Size::Default));
    }

    #[test]
    fn parts_are_chosen_by_whole_words() {
        let name = "throughput/redis-aof/write/64/1/r2";
        let chosen = |only: &str| chosen(name, &[only.to_owned()]);
        assert!(chosen("throughput") && chosen("redis-aof") && chosen("write/64") && chosen("r2"));
        assert!(!chosen("redis") && !chosen("aof") && !chosen("write/6"));
        assert!(super::chosen(name, &[]));
    }
}
