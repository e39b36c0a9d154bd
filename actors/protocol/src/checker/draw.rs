//! Operations as a time line of text, one row a client, at most 100 columns wide.
//!
//! ```text
//! client 1  ├1──────────────┤       ├3┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄▷
//! client 2          ├2──────────────────────┤
//! client 12                                         ├4──────┤
//!   1  client 1             0 –         10 µs  SET "a" → OK
//!   2  client 2             5 –         40 µs  APPEND "b" → 2
//!   3  client 1            20 –       open µs  SET "c" → unknown
//!   4  client 12           55 –         70 µs  GET → "a"
//! ```
//!
//! Columns are in order of time, not to scale: each call and each return gets the same room. An
//! operation whose outcome is not known stays open to the right. A client with an operation that
//! stayed open goes on in a further row.
//!
//! Caveat: with more operations than fit, several share a column; the legend has the exact times.

use crate::history::{Operation, Outcome};
use std::fmt::Write;

/// Columns of the widest line.
pub const COLUMNS_MAX: usize = 100;

/// Columns between two times, at most: more would only stretch the picture.
const STEP_MAX: usize = 8;

/// A row of the picture: what is drawn, and where it is free again.
struct Row {
    client: u32,
    cells: Vec<char>,
    free: usize,
}

/// The time line and its legend, with a line feed at the end. Operations by time of call.
#[must_use]
pub fn time_line(operations: &[Operation]) -> String {
    let scale = Scale::of(operations);
    let mut rows: Vec<Row> = Vec::new();
    for (index, operation) in operations.iter().enumerate() {
        let (from, to) = scale.span(operation);
        let end = if ended(operation).is_some() { '┤' } else { '▷' };
        let found = rows.iter().position(|row| row.client == operation.client && row.free <= from);
        let at = found.unwrap_or_else(|| {
            let cells = vec![' '; scale.width];
            rows.push(Row { client: operation.client, cells, free: 0 });
            rows.len() - 1
        });
        if let Some(row) = rows.get_mut(at) {
            bar(&mut row.cells, from, to, index + 1, end);
            row.free = to + 1;
        }
    }
    rows.sort_by_key(|row| row.client);
    let mut text = String::new();
    for row in &rows {
        let cells: String = row.cells.iter().collect();
        let name = format!("client {}", row.client);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<label$} {}", cells.trim_end(), label = scale.label);
    }
    for (index, operation) in operations.iter().enumerate() {
        legend(&mut text, index + 1, operation);
    }
    text
}

/// When an operation must have taken place, if it must.
fn ended(operation: &Operation) -> Option<u64> {
    match operation.outcome {
        Outcome::Reply(_) | Outcome::NotApplied => operation.returned,
        Outcome::Unknown => None,
    }
}

/// Times to columns.
struct Scale {
    /// (time, is a return), in order, each once.
    times: Vec<(u64, bool)>,
    label: usize,
    width: usize,
}

impl Scale {
    fn of(operations: &[Operation]) -> Scale {
        let mut times: Vec<(u64, bool)> = operations
            .iter()
            .flat_map(|operation| {
                let end = ended(operation).map(|end| (end, true));
                std::iter::once((operation.call, false)).chain(end)
            })
            .collect();
        times.sort_unstable();
        times.dedup();
        let name = |operation: &Operation| format!("client {}", operation.client).len();
        let label = operations.iter().map(name).max().unwrap_or(0);
        let room = COLUMNS_MAX.saturating_sub(label + 1);
        let width = room.min(times.len() * STEP_MAX + 1).max(1);
        Scale { times, label, width }
    }

    /// First and last column.
    fn span(&self, operation: &Operation) -> (usize, usize) {
        let column = |time: (u64, bool)| {
            let at = self.times.partition_point(|other| *other < time);
            at * (self.width - 1) / self.times.len().max(1)
        };
        let from = column((operation.call, false));
        let to = ended(operation).map_or(self.width - 1, |end| column((end, true)));
        (from, to.max(from))
    }
}

fn bar(cells: &mut [char], from: usize, to: usize, number: usize, end: char) {
    let number = number.to_string();
    let line = if end == '┤' { '─' } else { '┄' };
    let inside = number.chars().chain(std::iter::repeat(line));
    let last = to.saturating_sub(from);
    let drawn = std::iter::once('├').chain(inside).take(last);
    let start = cells.iter_mut().skip(from);
    for (cell, drawn) in start.zip(drawn.chain([end])) {
        *cell = drawn;
    }
}

/// Adds the line of one operation to the legend, cut to the width.
fn legend(text: &mut String, number: usize, operation: &Operation) {
    let end = ended(operation).map_or_else(|| String::from("open"), |end| end.to_string());
    let line = format!(
        "{number:>3}  client {:<4} {:>10} – {end:>10} µs  {operation}",
        operation.client, operation.call
    );
    let cut = line.chars().count() > COLUMNS_MAX;
    text.extend(line.chars().take(COLUMNS_MAX - usize::from(cut)));
    text.push_str(if cut { "…\n" } else { "\n" });
}
