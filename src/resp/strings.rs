//! Strings: GET, SET and everything else that reads or writes one value, MGET and MSET.

use super::{
    args::{self, Failure},
    dispatch::{Action, Call, Spec},
    execute::{self, Shape},
    expiry::{self, Span},
    frame::Frame,
};
use bytes::Bytes;
use futures::StreamExt;
use simpledynamo_protocol::{
    command::{Command, Condition, Expiry},
    record::Key,
};
use std::collections::BTreeMap;

pub(super) const COMMANDS: &[Spec] = &[
    Spec::read("get", 2, get).about("string", "1.0.0", "Returns the value of a key."),
    Spec::write("set", -3, set).about("string", "1.0.0", "Sets the value of a key."),
    Spec::write("setnx", 3, setnx).about(
        "string",
        "1.0.0",
        "Sets the value of a key that does not exist.",
    ),
    Spec::write("setex", 4, |call| setex(call, Span::Seconds)).about(
        "string",
        "2.0.0",
        "Sets the value of a key and its expiry in seconds.",
    ),
    Spec::write("psetex", 4, |call| setex(call, Span::Millis)).about(
        "string",
        "2.6.0",
        "Sets the value of a key and its expiry in milliseconds.",
    ),
    Spec::write("getset", 3, getset).about(
        "string",
        "1.0.0",
        "Sets the value of a key and returns the previous one.",
    ),
    Spec::write("getdel", 2, getdel).about(
        "string",
        "6.2.0",
        "Deletes a key and returns its value.",
    ),
    Spec::write("getex", -2, getex).about(
        "string",
        "6.2.0",
        "Returns the value of a key and sets its expiry.",
    ),
    Spec::write("delifeq", 3, delifeq).about(
        "string",
        "9.0.0",
        "Deletes a key whose value is the one given.",
    ),
    Spec::read("mget", -2, mget).keys(1, -1, 1).about(
        "string",
        "1.0.0",
        "Returns the values of several keys, each by itself.",
    ),
    Spec::write("mset", -3, mset).keys(1, -1, 2).about(
        "string",
        "1.0.1",
        "Sets the values of several keys, each by itself.",
    ),
    Spec::write("incr", 2, |call| step(call, 1)).about(
        "string",
        "1.0.0",
        "Adds one to the integer value of a key.",
    ),
    Spec::write("decr", 2, |call| step(call, -1)).about(
        "string",
        "1.0.0",
        "Subtracts one from the integer value of a key.",
    ),
    Spec::write("incrby", 3, incrby).about(
        "string",
        "1.0.0",
        "Adds to the integer value of a key.",
    ),
    Spec::write("decrby", 3, decrby).about(
        "string",
        "1.0.0",
        "Subtracts from the integer value of a key.",
    ),
    Spec::write("incrbyfloat", 3, incrbyfloat).about(
        "string",
        "2.6.0",
        "Adds to the floating point value of a key.",
    ),
    Spec::write("append", 3, append).about("string", "2.0.0", "Appends to the value of a key."),
    Spec::read("strlen", 2, strlen).about(
        "string",
        "2.2.0",
        "Returns the length of the value of a key.",
    ),
    Spec::read("getrange", 4, getrange).about(
        "string",
        "2.4.0",
        "Returns a part of the value of a key.",
    ),
    Spec::read("substr", 4, getrange).about(
        "string",
        "1.0.0",
        "Returns a part of the value of a key.",
    ),
    Spec::write("setrange", 4, setrange).about(
        "string",
        "2.2.0",
        "Overwrites a part of the value of a key.",
    ),
];

fn get(call: &mut Call<'_>) -> Result<Action, Failure> {
    let [_, key] = call.args else { return Err(call.wrong_arguments()) };
    call.single(key, Command::Get)
}

