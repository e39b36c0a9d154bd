//! Durations and sizes as people write them: a whole number and its unit.
//!
//! Own, because it is twenty lines: the crates for it also take "1month 3days", fractions and a
//! dozen spellings of a megabyte, and a configuration should have one spelling for one thing.

use serde::{Deserialize, Deserializer, de::Error as _};
use std::time::Duration;

/// Units of time, in milliseconds.
const TIME: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
/// Units of size, in bytes.
const SIZE: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// A duration as typed: "100ms", "2s", "1m", "1h".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Time(pub(super) Duration);

/// A size as typed: "512B", "64KiB", "1MiB", "1GiB".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub(super) usize);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let millis = parse(&text, &TIME).ok_or_else(|| {
            D::Error::custom(format!(
                "\"{text}\" is not a duration: write a whole number with its unit, such as \
                 \"100ms\", \"2s\", \"1m\" or \"1h\""
            ))
        })?;
        Ok(Time(Duration::from_millis(millis)))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = parse(&text, &SIZE).and_then(|bytes| usize::try_from(bytes).ok());
        bytes.map(Size).ok_or_else(|| {
            D::Error::custom(format!(
                "\"{text}\" is not a size: write a whole number with its unit, such as \
                 \"512B\", \"64KiB\", \"1MiB\" or \"1GiB\""
            ))
        })
    }
}

/// A duration as typed on the command line.
///
/// # Errors
/// It is none.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    parse(text, &TIME).map(Duration::from_millis).ok_or_else(|| {
        format!(
            "\"{text}\" is not a duration: write a whole number with its unit, such as \"100ms\", \
             \"2s\", \"1m\" or \"1h\""
        )
    })
}

/// The number times its unit; none where either is not understood or the product is too large.
fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// A duration as it is written in the file, in its largest whole unit.
pub fn time(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    format(millis, &TIME)
}

/// A size as it is written in the file, in its largest whole unit.
pub fn size(bytes: usize) -> String {
    format(u64::try_from(bytes).unwrap_or(u64::MAX), &SIZE)
}

fn format(number: u64, units: &[(&str, u64)]) -> String {
    let whole = |(_, factor): &&(&str, u64)| number != 0 && number.is_multiple_of(*factor);
    match units.iter().rev().find(whole).or(units.first()) {
        Some((unit, factor)) => format!("{}{unit}", number / factor),
        None => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_units_are_read() {
        assert_eq!(parse("100ms", &TIME), Some(100));
        assert_eq!(parse("2s", &TIME), Some(2_000));
        assert_eq!(parse("1 h", &TIME), Some(3_600_000));
        assert_eq!(parse("65535B", &SIZE), Some(65_535));
        assert_eq!(parse("1MiB", &SIZE), Some(1_048_576));
    }

    #[test]
    fn anything_else_is_not() {
        for text in ["", "5", "ms", "-1s", "1.5s", "1S", "1ss", "1s ", "99999999999999999999s"] {
            assert_eq!(parse(text, &TIME), None, "{text}");
        }
        for text in ["1MB", "1M", "1mib", "18446744073709551615GiB"] {
            assert_eq!(parse(text, &SIZE), None, "{text}");
        }
    }

    #[test]
    fn written_as_read() {
        assert_eq!(time(Duration::from_millis(1_500)), "1500ms");
        assert_eq!(time(Duration::from_secs(3_600)), "1h");
        assert_eq!(time(Duration::ZERO), "0ms");
        assert_eq!(size(65_535), "65535B");
        assert_eq!(size(2 << 20), "2MiB");
    }
}
