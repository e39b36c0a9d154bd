//! The checker: could one register a key have shown the clients what they saw?
//!
//! A history is linearizable if all operations can be put in one order such that each sees what
//! those before it did, and no operation comes after one that was called only once it had ended
//! (Herlihy & Wing, TOPLAS '90). That is a local property (§3.2 there), so each key is checked by
//! itself. What clients were told decides how an operation counts:
//!
//! | outcome | meaning for the order |
//! |---|---|
//! | reply | must be there, between call and return, with this reply |
//! | not applied | left out |
//! | unknown | may be there, anywhere after the call, or not; a read says nothing and is left out |
//!
//! [`check`] looks for an order ([`search`]). Where a key has none, [`Violation`] is the smallest
//! part of its history that is wrong ([`shrink`]), drawn as a time line ([`draw`]).
//!
//! Caveats: what depends on a clock (a value that expires, TTL) is not modelled by [`check`]; a key
//! with such an operation is listed as unchecked ([`expiring`] judges it where the clocks are known).
//! Deciding is NP-complete: a search stops after [`STEPS_MAX`] and the key is listed as undecided. Neither counts as linearizable.

pub mod draw;
pub mod expiring;
mod families;
mod needs;
pub mod register;
pub mod search;
pub mod shrink;

use crate::{
    history::{History, Operation, Outcome},
    record::Key,
};
use register::{Asked, Register, has_time};
use search::{Answer, End, Timed};
pub use shrink::Violation;
use std::{collections::BTreeMap, fmt};

/// Steps tried before a key is given up: some ten seconds and a few hundred MB.
pub const STEPS_MAX: usize = 10_000_000;

/// The largest value APPEND and SETRANGE can make, bytes, unless the cluster was told otherwise.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;

/// What a check found. `Display`: a few lines, with the time line of a violation.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Operations looked at.
    pub operations: usize,
    /// Keys looked at.
    pub keys: usize,
    /// What is wrong with the first key that no register explains.
    pub violation: Option<Violation>,
    /// Every key that no register explains.
    pub wrong: Vec<Key>,
    /// Keys with operations that depend on a clock.
    pub unchecked: Vec<Key>,
    /// Keys whose search passed its limit.
    pub undecided: Vec<Key>,
}

impl Report {
    /// Whether every key was checked and found right.
    #[must_use]
    pub fn is_linearizable(&self) -> bool {
        self.wrong.is_empty() && self.unchecked.is_empty() && self.undecided.is_empty()
    }
}

/// Checks a history, key by key, with the shipped limits.
#[must_use]
pub fn check(history: &History) -> Report {
    check_with(Register { value_bytes_max: VALUE_BYTES_MAX }, history, STEPS_MAX)
}

impl History {
    /// [`check`]s it.
    ///
    /// # Errors
    /// The report of a history that no register explains, or of which nobody can tell.
    pub fn assert_linearizable(&self) -> Result<(), Box<Report>> {
        let report = check(self);
        if report.is_linearizable() { Ok(()) } else { Err(Box::new(report)) }
    }
}

/// Checks a history against `register`, trying at most `limit` steps a key.
#[must_use]
pub fn check_with(register: Register, history: &History, limit: usize) -> Report {
    let mut by_key: BTreeMap<&Key, Vec<&Operation>> = BTreeMap::new();
    for operation in &history.operations {
        by_key.entry(&operation.key).or_default().push(operation);
    }
    let mut report =
        Report { operations: history.operations.len(), keys: by_key.len(), ..Report::default() };
    for (key, operations) in by_key {
        if operations.iter().any(|operation| has_time(&operation.command)) {
            report.unchecked.push(key.clone());
            continue;
        }
        let timed: Vec<_> = operations.iter().filter_map(|operation| timed(operation)).collect();
        match search::search(&register, &timed, limit) {
            Answer::Order(_) => {}
            Answer::GaveUp => report.undecided.push(key.clone()),
            Answer::Impossible => {
                report.wrong.push(key.clone());
                if report.violation.is_none() {
                    report.violation = Some(shrink::shrink(register, &operations));
                }
            }
        }
    }
    report
}

/// An operation as the search takes it; none where it cannot matter.
fn timed(operation: &Operation) -> Option<Timed<Asked>> {
    let command = operation.command.clone();
    let (op, end) = match &operation.outcome {
        Outcome::NotApplied => return None,
        Outcome::Unknown if command.is_read() => return None,
        Outcome::Unknown => (Asked { command, reply: None }, End::Optional),
        Outcome::Reply(reply) => (
            Asked { command, reply: Some(reply.clone()) },
            // A reply whose time is not known came at some time.
            End::By(operation.returned.unwrap_or(u64::MAX)),
        ),
    };
    Some(Timed { op, call: operation.call, end })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_linearizable() {
            "linearizable"
        } else if self.wrong.is_empty() {
            "not decided"
        } else {
            "NOT linearizable"
        };
        writeln!(f, "{verdict}: {} operations on {} keys", self.operations, self.keys)?;
        list(f, "wrong", &self.wrong)?;
        list(f, "undecided, the search passed its limit", &self.undecided)?;
        list(f, "unchecked, they have operations that depend on a clock", &self.unchecked)?;
        self.violation.as_ref().map_or(Ok(()), |violation| write!(f, "\n{violation}"))
    }
}

/// The first keys of a list, and how many more there are.
fn list(f: &mut fmt::Formatter<'_>, what: &str, keys: &[Key]) -> fmt::Result {
    const SHOWN: usize = 8;
    if keys.is_empty() {
        return Ok(());
    }
    write!(f, "{what}:")?;
    for key in keys.iter().take(SHOWN) {
        write!(f, " {key:?}")?;
    }
    match keys.len().saturating_sub(SHOWN) {
        0 => writeln!(f),
        more => writeln!(f, " and {more} more"),
    }
}
