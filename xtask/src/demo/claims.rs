//! What the demo claims, whether each claim held, and the report that says so.

use serde::Serialize;

use super::traffic;
use crate::terminal;

/// One sentence that was put to the test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Claim {
    claim: String,
    held: bool,
}

/// `target/demo/report.json`. A figure that was not measured is null, never zero.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Claims {
    log: &'static str,
    requests: Option<u64>,
    failed: Option<u64>,
    wrong: Option<u64>,
    lost: Option<u64>,
    doubled: Option<u64>,
    differences: Option<u64>,
    lag_ms_p50: Option<f64>,
    lag_ms_p99: Option<f64>,
    seconds: Option<f64>,
    claims: Vec<Claim>,
}

impl Claims {
    pub fn new(log: &'static str) -> Claims {
        Claims { log, ..Claims::default() }
    }

    /// Notes whether a claim held, and shows it.
    pub fn hold(&mut self, claim: &str, held: bool) {
        self.hold_with(claim, held, "");
    }

    /// As [`Claims::hold`], with a figure for the screen; in the report a claim reads the same in every run.
    pub fn hold_with(&mut self, claim: &str, held: bool, figure: &str) {
        let figure = if figure.is_empty() { String::new() } else { terminal::dim(&format!(" ({figure})")) };
        terminal::verdict(held, &format!("{claim}{figure}"));
        self.claims.push(Claim { claim: claim.to_owned(), held });
    }

    /// Takes in how far the service was behind the monolith, from commit to visible, in ms.
    pub fn lag(&mut self, lag: &traffic::Lag) {
        self.lag_ms_p50 = Some(lag.p50_ms);
        self.lag_ms_p99 = Some(lag.p99_ms);
    }

    /// Takes in what the customers proved. Where a person stopped strangler, failed requests prove nothing.
    pub fn proof(&mut self, proof: &traffic::Proof, was_stopped: bool) {
        self.requests = Some(proof.requests);
        self.failed = Some(proof.failed);
        self.wrong = Some(proof.wrong);
        self.lost = Some(proof.lost);
        self.doubled = Some(proof.doubled);
        self.differences = Some(proof.differences);
        self.seconds = Some(proof.seconds);
        let failed = format!("{} of {}", proof.failed, proof.requests);
        if was_stopped {
            terminal::note(&format!("  requests that failed while strangler was stopped: {failed}"));
        } else {
            self.hold_with("no request failed", proof.failed == 0, &failed);
        }
        self.hold_with(
            "no answer was wrong, no read went back in time",
            proof.wrong == 0,
            &count(proof.wrong),
        );
        let lost = "no write was lost across two cutovers and one automatic return";
        self.hold_with(lost, proof.lost == 0, &count(proof.lost));
        self.hold_with("nothing was done twice", proof.doubled == 0, &count(proof.doubled));
        let equal = proof.differences == 0;
        self.hold_with("both databases are equal, row by row", equal, &count(proof.differences));
        let exceeded = proof.credit_exceeded;
        self.hold_with("credit was never exceeded", exceeded == 0, &count(exceeded));
        let negative = proof.stock_negative;
        self.hold_with("stock was never negative", negative == 0, &count(negative));
        self.hold_with("every saga has ended", proof.sagas_open == 0, &count(proof.sagas_open));
        let books = proof.books_differ;
        self.hold_with("the books of credit and stock fit the orders", books == 0, &count(books));
        self.hold("there was traffic to speak of", proof.requests >= MIN_REQUESTS);
        let at_service = proof.by_served.get(SERVICE).copied().unwrap_or_default();
        let claim = "customers' reads were answered by the service";
        self.hold_with(claim, at_service >= MIN_AT_SERVICE, &count(at_service));
    }

    pub fn all_held(&self) -> bool {
        !self.claims.is_empty() && self.claims.iter().all(|claim| claim.held)
    }

    pub fn summary(&self) -> String {
        let held = self.claims.iter().filter(|claim| claim.held).count();
        let text = format!("{held} of {} claims held, log: {}", self.claims.len(), self.log);
        if self.all_held() { terminal::green(&text) } else { terminal::red(&text) }
    }
}

fn count(number: u64) -> String {
    number.to_string()
}

/// Fewer requests than this prove little.
const MIN_REQUESTS: u64 = 500;
/// What the service calls itself in its answers.
const SERVICE: &str = "orders";
/// A few of the customers' reads would be the service's even if nobody who wrote ever came back to it: some fifty
/// before their first writes. The story has a good thousand.
const MIN_AT_SERVICE: u64 = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn proof() -> traffic::Proof {
        let by_served = [(SERVICE.to_owned(), MIN_AT_SERVICE)].into();
        traffic::Proof { requests: 1000, seconds: 9.5, by_served, ..traffic::Proof::default() }
    }

    #[test]
    fn one_broken_claim_breaks_the_whole() {
        let mut claims = Claims::new("embedded");
        assert!(!claims.all_held(), "no claims are no success");
        claims.proof(&proof(), false);
        assert!(claims.all_held());
        for broken in [
            traffic::Proof { lost: 1, ..proof() },
            traffic::Proof { credit_exceeded: 1, ..proof() },
            traffic::Proof { stock_negative: 1, ..proof() },
            traffic::Proof { sagas_open: 1, ..proof() },
            traffic::Proof { books_differ: 1, ..proof() },
            traffic::Proof { by_served: [("monolith".to_owned(), 1000)].into(), ..proof() },
        ] {
            let mut claims = Claims::new("embedded");
            claims.proof(&broken, false);
            assert!(!claims.all_held(), "{broken:?}");
        }
    }

    #[test]
    fn requests_fail_while_a_person_has_stopped_strangler() {
        for was_stopped in [false, true] {
            let mut claims = Claims::new("embedded");
            claims.proof(&traffic::Proof { failed: 3, ..proof() }, was_stopped);
            assert_eq!(claims.all_held(), was_stopped);
        }
    }

    #[test]
    fn the_report_has_every_key_and_no_invented_zero() {
        let value = serde_json::to_value(Claims::new("kafka")).unwrap();
        for key in [
            "requests",
            "failed",
            "wrong",
            "lost",
            "doubled",
            "differences",
            "lag_ms_p50",
            "lag_ms_p99",
            "seconds",
        ] {
            assert!(value.get(key).is_some_and(serde_json::Value::is_null), "{key}");
        }
        assert_eq!(value["log"], "kafka");
        let mut claims = Claims::new("kafka");
        claims.hold("it works", true);
        let value = serde_json::to_value(claims).unwrap();
        assert_eq!(value["claims"], serde_json::json!([{ "claim": "it works", "held": true }]));
    }
}
