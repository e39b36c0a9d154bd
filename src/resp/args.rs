//! Arguments read the way Redis reads them, and the error texts that come with them.

use bytes::Bytes;
use std::borrow::Cow;

/// An error text with its code, as the client gets it.
pub(super) type Failure = Cow<'static, str>;

/// An option that is not one, twice there, or in bad company.
pub(super) const SYNTAX: Failure = Cow::Borrowed("ERR syntax error");
/// A number that is none, or does not fit 64 bits.
pub(super) const NOT_AN_INTEGER: Failure =
    Cow::Borrowed("ERR value is not an integer or out of range");

/// Too few or too many arguments.
pub(super) fn wrong_arguments(command: &str) -> Failure {
    format!("ERR wrong number of arguments for '{command}' command").into()
}

/// A time to live that is not above zero, or does not fit.
pub(super) fn invalid_expire(command: &str) -> Failure {
    format!("ERR invalid expire time in '{command}' command").into()
}

/// An integer, spelled in the one way Redis accepts: no plus, no leading zero, no blank.
pub(super) fn integer(bytes: &[u8]) -> Option<i64> {
    let digits = bytes.strip_prefix(b"-").unwrap_or(bytes);
    match digits {
        [b'0'] if bytes.len() == 1 => Some(0),
        [b'1'..=b'9', ..] => std::str::from_utf8(bytes).ok()?.parse().ok(),
        _ => None,
    }
}

/// [`integer`] or the error.
pub(super) fn need_integer(bytes: &[u8]) -> Result<i64, Failure> {
    integer(bytes).ok_or(NOT_AN_INTEGER)
}

/// Whether an argument is this word, in upper or lower case.
pub(super) fn is(argument: &Bytes, word: &str) -> bool {
    argument.eq_ignore_ascii_case(word.as_bytes())
}

/// An argument as text, for messages and names of things.
pub(super) fn text(argument: &[u8]) -> String {
    String::from_utf8_lossy(argument).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_one_spelling() {
        for (typed, meant) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("10", Some(10)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("", None),
            ("-", None),
            ("-0", None),
            ("+1", None),
            ("01", None),
            (" 1", None),
            ("1 ", None),
            ("1a", None),
            ("--1", None),
        ] {
            assert_eq!(integer(typed.as_bytes()), meant, "{typed:?}");
        }
    }
}
