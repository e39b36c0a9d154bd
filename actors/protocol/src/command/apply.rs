//! What each command does to one key.
//!
//! The current content is first cleared of what has expired: commands see a live value or none. A
//! command gives what it replies and, if it writes, what the key holds afterwards; only then is the
//! expired value remembered, so that whatever finds one leaves at least its tombstone.
//!
//! Semantics, replies and error texts are those of Redis 7 and 8 (`t_string.c`, `expire.c`), its
//! oddities included: GETRANGE takes an end before the first byte for the first byte.
//!
//! Caveats: a write that would leave the key just as it is (APPEND of nothing, EXPIREAT with the
//! stamp it has) is no write here. SET's value is not measured: the front end has done so.

use super::{
    Applied, Command, Condition, Context, ExpireIf, Expiry, Reply, TtlUnit,
    long_double::LongDouble, number,
};
use crate::{
    record::{Datum, Value},
    time::WallMillis,
};

const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
const OVERFLOW: &str = "ERR increment or decrement would overflow";
const NOT_A_FLOAT: &str = "ERR value is not a valid float";
const NOT_FINITE: &str = "ERR increment would produce NaN or Infinity";
/// Redis names its own setting; clients compare the text.
const TOO_LONG: &str = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";

/// Applies `command` to a key that holds `current` (none: nothing was ever written) and says what
/// the key holds next (none: unchanged) and what the client is told. Pure: the same arguments give
/// the same result at every coordinator.
///
/// An expired `current` counts as absent, and where the command writes nothing the result is its
/// tombstone, dated `context.wall`; so no other clock can find the value alive again.
#[must_use]
pub fn apply(command: &Command, current: Option<&Datum>, context: Context) -> Applied {
    let expired = current.is_some_and(|datum| datum.expired(context.wall));
    let live = match current {
        Some(Datum::Live { value, expires_at }) if !expired => {
            Some(Live { value, expires_at: *expires_at })
        }
        Some(Datum::Live { .. } | Datum::Tombstone { .. }) | None => None,
    };
    let mut applied = dispatch(command, live, context);
    if expired && applied.next.is_none() {
        applied.next = Some(Datum::Tombstone { at: context.wall });
    }
    applied
}

/// A value that has not expired.
#[derive(Clone, Copy)]
struct Live<'a> {
    value: &'a Value,
    expires_at: Option<WallMillis>,
}

fn dispatch(command: &Command, live: Option<Live<'_>>, context: Context) -> Applied {
    let wall = context.wall;
    match command {
        Command::Get => unchanged(bulk(live)),
        Command::Set { value, condition, expiry, get } => {
            set(live, value, condition, *expiry, *get, wall)
        }
        Command::GetDel => delete_if(live.is_some(), bulk(live), Reply::Nil, wall),
        Command::GetEx(expiry) => get_and_expire(live, *expiry, wall),
        Command::Del => delete_if(live.is_some(), Reply::Int(1), Reply::Int(0), wall),
        Command::DelIfEq(value) => {
            let equal = live.is_some_and(|live| live.value == value);
            delete_if(equal, Reply::Int(1), Reply::Int(0), wall)
        }
        Command::Exists => unchanged(Reply::Int(i64::from(live.is_some()))),
        Command::IncrBy(by) => increment(live, *by),
        Command::IncrByFloat(by) => increment_float(live, by, context),
        Command::Append(tail) => append(live, tail, context),
        Command::StrLen => unchanged(length(live.map_or(0, |live| live.value.len()))),
        Command::GetRange { start, end } => get_range(live, *start, *end),
        Command::SetRange { offset, value } => set_range(live, *offset, value, context),
        Command::ExpireAt { at, only } => expire_at(live, *at, *only, wall),
        Command::Persist => persist(live),
        Command::Ttl(unit) => unchanged(Reply::Int(time_to_live(live, *unit, wall))),
        Command::Type => {
            let name = if live.is_some() { "string" } else { "none" };
            unchanged(Reply::Status(name.to_owned()))
        }
        Command::Rewrite => Applied { next: Some(as_it_is(live, wall)), reply: Reply::Ok },
    }
}

