//! Expiry: EXPIRE and its kin, TTL and its kin, PERSIST.
//!
//! A relative time becomes a stamp when the command arrives, so that a retry at another coordinator
//! means the same moment.

use super::{
    args::{self, Failure},
    dispatch::{Action, Call, Spec},
    wall_millis,
};
use bytes::Bytes;
use simpledynamo_protocol::{
    command::{Command, ExpireIf, Expiry, TtlUnit},
    time::WallMillis,
};

pub(super) const COMMANDS: &[Spec] = &[
    Spec::write("expire", -3, |call| expire(call, Span::Seconds)).about(
        "generic",
        "1.0.0",
        "Sets the expiry of a key in seconds.",
    ),
    Spec::write("pexpire", -3, |call| expire(call, Span::Millis)).about(
        "generic",
        "2.6.0",
        "Sets the expiry of a key in milliseconds.",
    ),
    Spec::write("expireat", -3, |call| expire(call, Span::AtSeconds)).about(
        "generic",
        "1.2.0",
        "Sets the expiry of a key to a Unix time in seconds.",
    ),
    Spec::write("pexpireat", -3, |call| expire(call, Span::AtMillis)).about(
        "generic",
        "2.6.0",
        "Sets the expiry of a key to a Unix time in milliseconds.",
    ),
    Spec::read("ttl", 2, |call| ttl(call, TtlUnit::Seconds)).about(
        "generic",
        "1.0.0",
        "Returns the seconds until a key expires.",
    ),
    Spec::read("pttl", 2, |call| ttl(call, TtlUnit::Millis)).about(
        "generic",
        "2.6.0",
        "Returns the milliseconds until a key expires.",
    ),
    Spec::read("expiretime", 2, |call| ttl(call, TtlUnit::AtSeconds)).about(
        "generic",
        "7.0.0",
        "Returns the Unix time in seconds at which a key expires.",
    ),
    Spec::read("pexpiretime", 2, |call| ttl(call, TtlUnit::AtMillis)).about(
        "generic",
        "7.0.0",
        "Returns the Unix time in milliseconds at which a key expires.",
    ),
    Spec::write("persist", 2, persist).about("generic", "2.2.0", "Removes the expiry of a key."),
];

/// How a client gives a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Span {
    /// Seconds from now.
    Seconds,
    /// Milliseconds from now.
    Millis,
    /// Unix seconds.
    AtSeconds,
    /// Unix milliseconds.
    AtMillis,
}

impl Span {
    /// The option of SET and GETEX of this name.
    pub(super) fn option(word: &Bytes) -> Option<Span> {
        let spans = [
            ("EX", Span::Seconds),
            ("PX", Span::Millis),
            ("EXAT", Span::AtSeconds),
            ("PXAT", Span::AtMillis),
        ];
        spans.into_iter().find(|(name, _)| args::is(word, name)).map(|(_, span)| span)
    }

    /// The Unix milliseconds meant, which may be negative; none where they do not fit.
    fn stamp(self, number: i64, now: WallMillis) -> Option<i64> {
        let millis = match self {
            Span::Seconds | Span::AtSeconds => number.checked_mul(1_000)?,
            Span::Millis | Span::AtMillis => number,
        };
        match self {
            Span::Seconds | Span::Millis => millis.checked_add(i64::try_from(now).ok()?),
            Span::AtSeconds | Span::AtMillis => Some(millis),
        }
    }
}

/// The expiry of a SET or GETEX: the time must be above zero.
pub(super) fn fresh(command: &str, span: Span, typed: &[u8]) -> Result<Expiry, Failure> {
    let number = args::need_integer(typed)?;
    let stamp = Some(number)
        .filter(|number| *number > 0)
        .and_then(|number| span.stamp(number, wall_millis()))
        .and_then(|stamp| WallMillis::try_from(stamp).ok());
    stamp.map(Expiry::At).ok_or_else(|| args::invalid_expire(command))
}

fn expire(call: &mut Call<'_>, span: Span) -> Result<Action, Failure> {
    let [_, key, typed, options @ ..] = call.args else { return Err(call.wrong_arguments()) };
    let only = condition(options)?;
    let number = args::need_integer(typed)?;
    let stamp = span.stamp(number, wall_millis());
    let stamp = stamp.ok_or_else(|| args::invalid_expire(call.spec.name))?;
    // Before 1970 is as passed as 1970.
    let at = WallMillis::try_from(stamp).unwrap_or(0);
    call.single(key, Command::ExpireAt { at, only })
}

/// NX excludes all others, GT and LT each other.
fn condition(options: &[Bytes]) -> Result<ExpireIf, Failure> {
    let [mut nx, mut xx, mut gt, mut lt] = [false; 4];
    for option in options {
        let flags = [("NX", &mut nx), ("XX", &mut xx), ("GT", &mut gt), ("LT", &mut lt)];
        match flags.into_iter().find(|(name, _)| args::is(option, name)) {
            Some((_, flag)) => *flag = true,
            None => return Err(format!("ERR Unsupported option {}", args::text(option)).into()),
        }
    }
    if nx && (xx || gt || lt) {
        let text = "ERR NX and XX, GT or LT options at the same time are not compatible";
        return Err(text.into());
    }
    if gt && lt {
        return Err("ERR GT and LT options at the same time are not compatible".into());
    }
    match (nx, xx, gt, lt) {
        (true, ..) => Ok(ExpireIf::None),
        // Without an expiry GT never holds, so XX adds nothing to it.
        (_, _, true, _) => Ok(ExpireIf::Later),
        (_, true, _, true) => Ok(ExpireIf::SomeEarlier),
        (_, _, _, true) => Ok(ExpireIf::Earlier),
        (_, true, ..) => Ok(ExpireIf::Some),
        _ => Ok(ExpireIf::Always),
    }
}

fn ttl(call: &mut Call<'_>, unit: TtlUnit) -> Result<Action, Failure> {
    let [_, key] = call.args else { return Err(call.wrong_arguments()) };
    call.single(key, Command::Ttl(unit))
}

fn persist(call: &mut Call<'_>) -> Result<Action, Failure> {
    let [_, key] = call.args else { return Err(call.wrong_arguments()) };
    call.single(key, Command::Persist)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_becomes_a_stamp_or_an_error() {
        assert_eq!(Span::Seconds.stamp(10, 5), Some(10_005));
        assert_eq!(Span::Millis.stamp(-10, 5), Some(-5));
        assert_eq!(Span::AtSeconds.stamp(10, 5), Some(10_000));
        assert_eq!(Span::AtMillis.stamp(10, 5), Some(10));
        assert_eq!(Span::Seconds.stamp(i64::MAX, 5), None);
        assert_eq!(Span::Millis.stamp(i64::MAX, 5), None);
        assert_eq!(Span::AtSeconds.stamp(i64::MAX / 1_000 + 1, 0), None);
        let bad = |typed: &[u8]| fresh("set", Span::Seconds, typed).unwrap_err();
        assert_eq!(bad(b"0"), "ERR invalid expire time in 'set' command");
        assert_eq!(bad(b"-1"), "ERR invalid expire time in 'set' command");
        assert_eq!(bad(b"9223372036854775807"), "ERR invalid expire time in 'set' command");
        assert_eq!(bad(b"x"), args::NOT_AN_INTEGER);
        assert_eq!(fresh("set", Span::AtMillis, b"7"), Ok(Expiry::At(7)));
    }
}
