//! INCRBYFLOAT's arithmetic: the x86-64 `long double` that Redis computes with, in integers.
//!
//! Rust has no such type, and `f64` would print 10.5 + 0.1 as 10.59999999999999964. So the number is
//! kept as `mantissa × 2^exponent` with 64 bits of mantissa; reading, adding and printing
//! (`%.17Lf`, trailing zeros cut) each round the exact result once, to nearest, ties to even. The
//! coordinator's machine makes no difference, and the digits are those of Redis on x86-64:
//! 0.1 + 0.2 is 0.3, and 3000000.1 + 0 is 3000000.09999999999990905 there and here.
//!
//! Source: `string2ld` and `ld2string` in Redis's `util.c`, `strtold` and `printf` in glibc.
//!
//! Caveats: hexadecimal numbers, which `strtold` happens to take, are refused. Subnormal numbers keep
//! a full mantissa; they print as 0 in either case.

use std::cmp::Ordering;

/// Longer texts are no number (Redis: `MAX_LONG_DOUBLE_CHARS`, with the closing zero); bounds the
/// work of reading one.
const TEXT_BYTES_MAX: usize = 5 * 1024 - 1;
/// Digits after the point that are printed.
const FRACTION_DIGITS: u32 = 17;
const FRACTION_SCALE: u128 = 10u128.pow(FRACTION_DIGITS);
/// Numbers from 2^this on are infinite.
const BITS_MAX: i64 = 16_384;
/// Numbers up to 2^this round to zero: half the smallest subnormal.
const ZERO_EXPONENT: i64 = -16_446;
/// A decimal point farther than this right or left of the first digit is out of range for certain
/// (the bounds are 4,932 and 4,950); bounds the work before anything is computed.
const POINT_MAX: i64 = 5_000;
/// Decimal digits that fit a limb of 32 bits: long numbers are read and printed in such groups.
const GROUP_DIGITS: usize = 9;

/// A number, or infinite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LongDouble {
    negative: bool,
    size: Size,
}

/// A magnitude.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    /// `mantissa × 2^exponent`; the mantissa has its top bit set, or is 0 with exponent 0.
    Finite {
        mantissa: u64,
        exponent: i64,
    },
    Infinite,
}

impl LongDouble {
    pub(super) const ZERO: LongDouble =
        LongDouble { negative: false, size: Size::Finite { mantissa: 0, exponent: 0 } };

    /// Reads `-1.5e3`, `.5`, `5.`, `+2`, `inf`; none for anything else and for what is out of range.
    pub(super) fn parse(text: &[u8]) -> Option<LongDouble> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let (negative, text) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            _ => (false, text),
        };
        if text.eq_ignore_ascii_case(b"inf") || text.eq_ignore_ascii_case(b"infinity") {
            return Some(LongDouble { negative, size: Size::Infinite });
        }
        let (digits, power) = decimal(text)?;
        let size = nearest(&digits, power)?;
        Some(LongDouble { negative, size })
    }

    /// The sum; none where it is infinite or no number.
    pub(super) fn checked_add(self, other: LongDouble) -> Option<LongDouble> {
        let (Size::Finite { .. }, Size::Finite { .. }) = (self.size, other.size) else {
            return None;
        };
        let (large, small) =
            if self.order() < other.order() { (other, self) } else { (self, other) };
        let (
            Size::Finite { mantissa, exponent },
            Size::Finite { mantissa: addend, exponent: below },
        ) = (large.size, small.size)
        else {
            return None;
        };
        // 62 guard bits: whatever the shift below drops cannot decide more than a tie, which the
        // sticky lowest bit keeps from being one.
        const GUARD: u32 = 62;
        let distance = u32::try_from(exponent - below).unwrap_or(0);
        let addend = shift_right_sticky(u128::from(addend) << GUARD, distance);
        let wide = u128::from(mantissa) << GUARD;
        let sum = if large.negative == small.negative { wide + addend } else { wide - addend };
        let size = round(sum, exponent - i64::from(GUARD))?;
        let negative = large.negative && sum != 0;
        Some(LongDouble { negative, size })
    }

    /// Orders magnitudes: zero, then by exponent, then by mantissa.
    fn order(self) -> (bool, i64, u64) {
        match self.size {
            Size::Finite { mantissa, exponent } => (mantissa != 0, exponent, mantissa),
            Size::Infinite => (true, i64::MAX, u64::MAX),
        }
    }

    /// Prints with at most 17 digits after the point and no exponent; `0` for both zeros.
    pub(super) fn print(self) -> String {
        let text = match self.size {
            Size::Infinite => String::from("inf"),
            Size::Finite { mantissa, exponent } if exponent >= 0 => {
                let mut whole = Natural::from(mantissa);
                whole.shift_left(exponent.unsigned_abs());
                whole.print()
            }
            Size::Finite { mantissa, exponent } => fraction(mantissa, exponent.unsigned_abs()),
        };
        if self.negative && text != "0" { format!("-{text}") } else { text }
    }
}

