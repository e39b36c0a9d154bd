//! What a run is measured by, and how it is printed.
//!
//! A gap is a time without any success; it counts for the fault that began last before its end.
//! Beside the gap of all keys stands that of the keys whose first coordinator is the disturbed node:
//! they are the ones that must find another.

use super::{
    super::out,
    SLICE_OPERATIONS,
    judge::{Judged, SLICES_COMPARED},
};
use simpledynamo_protocol::{command::Reply, history::Outcome};
use std::{collections::BTreeMap, io, time::Duration};
use tokio::time::Instant;

/// Different error texts that are kept.
const TEXTS_MAX: usize = 50;
/// Bytes of an error text that are kept.
const TEXT_BYTES_MAX: usize = 200;

/// What belongs to one kind of fault.
#[derive(Default)]
struct Row {
    times: u32,
    gap: Duration,
    own_gap: Duration,
}

/// Counters of a run.
pub(super) struct Figures {
    success: u64,
    refused: u64,
    unknown: u64,
    faults: BTreeMap<String, Row>,
    /// The fault that began last, and its node.
    last: Option<(String, usize)>,
    last_success: Instant,
    last_by_coordinator: Vec<Instant>,
    slowest: Duration,
    slowest_elsewhere: Duration,
    /// By text: how often it was expected, and how often not.
    errors: BTreeMap<String, (u64, u64)>,
}

impl Figures {
    /// Nothing has happened yet.
    pub(super) fn new(nodes: usize) -> Figures {
        let now = Instant::now();
        Figures {
            success: 0,
            refused: 0,
            unknown: 0,
            faults: BTreeMap::new(),
            last: None,
            last_success: now,
            last_by_coordinator: vec![now; nodes],
            slowest: Duration::ZERO,
            slowest_elsewhere: Duration::ZERO,
            errors: BTreeMap::new(),
        }
    }

    /// Clients begin now.
    pub(super) fn begin(&mut self) {
        *self = Figures::new(self.last_by_coordinator.len());
    }

    /// A fault begins.
    pub(super) fn fault(&mut self, name: String, node: usize) {
        self.faults.entry(name.clone()).or_default().times += 1;
        self.last = Some((name, node));
    }

    /// An operation on a key of `coordinator` has ended; `disturbed`: its node was meanwhile.
    pub(super) fn operation(
        &mut self,
        coordinator: usize,
        outcome: &Outcome,
        took: Duration,
        disturbed: bool,
    ) {
        self.slowest = self.slowest.max(took);
        if !disturbed {
            self.slowest_elsewhere = self.slowest_elsewhere.max(took);
        }
        match outcome {
            Outcome::Reply(Reply::Error(_)) | Outcome::NotApplied => self.refused += 1,
            Outcome::Unknown => self.unknown += 1,
            Outcome::Reply(_) => {
                self.success += 1;
                self.succeeded(coordinator);
            }
        }
    }

    fn succeeded(&mut self, coordinator: usize) {
        let now = Instant::now();
        let gap = now - std::mem::replace(&mut self.last_success, now);
        let Some(own) = self.last_by_coordinator.get_mut(coordinator) else { return };
        let own_gap = now - std::mem::replace(own, now);
        let Some((name, node)) = &self.last else { return };
        let Some(row) = self.faults.get_mut(name) else { return };
        row.gap = row.gap.max(gap);
        if *node == coordinator {
            row.own_gap = row.own_gap.max(own_gap);
        }
    }

    /// A client was told an error.
    pub(super) fn error(&mut self, mut text: String, expected: bool) {
        while text.len() > TEXT_BYTES_MAX {
            text.pop();
        }
        if self.errors.len() >= TEXTS_MAX && !self.errors.contains_key(&text) {
            text = "others".to_owned();
        }
        let (excused, unexpected) = self.errors.entry(text).or_default();
        *(if expected { excused } else { unexpected }) += 1;
    }

    /// Operations that have ended.
    pub(super) fn operations(&self) -> u64 {
        self.success + self.refused + self.unknown
    }

    /// Successes among all, percent.
    pub(super) fn availability(&self) -> f64 {
        100.0 * self.success as f64 / self.operations().max(1) as f64
    }

    /// Errors that no fault explains.
    pub(super) fn unexpected(&self) -> u64 {
        self.errors.values().map(|(_, unexpected)| unexpected).sum()
    }

    /// Prints all.
    pub(super) fn print(&self, ran: Duration, judged: &Judged) -> io::Result<()> {
        let seconds = ran.as_secs_f64();
        let total = self.operations();
        out::line(format!(
            "operations    {total} in {seconds:.1} s ({:.0}/s): {} succeeded, {} not applied, {} \
             unknown",
            total as f64 / seconds.max(1e-9),
            self.success,
            self.refused,
            self.unknown
        ))?;
        out::line(format!("availability  {:.4} %", self.availability()))?;
        out::line(format!(
            "slowest       {}; at a node that was not disturbed {}",
            millis(self.slowest),
            millis(self.slowest_elsewhere)
        ))?;
        out::line("fault                 times  longest gap  … on keys the node coordinates")?;
        for (name, row) in &self.faults {
            out::line(format!(
                "  {name:<20}{:>5}  {:>11}  {:>11}",
                row.times,
                millis(row.gap),
                millis(row.own_gap)
            ))?;
        }
        out::line("errors        expected  unexpected (of a node that was not disturbed)")?;
        for (text, (expected, unexpected)) in &self.errors {
            out::line(format!("  {expected:>20}  {unexpected:>10}  {text}"))?;
        }
        out::line(format!(
            "history       {} operations on {} keys in {} slices of about {SLICE_OPERATIONS}: {} \
             wrong, {} undecided, {} without a last read",
            judged.operations,
            judged.keys,
            judged.slices,
            judged.wrong,
            judged.undecided,
            judged.unread
        ))
    }
}

/// Prints how the comparison of the replicas ended.
pub(super) fn print_compared(compared: usize, different: &[String]) -> io::Result<()> {
    out::line(format!(
        "replicas      {compared} keys of the last {SLICES_COMPARED} slices compared, {} differ",
        different.len()
    ))?;
    different.iter().take(5).try_for_each(|one| out::line(format!("  {one}")))
}

fn millis(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}
