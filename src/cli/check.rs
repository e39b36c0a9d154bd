//! `check FILE`: a history from a file of JSON lines, judged by the checker.
//!
//! Lines are read one at a time and bounded, so a file that is none does not fill the memory; the
//! operations themselves must fit into it (about 300 B each, [`OPERATIONS_MAX`] at most). The first
//! line that cannot be read ends the command: a verdict on half a history would be none.

use super::{Failure, out};
use clap::Args;
use simpledynamo_protocol::{
    checker,
    history::{History, Operation},
};
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::PathBuf,
};

/// Bytes of a line: a value of the shipped limit, every byte of it escaped, and its old value.
const LINE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Operations of a history: some 1.5 GB.
const OPERATIONS_MAX: usize = 5_000_000;

/// The end of the help.
pub(super) const FORMAT: &str = r#"One operation a line, in any order:
  {"client":3,"key":"x","command":{"IncrBy":1},"call":120,"returned":412,"outcome":{"Reply":{"Int":7}}}

  client    who asked, a number
  key       text; bytes that are not printable ASCII as \n \r \t \\ \xNN (in JSON: "\\x00")
  command   "Get", "Del", {"IncrBy":1}, {"Append":"a"}, "GetDel", "Exists", "StrLen", …,
            {"Set":{"value":"a","condition":"Always","expiry":"Clear","get":false}};
            condition: "Always", "IfAbsent", "IfPresent", {"IfEquals":"old"}
  call      when it was called, microseconds on one clock
  returned  when it was answered; null: never
  outcome   {"Reply":R} with R one of "Ok", "Nil", {"Int":7}, {"Bulk":"a"}, {"Error":"ERR …"};
            "NotApplied": it certainly had no effect; "Unknown": it may have, or may yet

Exit codes: 0 linearizable, 1 not linearizable or not decided, 2 the input cannot be read."#;

/// `check`
#[derive(Args, Debug)]
pub(super) struct CheckArguments {
    /// JSON lines, one operation each; `-` is standard input.
    file: PathBuf,
}

/// Reads, judges, prints the report.
pub(super) fn run(arguments: &CheckArguments) -> Result<(), Failure> {
    let path = &arguments.file;
    let history = if path.as_os_str() == "-" {
        read("standard input", io::stdin().lock())?
    } else {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|error| {
            Failure::usage(format!("{name} cannot be read ({error}): name a file of JSON lines"))
        })?;
        read(&name, BufReader::new(file))?
    };
    let report = checker::check(&history);
    let (replies, refused, unknown) = history.outcomes();
    out::line(report.to_string().trim_end())?;
    out::line(format!("outcomes: {replies} replies, {refused} not applied, {unknown} unknown"))?;
    if report.is_linearizable() {
        Ok(())
    } else if report.wrong.is_empty() {
        Err(Failure::new("not decided: the keys listed could not be checked to the end"))
    } else {
        Err(Failure::new(format!("{} of {} keys are wrong", report.wrong.len(), report.keys)))
    }
}

/// The operations of `input`, which messages call `name`.
fn read(name: &str, mut input: impl BufRead) -> Result<History, Failure> {
    let mut history = History::default();
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let fail = |what: String| Err(Failure::usage(format!("{name}, line {number}: {what}")));
        match (&mut input).take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut line) {
            Ok(0) => break,
            Ok(length) if length as u64 > LINE_BYTES_MAX => {
                return fail(format!("longer than {LINE_BYTES_MAX} bytes: one operation a line"));
            }
            Ok(_) => {}
            Err(error) => return fail(format!("cannot be read: {error}")),
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        if history.operations.len() == OPERATIONS_MAX {
            return fail(format!("more than {OPERATIONS_MAX} operations: check it key by key"));
        }
        match serde_json::from_slice::<Operation>(&line) {
            Ok(operation) if operation.returned.is_some_and(|end| end < operation.call) => {
                return fail("returned before it was called: both times are of one clock".into());
            }
            Ok(operation) => history.operations.push(operation),
            Err(error) => {
                return fail(format!("no operation: {error}; see `dynamo check --help`"));
            }
        }
    }
    if history.operations.is_empty() {
        return Err(Failure::usage(format!("{name} has no operations: a line of JSON is one")));
    }
    Ok(history)
}