fn as_it_is(live: Option<Live<'_>>, wall: WallMillis) -> Datum {
    match live {
        Some(Live { value, expires_at }) => Datum::Live { value: value.clone(), expires_at },
        None => Datum::Tombstone { at: wall },
    }
}

fn set(
    live: Option<Live<'_>>,
    value: &Value,
    condition: &Condition,
    expiry: Expiry,
    get: bool,
    wall: WallMillis,
) -> Applied {
    let holds = match condition {
        Condition::Always => true,
        Condition::IfAbsent => live.is_none(),
        Condition::IfPresent => live.is_some(),
        Condition::IfEquals(expected) => live.is_some_and(|live| live.value == expected),
    };
    let reply = match (get, holds) {
        (true, _) => bulk(live),
        (false, true) => Reply::Ok,
        (false, false) => Reply::Nil,
    };
    if !holds {
        return unchanged(reply);
    }
    let expires_at = match expiry {
        Expiry::Keep => live.and_then(|live| live.expires_at),
        Expiry::Clear => None,
        Expiry::At(at) if at <= wall => {
            return delete_if(live.is_some(), reply.clone(), reply, wall);
        }
        Expiry::At(at) => Some(at),
    };
    written(value.clone(), expires_at, reply)
}

fn get_and_expire(live: Option<Live<'_>>, expiry: Expiry, wall: WallMillis) -> Applied {
    let reply = bulk(live);
    let Some(live) = live else { return unchanged(reply) };
    match expiry {
        Expiry::Keep => unchanged(reply),
        Expiry::Clear => expire(live, None, reply, wall),
        Expiry::At(at) => expire(live, Some(at), reply, wall),
    }
}

fn expire_at(live: Option<Live<'_>>, at: WallMillis, only: ExpireIf, wall: WallMillis) -> Applied {
    let Some(live) = live else { return unchanged(Reply::Int(0)) };
    let holds = match only {
        ExpireIf::Always => true,
        ExpireIf::None => live.expires_at.is_none(),
        ExpireIf::Some => live.expires_at.is_some(),
        ExpireIf::Later => live.expires_at.is_some_and(|current| at > current),
        ExpireIf::Earlier => live.expires_at.is_none_or(|current| at < current),
        ExpireIf::SomeEarlier => live.expires_at.is_some_and(|current| at < current),
    };
    if holds { expire(live, Some(at), Reply::Int(1), wall) } else { unchanged(Reply::Int(0)) }
}

fn persist(live: Option<Live<'_>>) -> Applied {
    match live {
        Some(Live { value, expires_at: Some(_) }) => written(value.clone(), None, Reply::Int(1)),
        Some(Live { expires_at: None, .. }) | None => unchanged(Reply::Int(0)),
    }
}

/// Gives a value another expiry; a passed one deletes it.
fn expire(
    live: Live<'_>,
    expires_at: Option<WallMillis>,
    reply: Reply,
    wall: WallMillis,
) -> Applied {
    if expires_at == live.expires_at {
        unchanged(reply)
    } else if expires_at.is_some_and(|at| at <= wall) {
        Applied { next: Some(Datum::Tombstone { at: wall }), reply }
    } else {
        written(live.value.clone(), expires_at, reply)
    }
}

