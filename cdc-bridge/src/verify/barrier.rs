//! Barriers of a verification: a message in the source's stream, and the wait until the sink has passed it.

use crate::feed::source;
use crate::lane::halt::Halt;
use crate::lane::state::LaneState;
use migrations::control::Condition;
use migrations::verify::{Course, Verification};
use postgres::in_words;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::Client;

/// A barrier that has not passed by then is given again: a lane that began anew may have forgotten it.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// A lane that follows and gets no further for so long is not waited for: its tables may be locked.
const STANDSTILL: Duration = Duration::from_secs(30);

/// A lane as a verification sees it: how far its sink is.
#[derive(Debug)]
pub(crate) struct Barrier {
    pub(crate) state: watch::Receiver<LaneState>,
    /// Told what is waited for.
    pub(crate) report: Option<watch::Sender<Verification>>,
}

impl Barrier {
    /// Waits until the sink has everything that is committed at the source by now.
    pub(crate) async fn pass(&mut self, source: &Client) -> Result<(), Halt> {
        let mut tokens = Vec::new();
        let mut last = (self.state.borrow().passed, Instant::now());
        loop {
            let token = uuid::Uuid::new_v4().simple().to_string();
            source::barrier(source, &token).await?;
            tokens.push(token);
            let deadline = Instant::now() + AGAIN_AFTER;
            while let Ok(changed) = timeout_at(deadline, self.passed(&tokens)).await {
                if changed? {
                    self.tell(Course::Running);
                    return Ok(());
                }
            }
            self.tell(Course::Waiting { why: self.why() });
            let (passed, follows) = {
                let state = self.state.borrow();
                (state.passed, state.condition == Condition::Following)
            };
            if passed != last.0 || !follows {
                last = (passed, Instant::now());
            } else if last.1.elapsed() >= STANDSTILL {
                return Err(Halt::no_progress(
                    "the sink's database",
                    "the copy is behind, and gets no further",
                ));
            }
        }
    }

    fn tell(&self, course: Course) {
        if let Some(report) = &self.report {
            report.send_if_modified(|report| {
                let is_news = report.course != course;
                report.course = course;
                is_news
            });
        }
    }

    /// Waits until the lane says something else; whether it has passed one of the barriers.
    async fn passed(&mut self, tokens: &[String]) -> Result<bool, Halt> {
        {
            let state = self.state.borrow_and_update();
            if state.tokens.iter().rev().any(|passed| tokens.contains(passed)) {
                return Ok(true);
            }
            match &state.condition {
                Condition::Stopped { finding, .. } => return Err(Halt::stop(finding.clone())),
                Condition::Lost { why, .. } => return Err(Halt::Lost(why.clone())),
                _ => {}
            }
        }
        self.state.changed().await.map_err(|_| Halt::away("the lane has ended"))?;
        Ok(false)
    }

    fn why(&self) -> String {
        match &self.state.borrow().condition {
            Condition::Paused => "the slice is paused".to_owned(),
            Condition::Adding { .. } => "a table is being added to the slice".to_owned(),
            Condition::Waiting { finding } => finding.message.clone(),
            _ => "the copy is behind".to_owned(),
        }
    }
}

/// A number above those of all transactions that have begun to write. The transaction that takes it is over at once.
pub(crate) async fn next_transaction(source: &Client) -> Result<u64, Halt> {
    let row = source.query_one("SELECT pg_current_xact_id()::text", &[]).await;
    let row = row.map_err(|error| Halt::away(in_words(&error)))?;
    row.get::<_, &str>(0).parse().map_err(|_| Halt::away("the source gave no number of a transaction"))
}
