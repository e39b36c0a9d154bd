//! `dynamo check` and `dynamo torture` from outside.
//!
//! The torture test runs five real processes behind proxies for some seconds, every kind of fault at
//! least once. Cargo runs one test binary after another, so no other ring is there meanwhile. It asks
//! for no figures, only for the verdict: times are the machine's business.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::Write,
    process::{Command, Output, Stdio},
};

fn dynamo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dynamo"));
    for variable in ["DYNAMO_SECRET", "DYNAMO_PASSWORD", "RUST_LOG"] {
        command.env_remove(variable);
    }
    command.args(arguments);
    command
}

/// Exit code, standard output, standard error.
fn told(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// `dynamo check -` with this input.
fn check(input: &str) -> (i32, String, String) {
    let mut command = dynamo(&["check", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    told(child.wait_with_output().unwrap())
}

fn example() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/examples/history.jsonl")).unwrap()
}

#[test]
fn shipped_history_is_linearizable() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/examples/history.jsonl");
    let (code, out, err) = told(dynamo(&["check", file]).output().unwrap());
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.starts_with("linearizable: 8 operations on 2 keys\n"), "{out}");
    assert!(out.contains("6 replies, 1 not applied, 1 unknown"), "{out}");
}

#[test]
fn wrong_history_is_drawn() {
    // The increment without an answer is all that explains the 2.
    let wrong: String = example()
        .lines()
        .filter(|line| !line.contains("Unknown"))
        .map(|line| format!("{line}\n"))
        .collect();
    let (code, out, err) = check(&wrong);
    assert_eq!(code, 1, "{out}{err}");
    assert!(out.starts_with("NOT linearizable"), "{out}");
    assert!(out.contains("client 3") && out.contains("GET → \"2\"") && out.contains('├'), "{out}");
}

#[test]
fn history_that_depends_on_a_clock_is_not_decided() {
    let (code, out, err) = check(
        r#"{"client":1,"key":"x","command":{"Ttl":"Seconds"},"call":0,"returned":1,"outcome":{"Reply":{"Int":-2}}}"#,
    );
    assert_eq!(code, 1, "{out}{err}");
    assert!(out.starts_with("not decided") && err.contains("not decided"), "{out}{err}");
}

#[test]
fn unreadable_history_is_told_with_its_line() {
    let whole = example();
    let second = format!("{}\n{{\"client\":1}}\n", whole.lines().next().unwrap());
    let backwards =
        whole.replace("\"returned\":900", "\"returned\":1").replace("\"call\":0", "\"call\":2");
    let long = "x".repeat(16 * 1024 * 1024 + 2);
    for (input, what) in [
        (second.as_str(), "standard input, line 2: no operation: missing field `key`"),
        (backwards.as_str(), "standard input, line 1: returned before it was called"),
        (long.as_str(), "standard input, line 1: longer than"),
        ("\n\n", "standard input has no operations"),
    ] {
        let (code, out, err) = check(input);
        assert_eq!((code, out.as_str()), (2, ""), "{what}: {err}");
        assert!(err.contains(what), "{what}: {err}");
    }
    let (code, _, err) = told(dynamo(&["check", "no/such/file"]).output().unwrap());
    assert!(code == 2 && err.contains("no/such/file cannot be read"), "{code} {err}");
}

/// The negative control: a judge that cannot object shows nothing. Debug builds only, as the option.
#[cfg(debug_assertions)]
#[test]
fn ring_that_loses_acknowledged_writes_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = dynamo(&["torture", "--minutes", "0.02", "--clients", "8", "--keys", "30"]);
    command.args(["--faults", "pause", "--lose-one-in", "20"]).env("TMPDIR", dir.path());
    let (code, out, err) = told(command.output().unwrap());
    assert_eq!(code, 1, "{out}{err}");
    assert!(out.contains("NOT linearizable") && out.contains('├'), "{out}");
    assert!(
        out.contains("\nverdict       FAILED: ") && err.contains("are not linearizable"),
        "{out}{err}"
    );
    let kept = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
    assert!(err.contains(kept.to_str().unwrap()), "the directory is not named: {err}");
    let slice = kept.join("slice-0.jsonl");
    let (code, out, _) = told(dynamo(&["check", slice.to_str().unwrap()]).output().unwrap());
    assert!(code == 1 && out.starts_with("NOT linearizable"), "{out}");
}

#[test]
fn ring_under_every_kind_of_fault_stays_linearizable() {
    torture("quorum", "0");
}

#[test]
fn chains_under_every_kind_of_fault_stay_linearizable() {
    torture("chain", "0");
}

#[test]
fn shards_under_every_kind_of_fault_stay_linearizable() {
    torture("quorum", "2");
}

fn torture(replication: &str, workers: &str) {
    let dir = tempfile::tempdir().unwrap();
    let record = dir.path().join("history.jsonl");
    let mut command = dynamo(&["torture", "--minutes", "0.1", "--clients", "8", "--keys", "30"]);
    command.args(["--replication", replication, "--workers", workers]);
    command.env("TMPDIR", dir.path()).arg("--record").arg(&record);
    let (code, out, err) = told(command.output().unwrap());
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        out.contains("\nverdict       linearizable, nothing lost, three replicas equal"),
        "{out}"
    );
    for fault in
        ["kill", "pause", "partition, both ways", "partition, outward", "partition, inward"]
            .into_iter()
            .chain(["delay", "cut"])
    {
        assert!(out.contains(&format!("\n  {fault} ")), "{fault} did not come:\n{out}");
    }
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["history.jsonl"], "nothing is left but what was asked for");
    let (code, out, err) = told(dynamo(&["check", record.to_str().unwrap()]).output().unwrap());
    assert!(code == 0 && out.starts_with("linearizable: "), "{out}{err}");
}
