//! `dynamo simulate` as a person calls it: figures, exit codes, replay, two processes that agree.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

fn simulate(arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dynamo"));
    command.arg("simulate").args(arguments.split(' ')).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn two_processes_send_the_same_messages() {
    let out = simulate("--from 0 --seeds 6 --jobs 2 --check-determinism");
    let told = text(&out.stdout);
    assert!(out.status.success(), "{told}{}", text(&out.stderr));
    for part in ["seeds 0 to 5", "again:", "replied", "hours", "faults", "byte for byte", "held"] {
        assert!(told.contains(part), "no \"{part}\" in:\n{told}");
    }
}

#[test]
fn one_seed_shows_its_schedule_and_every_message() {
    let out = simulate("--seed 3 --operations 50 --clients 2 --log");
    let told = text(&out.stdout);
    assert!(out.status.success(), "{told}{}", text(&out.stderr));
    assert!(told.contains("seed 3: ") && told.contains(" → "), "{told}");
    assert_eq!(out.stdout, simulate("--seed 3 --operations 50 --clients 2 --log").stdout);
}

#[test]
fn a_fault_that_is_not_in_the_schedule_is_a_usage_error() {
    let out = simulate("--seed 3 --faults 100000");
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("there is no fault 100000"), "{}", text(&out.stderr));
    assert_eq!(simulate("--seed 3 --faults x").status.code(), Some(2));
    assert_eq!(simulate("--seed 3 --seeds 4").status.code(), Some(2));
}

#[test]
fn nothing_is_shrunk_where_nothing_fails() {
    let out = simulate("--seed 3 --operations 20 --faults none --shrink");
    assert!(out.status.success());
    assert!(text(&out.stdout).contains("nothing to shrink"), "{}", text(&out.stdout));
}