/// As Redis counts: what is left never below 0, seconds rounded to the nearest.
fn time_to_live(live: Option<Live<'_>>, unit: TtlUnit, wall: WallMillis) -> i64 {
    const ABSENT: i64 = -2;
    const NO_EXPIRY: i64 = -1;
    let Some(live) = live else { return ABSENT };
    let Some(at) = live.expires_at else { return NO_EXPIRY };
    let seconds = |millis: WallMillis| millis.saturating_add(500) / 1000;
    let left = at.saturating_sub(wall);
    let count = match unit {
        TtlUnit::Seconds => seconds(left),
        TtlUnit::Millis => left,
        TtlUnit::AtSeconds => seconds(at),
        TtlUnit::AtMillis => at,
    };
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn increment(live: Option<Live<'_>>, by: i64) -> Applied {
    let current = match live {
        Some(live) => number::integer(live.value),
        None => Some(0),
    };
    let Some(current) = current else { return failed(NOT_AN_INTEGER) };
    let Some(sum) = current.checked_add(by) else { return failed(OVERFLOW) };
    rewritten(live, sum.to_string().into_bytes(), Reply::Int(sum))
}

fn increment_float(live: Option<Live<'_>>, by: &Value, context: Context) -> Applied {
    let current = match live {
        Some(live) => LongDouble::parse(live.value),
        None => Some(LongDouble::ZERO),
    };
    let (Some(current), Some(by)) = (current, LongDouble::parse(by)) else {
        return failed(NOT_A_FLOAT);
    };
    let Some(sum) = current.checked_add(by) else { return failed(NOT_FINITE) };
    // Up to 4,933 digits, which may be more than a small configured bound.
    let text = sum.print();
    if text.len() > context.value_bytes_max {
        return failed(TOO_LONG);
    }
    let value = Value::from(text.as_str());
    let reply = Reply::Bulk(value.clone());
    written(value, live.and_then(|live| live.expires_at), reply)
}

fn append(live: Option<Live<'_>>, tail: &Value, context: Context) -> Applied {
    let head: &[u8] = live.map_or(&[], |live| live.value);
    let size = head.len().saturating_add(tail.len());
    if size > context.value_bytes_max {
        return failed(TOO_LONG);
    }
    if live.is_some() && tail.is_empty() {
        return unchanged(length(size));
    }
    rewritten(live, [head, tail].concat(), length(size))
}

fn set_range(live: Option<Live<'_>>, offset: u64, patch: &Value, context: Context) -> Applied {
    let current: &[u8] = live.map_or(&[], |live| live.value);
    if patch.is_empty() {
        return unchanged(length(current.len()));
    }
    let end = usize::try_from(offset).unwrap_or(usize::MAX).saturating_add(patch.len());
    if end > context.value_bytes_max {
        return failed(TOO_LONG);
    }
    let start = end - patch.len();
    let mut bytes = Vec::with_capacity(end.max(current.len()));
    bytes.extend_from_slice(current.get(..start).unwrap_or(current));
    bytes.resize(start, 0);
    bytes.extend_from_slice(patch);
    bytes.extend_from_slice(current.get(end..).unwrap_or_default());
    let size = length(bytes.len());
    rewritten(live, bytes, size)
}

/// Negative positions count from the end; then both are held to the value. An end before the first
/// byte becomes the first byte, unless both were negative and crossed: so does Redis, and keeps it
/// for compatibility (redis/redis pull request 12272).
fn get_range(live: Option<Live<'_>>, start: i64, end: i64) -> Applied {
    let bytes: &[u8] = live.map_or(&[], |live| live.value);
    let crossed = start < 0 && end < 0 && start > end;
    let size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
    let held = |at: i64| usize::try_from(if at < 0 { at.saturating_add(size) } else { at });
    let (start, end) = (held(start).unwrap_or(0), held(end).unwrap_or(0));
    let end = end.saturating_add(1).min(bytes.len());
    let part = bytes.get(start..end).filter(|_| !crossed).unwrap_or_default();
    unchanged(Reply::Bulk(part.into()))
}

fn bulk(live: Option<Live<'_>>) -> Reply {
    live.map_or(Reply::Nil, |live| Reply::Bulk(live.value.clone()))
}

fn length(bytes: usize) -> Reply {
    Reply::Int(i64::try_from(bytes).unwrap_or(i64::MAX))
}

fn unchanged(reply: Reply) -> Applied {
    Applied { next: None, reply }
}

fn failed(error: &str) -> Applied {
    unchanged(Reply::Error(error.to_owned()))
}

fn written(value: Value, expires_at: Option<WallMillis>, reply: Reply) -> Applied {
    Applied { next: Some(Datum::Live { value, expires_at }), reply }
}

/// A new value that keeps the expiry of the old one.
fn rewritten(live: Option<Live<'_>>, bytes: Vec<u8>, reply: Reply) -> Applied {
    written(bytes.into(), live.and_then(|live| live.expires_at), reply)
}

fn delete_if(holds: bool, done: Reply, refused: Reply, wall: WallMillis) -> Applied {
    if holds {
        Applied { next: Some(Datum::Tombstone { at: wall }), reply: done }
    } else {
        unchanged(refused)
    }
}
