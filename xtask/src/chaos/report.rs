//! What a run came to: the figures of `target/chaos/report.json`, and in words what was wrong.

use serde::Serialize;

/// A figure that was not measured is null, never zero.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    pub seed: u64,
    pub log: &'static str,
    /// Parts that were killed with -9 or frozen.
    pub kills: u64,
    pub cutovers: Option<u64>,
    pub rollbacks: Option<u64>,
    /// Cutovers, rehearsals and rollbacks that were given up.
    pub aborted: Option<u64>,
    pub requests: Option<u64>,
    /// Requests that got a 5xx or no answer, those that were put off included.
    pub failed: Option<u64>,
    /// Of these, those that no broken part explains; and every wrong answer.
    pub failed_unexplained: Option<u64>,
    /// Acknowledged writes that the owner does not hold as they were answered.
    pub lost: Option<u64>,
    pub doubled: Option<u64>,
    /// Rows that differ between the two sides at the end.
    pub differences: Option<u64>,
    /// The longest time for which writes were held.
    pub hold_ms_max: Option<u64>,
    /// What should be gone and is not.
    pub leftovers: Option<u64>,
    /// What was wrong, in words.
    #[serde(skip)]
    pub faults: Vec<String>,
}

impl Report {
    /// Whether everything that had to be proven was, and nothing was wrong.
    pub fn holds(&self) -> bool {
        let zero = [self.failed_unexplained, self.lost, self.doubled, self.differences, self.leftovers];
        self.faults.is_empty() && zero.iter().all(|figure| *figure == Some(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_holds_that_was_not_measured_or_is_not_zero() {
        let zero = Some(0);
        let whole = Report {
            failed_unexplained: zero,
            lost: zero,
            doubled: zero,
            differences: zero,
            leftovers: zero,
            ..Report::default()
        };
        assert!(whole.holds() && !Report::default().holds());
        assert!(!Report { faults: vec!["x".to_owned()], ..whole.clone() }.holds());
        for broken in [
            Report { failed_unexplained: Some(1), ..whole.clone() },
            Report { lost: None, ..whole.clone() },
            Report { doubled: Some(1), ..whole.clone() },
            Report { differences: Some(1), ..whole.clone() },
            Report { leftovers: Some(1), ..whole },
        ] {
            assert!(!broken.holds(), "{broken:?}");
        }
    }

    #[test]
    fn the_report_has_its_keys_and_no_others() {
        let value = serde_json::to_value(Report::default()).unwrap();
        let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        let mut expected = [
            "kills",
            "cutovers",
            "rollbacks",
            "aborted",
            "requests",
            "failed",
            "failed_unexplained",
            "lost",
            "doubled",
            "differences",
            "hold_ms_max",
            "leftovers",
            "seed",
            "log",
        ];
        expected.sort_unstable();
        assert_eq!(keys, expected);
    }
}
