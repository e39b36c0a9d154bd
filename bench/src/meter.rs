//! What was measured in a run.
//!
//! An operation's latency counts from when it was *due*: in a closed loop when it was sent, in an open
//! loop when the offered rate asked for it, whether or not anything could be sent then. A server that
//! stands still is thus charged for every operation that it kept from being sent (Gil Tene's
//! "coordinated omission").
//!
//! What fails is counted and its waiting is kept apart: a gap is a time without a *success*, and the slowest
//! operation is the slowest of all, failed or not.

use crate::plan::{Plan, Workload};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::{
    fmt::Write as _,
    io,
    time::{Duration, Instant},
};

/// Latencies above this are kept as this: far above any client's patience.
const LATENCY_MAX: Duration = Duration::from_secs(300);

/// One run, as a line of JSON. Times in microseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Which part of the plan it belongs to.
    pub part: String,
    /// The build of the program that was measured; empty for others than this ring.
    pub build: String,
    /// When it was written, seconds since 1970.
    pub at: u64,
    pub kind: String,
    pub system: String,
    pub round: u32,
    pub workload: Option<Workload>,
    pub connections: usize,
    pub pipeline: usize,
    pub wait: u32,
    pub keys: u64,
    pub value_bytes: usize,
    /// Operations offered in a second; 0 in a closed loop.
    pub offered: f64,
    pub seconds: f64,
    /// Successes.
    pub operations: u64,
    pub ops_per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
    pub errors: u64,
    /// The first error's text.
    pub error: Option<String>,
    /// The longest time without a success.
    pub gap_us: f64,
    /// Whether it lasted until the end of the run: it is at least so long.
    pub gap_at_end: bool,
    /// Processor time of all server processes for one operation; none where one died.
    pub server_cpu_us: Option<f64>,
    /// Processor time of this generator for one operation.
    pub generator_cpu_us: f64,
    /// The part of one processor that this generator used, 0 to 1.
    pub generator_busy: f64,
    /// What happened to the victim: `kill` or `stop`.
    pub blow: Option<String>,
    /// The slowest operation of connections to others than the victim, and how many of theirs failed.
    pub slowest_live_us: f64,
    pub errors_live: u64,
    /// What a run is called, or a figure that is no run: its name, value and unit. Such records are
    /// written by [`crate::suite`].
    pub name: Option<String>,
    pub value: f64,
    pub unit: String,
}

impl Record {
    /// In a few words.
    pub fn told(&self) -> String {
        if self.workload.is_none() {
            let name = self.name.as_deref().unwrap_or_default();
            return match name.contains('\n') {
                true => "done".to_owned(),
                false => format!("{name}: {:.3} {}", self.value, self.unit),
            };
        }
        let mut told = format!("{:.0}/s, p99 {:.2} ms", self.ops_per_second, self.p99_us / 1e3);
        if self.kind == "failover" {
            let _ = write!(
                told,
                ", gap {:.1} ms, slowest on others {:.1} ms",
                self.gap_us / 1e3,
                self.slowest_live_us / 1e3
            );
        }
        if self.errors > 0 {
            let _ =
                write!(told, ", {} errors: {}", self.errors, self.error.as_deref().unwrap_or("-"));
        }
        told
    }
}

/// Counts while a run goes on.
pub struct Meter {
    from: Instant,
    until: Instant,
    open: bool,
    latencies: Histogram<u64>,
    operations: u64,
    errors: u64,
    errors_live: u64,
    error: Option<String>,
    slowest: Duration,
    slowest_live: Duration,
    last: Instant,
    gap: Duration,
}

impl Meter {
    /// Counts from `from` until `until`; an open loop by when operations are due, a closed one by when
    /// they end.
    pub fn new(from: Instant, until: Instant, open: bool) -> io::Result<Meter> {
        let latencies = Histogram::new_with_bounds(1, LATENCY_MAX.as_nanos() as u64, 3);
        Ok(Meter {
            from,
            until,
            open,
            latencies: latencies.map_err(io::Error::other)?,
            operations: 0,
            errors: 0,
            errors_live: 0,
            error: None,
            slowest: Duration::ZERO,
            slowest_live: Duration::ZERO,
            last: from,
            gap: Duration::ZERO,
        })
    }

    fn counts(&self, due: Instant, now: Instant) -> bool {
        let at = if self.open { due } else { now };
        at >= self.from && at < self.until
    }

    /// An operation that was due then succeeded now, over a connection to a live node or the victim.
    pub fn done(&mut self, due: Instant, now: Instant, live: bool) {
        if now >= self.from {
            self.gap = self.gap.max(now.min(self.until).saturating_duration_since(self.last));
            self.last = now;
        }
        if self.counts(due, now) {
            let took = now.saturating_duration_since(due);
            self.operations += 1;
            self.latencies.saturating_record(took.as_nanos() as u64);
            self.waited(took, live);
        }
    }

