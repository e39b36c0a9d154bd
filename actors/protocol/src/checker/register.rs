//! One key's register as a [`Model`]: the value, advanced by [`apply`], the
//! very function that the replicated register runs.

use super::search::{Makes, Model};
use crate::{
    command::{Command, Condition, Context, Expiry, Reply, apply},
    record::{Datum, Value},
};

/// The register of one key.
#[derive(Clone, Copy, Debug)]
pub struct Register {
    /// The largest value APPEND and SETRANGE could make, bytes.
    pub value_bytes_max: usize,
}

/// What was asked, and the reply where the client saw one.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The command.
    pub command: Command,
    /// The reply, if it is known.
    pub reply: Option<Reply>,
}

impl Model for Register {
    type Op = Asked;
    /// The value; none where the key does not exist.
    type State = Option<Value>;

    fn initial(&self) -> Self::State {
        None
    }

    fn step(&self, state: &Self::State, op: &Asked) -> Option<Self::State> {
        let current =
            state.as_ref().map(|value| Datum::Live { value: value.clone(), expires_at: None });
        // No operation here knows of time, see `has_time`; any clock will do.
        let context = Context { wall: 0, value_bytes_max: self.value_bytes_max };
        let applied = apply(&op.command, current.as_ref(), context);
        if op.reply.as_ref().is_some_and(|reply| *reply != applied.reply) {
            return None;
        }
        match applied.next {
            Some(next) => Some(next.value().cloned()),
            None => Some(state.clone()),
        }
    }

    fn is_pure(&self, op: &Asked) -> bool {
        let Some(reply) = &op.reply else { return op.command.is_read() };
        match (&op.command, reply) {
            (command, _) if command.is_read() => true,
            (_, Reply::Error(_)) => true,
            (Command::Set { condition, get: false, .. }, Reply::Nil) => {
                *condition != Condition::Always
            }
            (Command::Del | Command::DelIfEq(_), Reply::Int(0)) => true,
            (Command::GetDel, Reply::Nil) => true,
            _ => false,
        }
    }

    fn needs(&self, op: &Asked) -> Option<Self::State> {
        match (&op.command, op.reply.as_ref()?) {
            (Command::Get | Command::GetDel | Command::GetEx(_), Reply::Bulk(value))
            | (Command::Set { get: true, .. }, Reply::Bulk(value)) => Some(Some(value.clone())),
            (Command::Get | Command::GetDel | Command::GetEx(_), Reply::Nil)
            | (Command::Set { get: true, .. }, Reply::Nil)
            | (Command::Set { condition: Condition::IfAbsent, get: false, .. }, Reply::Ok)
            | (Command::Exists | Command::Del, Reply::Int(0)) => Some(None),
            (Command::Set { condition: Condition::IfEquals(old), get: false, .. }, Reply::Ok)
            | (Command::DelIfEq(old), Reply::Int(1)) => Some(Some(old.clone())),
            // From zero it could also have been absent.
            (Command::IncrBy(by), Reply::Int(sum)) => {
                sum.checked_sub(*by).filter(|old| *old != 0).map(|old| Some(text(old)))
            }
            _ => None,
        }
    }

    fn is_blind(&self, op: &Asked) -> bool {
        matches!(
            (&op.command, &op.reply),
            (Command::Set { condition: Condition::Always, get: false, .. }, None | Some(Reply::Ok))
                | (Command::Del | Command::GetDel, None)
        )
    }

    fn makes(&self, op: &Asked) -> Makes<Self::State> {
        if self.is_pure(op) {
            return Makes::Nothing;
        }
        match (&op.command, &op.reply) {
            (Command::Set { value, .. }, _) => Makes::One(Some(value.clone())),
            (Command::GetDel | Command::Del | Command::DelIfEq(_), _) => Makes::One(None),
            (Command::IncrBy(_), Some(Reply::Int(sum))) => Makes::One(Some(text(*sum))),
            _ => Makes::Some,
        }
    }

    fn may_make(&self, op: &Asked, state: &Self::State) -> bool {
        let Some(value) = state else { return false };
        match (&op.command, &op.reply) {
            (Command::Append(end), Some(Reply::Int(length))) => {
                value.ends_with(end) && usize::try_from(*length).is_ok_and(|n| n == value.len())
            }
            (Command::Append(end), None) => value.ends_with(end),
            (Command::IncrBy(_), None) => {
                std::str::from_utf8(value).is_ok_and(|text| text.parse::<i64>().is_ok())
            }
            _ => true,
        }
    }
}

/// An integer as INCR stores it.
fn text(number: i64) -> Value {
    number.to_string().as_str().into()
}

impl Register {
    /// What `op` is once its reply is not known any more; none where it then says nothing.
    pub(super) fn forget_reply(&self, op: &Asked) -> Option<Asked> {
        (!self.is_pure(op)).then(|| Asked { command: op.command.clone(), reply: None })
    }
}

/// Whether what a command does depends on a clock, which no history can tell exactly.
pub(super) fn has_time(command: &Command) -> bool {
    match command {
        Command::Set { expiry: Expiry::At(_), .. }
        | Command::GetEx(Expiry::At(_))
        | Command::ExpireAt { .. }
        | Command::Ttl(_) => true,
        Command::Get
        | Command::Set { .. }
        | Command::GetDel
        | Command::GetEx(_)
        | Command::Del
        | Command::DelIfEq(_)
        | Command::Exists
        | Command::IncrBy(_)
        | Command::IncrByFloat(_)
        | Command::Append(_)
        | Command::StrLen
        | Command::GetRange { .. }
        | Command::SetRange { .. }
        | Command::Persist
        | Command::Type
        | Command::Rewrite => false,
    }
}
