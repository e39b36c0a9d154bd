//! The figures of the last seconds: what a counter cannot show by itself.
//!
//! A task reads the node's counters twice a second and keeps ten readings; rates and quantiles are those
//! of the newest against the oldest. It runs whether or not somebody looks, so that the first look has
//! figures already; a reading costs some microseconds.

use serde::{Deserialize, Serialize};
use simpledynamo_actors::metrics::{Metrics, Reading};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often the counters are read.
const EVERY: Duration = Duration::from_millis(500);
/// Readings kept: five seconds, short enough to see a fault, long enough for a quantile.
const KEPT: usize = 10;

/// A node's work in the last five seconds. Fields are added, never renamed or given another meaning.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Load {
    /// Operations that ended, a second.
    pub operations_per_second: f64,
    /// Of these, with an error that says not applied or not known.
    pub failures_per_second: f64,
    /// Half of the operations took at most so long, microseconds; none without operations.
    pub p50_micros: Option<u64>,
    /// 99 of 100 took at most so long.
    pub p99_micros: Option<u64>,
    /// Durable commits, a second.
    pub commits_per_second: f64,
    /// Operations in one commit, on average.
    pub operations_per_commit: Option<f64>,
    /// Half of the commits took at most so long, microseconds; none without commits.
    pub sync_p50_micros: Option<u64>,
    /// 99 of 100 took at most so long.
    pub sync_p99_micros: Option<u64>,
}

/// The latest [`Load`], for all who ask.
#[derive(Clone, Default)]
pub(super) struct LoadHandle(Arc<Mutex<Load>>);

impl LoadHandle {
    pub(super) fn get(&self) -> Load {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Sample {
    at: Instant,
    operations: u64,
    failures: u64,
    latency: Reading,
    commits: Reading,
    syncs: Reading,
}

impl Sample {
    fn take(metrics: &Metrics) -> Sample {
        let (mut operations, mut failures) = (0, 0);
        for (_, [ok, error, not_applied, unknown]) in metrics.requests() {
            operations += ok + error + not_applied + unknown;
            failures += not_applied + unknown;
        }
        let mut latency = Reading::default();
        metrics.latencies().for_each(|(_, reading)| latency.add(&reading));
        Sample {
            at: Instant::now(),
            operations,
            failures,
            latency,
            commits: metrics.commit_operations.read(),
            syncs: metrics.commit_time.read(),
        }
    }

    /// What came since an earlier one.
    fn since(&self, then: &Sample) -> Load {
        let seconds = self.at.duration_since(then.at).as_secs_f64().max(f64::EPSILON);
        let latency = self.latency.since(&then.latency);
        let commits = self.commits.since(&then.commits);
        let syncs = self.syncs.since(&then.syncs);
        let count = commits.count();
        Load {
            operations_per_second: (self.operations - then.operations) as f64 / seconds,
            failures_per_second: (self.failures - then.failures) as f64 / seconds,
            p50_micros: latency.quantile(0.5),
            p99_micros: latency.quantile(0.99),
            commits_per_second: count as f64 / seconds,
            operations_per_commit: (count > 0).then(|| commits.sum as f64 / count as f64),
            sync_p50_micros: syncs.quantile(0.5),
            sync_p99_micros: syncs.quantile(0.99),
        }
    }
}

/// Keeps `load` up to date for as long as it is polled.
pub(super) async fn run(metrics: Arc<Metrics>, load: LoadHandle) {
    let mut ticks = interval(EVERY);
    // After a standstill the readings go on from there.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut kept = VecDeque::with_capacity(KEPT + 1);
    loop {
        ticks.tick().await;
        let sample = Sample::take(&metrics);
        if let Some(oldest) = kept.front() {
            let since = sample.since(oldest);
            *load.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
        }
        kept.push_back(sample);
        if kept.len() > KEPT {
            kept.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use simpledynamo_actors::metrics::CommandKind;
    use simpledynamo_protocol::{
        command::{Command, Reply},
        message::Reason,
        routing::Verdict,
    };

    #[test]
    fn a_load_is_what_came_between_two_samples() {
        let metrics = Metrics::default();
        let get = CommandKind::from(&Command::Get);
        metrics.ended(get, &Verdict::Unknown, Duration::from_secs(2));
        let then = Sample::take(&metrics);
        let later = || Sample { at: then.at + Duration::from_secs(2), ..Sample::take(&metrics) };
        assert_eq!(later().since(&then), Load::default());
        for _ in 0..3 {
            metrics.ended(get, &Verdict::Reply(Reply::Nil), Duration::from_micros(100));
        }
        metrics.ended(get, &Verdict::NotApplied(Reason::NoQuorum), Duration::from_millis(4));
        metrics.commit_operations.record(6);
        metrics.commit_time.record(300);
        let load = later().since(&then);
        assert_eq!((load.operations_per_second, load.failures_per_second), (2.0, 0.5));
        assert_eq!((load.p50_micros, load.p99_micros), (Some(103), Some(4_095)));
        assert_eq!((load.commits_per_second, load.operations_per_commit), (0.5, Some(6.0)));
        assert_eq!(load.sync_p99_micros, Some(319));
    }
}