    /// It failed, or nobody knows.
    pub fn failed(&mut self, due: Instant, now: Instant, live: bool, why: &str) {
        if self.counts(due, now) {
            self.errors += 1;
            self.errors_live += u64::from(live);
            self.error.get_or_insert_with(|| why.to_owned());
            self.waited(now.saturating_duration_since(due), live);
        }
    }

    fn waited(&mut self, took: Duration, live: bool) {
        self.slowest = self.slowest.max(took);
        if live {
            self.slowest_live = self.slowest_live.max(took);
        }
    }

    /// The record of a run that is over. `server` and `generator`: processor time used meanwhile.
    pub fn record(
        mut self,
        plan: &Plan,
        server: Option<Duration>,
        generator: Option<Duration>,
    ) -> Record {
        let last = self.until.saturating_duration_since(self.last);
        let gap_at_end = last > self.gap;
        self.gap = self.gap.max(last);
        let seconds = (self.until - self.from).as_secs_f64();
        let quantile = |q| self.latencies.value_at_quantile(q) as f64 / 1e3;
        let each = |time: Duration| micros(time) / (self.operations + self.errors).max(1) as f64;
        Record {
            kind: plan.kind.clone(),
            system: plan.system.clone(),
            round: plan.round,
            workload: Some(plan.workload),
            connections: plan.connections,
            pipeline: plan.pipeline,
            wait: plan.wait,
            keys: plan.keys,
            value_bytes: plan.value_bytes,
            offered: plan.rate,
            seconds,
            operations: self.operations,
            ops_per_second: self.operations as f64 / seconds,
            p50_us: quantile(0.5),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
            max_us: micros(self.slowest),
            errors: self.errors,
            gap_us: micros(self.gap),
            gap_at_end,
            server_cpu_us: server.map(each),
            generator_cpu_us: each(generator.unwrap_or_default()),
            generator_busy: generator.unwrap_or_default().as_secs_f64() / seconds,
            name: plan.note.clone(),
            blow: plan.blow.map(|blow| format!("{blow:?}").to_lowercase()),
            slowest_live_us: micros(self.slowest_live),
            errors_live: self.errors_live,
            error: self.error,
            ..Record::default()
        }
    }
}

fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Wrapped {
        #[command(flatten)]
        plan: Plan,
    }

    fn plan() -> Plan {
        Wrapped::parse_from(["load", "--system", "s", "--address", "127.0.0.1:1"]).plan
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn open_loop_counts_from_when_it_was_due() {
        let start = Instant::now();
        let mut meter = Meter::new(start, start + 1000 * MS, true).unwrap();
        // Nothing for 300 ms, then all that was due meanwhile at once.
        for due in 0..300 {
            meter.done(start + due * MS, start + 300 * MS, true);
        }
        for due in 300..1000 {
            meter.done(start + due * MS, start + due * MS, true);
        }
        let record = meter.record(&plan(), None, None);
        assert_eq!(record.operations, 1000);
        assert!((record.max_us - 300_000.0).abs() < 1.0, "{}", record.max_us);
        assert!((record.gap_us - 300_000.0).abs() < 1.0, "{}", record.gap_us);
        assert!(record.p99_us > 280_000.0 && record.p50_us < 1.0, "{record:?}");
    }

    #[test]
    fn failures_break_no_gap_and_the_end_counts() {
        let start = Instant::now();
        let mut meter = Meter::new(start, start + 100 * MS, true).unwrap();
        meter.done(start, start + MS, true);
        meter.failed(start + 2 * MS, start + 50 * MS, false, "refused");
        meter.failed(start + 200 * MS, start + 250 * MS, true, "too late to count");
        let record = meter.record(&plan(), None, None);
        assert_eq!((record.operations, record.errors, record.errors_live), (1, 1, 0));
        assert!((record.gap_us - 99_000.0).abs() < 1.0 && record.gap_at_end, "{record:?}");
        assert!((record.max_us - 48_000.0).abs() < 1.0, "{}", record.max_us);
        assert_eq!(record.error.as_deref(), Some("refused"));
        assert!((record.slowest_live_us - 1_000.0).abs() < 1.0);
    }

    #[test]
    fn closed_loop_leaves_the_warm_up_out() {
        let start = Instant::now();
        let mut meter = Meter::new(start + 10 * MS, start + 20 * MS, false).unwrap();
        meter.done(start, start + 5 * MS, true);
        meter.done(start + 5 * MS, start + 12 * MS, true);
        meter.done(start + 12 * MS, start + 30 * MS, true);
        let record = meter.record(&plan(), Some(8 * MS), Some(2 * MS));
        assert_eq!(record.operations, 1);
        assert!((record.gap_us - 8_000.0).abs() < 1.0, "{}", record.gap_us);
        assert_eq!(record.server_cpu_us, Some(8_000.0));
    }
}
