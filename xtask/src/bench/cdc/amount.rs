//! How many rows and transactions each case has.

use super::super::Extent;

pub struct Amount {
    pub copied: u64,
    pub inserted: u64,
    pub updated: u64,
    pub singles: u64,
    pub latency_seconds: u64,
    pub weighed_copy: u64,
    pub weighed_transaction: u64,
}

impl Amount {
    pub fn of(extent: Extent) -> Amount {
        let usual = Amount {
            copied: 1_000_000,
            inserted: 1_000_000,
            updated: 500_000,
            singles: 100_000,
            latency_seconds: 10,
            weighed_copy: 2_000_000,
            weighed_transaction: 1_000_000,
        };
        match extent {
            Extent::Usual => usual,
            Extent::Full => Amount { weighed_copy: 10_000_000, ..usual },
            Extent::Quick => Amount {
                copied: 100_000,
                inserted: 100_000,
                updated: 50_000,
                singles: 20_000,
                latency_seconds: 3,
                weighed_copy: 200_000,
                weighed_transaction: 100_000,
            },
        }
    }

    /// Debezium is slow: it gets less, and its rate is compared.
    pub fn of_debezium(extent: Extent) -> Amount {
        let all = Amount::of(extent);
        let less = if extent == Extent::Quick { 5 } else { 10 };
        Amount {
            inserted: all.inserted / less,
            updated: all.updated / less,
            singles: all.singles / less,
            ..all
        }
    }
}
