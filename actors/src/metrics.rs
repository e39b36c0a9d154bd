//! What a node counts about itself: per-node handles to plain atomics, read by whoever shows them.
//!
//! Counting costs a few relaxed additions and never waits. A [`Histogram`] has fixed buckets, eight to
//! each power of two, so that it takes the same memory after a week as after a second, and any two
//! readings of it can be subtracted: a quantile of the last seconds is that of a difference. Nothing
//! here is global: a simulation runs many nodes in one process, each with [`Metrics`] of its own.
//!
//! Caveats. A reading is not one moment: counters move while they are read. A quantile is the upper end
//! of its bucket, so up to an eighth too large. Which round is a write-back is told from the
//! versions that travel ([`RoundWatch`]): under two coordinators that fight for a key, one may be counted
//! as fast.

use simpledynamo_protocol::{
    command::{Command, Reply},
    effect::Effect,
    message::{Held, Message},
    ring::NodeId,
    routing::Verdict,
};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Buckets of a power of two.
const STEPS: u64 = 8;
/// The largest number told apart: as microseconds 71 minutes.
const LARGEST: u64 = u32::MAX as u64;
/// Buckets of a histogram: the numbers below eight, then eight for each of 29 powers.
pub const BUCKETS: usize = 240;

/// The commands told apart, as the register has them.
pub const COMMANDS: [&str; 18] = [
    "get",
    "set",
    "getdel",
    "getex",
    "del",
    "delifeq",
    "exists",
    "incrby",
    "incrbyfloat",
    "append",
    "strlen",
    "getrange",
    "setrange",
    "expireat",
    "persist",
    "ttl",
    "type",
    "rewrite",
];
/// How an operation may end.
pub const OUTCOMES: [&str; 4] = ["ok", "error", "not_applied", "unknown"];
/// The kinds of rounds: a read of all replicas; a write under a ballot owned already; a write that had to
/// get a ballot first; a state written again so that a quorum holds it.
pub const ROUNDS: [&str; 4] = ["read", "fast", "prepare", "write_back"];

/// A counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Ordering::Relaxed);
    }

    /// So many so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A distribution of whole numbers.
#[derive(Debug)]
pub struct Histogram {
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        let buckets = (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
        Histogram { buckets, sum: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Counts one number.
    pub fn record(&self, number: u64) {
        if let Some(bucket) = self.buckets.get(bucket_of(number)) {
            bucket.fetch_add(1, Ordering::Relaxed);
            self.sum.fetch_add(number, Ordering::Relaxed);
        }
    }

    /// Counts a time, in microseconds.
    pub fn record_time(&self, time: Duration) {
        self.record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX).min(LARGEST));
    }

    /// What was counted so far.
    #[must_use]
    pub fn read(&self) -> Reading {
        let buckets = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        Reading { buckets, sum: self.sum.load(Ordering::Relaxed) }
    }
}

fn bucket_of(number: u64) -> usize {
    let number = number.min(LARGEST);
    let bucket = if number < STEPS {
        number
    } else {
        let power = u64::from(number.ilog2());
        (power - 2) * STEPS + ((number >> (power - 3)) & (STEPS - 1))
    };
    // Below BUCKETS, since no number is above LARGEST.
    usize::try_from(bucket).unwrap_or(BUCKETS - 1)
}

/// The smallest number of a bucket.
fn lower_end(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let power = bucket / STEPS + 2;
    (STEPS + bucket % STEPS) << (power - 3)
}

/// A histogram as it was when it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    buckets: Vec<u64>,
    /// Of all numbers.
    pub sum: u64,
}

impl Reading {
    /// How many numbers.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// How many numbers below `limit`, a power of two.
    #[must_use]
    pub fn below(&self, limit: u64) -> u64 {
        self.buckets.iter().take(bucket_of(limit)).sum()
    }

    /// What came since an earlier reading of the same histogram.
    #[must_use]
    pub fn since(&self, earlier: &Reading) -> Reading {
        let before = earlier.buckets.iter().chain(std::iter::repeat(&0));
        let buckets = self.buckets.iter().zip(before).map(|(now, then)| now.saturating_sub(*then));
        Reading { buckets: buckets.collect(), sum: self.sum.saturating_sub(earlier.sum) }
    }

