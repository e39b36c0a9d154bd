//! The checker accepts what one register could have shown, and nothing else.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "modules of a test")]

mod histories;

use histories::*;
use proptest::prelude::*;
use simpledynamo_protocol::{
    checker::{self, Report, Violation},
    command::{Command, Condition, ExpireIf, Reply},
    history::{History, Operation, Outcome},
};

fn check(operations: impl IntoIterator<Item = Operation>) -> Report {
    checker::check(&operations.into_iter().collect())
}

#[track_caller]
fn accepted(operations: impl IntoIterator<Item = Operation>) {
    let report = check(operations);
    assert!(report.is_linearizable(), "{report}");
}

#[track_caller]
fn refused(operations: impl IntoIterator<Item = Operation>) -> Violation {
    let report = check(operations);
    report.violation.clone().unwrap_or_else(|| panic!("no violation was found, but: {report}"))
}

#[test]
fn nothing_is_linearizable() {
    accepted([]);
}

#[test]
fn overlapping_operations_may_come_in_either_order() {
    let writes = [
        saw(1, (0, 10), set("a"), Reply::Ok),
        saw(2, (0, 10), set("b"), Reply::Ok),
        saw(3, (2, 4), Command::Get, Reply::Nil),
    ];
    for last in ["a", "b"] {
        let read = saw(3, (11, 12), Command::Get, bulk(last));
        accepted(writes.iter().cloned().chain([read]));
    }
    // Equal times overlap.
    accepted([saw(1, (0, 5), set("a"), Reply::Ok), saw(2, (5, 6), Command::Get, Reply::Nil)]);
}

#[test]
fn stale_read() {
    let wrong = refused([
        saw(1, (0, 10), set("a"), Reply::Ok),
        saw(2, (20, 30), set("b"), Reply::Ok),
        saw(3, (22, 23), Command::Get, bulk("a")),
        saw(3, (40, 50), Command::Get, bulk("a")),
        saw(3, (60, 70), Command::Get, bulk("a")),
    ]);
    assert_eq!(wrong.at, 50, "the first wrong read shows it");
    assert_eq!(wrong.operations.len(), 3, "{wrong}");
}

#[test]
fn two_readers_see_two_writes_in_different_order() {
    refused([
        saw(1, (0, 100), set("a"), Reply::Ok),
        saw(2, (0, 100), set("b"), Reply::Ok),
        saw(3, (10, 11), Command::Get, bulk("a")),
        saw(3, (20, 21), Command::Get, bulk("b")),
        saw(4, (30, 31), Command::Get, bulk("a")),
    ]);
}

#[test]
fn lost_update() {
    refused([
        saw(1, (0, 10), Command::IncrBy(1), Reply::Int(1)),
        saw(2, (5, 15), Command::IncrBy(1), Reply::Int(1)),
    ]);
}

#[test]
fn doubled_increment() {
    let wrong = refused([
        saw(1, (0, 10), Command::IncrBy(1), Reply::Int(1)),
        saw(1, (20, 30), Command::IncrBy(1), Reply::Int(2)),
        saw(1, (40, 50), Command::IncrBy(1), Reply::Int(4)),
    ]);
    assert!(wrong.operations.len() <= 3, "{wrong}");
    // One unknown increment explains it, and it can explain it only once.
    let unknown = lost(2, 5, Command::IncrBy(1));
    let first = saw(1, (20, 30), Command::IncrBy(1), Reply::Int(2));
    accepted([unknown.clone(), first.clone()]);
    refused([unknown, first, saw(1, (40, 50), Command::IncrBy(1), Reply::Int(4))]);
}

#[test]
fn lost_acknowledged_write() {
    let wrong = refused([
        saw(1, (0, 10), set("a"), Reply::Ok),
        saw(1, (20, 30), Command::Get, bulk("a")),
        saw(2, (40, 50), Command::Get, Reply::Nil),
    ]);
    assert_eq!(wrong.operations.len(), 2, "{wrong}");
}

#[test]
fn read_of_a_value_from_the_future() {
    refused([saw(1, (0, 10), Command::Get, bulk("a")), saw(2, (20, 30), set("a"), Reply::Ok)]);
    refused([saw(1, (0, 10), Command::Get, bulk("a")), lost(2, 20, set("a"))]);
}

#[test]
fn resurrected_delete() {
    refused([
        saw(1, (0, 10), set("a"), Reply::Ok),
        saw(1, (20, 30), Command::Del, Reply::Int(1)),
        saw(2, (40, 50), Command::Get, bulk("a")),
    ]);
}

#[test]
fn two_compare_and_sets_both_succeed() {
    refused([
        saw(1, (0, 10), set("a"), Reply::Ok),
        saw(1, (20, 40), cas("a", "b"), Reply::Ok),
        saw(2, (20, 40), cas("a", "c"), Reply::Ok),
    ]);
    accepted([
        saw(1, (0, 10), set("a"), Reply::Ok),
        saw(1, (20, 40), cas("a", "b"), Reply::Ok),
        saw(2, (20, 40), cas("b", "a"), Reply::Ok),
        saw(3, (20, 40), cas("a", "c"), Reply::Ok),
        saw(4, (20, 40), cas("zz", "c"), Reply::Nil),
    ]);
}

