//! Numbers as Redis reads and writes them.
//!
//! Integers are read strictly: the one spelling that printing the number would give, so that a
//! stored value is either exactly an integer or no integer. Source: `string2ll` in Redis's `util.c`.
//! Decimal numbers are the affair of [`super::long_double`].

/// Reads a 64-bit integer in its only spelling: no plus, no space, no leading zero, no `-0`.
pub(super) fn integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let canonical = match digits {
        [b'0'] => digits.len() == text.len(),
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let text = std::str::from_utf8(text).ok().filter(|_| canonical)?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::integer;
    use proptest::prelude::*;

    #[test]
    fn an_integer_has_one_spelling() {
        for (text, value) in [
            ("0", 0),
            ("7", 7),
            ("-7", -7),
            ("10", 10),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ] {
            assert_eq!(integer(text.as_bytes()), Some(value));
        }
        for text in [
            "",
            "-",
            "+7",
            " 7",
            "7 ",
            "07",
            "-07",
            "-0",
            "00",
            "7.0",
            "1e3",
            "0x10",
            "--7",
            "٣",
            "9223372036854775808",
            "-9223372036854775809",
            "7\0",
        ] {
            assert_eq!(integer(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(integer(&[0xff, 0xfe]), None);
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_and_nothing_else(value: i64, text in "[-+ 0-9]{0,4}") {
            prop_assert_eq!(integer(value.to_string().as_bytes()), Some(value));
            let canonical = text.parse::<i64>().ok().filter(|read| read.to_string() == text);
            prop_assert_eq!(integer(text.as_bytes()), canonical);
        }
    }
}
