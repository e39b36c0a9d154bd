//! Printing: colours only on a terminal and without `NO_COLOR`, which anstream decides.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
};

/// Bold, until [`PLAIN`].
pub(super) const BOLD: &str = "\x1b[1m";
/// Green, until [`PLAIN`].
pub(super) const GREEN: &str = "\x1b[32m";
/// Yellow, until [`PLAIN`].
pub(super) const YELLOW: &str = "\x1b[33m";
/// Red, until [`PLAIN`].
pub(super) const RED: &str = "\x1b[31m";
/// As before.
pub(super) const PLAIN: &str = "\x1b[0m";

/// A line of the result, on standard output. An error here is the command's failure.
pub(super) fn line(text: impl Display) -> io::Result<()> {
    writeln!(anstream::stdout(), "{text}")
}

/// A line for the person at the terminal, on standard error. Where nobody can read it, work goes on.
pub(crate) fn note(text: impl Display) {
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// Why the command failed.
pub(super) fn error(text: impl Display) {
    note(format!("{RED}{BOLD}error:{PLAIN} {text}"));
}

/// A line that the next one overwrites; only on a terminal.
pub(super) fn progress(text: impl Display) {
    if io::stderr().is_terminal() {
        let _ = write!(anstream::stderr(), "\r\x1b[K{text}");
        let _ = io::stderr().flush();
    }
}

/// A line about long work where there is no terminal to write it anew on.
pub(super) fn progress_line(text: impl Display) {
    if !io::stderr().is_terminal() {
        note(text);
    }
}
