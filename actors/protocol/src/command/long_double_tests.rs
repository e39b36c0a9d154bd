//! Answers of Redis 7.0.15 on x86-64, and what must hold for all numbers.

use super::LongDouble;
use proptest::prelude::*;

fn sum(left: &str, right: &str) -> Option<String> {
    let left = LongDouble::parse(left.as_bytes())?;
    left.checked_add(LongDouble::parse(right.as_bytes())?).map(LongDouble::print)
}

fn is_number(text: &str) -> bool {
    LongDouble::parse(text.as_bytes()).is_some()
}

#[test]
fn sums_have_the_digits_that_redis_prints() {
    for (left, right, expected) in [
        ("10.5", "0.1", "10.6"),
        ("0.1", "0.2", "0.3"),
        ("10.6", "-5", "5.6"),
        ("5.0e3", "2.0e2", "5200"),
        ("3.0e3", "0", "3000"),
        ("3000000.1", "0", "3000000.09999999999990905"),
        ("1000.1", "0.2", "1000.29999999999999999"),
        ("-0", "-0", "0"),
        ("1.5", "-1.5", "0"),
        (".5", "5.", "5.5"),
        ("+1", "1E+1", "11"),
        ("1e-18", "0", "0"),
        ("-1e-18", "0", "0"),
        ("1e19", "1", "10000000000000000001"),
        ("1e25", "1", "10000000000000000000000000"),
        ("18446744073709551615", "1", "18446744073709551616"),
        ("18446744073709551616", "1", "18446744073709551616"),
        ("18446744073709551616", "3", "18446744073709551620"),
        ("1", "1e-400", "1"),
        ("1e300", "-1e300", "0"),
    ] {
        assert_eq!(sum(left, right).as_deref(), Some(expected), "{left} + {right}");
    }
}

#[test]
fn text_that_is_no_decimal_number_is_refused() {
    for text in [
        "", " ", "-", "+", ".", "-.", "e5", "1e", "1e+", "1e1.5", " 1", "1 ", "1,5", "1.2.3",
        "--1", "nan", "-nan", "infin", "abc", "1\0", "0x10", "1_000", "٣",
    ] {
        assert!(!is_number(text), "{text:?}");
    }
    assert!(is_number(&"0".repeat(super::TEXT_BYTES_MAX)));
    assert!(!is_number(&"0".repeat(super::TEXT_BYTES_MAX + 1)));
}

#[test]
fn numbers_out_of_range_are_refused_and_the_outermost_are_not() {
    for text in ["1.18e4932", "-1.18e4932", "3.7e-4951", "1.9e-4951", "0e99999999999999999999"] {
        assert!(is_number(text), "{text}");
    }
    for text in ["1.19e4932", "-1e5000", "1e99999999999999999999", "1.8e-4951", "1e-999999999999"] {
        assert!(!is_number(text), "{text}");
    }
}

#[test]
fn an_infinite_sum_is_no_number() {
    for (left, right) in
        [("1.1e4932", "1.1e4932"), ("inf", "1"), ("1", "-Infinity"), ("INF", "-inf")]
    {
        assert!(is_number(left) && is_number(right));
        assert_eq!(sum(left, right), None, "{left} + {right}");
    }
}

proptest! {
    /// 64 bits of mantissa hold every i64 and every sum of two.
    #[test]
    fn whole_numbers_are_exact(left: i64, right: i64) {
        let exact = (i128::from(left) + i128::from(right)).to_string();
        prop_assert_eq!(sum(&left.to_string(), &right.to_string()), Some(exact));
    }

    /// A decimal that 64 bits hold more exactly than 17 places show comes back as it was typed.
    #[test]
    fn short_decimals_come_back_as_typed(whole in -60i64..60, part in 1u64..1_000_000_000) {
        let text = format!("{whole}.{part:09}");
        let printed = sum(&text, "0").unwrap();
        let typed = text.trim_end_matches('0');
        prop_assert_eq!(printed, typed);
    }

    /// `numerator / 2^shift` has at most `shift` decimal places and fits the mantissa.
    #[test]
    fn binary_fractions_are_exact(numerator: i64, shift in 0u32..=17) {
        let scaled = i128::from(numerator) * 5i128.pow(shift);
        let (size, places) = (scaled.unsigned_abs(), 10u128.pow(shift));
        let sign = if numerator < 0 { "-" } else { "" };
        let width = shift as usize;
        let text = format!("{sign}{}.{:0width$}", size / places, size % places);
        let printed = text.trim_end_matches('0').trim_end_matches('.').to_owned();
        let expected = if numerator == 0 { String::from("0") } else { printed };
        prop_assert_eq!(sum(&text, "0"), Some(expected));
    }

    #[test]
    fn the_order_of_a_sum_does_not_matter(left in "-?[0-9]{1,25}(\\.[0-9]{0,25})?(e-?[0-9]{1,3})?", right in "-?[0-9]{1,25}(\\.[0-9]{0,25})?") {
        prop_assert_eq!(sum(&left, &right), sum(&right, &left));
    }

    #[test]
    fn no_text_upsets_the_reader(bytes: Vec<u8>, text in "[-+.eE0-9inf]{0,12}") {
        let _ = LongDouble::parse(&bytes);
        if let Some(number) = LongDouble::parse(text.as_bytes()) {
            let printed = number.print();
            prop_assert!(printed == "inf" || printed == "-inf" || is_number(&printed));
        }
    }
}
