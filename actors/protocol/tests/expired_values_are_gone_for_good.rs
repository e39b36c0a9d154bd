//! Expiry: how it is set and read, and that a passed one leaves a tombstone whatever the command.

use proptest::prelude::*;
use simpledynamo_protocol::{
    command::{Applied, Command, Condition, Context, ExpireIf, Expiry, Reply, TtlUnit, apply},
    record::{Datum, Value},
};

const NOW: u64 = 1_000_000;
const CONTEXT: Context = Context { wall: NOW, value_bytes_max: 32 };
const DELETED: Option<Datum> = Some(Datum::Tombstone { at: NOW });

fn live(value: &str, expires_at: Option<u64>) -> Datum {
    Datum::Live { value: value.into(), expires_at }
}

fn run(command: Command, current: Option<&Datum>) -> (Reply, Option<Datum>) {
    let Applied { next, reply } = apply(&command, current, CONTEXT);
    (reply, next)
}

#[test]
fn expireat_heeds_its_option() {
    use ExpireIf::{Always, Earlier, Later, None as IfNone, Some as IfSome};
    let (none, at_9) = (live("v", None), live("v", Some(NOW + 9)));
    for (only, current, at, changes) in [
        (Always, &none, 5, true),
        (Always, &at_9, 5, true),
        (IfNone, &none, 5, true),
        (IfNone, &at_9, 5, false),
        (IfSome, &none, 5, false),
        (IfSome, &at_9, 5, true),
        (Later, &none, 5, false),
        (Later, &at_9, 8, false),
        (Later, &at_9, 9, false),
        (Later, &at_9, 10, true),
        (Earlier, &none, 5, true),
        (Earlier, &at_9, 8, true),
        (Earlier, &at_9, 9, false),
        (Earlier, &at_9, 10, false),
    ] {
        let done = run(Command::ExpireAt { at: NOW + at, only }, Some(current));
        let next = changes.then(|| live("v", Some(NOW + at)));
        assert_eq!(done, (Reply::Int(i64::from(changes)), next), "{only:?} {current:?} {at}");
        let absent = run(Command::ExpireAt { at: NOW + at, only }, None);
        assert_eq!(absent, (Reply::Int(0), None));
    }
}

#[test]
fn expireat_with_a_passed_stamp_deletes_where_its_option_holds() {
    let at_9 = live("v", Some(NOW + 9));
    let expire = |at, only| run(Command::ExpireAt { at, only }, Some(&at_9));
    assert_eq!(expire(NOW, ExpireIf::Always), (Reply::Int(1), DELETED));
    assert_eq!(expire(0, ExpireIf::Earlier), (Reply::Int(1), DELETED));
    assert_eq!(expire(0, ExpireIf::Later), (Reply::Int(0), None));
    assert_eq!(expire(0, ExpireIf::None), (Reply::Int(0), None));
}

#[test]
fn an_expiry_that_is_already_so_is_no_change() {
    let at_9 = live("v", Some(NOW + 9));
    let same = Command::ExpireAt { at: NOW + 9, only: ExpireIf::Always };
    assert_eq!(run(same, Some(&at_9)), (Reply::Int(1), None));
    let bulk = Reply::Bulk("v".into());
    assert_eq!(run(Command::GetEx(Expiry::At(NOW + 9)), Some(&at_9)), (bulk.clone(), None));
    assert_eq!(run(Command::GetEx(Expiry::Clear), Some(&live("v", None))), (bulk, None));
}

#[test]
fn getex_replies_the_value_whatever_it_does_to_the_expiry() {
    let at_9 = live("v", Some(NOW + 9));
    for (expiry, next) in [
        (Expiry::Keep, None),
        (Expiry::Clear, Some(live("v", None))),
        (Expiry::At(NOW + 1), Some(live("v", Some(NOW + 1)))),
        (Expiry::At(NOW), DELETED),
        (Expiry::At(0), DELETED),
    ] {
        let done = run(Command::GetEx(expiry), Some(&at_9));
        assert_eq!(done, (Reply::Bulk("v".into()), next), "{expiry:?}");
        assert_eq!(run(Command::GetEx(expiry), None), (Reply::Nil, None), "{expiry:?}");
    }
}

#[test]
fn persist_removes_an_expiry_once() {
    let done = run(Command::Persist, Some(&live("v", Some(NOW + 9))));
    assert_eq!(done, (Reply::Int(1), Some(live("v", None))));
    assert_eq!(run(Command::Persist, Some(&live("v", None))), (Reply::Int(0), None));
    assert_eq!(run(Command::Persist, None), (Reply::Int(0), None));
}