#[test]
fn condition_that_failed_must_have_had_a_reason() {
    refused([saw(1, (0, 10), set_if("a", Condition::IfAbsent), Reply::Nil)]);
    refused([saw(1, (0, 10), set("a"), Reply::Ok), saw(1, (20, 30), cas("a", "b"), Reply::Nil)]);
}

#[test]
fn operation_that_was_not_applied_had_no_effect() {
    let mut refused_set = saw(2, (20, 30), set("b"), Reply::Ok);
    refused_set.outcome = Outcome::NotApplied;
    let before = saw(1, (0, 10), set("a"), Reply::Ok);
    let read = |value| saw(1, (40, 50), Command::Get, bulk(value));
    accepted([before.clone(), refused_set.clone(), read("a")]);
    refused([before, refused_set, read("b")]);
}

#[test]
fn unknown_write_may_take_effect_at_any_later_time_or_never() {
    let write = |at| lost(9, at, set("late"));
    let read = |at, value: Option<&str>| {
        saw(1, (at, at + 1), Command::Get, value.map_or(Reply::Nil, bulk))
    };
    accepted([write(0), read(10, None), read(20, None)]);
    accepted([write(0), read(10, None), read(20, Some("late"))]);
    refused([write(0), read(10, Some("late")), read(20, None)]);
    // Not twice.
    let over = saw(2, (30, 40), set("b"), Reply::Ok);
    refused([write(0), read(10, Some("late")), over.clone(), read(50, Some("late"))]);
    accepted([write(0), write(1), read(10, Some("late")), over, read(50, Some("late"))]);
}

#[test]
fn unknown_writes_explain_reads_in_a_chain() {
    accepted([
        lost(1, 0, Command::Append("a".into())),
        lost(2, 0, Command::Append("b".into())),
        lost(3, 0, Command::Append("c".into())),
        saw(4, (10, 20), Command::Get, bulk("cab")),
        saw(4, (30, 40), Command::StrLen, Reply::Int(3)),
    ]);
    refused([
        lost(1, 0, Command::Append("a".into())),
        lost(2, 0, Command::Append("b".into())),
        saw(4, (10, 20), Command::Get, bulk("ab")),
        saw(4, (30, 40), Command::Get, bulk("ba")),
    ]);
}

#[test]
fn key_with_a_clock_is_not_called_right() {
    let expire = Command::ExpireAt { at: 5, only: ExpireIf::Always };
    let report = check([saw(1, (0, 10), expire, Reply::Int(0))]);
    assert_eq!(report.unchecked.len(), 1);
    assert!(!report.is_linearizable());
}

#[test]
fn search_that_passes_its_limit_says_so() {
    let history =
        record(&Run { seed: 1, clients: 4, keys: 1, operations: 50, lost: 0, unlike: true });
    let register = checker::register::Register { value_bytes_max: 1024 };
    let report = checker::check_with(register, &history, 3);
    assert_eq!(report.undecided.len(), 1);
    assert!(!report.is_linearizable());
}

#[test]
fn reported_part_holds_the_unknown_write_that_explains_a_read() {
    let noise = (0..200).map(|i| {
        let at = 1_000 + i * 10;
        saw(7, (at, at + 5), Command::Get, bulk("b"))
    });
    let wrong = refused(
        [
            saw(1, (0, 10), set("a"), Reply::Ok),
            lost(2, 15, set("b")),
            lost(5, 16, set("never seen")),
        ]
        .into_iter()
        .chain(noise)
        .chain([saw(3, (5_000, 5_010), Command::Get, bulk("a"))]),
    );
    let shown: Vec<_> = wrong.operations.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        ["SET \"a\" → OK", "SET \"b\" → unknown", "GET → \"b\"", "GET → \"a\""],
        "{wrong}"
    );
    assert_eq!((wrong.of, wrong.at), (204, 5_010));
}

#[test]
fn picture_of_a_stale_read() {
    let wrong = refused([
        saw(1, (0, 10), set("a"), Reply::Ok),
        saw(2, (5, 40), Command::Append("b".into()), Reply::Int(2)),
        saw(12, (30, 50), Command::Get, bulk("ab")),
        saw(12, (55, 70), Command::Get, bulk("a")),
        lost(1, 20, set("c")),
    ]);
    let picture = wrong.to_string();
    assert_eq!(picture, include_str!("histories/stale_read.txt"), "\n{picture}");
}

#[test]
fn picture_fits_its_width() {
    let history =
        record(&Run { seed: 3, clients: 9, keys: 1, operations: 300, lost: 9, unlike: true });
    for line in checker::draw::time_line(&history.operations).lines() {
        assert!(line.chars().count() <= checker::draw::COLUMNS_MAX, "{line}");
    }
}