/// SET's options. The same one may come twice, as in Redis; one beside another that it excludes is a
/// syntax error.
#[derive(Default)]
struct SetOptions<'a> {
    when: Option<When<'a>>,
    keep: bool,
    expiry: Option<(Span, &'a Bytes)>,
    get: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum When<'a> {
    Absent,
    Present,
    Equals(&'a Bytes),
}

impl SetOptions<'_> {
    fn parse(options: &[Bytes]) -> Result<SetOptions<'_>, Failure> {
        let mut parsed = SetOptions::default();
        let mut rest = options;
        while let [option, after @ ..] = rest {
            rest = after;
            let when = if args::is(option, "NX") {
                Some(When::Absent)
            } else if args::is(option, "XX") {
                Some(When::Present)
            } else if args::is(option, "IFEQ")
                && let [value, after @ ..] = after
            {
                rest = after;
                Some(When::Equals(value))
            } else {
                None
            };
            if let Some(when) = when {
                if parsed.when.replace(when).is_some_and(|before| before != when) {
                    return Err(args::SYNTAX);
                }
            } else if args::is(option, "GET") {
                parsed.get = true;
            } else if args::is(option, "KEEPTTL") && parsed.expiry.is_none() {
                parsed.keep = true;
            } else if let Some(span) = Span::option(option)
                && let [number, after @ ..] = after
                && !parsed.keep
                && parsed.expiry.is_none_or(|(before, _)| before == span)
            {
                rest = after;
                parsed.expiry = Some((span, number));
            } else {
                return Err(args::SYNTAX);
            }
        }
        Ok(parsed)
    }
}

fn set(call: &mut Call<'_>) -> Result<Action, Failure> {
    let [_, key, value, options @ ..] = call.args else { return Err(call.wrong_arguments()) };
    let SetOptions { when, keep, expiry, get } = SetOptions::parse(options)?;
    let condition = match when {
        None => Condition::Always,
        Some(When::Absent) => Condition::IfAbsent,
        Some(When::Present) => Condition::IfPresent,
        Some(When::Equals(old)) => Condition::IfEquals(call.value(old)?),
    };
    let expiry = match expiry {
        Some((span, number)) => expiry::fresh("set", span, number)?,
        None if keep => Expiry::Keep,
        None => Expiry::Clear,
    };
    let value = call.value(value)?;
    call.single(key, Command::Set { value, condition, expiry, get })
}

fn setnx(call: &mut Call<'_>) -> Result<Action, Failure> {
    let [_, key, value] = call.args else { return Err(call.wrong_arguments()) };
    let command = Command::Set {
        value: call.value(value)?,
        condition: Condition::IfAbsent,
        expiry: Expiry::Clear,
        get: false,
    };
    Ok(Action::Single { key: call.key(key)?, command, shape: Shape::Written })
}

fn setex(call: &mut Call<'_>, span: Span) -> Result<Action, Failure> {
    let [_, key, typed, value] = call.args else { return Err(call.wrong_arguments()) };
    let expiry = expiry::fresh(call.spec.name, span, typed)?;
    call.single(key, plain_set(call, value, expiry, false)?)
}

fn getset(call: &mut Call<'_>) -> Result<Action, Failure> {
    let [_, key, value] = call.args else { return Err(call.wrong_arguments()) };
    call.single(key, plain_set(call, value, Expiry::Clear, true)?)
}

fn plain_set(call: &Call<'_>, value: &[u8], expiry: Expiry, get: bool) -> Result<Command, Failure> {
    let value = call.value(value)?;
    Ok(Command::Set { value, condition: Condition::Always, expiry, get })
}

fn getdel(call: &mut Call<'_>) -> Result<Action, Failure> {
    let [_, key] = call.args else { return Err(call.wrong_arguments()) };
    call.single(key, Command::GetDel)
}

fn getex(call: &mut Call<'_>) -> Result<Action, Failure> {
    let [_, key, options @ ..] = call.args else { return Err(call.wrong_arguments()) };
    let expiry = match options {
        [] => Expiry::Keep,
        [persist] if args::is(persist, "PERSIST") => Expiry::Clear,
        [option, number] => {
            let span = Span::option(option).ok_or(args::SYNTAX)?;
            expiry::fresh("getex", span, number)?
        }
        _ => return Err(args::SYNTAX),
    };
    call.single(key, Command::GetEx(expiry))
}

