//! Tables are added to a sink: what is copied into them, and what is kept about the lane, are one transaction.

use super::Sink;
use crate::lane::halt::Halt;
use crate::lane::kept::{self, Kept};
use crate::lane::narrowed::Rooms;
use crate::lane::refusal::superseded;
use migrations::names::TableName;
use migrations::stage::Epoch;
use std::collections::BTreeSet;
use tokio_postgres::Client;

impl Sink {
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// What its mark says.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Begins the transaction that [`Sink::grow`] ends: with the lane's mark, while the gate lets it in.
    pub(crate) async fn stand(&mut self) -> Result<(), Halt> {
        self.begin().await
    }

    /// Commits the rows of added tables with what is kept about the lane from then on. `filled` and `rooms` are theirs.
    pub(crate) async fn grow(
        &mut self,
        kept: &Kept,
        filled: &BTreeSet<TableName>,
        rooms: &Rooms,
    ) -> Result<(), Halt> {
        self.check_constraints().await?;
        if !kept::grow(&self.client, &self.plan.id, kept, filled, rooms).await? {
            return Err(Halt::stop(superseded(&self.plan)));
        }
        self.client.batch_execute("COMMIT").await.map_err(Halt::of)?;
        self.in_transaction = false;
        Ok(())
    }
}