    /// Adds another reading.
    pub fn add(&mut self, other: &Reading) {
        if self.buckets.is_empty() {
            self.buckets = vec![0; BUCKETS];
        }
        for (mine, its) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += its;
        }
        self.sum += other.sum;
    }

    /// The number that a part `q` of all are not above (0 to 1); none without numbers.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let count = self.count();
        // Counts are far below 2^53.
        let rank = ((count as f64 * q).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0;
        let at = self.buckets.iter().position(|bucket| {
            seen += bucket;
            seen >= rank
        });
        at.filter(|_| count > 0).map(|at| lower_end(at + 1) - 1)
    }
}

/// What one node counts. What other actors count for their own ends is not counted again here.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: [[Counter; OUTCOMES.len()]; COMMANDS.len()],
    latency: [Histogram; COMMANDS.len()],
    rounds: [Counter; ROUNDS.len()],
    /// Nodes that became suspected.
    pub suspicions: Counter,
    /// Keys that catch-up had written anew because the replicas disagreed.
    pub repairs: Counter,
    /// Passes of catch-up begun.
    pub passes: Counter,
    /// Operations of each durable commit.
    pub commit_operations: Histogram,
    /// Time of each durable commit, microseconds.
    pub commit_time: Histogram,
    /// Client connections let in.
    pub clients_opened: Counter,
    /// Of these, ended.
    pub clients_closed: Counter,
    /// Client connections turned away because too many were there.
    pub clients_turned_away: Counter,
    /// Commands that clients sent, those without a key and wrong ones included.
    pub client_commands: Counter,
    /// Bytes that clients sent.
    pub client_bytes_in: Counter,
    /// Bytes that clients were sent.
    pub client_bytes_out: Counter,
}

impl Metrics {
    /// An operation has ended after `took`.
    pub fn ended(&self, command: CommandKind, verdict: &Verdict, took: Duration) {
        let outcome = match verdict {
            Verdict::Reply(Reply::Error(_)) => 1,
            Verdict::Reply(_) => 0,
            Verdict::NotApplied(_) => 2,
            Verdict::Unknown => 3,
        };
        self.count(command, outcome);
        if let Some(latency) = self.latency.get(command.0) {
            latency.record_time(took);
        }
    }

    /// An operation was turned away at the door.
    pub fn turned_away(&self, command: CommandKind) {
        self.count(command, 2);
    }

    fn count(&self, command: CommandKind, outcome: usize) {
        if let Some(counter) = self.requests.get(command.0).and_then(|of| of.get(outcome)) {
            counter.increment();
        }
    }

    /// Every command with the operations that ended, in the order of [`OUTCOMES`].
    pub fn requests(&self) -> impl Iterator<Item = (&'static str, [u64; OUTCOMES.len()])> + '_ {
        let counts = self.requests.iter().map(|of| of.each_ref().map(Counter::get));
        COMMANDS.into_iter().zip(counts)
    }

    /// Every command with the times of its operations, microseconds.
    pub fn latencies(&self) -> impl Iterator<Item = (&'static str, Reading)> + '_ {
        COMMANDS.into_iter().zip(self.latency.iter().map(Histogram::read))
    }

    /// A router asks a replica for a read of its own; `first` of those it asks for it.
    pub fn read_round(&self, first: bool) {
        if let (true, [read, ..]) = (first, &self.rounds) {
            read.increment();
        }
    }

    /// Every kind of round with its number.
    pub fn rounds(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        ROUNDS.into_iter().zip(self.rounds.iter().map(Counter::get))
    }
}

/// A command of [`COMMANDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandKind(usize);

impl CommandKind {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        COMMANDS.get(self.0).copied().unwrap_or_default()
    }
}

impl From<&Command> for CommandKind {
    fn from(command: &Command) -> CommandKind {
        CommandKind(match command {
            Command::Get => 0,
            Command::Set { .. } => 1,
            Command::GetDel => 2,
            Command::GetEx(_) => 3,
            Command::Del => 4,
            Command::DelIfEq(_) => 5,
            Command::Exists => 6,
            Command::IncrBy(_) => 7,
            Command::IncrByFloat(_) => 8,
            Command::Append(_) => 9,
            Command::StrLen => 10,
            Command::GetRange { .. } => 11,
            Command::SetRange { .. } => 12,
            Command::ExpireAt { .. } => 13,
            Command::Persist => 14,
            Command::Ttl(_) => 15,
            Command::Type => 16,
            Command::Rewrite => 17,
        })
    }
}

/// Tells the rounds of one coordinator from what it sends and hears.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoundWatch {
    /// A ballot was asked for and nothing written under it yet.
    preparing: bool,
    /// The largest version met.
    version: u64,
}