fn delifeq(call: &mut Call<'_>) -> Result<Action, Failure> {
    let [_, key, value] = call.args else { return Err(call.wrong_arguments()) };
    call.single(key, Command::DelIfEq(call.value(value)?))
}

fn mget(call: &mut Call<'_>) -> Result<Action, Failure> {
    let [_, keys @ ..] = call.args else { return Err(call.wrong_arguments()) };
    let keys = keys.iter().map(|key| Ok((call.key(key)?, Command::Get)));
    let commands = keys.collect::<Result<Vec<_>, Failure>>()?;
    let asking = call.asking();
    let most = call.shared.settings.limits.client_output_bytes;
    Ok(Action::Task(Box::pin(async move {
        let mut values = Vec::new();
        let mut bytes = 0;
        let mut ends = std::pin::pin!(execute::each(&asking, commands));
        while let Some(end) = ends.next().await {
            let frame = execute::ended(end, Shape::Plain, true);
            match &frame {
                Frame::Error(_) => return frame,
                Frame::Bulk(value) => bytes += value.len(),
                _ => {}
            }
            if bytes > most {
                return execute::too_long(most, "ask for fewer keys at a time");
            }
            values.push(frame);
        }
        Frame::Array(values)
    })))
}

fn mset(call: &mut Call<'_>) -> Result<Action, Failure> {
    let [_, pairs @ ..] = call.args else { return Err(call.wrong_arguments()) };
    let (pairs, odd) = pairs.as_chunks::<2>();
    if !odd.is_empty() {
        return Err(call.wrong_arguments());
    }
    // A key given twice gets its last value, and the two writes must not race.
    let mut commands: BTreeMap<Key, Command> = BTreeMap::new();
    for [key, value] in pairs {
        commands.insert(call.key(key)?, plain_set(call, value, Expiry::Clear, false)?);
    }
    let asking = call.asking();
    Ok(Action::Task(Box::pin(async move {
        match execute::write_each(asking, commands.into_iter().collect()).await {
            Ok(_) => Frame::Ok,
            Err(text) => Frame::Error(text),
        }
    })))
}

fn step(call: &mut Call<'_>, by: i64) -> Result<Action, Failure> {
    let [_, key] = call.args else { return Err(call.wrong_arguments()) };
    call.single(key, Command::IncrBy(by))
}

fn incrby(call: &mut Call<'_>) -> Result<Action, Failure> {
    let [_, key, by] = call.args else { return Err(call.wrong_arguments()) };
    call.single(key, Command::IncrBy(args::need_integer(by)?))
}

fn decrby(call: &mut Call<'_>) -> Result<Action, Failure> {
    let [_, key, by] = call.args else { return Err(call.wrong_arguments()) };
    let by = args::need_integer(by)?.checked_neg();
    call.single(key, Command::IncrBy(by.ok_or("ERR decrement would overflow")?))
}

fn incrbyfloat(call: &mut Call<'_>) -> Result<Action, Failure> {
    let [_, key, by] = call.args else { return Err(call.wrong_arguments()) };
    call.single(key, Command::IncrByFloat(call.value(by)?))
}

fn append(call: &mut Call<'_>) -> Result<Action, Failure> {
    let [_, key, value] = call.args else { return Err(call.wrong_arguments()) };
    call.single(key, Command::Append(call.value(value)?))
}

fn strlen(call: &mut Call<'_>) -> Result<Action, Failure> {
    let [_, key] = call.args else { return Err(call.wrong_arguments()) };
    call.single(key, Command::StrLen)
}

fn getrange(call: &mut Call<'_>) -> Result<Action, Failure> {
    let [_, key, start, end] = call.args else { return Err(call.wrong_arguments()) };
    let (start, end) = (args::need_integer(start)?, args::need_integer(end)?);
    call.single(key, Command::GetRange { start, end })
}

fn setrange(call: &mut Call<'_>) -> Result<Action, Failure> {
    let [_, key, offset, value] = call.args else { return Err(call.wrong_arguments()) };
    let offset = u64::try_from(args::need_integer(offset)?);
    let offset = offset.map_err(|_| "ERR offset is out of range")?;
    call.single(key, Command::SetRange { offset, value: call.value(value)? })
}
