//! SET and its kin, APPEND and the ranges: replies, error texts and what the key holds afterwards.

use simpledynamo_protocol::{
    command::{Applied, Command, Condition, Context, Expiry, Reply, apply},
    record::{Datum, Value},
};

const NOW: u64 = 1_000_000;
const CONTEXT: Context = Context { wall: NOW, value_bytes_max: 16 };
const TOO_LONG: &str = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";

fn live(value: &str) -> Datum {
    Datum::Live { value: value.into(), expires_at: None }
}

fn until(value: &str, expires_at: u64) -> Datum {
    Datum::Live { value: value.into(), expires_at: Some(expires_at) }
}

fn bulk(value: &str) -> Reply {
    Reply::Bulk(value.into())
}

fn run(command: Command, current: Option<&Datum>) -> (Reply, Option<Datum>) {
    let Applied { next, reply } = apply(&command, current, CONTEXT);
    (reply, next)
}

fn set(condition: Condition, expiry: Expiry, get: bool) -> Command {
    Command::Set { value: "new".into(), condition, expiry, get }
}

fn error(text: &str) -> (Reply, Option<Datum>) {
    (Reply::Error(text.to_owned()), None)
}

const DELETED: Option<Datum> = Some(Datum::Tombstone { at: NOW });

#[test]
fn get_and_strlen_and_exists_and_type_read_without_a_change() {
    let old = live("old");
    assert_eq!(run(Command::Get, Some(&old)), (bulk("old"), None));
    assert_eq!(run(Command::StrLen, Some(&old)), (Reply::Int(3), None));
    assert_eq!(run(Command::Exists, Some(&old)), (Reply::Int(1), None));
    assert_eq!(run(Command::Type, Some(&old)), (Reply::Status("string".into()), None));
    for absent in [None, Some(&Datum::Tombstone { at: 1 })] {
        assert_eq!(run(Command::Get, absent), (Reply::Nil, None));
        assert_eq!(run(Command::StrLen, absent), (Reply::Int(0), None));
        assert_eq!(run(Command::Exists, absent), (Reply::Int(0), None));
        assert_eq!(run(Command::Type, absent), (Reply::Status("none".into()), None));
    }
}

#[test]
fn set_writes_where_its_condition_holds_and_only_there() {
    use Condition::{Always, IfAbsent, IfEquals, IfPresent};
    let old = live("old");
    for (condition, on_absent, on_present) in [
        (Always, true, true),
        (IfAbsent, true, false),
        (IfPresent, false, true),
        (IfEquals("old".into()), false, true),
        (IfEquals("".into()), false, false),
        (IfEquals("other".into()), false, false),
    ] {
        for (current, writes) in [(None, on_absent), (Some(&old), on_present)] {
            let next = writes.then(|| live("new"));
            let reply = if writes { Reply::Ok } else { Reply::Nil };
            let done = run(set(condition.clone(), Expiry::Clear, false), current);
            assert_eq!(done, (reply, next.clone()), "{condition:?} {current:?}");
            let reply = if current.is_some() { bulk("old") } else { Reply::Nil };
            let done = run(set(condition.clone(), Expiry::Clear, true), current);
            assert_eq!(done, (reply, next), "{condition:?} GET {current:?}");
        }
    }
}

#[test]
fn set_drops_keeps_or_replaces_the_expiry() {
    let old = until("old", NOW + 5);
    for (expiry, next) in [
        (Expiry::Clear, live("new")),
        (Expiry::Keep, until("new", NOW + 5)),
        (Expiry::At(NOW + 9), until("new", NOW + 9)),
    ] {
        let done = run(set(Condition::Always, expiry, false), Some(&old));
        assert_eq!(done, (Reply::Ok, Some(next)));
    }
    let done = run(set(Condition::Always, Expiry::Keep, false), None);
    assert_eq!(done, (Reply::Ok, Some(live("new"))));
}

#[test]
fn set_with_a_passed_stamp_replies_ok_and_deletes() {
    let old = live("old");
    for at in [0, NOW - 1, NOW] {
        let done = run(set(Condition::Always, Expiry::At(at), false), Some(&old));
        assert_eq!(done, (Reply::Ok, DELETED));
        let done = run(set(Condition::Always, Expiry::At(at), true), Some(&old));
        assert_eq!(done, (bulk("old"), DELETED));
        let done = run(set(Condition::IfAbsent, Expiry::At(at), false), Some(&old));
        assert_eq!(done, (Reply::Nil, None), "a failed condition deletes nothing");
        let done = run(set(Condition::Always, Expiry::At(at), false), None);
        assert_eq!(done, (Reply::Ok, None), "there is nothing to delete");
    }
}

#[test]
fn getdel_and_del_and_delifeq_delete_what_is_there() {
    let old = live("old");
    assert_eq!(run(Command::GetDel, Some(&old)), (bulk("old"), DELETED));
    assert_eq!(run(Command::Del, Some(&old)), (Reply::Int(1), DELETED));
    assert_eq!(run(Command::DelIfEq("old".into()), Some(&old)), (Reply::Int(1), DELETED));
    assert_eq!(run(Command::DelIfEq("ol".into()), Some(&old)), (Reply::Int(0), None));
    for absent in [None, Some(&Datum::Tombstone { at: 1 })] {
        assert_eq!(run(Command::GetDel, absent), (Reply::Nil, None));
        assert_eq!(run(Command::Del, absent), (Reply::Int(0), None));
        assert_eq!(run(Command::DelIfEq("".into()), absent), (Reply::Int(0), None));
    }
}

