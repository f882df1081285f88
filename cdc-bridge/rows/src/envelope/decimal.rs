//! Numerics: from Postgres' text to the unscaled two's complement bytes of Connect's `Decimal` and Debezium's
//! `VariableScaleDecimal`, and to Java's text.

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

    /// As Java writes it (`BigDecimal.toString`): with an exponent if the number is a fraction with many zeros, or ends
    /// with digits that its scale leaves out.
    pub(super) fn write_java(&self, out: &mut Vec<u8>) {
        let (sign, digits) = match self.digits.split_first() {
            Some((b'-', _)) if self.is_zero() => (&self.digits[..0], &self.digits[1..]),
            Some((b'-', digits)) => (&self.digits[..1], digits),
            _ => (&self.digits[..0], self.digits.as_slice()),
        };
        let zeros =
            digits.iter().take(digits.len().saturating_sub(1)).take_while(|digit| **digit == b'0').count();
        let digits = &digits[zeros..];
        out.extend_from_slice(sign);
        let exponent = digits.len() as i64 - 1 - i64::from(self.scale);
        if self.scale == 0 {
            out.extend_from_slice(digits);
        } else if self.scale > 0 && exponent >= -6 {
            let whole = digits.len().saturating_sub(self.scale as usize);
            out.extend_from_slice(if whole == 0 { b"0" } else { &digits[..whole] });
            out.push(b'.');
            out.resize(out.len() + (self.scale as usize).saturating_sub(digits.len()), b'0');
            out.extend_from_slice(&digits[whole..]);
        } else {
            out.extend_from_slice(&digits[..1]);
            if digits.len() > 1 {
                out.push(b'.');
                out.extend_from_slice(&digits[1..]);
            }
            out.extend_from_slice(format!("E{exponent:+}").as_bytes());
        }
    }

    fn is_zero(&self) -> bool {
        self.digits.iter().all(|byte| matches!(byte, b'0' | b'-'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_spelled_as_java_spells_them() {
        for (text, scale, expected) in [
            ("12.30", 2, "12.30"),
            ("-0.50", 2, "-0.50"),
            ("0.00", 2, "0.00"),
            ("7", 0, "7"),
            ("12300", -2, "1.23E+4"),
            ("100", -2, "1E+2"),
            ("0.0000001", 7, "1E-7"),
            ("0.00000123", 8, "0.00000123"),
            ("0.000000123", 9, "1.23E-7"),
        ] {
            let mut out = Vec::new();
            Decimal::read(text.as_bytes()).unwrap().with_scale(scale).unwrap().write_java(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
