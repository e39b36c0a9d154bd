//! INCRBY and INCRBYFLOAT on what a key may hold.

use simpledynamo_protocol::{
    command::{Applied, Command, Context, Reply, apply},
    record::Datum,
};

const CONTEXT: Context = Context { wall: 1_000_000, value_bytes_max: 64 };
const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
const OVERFLOW: &str = "ERR increment or decrement would overflow";
const NOT_A_FLOAT: &str = "ERR value is not a valid float";
const NOT_FINITE: &str = "ERR increment would produce NaN or Infinity";

fn live(value: &str) -> Datum {
    Datum::Live { value: value.into(), expires_at: None }
}

fn until(value: &str, expires_at: u64) -> Datum {
    Datum::Live { value: value.into(), expires_at: Some(expires_at) }
}

fn run(command: Command, current: Option<&Datum>) -> (Reply, Option<Datum>) {
    let Applied { next, reply } = apply(&command, current, CONTEXT);
    (reply, next)
}

fn error(text: &str) -> (Reply, Option<Datum>) {
    (Reply::Error(text.to_owned()), None)
}

fn by(increment: &str) -> Command {
    Command::IncrByFloat(increment.into())
}

#[test]
fn an_absent_key_counts_from_zero() {
    for absent in [None, Some(&Datum::Tombstone { at: 1 })] {
        assert_eq!(run(Command::IncrBy(-3), absent), (Reply::Int(-3), Some(live("-3"))));
        assert_eq!(run(Command::IncrBy(0), absent), (Reply::Int(0), Some(live("0"))));
        assert_eq!(run(by("0.5"), absent), (Reply::Bulk("0.5".into()), Some(live("0.5"))));
    }
}

#[test]
fn counting_keeps_the_expiry() {
    let old = until("41", 1_000_001);
    assert_eq!(run(Command::IncrBy(1), Some(&old)), (Reply::Int(42), Some(until("42", 1_000_001))));
    let next = (Reply::Bulk("41.5".into()), Some(until("41.5", 1_000_001)));
    assert_eq!(run(by("0.5"), Some(&old)), next);
}

#[test]
fn a_value_that_is_no_integer_is_refused_and_left() {
    for value in ["", "abc", "1.0", "01", "+1", " 1", "1 ", "-0", "9223372036854775808"] {
        assert_eq!(run(Command::IncrBy(1), Some(&live(value))), error(NOT_AN_INTEGER), "{value}");
    }
}

#[test]
fn counting_past_either_end_overflows() {
    let (least, most) = (i64::MIN.to_string(), i64::MAX.to_string());
    assert_eq!(run(Command::IncrBy(1), Some(&live(&most))), error(OVERFLOW));
    assert_eq!(run(Command::IncrBy(-1), Some(&live(&least))), error(OVERFLOW));
    assert_eq!(run(Command::IncrBy(i64::MIN), Some(&live("-1"))), error(OVERFLOW));
    let done = run(Command::IncrBy(i64::MIN), Some(&live(&most)));
    assert_eq!(done, (Reply::Int(-1), Some(live("-1"))));
}

#[test]
fn a_decimal_sum_is_printed_as_redis_prints_it() {
    for (value, increment, sum) in [
        ("10.50", "0.1", "10.6"),
        ("10.6", "-5", "5.6"),
        ("5.0e3", "2.0e2", "5200"),
        ("3.0e3", "0", "3000"),
        ("0.1", "0.2", "0.3"),
        ("-1", "1", "0"),
    ] {
        let done = run(by(increment), Some(&live(value)));
        assert_eq!(done, (Reply::Bulk(sum.into()), Some(live(sum))), "{value} + {increment}");
    }
}

#[test]
fn what_is_no_number_or_gives_none_is_refused_and_left() {
    let one = live("1");
    for bad in ["", "abc", "nan", " 1", "1 ", "1e", "1e5000"] {
        assert_eq!(run(by(bad), Some(&one)), error(NOT_A_FLOAT), "{bad}");
        assert_eq!(run(by("1"), Some(&live(bad))), error(NOT_A_FLOAT), "{bad}");
    }
    assert_eq!(run(by("inf"), Some(&one)), error(NOT_FINITE));
    assert_eq!(run(by("-inf"), Some(&live("inf"))), error(NOT_FINITE));
    assert_eq!(run(by("1.1e4932"), Some(&live("1.1e4932"))), error(NOT_FINITE));
}

#[test]
fn a_sum_longer_than_the_largest_value_is_refused() {
    let too_long = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";
    assert!(matches!(run(by("1.5e63"), None), (Reply::Bulk(sum), Some(_)) if sum.len() == 64));
    assert_eq!(run(by("1.5e64"), None), error(too_long));
}
