//! A diagram in a terminal: Unicode, at most [`WIDTH`] columns, time down the side.
//!
//! ```text
//!            client     5554      5558
//!      0 µs    │─SET x─▶│         │
//! ```
//!
//! A label that fits into its arrow stands in it, a longer one above it. Notes begin at the lifeline
//! of whom they concern, `◆`, or `✗` where something went wrong; an arrow that ends in `╳` did not
//! arrive.

use super::diagram::{Arrow, Diagram, Note, Row, micros};

/// Columns of the terminal that a diagram takes at most.
pub const WIDTH: usize = 100;
/// Columns for the time.
const TIME: usize = 10;
/// Columns that a participant takes at most.
const CELL_MAX: usize = 18;

/// The diagram, lines ended by line feeds.
#[must_use]
pub fn draw(diagram: &Diagram) -> String {
    let cell = ((WIDTH - TIME) / diagram.columns.len().max(1)).clamp(2, CELL_MAX);
    let centers: Vec<_> =
        (0..diagram.columns.len()).map(|at| TIME + cell * at + cell / 2).collect();
    let mut canvas = Canvas { centers, text: String::new() };
    canvas.text.push_str(&heading(diagram));
    canvas.names(diagram);
    for row in &diagram.rows {
        match row {
            Row::Arrow(arrow) => canvas.arrow(arrow),
            Row::Note(note) => canvas.note(note),
        }
    }
    for what in &diagram.missing {
        canvas.text.push_str(&format!("missing: {what}\n"));
    }
    canvas.text
}

/// `SET x  5554-17-203  done in 1.2 ms  2026-01-31 12:00:00.123456 UTC`
#[must_use]
pub fn heading(diagram: &Diagram) -> String {
    let Diagram { title, request, outcome, took, began, .. } = diagram;
    let title = if title.is_empty() { "(its beginning is missing)" } else { title };
    let end = match took {
        Some(took) => format!("{outcome} in {}", micros(*took)),
        None => "not answered".to_owned(),
    };
    format!("{title}  {request}  {end}  {}\n", utc(*began))
}

/// Microseconds since the Unix epoch as a date and time.
#[must_use]
pub fn utc(wall: u64) -> String {
    let (seconds, micros) = (wall / 1_000_000, wall % 1_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days to a date, with years that begin in March (Hinnant, "chrono-compatible low-level date
    // algorithms").
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day = shifted % 146_097;
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    format!("{year}-{month:02}-{date:02} {hour:02}:{minute:02}:{:02}.{micros:06} UTC", second % 60)
}

struct Canvas {
    centers: Vec<usize>,
    text: String,
}

impl Canvas {
    fn center(&self, column: usize) -> usize {
        self.centers.get(column).copied().unwrap_or(TIME)
    }

    fn names(&mut self, diagram: &Diagram) {
        let mut line = vec![' '; WIDTH];
        for (column, center) in diagram.columns.iter().zip(&self.centers) {
            let start = center.saturating_sub(column.label.chars().count() / 2);
            put(&mut line, start, &column.label);
        }
        self.push(&line);
    }

    /// A line with the time and all lifelines.
    fn blank(&self, at: Option<u64>) -> Vec<char> {
        let mut line = vec![' '; WIDTH];
        for center in &self.centers {
            put(&mut line, *center, "│");
        }
        if let Some(at) = at {
            put(&mut line, 0, &format!("{:>8}", micros(at)));
        }
        line
    }

    fn push(&mut self, line: &[char]) {
        let line: String = line.iter().collect();
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    fn arrow(&mut self, arrow: &Arrow) {
        let (from, to) = (self.center(arrow.from), self.center(arrow.to));
        let (left, right) = (from.min(to), from.max(to));
        let mut label = arrow.label.clone();
        match arrow.travel {
            Some(travel @ 1_000..) => label.push_str(&format!(" ({} on its way)", micros(travel))),
            None => label.push_str(&format!(", {}", arrow.lost)),
            Some(_) => {}
        }
        let room = right.saturating_sub(left + 3);
        let length = label.chars().count();
        let inside = length <= room && arrow.travel.is_some();
        if !inside {
            let mut line = self.blank(None);
            // To the right of the left end, or, where the line ends, pushed back.
            let start = (left + 2).min(WIDTH.saturating_sub(length));
            put(&mut line, start, &label);
            self.push(&line);
        }
        let mut line = self.blank(Some(arrow.at));
        for at in left + 1..right {
            put(&mut line, at, "─");
        }
        match (arrow.travel.is_some(), from < to) {
            (true, true) => put(&mut line, right - 1, "▶"),
            (true, false) => put(&mut line, left + 1, "◀"),
            (false, forward) => {
                // It stops half way.
                let half = left + (right - left) / 2;
                let (gap, end) = if forward { (half..right, half) } else { (left + 1..half, half) };
                for at in gap {
                    put(&mut line, at, " ");
                }
                put(&mut line, end, "╳");
                for center in self.centers.iter().filter(|center| **center != end) {
                    if line.get(*center) == Some(&' ') {
                        put(&mut line, *center, "│");
                    }
                }
            }
        }
        if inside {
            let start = left + 1 + (right - left - 1).saturating_sub(length) / 2;
            put(&mut line, start, &label);
        }
        self.push(&line);
    }

    fn note(&mut self, note: &Note) {
        let mut line = self.blank(Some(note.at));
        let center = self.center(note.column);
        put(&mut line, center, if note.bad { "✗" } else { "◆" });
        let length = note.label.chars().count();
        let start = if center + 2 + length <= WIDTH {
            center + 2
        } else {
            center.saturating_sub(length + 1).max(TIME)
        };
        let before = start < center;
        let most = if before { center.saturating_sub(start + 1) } else { WIDTH - start };
        put(&mut line, start, &cut(&note.label, most));
        self.push(&line);
    }
}

fn put(line: &mut [char], at: usize, text: &str) {
    for (slot, shown) in line.iter_mut().skip(at).zip(text.chars()) {
        *slot = shown;
    }
}

fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00:00.000000 UTC");
        assert_eq!(utc(951_782_400_000_000), "2000-02-29 00:00:00.000000 UTC");
        assert_eq!(utc(1_700_000_000_123_456), "2023-11-14 22:13:20.123456 UTC");
        assert_eq!(utc(4_107_542_399_999_999), "2100-02-28 23:59:59.999999 UTC");
    }
}
