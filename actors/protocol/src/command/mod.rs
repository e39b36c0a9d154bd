//! Commands as data, and what each does to one key.
//!
//! A command is a pure function of the key's current content and a time: [`apply`] gives the new
//! content, or none where nothing changes, and the reply. The register proposes what it gives. The
//! client front end turns relative times into stamps before it makes a command, so that a retry at
//! another coordinator means the same moment.

mod apply;
mod long_double;
mod number;

pub use apply::apply;

use crate::{
    record::{Datum, Value},
    time::WallMillis,
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// When a write is to take place.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Condition {
    /// Always.
    Always,
    /// NX: the key must not exist.
    IfAbsent,
    /// XX: the key must exist.
    IfPresent,
    /// IFEQ: the key must exist with exactly this value.
    IfEquals(Value),
}

/// What a write does to the key's expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Expiry {
    /// Leave it (KEEPTTL; GETEX without options).
    Keep,
    /// Remove it (SET without options; PERSIST).
    Clear,
    /// Set it to this stamp. A passed one deletes the key.
    At(WallMillis),
}

/// EXPIRE's options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ExpireIf {
    /// No option.
    Always,
    /// NX: only where there is no expiry.
    None,
    /// XX: only where there is one.
    Some,
    /// GT: only if later; no expiry counts as infinite.
    Later,
    /// LT: only if earlier; no expiry counts as infinite.
    Earlier,
    /// XX and LT: only where there is one, and if earlier.
    SomeEarlier,
}

/// How TTL-like reads count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TtlUnit {
    /// TTL: seconds left, rounded to the nearest.
    Seconds,
    /// PTTL: milliseconds left.
    Millis,
    /// EXPIRETIME: Unix seconds.
    AtSeconds,
    /// PEXPIRETIME: Unix milliseconds.
    AtMillis,
}

/// An operation on one key. Replies are those of the Redis command of that name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Command {
    /// Bulk value or nil.
    Get,
    /// `OK`, or nil where the condition fails; with `get` the old value or nil in both cases.
    Set {
        /// The new value.
        value: Value,
        /// When to write.
        condition: Condition,
        /// The new expiry.
        expiry: Expiry,
        /// SET … GET, GETSET.
        get: bool,
    },
    /// The value and deletes it; nil where absent.
    GetDel,
    /// The value, and changes its expiry; nil where absent.
    GetEx(Expiry),
    /// 1 where it deleted, else 0.
    Del,
    /// DELIFEQ: 1 where the value equalled and was deleted, else 0.
    DelIfEq(Value),
    /// 1 or 0. Also TOUCH.
    Exists,
    /// The new integer; an error where the value is none or overflows.
    IncrBy(i64),
    /// The new number as bulk; the increment as the client typed it.
    IncrByFloat(Value),
    /// The new length.
    Append(Value),
    /// The length, 0 where absent.
    StrLen,
    /// The bytes from `start` to `end` inclusive, negative from the end.
    GetRange {
        /// First.
        start: i64,
        /// Last.
        end: i64,
    },
    /// The new length.
    SetRange {
        /// Where the bytes go; a gap is zero-filled.
        offset: u64,
        /// The bytes.
        value: Value,
    },
    /// 1 where it changed the expiry (or deleted, for a passed stamp), else 0.
    ExpireAt {
        /// Unix milliseconds; may be passed.
        at: WallMillis,
        /// Option.
        only: ExpireIf,
    },
    /// 1 where it removed an expiry, else 0.
    Persist,
    /// -2 absent, -1 without expiry.
    Ttl(TtlUnit),
    /// `string` or `none`.
    Type,
    /// Not a client's: writes the key's content again as it is, so that all replicas take it. A
    /// replica may hold the rest of a write that failed, above what is chosen; only a write under a
    /// later ballot mends that, a read that finds the other two agreed does not. `OK`.
    Rewrite,
}

impl Command {
    /// Whether it never changes a value. Even so, one that finds an expired value writes the
    /// tombstone before it answers.
    #[must_use]
    pub fn is_read(&self) -> bool {
        match self {
            Command::Get
            | Command::Exists
            | Command::StrLen
            | Command::GetRange { .. }
            | Command::Ttl(_)
            | Command::Type => true,
            Command::Set { .. }
            | Command::GetDel
            | Command::GetEx(_)
            | Command::Del
            | Command::DelIfEq(_)
            | Command::IncrBy(_)
            | Command::IncrByFloat(_)
            | Command::Append(_)
            | Command::SetRange { .. }
            | Command::ExpireAt { .. }
            | Command::Persist
            | Command::Rewrite => false,
        }
    }

    /// The command's name as a client types it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Command::Get => "GET",
            Command::Set { .. } => "SET",
            Command::GetDel => "GETDEL",
            Command::GetEx(_) => "GETEX",
            Command::Del => "DEL",
            Command::DelIfEq(_) => "DELIFEQ",
            Command::Exists => "EXISTS",
            Command::IncrBy(_) => "INCRBY",
            Command::IncrByFloat(_) => "INCRBYFLOAT",
            Command::Append(_) => "APPEND",
            Command::StrLen => "STRLEN",
            Command::GetRange { .. } => "GETRANGE",
            Command::SetRange { .. } => "SETRANGE",
            Command::ExpireAt { .. } => "PEXPIREAT",
            Command::Persist => "PERSIST",
            Command::Ttl(_) => "PTTL",
            Command::Type => "TYPE",
            Command::Rewrite => "REWRITE",
        }
    }

    /// Bytes of values it carries.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Command::Set { value, condition: Condition::IfEquals(old), .. } => {
                value.len() + old.len()
            }
            Command::Set { value, .. }
            | Command::DelIfEq(value)
            | Command::IncrByFloat(value)
            | Command::Append(value)
            | Command::SetRange { value, .. } => value.len(),
            Command::Get
            | Command::GetDel
            | Command::GetEx(_)
            | Command::Del
            | Command::Exists
            | Command::IncrBy(_)
            | Command::StrLen
            | Command::GetRange { .. }
            | Command::ExpireAt { .. }
            | Command::Persist
            | Command::Ttl(_)
            | Command::Type
            | Command::Rewrite => 0,
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Command::Set { value, .. } | Command::Append(value) => write!(f, " \"{value}\""),
            Command::IncrBy(by) => write!(f, " {by}"),
            _ => Ok(()),
        }
    }
}

/// What the client is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reply {
    /// `+OK`.
    Ok,
    /// Nil.
    Nil,
    /// An integer.
    Int(i64),
    /// Bytes.
    Bulk(Value),
    /// A simple string other than `OK`.
    Status(String),
    /// An error, with its code: `ERR value is not an integer or out of range`.
    Error(String),
}

impl Reply {
    /// Bytes it takes, about.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Reply::Ok | Reply::Nil | Reply::Int(_) => 8,
            Reply::Bulk(value) => value.len(),
            Reply::Status(text) | Reply::Error(text) => text.len(),
        }
    }
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The new content; none where nothing changes.
    pub next: Option<Datum>,
    /// The reply.
    pub reply: Reply,
}

/// What a command may know beside the key's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The coordinator's wall clock.
    pub wall: WallMillis,
    /// The largest value APPEND and SETRANGE may make, bytes.
    pub value_bytes_max: usize,
}