#[test]
fn ttl_counts_what_is_left_and_rounds_seconds_to_the_nearest() {
    use TtlUnit::{AtMillis, AtSeconds, Millis, Seconds};
    for (left, unit, count) in [
        (1, Seconds, 0),
        (499, Seconds, 0),
        (500, Seconds, 1),
        (1_499, Seconds, 1),
        (1_500, Seconds, 2),
        (1_500, Millis, 1_500),
        (1_499, AtSeconds, 1_001),
        (1_500, AtSeconds, 1_002),
        (1_500, AtMillis, 1_001_500),
        (u64::MAX - NOW, AtMillis, i64::MAX),
        (u64::MAX - NOW, AtSeconds, (u64::MAX / 1000) as i64),
    ] {
        let done = run(Command::Ttl(unit), Some(&live("v", Some(NOW + left))));
        assert_eq!(done, (Reply::Int(count), None), "{left} {unit:?}");
        assert_eq!(run(Command::Ttl(unit), Some(&live("v", None))), (Reply::Int(-1), None));
        assert_eq!(run(Command::Ttl(unit), None), (Reply::Int(-2), None));
        assert_eq!(run(Command::Ttl(unit), DELETED.as_ref()), (Reply::Int(-2), None));
    }
}

#[test]
fn a_value_ends_at_its_stamp_not_after_it() {
    let ends_now = live("v", Some(NOW));
    assert_eq!(run(Command::Get, Some(&ends_now)), (Reply::Nil, DELETED));
    let ends_next = live("v", Some(NOW + 1));
    assert_eq!(run(Command::Get, Some(&ends_next)), (Reply::Bulk("v".into()), None));
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof!["[a-c]{0,3}", "-?[0-9]{1,3}", "[0-9]\\.[0-9]"].prop_map(|text| text.as_str().into())
}

fn stamp() -> impl Strategy<Value = u64> {
    prop_oneof![NOW - 2..=NOW + 2, any::<u64>()]
}

fn expiry() -> impl Strategy<Value = Expiry> {
    prop_oneof![Just(Expiry::Keep), Just(Expiry::Clear), stamp().prop_map(Expiry::At)]
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        Just(Condition::Always),
        Just(Condition::IfAbsent),
        Just(Condition::IfPresent),
        value().prop_map(Condition::IfEquals),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    use ExpireIf::{Always, Earlier, Later, None, Some};
    let only = prop::sample::select(vec![Always, None, Some, Later, Earlier]);
    let unit = prop::sample::select(vec![
        TtlUnit::Seconds,
        TtlUnit::Millis,
        TtlUnit::AtSeconds,
        TtlUnit::AtMillis,
    ]);
    let fixed = vec![
        Command::Get,
        Command::GetDel,
        Command::Del,
        Command::Exists,
        Command::StrLen,
        Command::Persist,
        Command::Type,
    ];
    prop_oneof![
        prop::sample::select(fixed),
        (value(), condition(), expiry(), any::<bool>()).prop_map(
            |(value, condition, expiry, get)| Command::Set { value, condition, expiry, get }
        ),
        expiry().prop_map(Command::GetEx),
        value().prop_map(Command::DelIfEq),
        any::<i64>().prop_map(Command::IncrBy),
        value().prop_map(Command::IncrByFloat),
        value().prop_map(Command::Append),
        (any::<i64>(), -4i64..4).prop_map(|(start, end)| Command::GetRange { start, end }),
        (0u64..40, value()).prop_map(|(offset, value)| Command::SetRange { offset, value }),
        (stamp(), only).prop_map(|(at, only)| Command::ExpireAt { at, only }),
        unit.prop_map(Command::Ttl),
    ]
}

fn datum() -> impl Strategy<Value = Datum> {
    prop_oneof![
        any::<u64>().prop_map(|at| Datum::Tombstone { at }),
        (value(), prop::option::of(stamp()))
            .prop_map(|(value, expires_at)| Datum::Live { value, expires_at }),
    ]
}

proptest! {
    /// The rule of this file: as if nothing had been there, and the tombstone at the least.
    #[test]
    fn an_expired_value_is_an_absent_one_that_leaves_a_tombstone(
        command in command(), value in value(), at in 0..=NOW,
    ) {
        let (reply, next) = run(command.clone(), Some(&Datum::Live { value, expires_at: Some(at) }));
        let (on_absent, written) = run(command, None);
        prop_assert_eq!(reply, on_absent);
        prop_assert_eq!(next, written.or(DELETED));
    }

    #[test]
    fn a_tombstone_is_as_absent_as_nothing(command in command(), at: u64) {
        let deleted = Datum::Tombstone { at };
        prop_assert_eq!(run(command.clone(), Some(&deleted)), run(command, None));
    }

    #[test]
    fn a_read_changes_nothing_that_lives(
        // Filters, not `prop_assume`: that gives up after 1,024 rejections, which chance can reach.
        command in command().prop_filter("a read", Command::is_read),
        current in datum().prop_filter("it lives", |datum| !datum.expired(NOW)),
    ) {
        prop_assert_eq!(run(command, Some(&current)).1, None);
    }

    #[test]
    fn what_is_written_has_not_expired_and_fits(
        command in command(), current in prop::option::of(datum()),
    ) {
        let (reply, next) = run(command, current.as_ref());
        if let Some(next) = next {
            prop_assert!(!next.expired(NOW));
            prop_assert!(next.value().is_none_or(|value| value.len() <= CONTEXT.value_bytes_max));
            prop_assert!(!matches!(reply, Reply::Error(_)) || next.value().is_none());
        }
    }
}
