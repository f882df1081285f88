//! A hash that is the same for the same things on every machine and in every version of the standard library: of a plan's
//! meaning, of tables' shapes.

use crate::crossing::Digest;
use std::fmt::Display;

/// FNV-1a, 64 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>): it tells states apart, it protects nothing.
#[derive(Debug, Clone)]
pub struct Fingerprint(u64);

impl Default for Fingerprint {
    fn default() -> Self {
        Fingerprint(Self::OFFSET_BASIS)
    }
}

impl Fingerprint {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;

    /// A named value, closed so that two neighbours are never read as one.
    pub fn put(&mut self, name: &str, value: impl Display) {
        self.bytes(name.as_bytes());
        self.bytes(&[0x1f]);
        self.bytes(value.to_string().as_bytes());
        self.bytes(&[0x1e]);
    }

    pub fn digest(&self) -> Digest {
        Digest(self.0)
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(Self::PRIME);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a() {
        // Test vectors of the FNV reference (64 bit, FNV-1a): "", "a", "foobar".
        let hash = |text: &str| {
            let mut print = Fingerprint::default();
            print.bytes(text.as_bytes());
            print.digest().0
        };
        assert_eq!(hash(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(hash("foobar"), 0x8594_4171_f739_67e8);
    }
}
