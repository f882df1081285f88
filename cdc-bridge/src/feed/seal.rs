//! The seal: a random name that source and log share, so that it is found when one of them was set back to an earlier
//! moment. Positions cannot tell: a server that was set back passes the log's end again, with other changes.
//!
//! The order that survives a crash at any point: the log has the next seal before the source gets it, and keeps the one
//! that the source holds until then. So the source always holds one of the log's two.

use super::source::SourceError;
use migrations::names::PlanName;
use rows::progress::{Seal, Seals};
use tokio_postgres::Client;

/// What a log and a source without a seal begin with is accepted; afterwards the source must hold one of the log's two.
pub(crate) fn is_one_history(log: Option<&Seals>, source: Option<&Seal>) -> bool {
    log.is_none_or(|log| source.is_some_and(|source| *source == log.held || *source == log.next))
}

pub(crate) fn fresh() -> Seal {
    Seal(uuid::Uuid::new_v4().simple().to_string())
}

/// The source holds this seal, and may get another one.
pub(crate) fn after(held: Seal) -> Seals {
    Seals { held, next: fresh() }
}

/// Seals that no source holds. A log with these is never of one history with any source.
pub(crate) fn broken() -> Seals {
    after(fresh())
}

pub(crate) async fn read(client: &Client, plan: &PlanName) -> Result<Option<Seal>, SourceError> {
    let sql = "SELECT seal FROM strangler.seal WHERE plan = $1";
    Ok(client.query_opt(sql, &[&plan.as_str()]).await?.map(|row| Seal(row.get(0))))
}

/// Gives the source its first seal.
pub(crate) async fn place(client: &Client, plan: &PlanName, seal: &Seal) -> Result<(), SourceError> {
    be_durable(client).await?;
    client
        .execute("INSERT INTO strangler.seal (plan, seal) VALUES ($1, $2)", &[&plan.as_str(), &seal.0])
        .await?;
    Ok(())
}

/// Gives the source the next seal. The log must have it already.
pub(crate) async fn renew(client: &Client, plan: &PlanName, seals: &Seals) -> Result<Seals, SourceError> {
    be_durable(client).await?;
    let sql = "UPDATE strangler.seal SET seal = $3, at = clock_timestamp() WHERE plan = $1 AND seal = $2";
    let renewed = client.execute(sql, &[&plan.as_str(), &seals.held.0, &seals.next.0]).await?;
    if renewed != 1 {
        return Err(SourceError::Refused(format!("someone else changed the seal of plan {plan} meanwhile")));
    }
    Ok(after(seals.next.clone()))
}

/// A crash of the server must not take a seal back. A standby is not waited for: a promoted one is another timeline.
async fn be_durable(client: &Client) -> Result<(), SourceError> {
    Ok(client.batch_execute("SET synchronous_commit = local").await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each line is what a crash may leave, in the order of what is written.
    #[test]
    fn a_crash_between_any_two_writes_leaves_one_history() {
        let first = fresh();
        assert!(is_one_history(None, None), "an installation from before there were seals, or a new log");
        assert!(is_one_history(None, Some(&first)), "the source has its first seal");
        let mut seals = after(first);
        for _ in 0..3 {
            assert!(is_one_history(Some(&seals), Some(&seals.held)), "the log has the next one");
            assert!(is_one_history(Some(&seals), Some(&seals.next)), "the source has it, too");
            seals = after(seals.next);
        }
    }

    #[test]
    fn a_side_that_was_set_back_is_of_another_history_and_stays_so() {
        let earlier = after(fresh());
        let now = after(after(earlier.next.clone()).next);
        for source in [&earlier.held, &earlier.next] {
            assert!(!is_one_history(Some(&now), Some(source)), "the source was set back");
        }
        assert!(!is_one_history(Some(&earlier), Some(&now.held)), "the log was set back");
        assert!(!is_one_history(Some(&now), None), "the source was set back to before its first seal");
        assert!(!is_one_history(Some(&broken()), Some(&now.held)));
    }
}
