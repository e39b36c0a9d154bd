//! One key's register as a [`Model`]: the value, advanced by [`apply`](crate::command::apply), the
//! very function that the replicated register runs.

use super::search::Model;
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
        | Command::Type => false,
    }
}