/// Splits `12.50e-3` into its digits and the power of ten of the last one: (1250, -5).
fn decimal(text: &[u8]) -> Option<(Vec<u8>, i64)> {
    let at = text.iter().position(|byte| matches!(byte, b'e' | b'E')).unwrap_or(text.len());
    let (number, tail) = text.split_at_checked(at)?;
    let power = match tail.get(1..) {
        Some(power) => exponent(power)?,
        None => 0,
    };
    let mut parts = number.splitn(2, |byte| *byte == b'.');
    let whole = parts.next().unwrap_or_default();
    let part = parts.next().unwrap_or_default();
    let digits = [whole, part].concat();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let places = i64::try_from(part.len()).ok()?;
    Some((digits, power.saturating_sub(places)))
}

/// Reads the exponent; one too large for any number saturates.
fn exponent(text: &[u8]) -> Option<i64> {
    let (sign, digits) = match text {
        [b'-', rest @ ..] => (-1, rest),
        [b'+', rest @ ..] => (1, rest),
        _ => (1, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let size = digits
        .iter()
        .fold(0i64, |size, digit| size.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
    Some(sign * size)
}

/// The nearest magnitude to `digits × 10^power`; none where it is out of range.
fn nearest(digits: &[u8], power: i64) -> Option<Size> {
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    let digits = digits.get(zeros..).unwrap_or_default();
    if digits.is_empty() {
        return Some(LongDouble::ZERO.size);
    }
    let point = power.saturating_add(i64::try_from(digits.len()).ok()?);
    if !(-POINT_MAX..=POINT_MAX).contains(&point) {
        return None;
    }
    let mut above = Natural::default();
    for group in digits.chunks(GROUP_DIGITS) {
        let value = group.iter().fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
        above.multiply_add(power_of_ten(group.len() as u64), value);
    }
    let mut below = Natural::from(1);
    let scaled = if power < 0 { &mut below } else { &mut above };
    let mut places = power.unsigned_abs();
    while places > 0 {
        let group = places.min(GROUP_DIGITS as u64);
        scaled.multiply_add(power_of_ten(group), 0);
        places -= group;
    }
    let (quotient, exponent) = divide(above, below);
    // Ties to even: exactly half the smallest subnormal is zero too.
    let bits = i64::from(u128::BITS - quotient.leading_zeros()) + exponent;
    let tiny = bits <= ZERO_EXPONENT || (bits == ZERO_EXPONENT + 1 && quotient.is_power_of_two());
    if tiny { None } else { round(quotient, exponent) }
}

/// 10 to the power of at most [`GROUP_DIGITS`].
fn power_of_ten(places: u64) -> u32 {
    (0..places).fold(1, |power, _| power * 10)
}

/// `above / below` as `quotient × 2^exponent` with at least 65 bits and a sticky lowest bit.
fn divide(mut above: Natural, mut below: Natural) -> (u128, i64) {
    const STEPS: i64 = 66;
    let (high, low) = (above.bits(), below.bits());
    above.shift_left(low.saturating_sub(high));
    below.shift_left(high.saturating_sub(low));
    let mut quotient = 0u128;
    for _ in 0..STEPS {
        let fits = above.compare(&below).is_ge();
        if fits {
            above.subtract(&below);
        }
        quotient = quotient << 1 | u128::from(fits);
        above.shift_left(1);
    }
    let exponent = i64::try_from(high).unwrap_or(0) - i64::try_from(low).unwrap_or(0);
    let sticky = u128::from(above.bits() > 0);
    (quotient << 1 | sticky, exponent - STEPS)
}

/// Rounds `wide × 2^exponent` to a mantissa of 64 bits; none where that is infinite.
fn round(wide: u128, exponent: i64) -> Option<Size> {
    if wide == 0 {
        return Some(LongDouble::ZERO.size);
    }
    let bits = u128::BITS - wide.leading_zeros();
    let (mantissa, exponent) = match bits.checked_sub(u64::BITS) {
        None | Some(0) => (wide << (u64::BITS - bits), exponent - i64::from(u64::BITS - bits)),
        Some(excess) => {
            let rounded = half_even(wide, excess);
            let carried = rounded >> u64::BITS;
            (rounded >> carried, exponent + i64::from(excess) + i64::from(carried != 0))
        }
    };
    if exponent + i64::from(u64::BITS) > BITS_MAX {
        return None;
    }
    Some(Size::Finite { mantissa: u64::try_from(mantissa).ok()?, exponent })
}

/// `wide / 2^shift`, to nearest, ties to even.
fn half_even(wide: u128, shift: u32) -> u128 {
    let Some(half) = shift.checked_sub(1).and_then(|shift| 1u128.checked_shl(shift)) else {
        return if shift == 0 { wide } else { 0 };
    };
    let kept = wide.checked_shr(shift).unwrap_or(0);
    let rest = wide & (half | (half - 1));
    let up = match rest.cmp(&half) {
        Ordering::Less => false,
        Ordering::Equal => kept & 1 == 1,
        Ordering::Greater => true,
    };
    kept + u128::from(up)
}

/// `wide / 2^shift`, the lowest bit set where a bit was lost.
fn shift_right_sticky(wide: u128, shift: u32) -> u128 {
    let kept = wide.checked_shr(shift).unwrap_or(0);
    let whole = kept.checked_shl(shift).unwrap_or(0) == wide;
    if whole { kept } else { kept | 1 }
}

/// Prints `mantissa / 2^shift`.
fn fraction(mantissa: u64, shift: u64) -> String {
    // Below 2^121, so it fits; half_even gives 0 for every shift beyond.
    let scaled = u128::from(mantissa) * FRACTION_SCALE;
    let scaled = half_even(scaled, u32::try_from(shift).unwrap_or(u32::MAX));
    let (whole, part) = (scaled / FRACTION_SCALE, scaled % FRACTION_SCALE);
    let text = format!("{whole}.{part:017}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A natural number of any size: 32-bit limbs, lowest first, no zero limb on top.
#[derive(Default)]
struct Natural(Vec<u32>);

impl From<u64> for Natural {
    fn from(value: u64) -> Natural {
        let mut natural = Natural(vec![value as u32, (value >> 32) as u32]);
        natural.trim();
        natural
    }
}

impl Natural {
    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    fn bits(&self) -> u64 {
        let top = self.0.last().map_or(0, |top| u64::from(u32::BITS - top.leading_zeros()));
        top + (self.0.len() as u64).saturating_sub(1) * u64::from(u32::BITS)
    }

    fn multiply_add(&mut self, factor: u32, addend: u32) {
        let mut carry = u64::from(addend);
        for limb in &mut self.0 {
            carry += u64::from(*limb) * u64::from(factor);
            *limb = carry as u32;
            carry >>= u32::BITS;
        }
        if carry > 0 {
            self.0.push(carry as u32);
        }
    }

    fn shift_left(&mut self, by: u64) {
        if self.0.is_empty() {
            return;
        }
        self.multiply_add(1 << (by % u64::from(u32::BITS)), 0);
        let limbs = usize::try_from(by / u64::from(u32::BITS)).unwrap_or(0);
        if limbs > 0 {
            self.0.splice(..0, std::iter::repeat_n(0, limbs));
        }
    }

    fn compare(&self, other: &Natural) -> Ordering {
        let sizes = self.0.len().cmp(&other.0.len());
        sizes.then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }

    /// Takes `other`, which is not larger, away.
    fn subtract(&mut self, other: &Natural) {
        let mut borrow = false;
        let others = other.0.iter().copied().chain(std::iter::repeat(0));
        for (limb, other) in self.0.iter_mut().zip(others) {
            let (less, first) = limb.overflowing_sub(other);
            let (less, second) = less.overflowing_sub(u32::from(borrow));
            *limb = less;
            borrow = first || second;
        }
        self.trim();
    }

    fn print(mut self) -> String {
        let group = u64::from(power_of_ten(GROUP_DIGITS as u64));
        let mut groups = Vec::new();
        while !self.0.is_empty() {
            let mut rest = 0u64;
            for limb in self.0.iter_mut().rev() {
                rest = rest << u32::BITS | u64::from(*limb);
                *limb = (rest / group) as u32;
                rest %= group;
            }
            self.trim();
            groups.push(rest);
        }
        let Some(top) = groups.pop() else { return String::from("0") };
        let rest = groups.iter().rev().map(|digits| format!("{digits:0GROUP_DIGITS$}"));
        std::iter::once(top.to_string()).chain(rest).collect()
    }
}

#[cfg(test)]
#[path = "long_double_tests.rs"]
mod tests;