impl RoundWatch {
    /// The coordinator takes this in.
    pub fn heard(&mut self, message: &Message) {
        let version = match message {
            Message::Promise(promise) => promise.record.as_ref().map(|record| record.stamp.version),
            Message::State(state) => match &state.held {
                Held::Nothing => None,
                Held::Same(stamp) => Some(stamp.version),
                Held::Record(record) => Some(record.stamp.version),
            },
            // Nothing else carries a state.
            _ => None,
        };
        self.version = self.version.max(version.unwrap_or(0));
    }

    /// The coordinator of `me` wants this done; a round goes to every replica, `me` among them.
    pub fn sent(&mut self, me: NodeId, effect: &Effect, metrics: &Metrics) {
        let kind = match effect {
            Effect::Begin { .. } => {
                self.preparing = true;
                Some(2)
            }
            Effect::Send { to, message: Message::Query(_) } if *to == me => Some(0),
            Effect::Send { to, message: Message::Accept(accept) } if *to == me => {
                let version = accept.record.stamp.version;
                let again = version <= self.version;
                self.version = self.version.max(version);
                match (again, std::mem::take(&mut self.preparing)) {
                    (true, _) => Some(3),
                    (false, false) => Some(1),
                    // Its ballot was counted.
                    (false, true) => None,
                }
            }
            Effect::Send { .. } | Effect::Persist(_) | Effect::List { .. } | Effect::Note(_) => {
                None
            }
        };
        if let Some(counter) = kind.and_then(|kind| metrics.rounds.get(kind)) {
            counter.increment();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_one_another_without_gap() {
        for bucket in 0..BUCKETS {
            assert_eq!(bucket_of(lower_end(bucket)), bucket);
            assert_eq!(bucket_of(lower_end(bucket + 1) - 1), bucket);
        }
        assert_eq!(bucket_of(LARGEST), BUCKETS - 1);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_those_of_the_numbers_within_an_eighth() {
        let histogram = Histogram::default();
        assert_eq!(histogram.read().quantile(0.5), None);
        (1..=1_000).for_each(|number| histogram.record(number));
        let reading = histogram.read();
        for (q, exact) in [(0.0, 1), (0.5, 500), (0.99, 990), (1.0, 1_000)] {
            let found = reading.quantile(q).unwrap();
            assert!((exact..=exact + exact / 8 + 1).contains(&found), "{q}: {found}");
        }
        assert_eq!((reading.count(), reading.sum), (1_000, 500_500));
        assert_eq!((reading.below(8), reading.below(512), reading.below(1 << 20)), (7, 511, 1_000));
    }

    #[test]
    fn a_difference_holds_what_came_between() {
        let histogram = Histogram::default();
        histogram.record(1);
        let before = histogram.read();
        histogram.record_time(Duration::from_millis(2));
        let between = histogram.read().since(&before);
        assert_eq!((between.count(), between.sum), (1, 2_000));
        assert_eq!(between.quantile(0.5), Some(2_047));
        assert_eq!(histogram.read().since(&Reading::default()).count(), 2);
        let mut both = Reading::default();
        both.add(&before);
        both.add(&between);
        assert_eq!(both, histogram.read());
    }

    #[test]
    fn every_command_has_its_name() {
        let kind = |command: Command| CommandKind::from(&command).name();
        assert_eq!(kind(Command::Get), "get");
        assert_eq!(kind(Command::IncrBy(1)), "incrby");
        assert_eq!(kind(Command::Type), "type");
        assert_eq!(kind(Command::Rewrite), "rewrite");
    }
}
