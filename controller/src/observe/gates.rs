//! How the gates stand beside the journal, and whether they can be turned.

use super::Look;
use migrations::names::SliceName;
use migrations::preflight::{DatabaseSeen, GateSeen, HeadSeen};
use migrations::sql::Database;
use migrations::stage::Epoch;
use postgres::{gate, in_words};
use std::time::Duration;
use tokio_postgres::{Client, Error};

const HEADS: &str = "SELECT slice, stage->>'stage', epoch, hold IS NOT NULL FROM strangler.slice";
/// As often as a fence is tried, and with its pauses: what a fence would get through is no finding.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(30);

/// Reads the slices' heads and gates into what was seen. A long look turns each gate once, in a transaction that is rolled
/// back.
pub(super) async fn read(
    client: &Client,
    slices: &[&SliceName],
    seen: &mut DatabaseSeen,
    look: Look,
) -> Result<(), Error> {
    if seen.database == Database::Monolith {
        for row in client.query(HEADS, &[]).await? {
            let epoch = Epoch(u64::try_from(row.get::<_, i64>(2)).unwrap_or_default());
            let stage = row.get::<_, Option<String>>(1).unwrap_or_default();
            seen.heads.insert(row.get(0), HeadSeen { stage, epoch, is_held: row.get(3) });
        }
    }
    for slice in slices {
        // An installation that does not know the slice has no gate of it, either.
        let Some(gate) = gate::read(client, slice).await? else { continue };
        let refusal = if look == Look::Long { rehearse(client, slice).await? } else { None };
        seen.gates.insert(slice.as_str().to_owned(), GateSeen { gate, refusal });
    }
    Ok(())
}

/// Why the gate cannot be shut and opened; none if it can.
async fn rehearse(client: &Client, slice: &SliceName) -> Result<Option<String>, Error> {
    let mut refusal = None;
    for _ in 0..TRIES {
        client.batch_execute("BEGIN READ WRITE").await?;
        let tried = gate::rehearse(client, slice).await;
        client.batch_execute("ROLLBACK").await?;
        let Err(error) = tried else { return Ok(None) };
        refusal = Some(in_words(&error));
        if error.code().is_none_or(|code| code.code() != "STR05") {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(refusal)
}