#[test]
fn large_good_history() {
    let run = Run { seed: 7, clients: 32, keys: 1_000, operations: 200_000, lost: 1, unlike: true };
    accepted(record(&run).operations);
}

#[test]
fn many_clients_on_one_key() {
    for seed in 0..5 {
        let run = Run { seed, clients: 10, keys: 1, operations: 1_000, lost: 2, unlike: true };
        accepted(record(&run).operations);
    }
}

#[test]
fn one_wrong_read_among_a_thousand_operations_is_found_and_shown() {
    for seed in 0..3 {
        let run = Run { seed, clients: 8, keys: 1, operations: 1_000, lost: 0, unlike: true };
        let wrong = refused(one_wrong_read(record(&run)).operations);
        assert!(wrong.operations.len() < 10, "{wrong}");
    }
}

/// Late in the history a read returns a value that was overwritten long before.
fn one_wrong_read(mut history: History) -> History {
    let reads: Vec<usize> = (0..history.operations.len())
        .filter(|index| {
            let operation = &history.operations[*index];
            operation.command == Command::Get && matches!(operation.outcome, Outcome::Reply(_))
        })
        .collect();
    let late = reads[reads.len() * 3 / 4];
    let stale = reads[..reads.len() / 2]
        .iter()
        .map(|read| &history.operations[*read].outcome)
        .rfind(|outcome| matches!(outcome, Outcome::Reply(Reply::Bulk(value)) if value.len() > 2))
        .unwrap();
    history.operations[late].outcome = stale.clone();
    history
}

#[test]
fn json_line_is_as_documented_and_comes_back() {
    let operation = Operation {
        client: 3,
        key: vec![b'x', 0, 0xff, b'"', b'\\'].into(),
        command: Command::IncrBy(1),
        call: 120,
        returned: Some(412),
        outcome: Outcome::Reply(Reply::Int(7)),
    };
    let line = serde_json::to_string(&operation).unwrap();
    assert_eq!(
        line,
        r#"{"client":3,"key":"x\\x00\\xff\\\"\\\\","command":{"IncrBy":1},"call":120,"returned":412,"outcome":{"Reply":{"Int":7}}}"#
    );
    assert_eq!(serde_json::from_str::<Operation>(&line).unwrap(), operation);
    let bad = line.replace(r"\\xff", r"\\xfg");
    assert!(serde_json::from_str::<Operation>(&bad).unwrap_err().to_string().contains("escape"));
}

/// Changes a few things that a client could not have seen, or could.
fn mutate(history: &mut History, chance: &mut Chance) {
    for _ in 0..=chance.below(2) {
        let count = history.operations.len() as u64;
        let (a, b) = (chance.below(count) as usize, chance.below(count) as usize);
        let other = history.operations[b].clone();
        let operation = &mut history.operations[a];
        match chance.below(5) {
            0 => operation.outcome = other.outcome,
            1 => operation.command = other.command,
            2 => {
                operation.call = other.call;
                operation.returned = operation.returned.map(|end| end.max(other.call));
            }
            3 => operation.returned = other.returned.map(|end| end.max(operation.call)),
            _ => match &mut operation.outcome {
                Outcome::Reply(Reply::Int(number)) => *number += 1,
                Outcome::Reply(Reply::Bulk(value)) => *value = "1".into(),
                Outcome::Reply(_) | Outcome::NotApplied | Outcome::Unknown => {
                    operation.outcome = Outcome::Reply(Reply::Nil);
                }
            },
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn atomic_registers_are_accepted(
        seed: u64, clients in 1..12u64, keys in 1..4u64, lost in 0..4u64, unlike: bool,
    ) {
        let history = record(&Run { seed, clients, keys, operations: 150, lost, unlike });
        let report = checker::check(&history);
        prop_assert!(report.is_linearizable(), "{}", report);
    }

    // Dozens of unknown operations on a key can be too many to decide, never a reason to refuse.
    #[test]
    fn atomic_registers_that_lose_much_are_never_refused(
        seed: u64, clients in 1..12u64, keys in 1..4u64, lost in 4..40u64, unlike: bool,
    ) {
        let history = record(&Run { seed, clients, keys, operations: 100, lost, unlike });
        let register = checker::register::Register { value_bytes_max: 1024 };
        let report = checker::check_with(register, &history, 200_000);
        prop_assert!(report.wrong.is_empty(), "{}", report);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn verdict_is_that_of_all_permutations(
        seed: u64, clients in 1..5u64, operations in 1..9u64, lost in 0..60u64, unlike: bool,
    ) {
        let mut history = record(&Run { seed, clients, keys: 1, operations, lost, unlike });
        mutate(&mut history, &mut Chance(!seed));
        let report = checker::check(&history);
        prop_assert_eq!(report.is_linearizable(), some_permutation(&history), "{:#?}", history);
        if let Some(wrong) = report.violation {
            let part = History { operations: wrong.operations.clone() };
            prop_assert!(!some_permutation(&part), "what is shown is not wrong\n{}", wrong);
            prop_assert!(part.operations.iter().all(|op| history.operations.contains(op)));
        }
    }
}