#[test]
fn append_lengthens_and_keeps_the_expiry() {
    let append = |tail: &str| Command::Append(tail.into());
    let done = run(append("def"), Some(&until("abc", NOW + 5)));
    assert_eq!(done, (Reply::Int(6), Some(until("abcdef", NOW + 5))));
    assert_eq!(run(append("abc"), None), (Reply::Int(3), Some(live("abc"))));
    assert_eq!(run(append(""), None), (Reply::Int(0), Some(live(""))), "creates an empty value");
    assert_eq!(run(append(""), Some(&live("abc"))), (Reply::Int(3), None));
}

#[test]
fn setrange_overwrites_and_fills_a_gap_with_zeros() {
    let patch = |offset, value: &str| Command::SetRange { offset, value: value.into() };
    let old = until("Hello World", NOW + 5);
    let next = until("Hello Redis", NOW + 5);
    assert_eq!(run(patch(6, "Redis"), Some(&old)), (Reply::Int(11), Some(next)));
    let next = until("HEllo World", NOW + 5);
    assert_eq!(run(patch(1, "E"), Some(&old)), (Reply::Int(11), Some(next)));
    assert_eq!(run(patch(2, "c"), Some(&live("ab"))), (Reply::Int(3), Some(live("abc"))));
    assert_eq!(run(patch(3, "d"), Some(&live("a"))), (Reply::Int(4), Some(live("a\0\0d"))));
    assert_eq!(run(patch(2, "c"), None), (Reply::Int(3), Some(live("\0\0c"))));
    assert_eq!(run(patch(9, ""), None), (Reply::Int(0), None));
    assert_eq!(run(patch(u64::MAX, ""), Some(&old)), (Reply::Int(11), None));
}

#[test]
fn append_and_setrange_stop_at_the_largest_value() {
    let (full, over) = ("x".repeat(16), "x".repeat(17));
    let old = live("0123456789");
    assert_eq!(run(Command::Append("abcdef".into()), Some(&old)).0, Reply::Int(16));
    assert_eq!(run(Command::Append("abcdefg".into()), Some(&old)), error(TOO_LONG));
    assert_eq!(run(Command::Append(full.as_str().into()), None).0, Reply::Int(16));
    assert_eq!(run(Command::Append(over.as_str().into()), None), error(TOO_LONG));
    let patch = |offset| Command::SetRange { offset, value: "x".into() };
    assert_eq!(run(patch(15), None).0, Reply::Int(16));
    for offset in [16, 1 << 40, u64::MAX - 1, u64::MAX] {
        assert_eq!(run(patch(offset), Some(&old)), error(TOO_LONG), "offset {offset}");
    }
}

#[test]
fn getrange_holds_both_positions_to_the_value() {
    let old = live("hello");
    for (start, end, part) in [
        (0, -1, "hello"),
        (0, 0, "h"),
        (1, 3, "ell"),
        (-3, -1, "llo"),
        (-3, 3, "ll"),
        (2, 100, "llo"),
        (i64::MIN, i64::MAX, "hello"),
        (4, 4, "o"),
        (5, 9, ""),
        (3, 1, ""),
        (-1, -3, ""),
        // What Redis does with an end before the first byte.
        (-100, -99, "h"),
        (0, -100, "h"),
        (1, -100, ""),
        (-99, -100, ""),
        (i64::MIN, i64::MIN, "h"),
        (i64::MAX, i64::MAX, ""),
    ] {
        let done = run(Command::GetRange { start, end }, Some(&old));
        assert_eq!(done, (bulk(part), None), "{start} {end}");
        let done = run(Command::GetRange { start, end }, None);
        assert_eq!(done, (bulk(""), None));
        let done = run(Command::GetRange { start, end }, Some(&live("")));
        assert_eq!(done, (bulk(""), None));
    }
}

#[test]
fn values_are_bytes_of_any_kind() {
    let bytes: Vec<u8> = (250..=255).chain(0..4).collect();
    let old = Datum::Live { value: Value::from(bytes.clone()), expires_at: None };
    let part = Command::GetRange { start: 4, end: 7 };
    assert_eq!(run(part, Some(&old)).0, Reply::Bulk(Value::from(vec![254, 255, 0, 1])));
    assert_eq!(run(Command::GetDel, Some(&old)), (Reply::Bulk(Value::from(bytes)), DELETED));
}

#[test]
fn rewrite_writes_what_is_there_and_changes_nothing_of_it() {
    let held = until("v", NOW + 1);
    assert_eq!(run(Command::Rewrite, Some(&held)), (Reply::Ok, Some(held.clone())));
    let gone = Datum::Tombstone { at: NOW };
    assert_eq!(run(Command::Rewrite, None), (Reply::Ok, Some(gone)));
}
