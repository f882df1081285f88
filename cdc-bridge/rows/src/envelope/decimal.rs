//! Numerics: between Postgres' text and the unscaled two's complement bytes of Connect's `Decimal` and Debezium's
//! `VariableScaleDecimal`.

use num_bigint::BigInt;

/// A numeric's text, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decimal {
    /// All digits without the point, with the sign before them.
    digits: Vec<u8>,
    /// How many of them come after the point.
    pub scale: i32,
}

impl Decimal {
    /// Reads a number as Postgres writes it; `NaN`, infinities and anything else are none.
    pub(super) fn read(text: &[u8]) -> Option<Decimal> {
        let (sign, rest) = match text {
            [b'-', rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        let point = rest.iter().position(|byte| *byte == b'.');
        let (whole, fraction) = match point {
            Some(point) => (&rest[..point], &rest[point + 1..]),
            None => (rest, &rest[rest.len()..]),
        };
        let is_number = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
        let is_canonical = whole == b"0" || whole.first().is_some_and(|first| *first != b'0');
        if !is_canonical
            || !is_number(whole)
            || !is_number(fraction)
            || (point.is_some() && fraction.is_empty())
        {
            return None;
        }
        let mut digits = Vec::with_capacity(text.len());
        if sign {
            digits.push(b'-');
        }
        digits.extend_from_slice(whole);
        digits.extend_from_slice(fraction);
        Some(Decimal { digits, scale: fraction.len() as i32 })
    }

    /// The same number with exactly `scale` digits after the point, unless that takes rounding.
    pub(super) fn with_scale(mut self, scale: i32) -> Option<Decimal> {
        while self.scale < scale {
            self.digits.push(b'0');
            self.scale += 1;
        }
        let is_zero = self.is_zero();
        while self.scale > scale {
            if !is_zero && self.digits.pop() != Some(b'0') {
                return None;
            }
            self.scale -= 1;
        }
        Some(self)
    }

    /// The same number without zeros at the end of its fraction, as Debezium writes those without a declared scale.
    pub(super) fn stripped(mut self) -> Decimal {
        while self.scale > 0 && self.digits.last() == Some(&b'0') {
            self.digits.pop();
            self.scale -= 1;
        }
        self
    }

    /// The unscaled value in the fewest big-endian two's complement bytes (Java's `BigInteger.toByteArray`).
    pub(super) fn unscaled(&self) -> Vec<u8> {
        let text = std::str::from_utf8(&self.digits).unwrap_or_default();
        if let Ok(small) = text.parse::<i128>() {
            let bytes = small.to_be_bytes();
            let filler = if small < 0 { 0xFF } else { 0 };
            let is_filler = |pair: &[u8]| pair[0] == filler && (pair[1] ^ filler) < 0x80;
            let skipped = bytes.windows(2).take_while(|pair| is_filler(pair)).count();
            return bytes[skipped..].to_vec();
        }
        BigInt::parse_bytes(&self.digits, 10).unwrap_or_default().to_signed_bytes_be()
    }

    fn is_zero(&self) -> bool {
        self.digits.iter().all(|byte| matches!(byte, b'0' | b'-'))
    }
}

/// Writes the number of an unscaled value as Postgres does.
pub(super) fn write(unscaled: &[u8], scale: i32, out: &mut Vec<u8>) {
    let text = match small(unscaled) {
        Some(small) => small.to_string(),
        None => BigInt::from_signed_bytes_be(unscaled).to_string(),
    };
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.as_str()),
    };
    out.extend_from_slice(sign.as_bytes());
    if scale <= 0 {
        out.extend_from_slice(digits.as_bytes());
        if digits != "0" {
            out.resize(out.len() + scale.unsigned_abs().min(SCALE_MAX) as usize, b'0');
        }
        return;
    }
    let scale = scale.unsigned_abs().min(SCALE_MAX) as usize;
    let whole = digits.len().saturating_sub(scale);
    out.extend_from_slice(if whole == 0 { b"0" } else { &digits.as_bytes()[..whole] });
    out.push(b'.');
    out.resize(out.len() + scale.saturating_sub(digits.len()), b'0');
    out.extend_from_slice(&digits.as_bytes()[whole..]);
}

/// Postgres keeps at most this many digits after the point (PostgreSQL manual, 8.1.2); a scale that was read from a
/// topic must not reserve more memory.
const SCALE_MAX: u32 = 16_383;

fn small(unscaled: &[u8]) -> Option<i128> {
    let first = *unscaled.first()?;
    if unscaled.len() > 16 {
        return None;
    }
    let mut bytes = [if first >= 0x80 { 0xFF } else { 0 }; 16];
    bytes[16 - unscaled.len()..].copy_from_slice(unscaled);
    Some(i128::from_be_bytes(bytes))
}
