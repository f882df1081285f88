//! Opens both sides of a lane for a comparison.

use super::barrier::Barrier;
use super::look::Eye;
use super::proof::Sides;
use super::subject::Subject;
use super::table::Table;
use crate::lane::halt::Halt;
use crate::lane::kept;
use migrations::plan;
use migrations::verify::Verification;
use postgres::{connect, in_words};
use tokio::sync::watch;

pub(crate) const APPLICATION: &str = "strangler verify";

/// A table that someone else has locked is not waited for longer at once.
const PATIENT: &str = "SET lock_timeout = '3s'";

/// Connections to both sides, and these tables of the lane as they are now. `report` is told what is waited for.
pub(crate) async fn open(
    subject: &Subject,
    tables: &[plan::Table],
    report: Option<watch::Sender<Verification>>,
) -> Result<(Sides, Vec<Table>), Halt> {
    let lane = &subject.plan;
    let source = subject.feed.source.connect(APPLICATION).await?;
    let sink = connect(&lane.sink, APPLICATION).await?;
    // A barrier that waits for a standby would only come later: it is nobody's data.
    let local = source.batch_execute("SET synchronous_commit = local").await;
    local.map_err(|error| Halt::away(in_words(&error)))?;
    for client in [&source, &sink] {
        client.batch_execute(PATIENT).await.map_err(|error| Halt::away(in_words(&error)))?;
    }
    let copied = kept::load(&sink, &lane.id).await?;
    let copied = copied.ok_or_else(|| Halt::Lost("the sink knows nothing of the copy".to_owned()))?;
    let mut joined = Vec::new();
    for table in tables {
        joined.push(Table::join(lane, table, &copied.shapes, &source, &sink).await?);
    }
    let barrier = Barrier { state: subject.state.clone(), report };
    Ok((Sides::new(Eye::new(source), Eye::new(sink), barrier), joined))
}
