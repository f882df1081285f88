//! Random numbers for tests, from a seed that is printed and can be given again.

/// SplitMix64: small, and the same everywhere for a seed.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// A seed that is printed, or the one that is given in `STRANGLER_TEST_SEED`.
    #[allow(clippy::print_stdout, reason = "whoever repeats a test needs its seed")]
    pub fn thrown(test: &str) -> Dice {
        let given = std::env::var("STRANGLER_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(rand::random);
        println!("{test}: STRANGLER_TEST_SEED={seed}");
        Dice(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}
