//! Holds what the customers met against what was broken at that moment, and reads the journal.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::COMMAND_LIMIT;
use super::history::History;
use super::outage::{Incident, Kind, Outage, explain};
use super::report::Report;
use super::schedule::Part;
use super::stage::Stage;
use crate::demo::traffic::Proof;

impl Stage {
    /// Holds what the customers met against what was broken, and reads the journal.
    pub fn account(&self, proof: &Proof, outages: &[Outage], report: &mut Report) -> Result<()> {
        report.requests = Some(proof.requests);
        report.failed = Some(proof.failed + proof.deferred);
        report.failed_unexplained = Some(self.unexplained(outages, report)?);
        report.lost = Some(proof.lost);
        report.doubled = Some(proof.doubled);
        report.differences = Some(proof.differences);
        for (count, what) in [
            (proof.lost, "promises are lost"),
            (proof.doubled, "writes were done twice"),
            (proof.differences, "rows differ"),
            (proof.credit_exceeded, "times a customer's credit was exceeded"),
            (proof.stock_negative, "times a stock was negative"),
            (proof.sagas_open, "sagas have not ended"),
            (proof.books_differ, "entries of the books do not fit the orders"),
        ] {
            if count > 0 {
                report.faults.push(format!("{count} {what}: {}", proof.proof_samples.join("; ")));
            }
        }
        let journal = self.strangler.tried("journal", COMMAND_LIMIT)?;
        ensure!(journal.exit == 0, "`strangler journal` ended with {}: {}", journal.exit, journal.last());
        let history = History::read(&journal.documents, outages)?;
        report.cutovers = Some(history.cutovers);
        report.rollbacks = Some(history.rollbacks);
        report.aborted = Some(history.aborted);
        report.hold_ms_max = Some(history.hold_ms_max);
        report.faults.extend(history.faults);
        ensure!(history.cutovers > 0 && history.rollbacks > 0, "writes never moved forth and back");
        Ok(())
    }

    fn unexplained(&self, outages: &[Outage], report: &mut Report) -> Result<u64> {
        let text =
            fs::read_to_string(self.traffic.incidents()).context("the customers wrote no incidents")?;
        let (first, mut count) = (format!("http://{}", self.strangler.proxy), 0);
        for line in text.lines() {
            let incident: Incident = serde_json::from_str(line).context("an incident cannot be read")?;
            let through = if incident.proxy == first { Part::FirstProxy } else { Part::SecondProxy };
            if explain(outages, &incident, through).is_none() {
                count += 1;
                let word = match incident.kind {
                    Kind::Failed => "a request failed",
                    Kind::PutOff => "a write was put off",
                    Kind::Wrong => "an answer was wrong",
                };
                let Incident { from_ms, until_ms, what, .. } = &incident;
                let near = near(outages, *from_ms);
                report
                    .faults
                    .push(format!("{word} through {through}, {from_ms} to {until_ms}: {what} ({near})"));
            }
        }
        Ok(count)
    }
}

/// The last outage that began before, for someone who looks for the reason.
fn near(outages: &[Outage], at_ms: u64) -> String {
    let before = outages.iter().filter(|outage| outage.from_ms <= at_ms).max_by_key(|outage| outage.from_ms);
    before.map_or("nothing was broken before".to_owned(), |outage| {
        let end = outage.until_ms.map_or("still".to_owned(), |end| format!("until {end}"));
        format!("last, {} was {} from {} {end}", outage.part, outage.how.word(), outage.from_ms)
    })
}
