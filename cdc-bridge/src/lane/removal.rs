//! A slice's copy is given up: its rows, what is kept about it, its gates, its topics.
//!
//! The other half of [`Stream`]; it waits for capture to let go of what is taken away.

use super::Stream;
use super::filled;
use super::halt::Halt;
use super::kept::{self, Origin};
use super::sink::{Sink, SinkError};
use super::state::State;
use crate::feed::source::SourceError;
use crate::log::Owner;
use migrations::control::Condition;
use migrations::gate;
use migrations::journal::Generation;
use migrations::names::TableName;
use migrations::stage::{Epoch, Stage};
use std::collections::BTreeSet;

impl Stream<'_> {
    /// Undoes `sync start`: the copied rows, what is kept about them, the gates, the topics. Nothing to do where
    /// nothing is kept.
    pub(crate) async fn take_away(&self, epoch: Epoch) -> Result<(), Halt> {
        let context = self.context;
        self.state.send_modify(|state| *state = State { changes: state.changes, ..State::new() });
        if self.order.attempt == Generation(0) && matches!(self.order.stage, Stage::Monolith) {
            // No copy was ever begun, or `sync drop` was; only what is kept in the sink tells the two apart.
            let client = Sink::enter(&context.sink, &context.slice).await?;
            if let Some(origin) = kept::origin(&client, &context.slice).await? {
                self.set(Condition::Waiting { why: "the copy is being taken away".to_owned() });
                let source = context.source.connect("strangler").await.map_err(SourceError::from)?;
                // No chunk of a copy that lost its lock comes behind this.
                kept::hold(&client, &context.slice, "").await?;
                filled::give_up(&client, &context.slice, epoch, &origin.filled).await?;
                let own = self.released().await?;
                if self.is_filled_from(&origin).await? {
                    context.log.forget(&own).await?;
                }
                for client in [&source, &client] {
                    client.batch_execute(&gate::unmake(&context.slice.name)).await.map_err(SinkError::of)?;
                }
                kept::forget(&client, &context.slice).await?;
            }
        }
        self.set(Condition::Idle);
        Ok(())
    }

    /// Whether the present log is the one that the slice was filled from, or its successor, and not somebody else's that
    /// the plan was given meanwhile.
    async fn is_filled_from(&self, origin: &Origin) -> Result<bool, Halt> {
        let is_known = origin.log == self.context.log.id();
        Ok(match self.context.log.owner().await? {
            None | Some(Owner::Nobody | Owner::Us) => true,
            Some(Owner::Server(filled_from)) => is_known || filled_from == origin.system_id,
            Some(Owner::Unknown | Owner::Other(_)) => is_known,
        })
    }

    /// The slice's tables that no other slice follows. Capture is told before the streams are.
    fn unshared(&self) -> Result<BTreeSet<TableName>, Halt> {
        match &*self.context.wanted.borrow() {
            Some(wanted) => Ok(self.tables().difference(&wanted.tables).cloned().collect()),
            None => Err(Halt::Away("the bridge is ending".to_owned())),
        }
    }

    /// Waits until capture writes none of the tables that only this slice needed, and tells which these are: what it has
    /// in flight would wait for a topic that is gone. A table that another slice begins to follow meanwhile is no longer
    /// waited for.
    async fn released(&self) -> Result<BTreeSet<TableName>, Halt> {
        let (mut capture, mut wanted) = (self.context.capture.clone(), self.context.wanted.clone());
        loop {
            wanted.mark_unchanged();
            let own = self.unshared()?;
            tokio::select! {
                free = capture.wait_for(|status| status.touched.is_disjoint(&own)) => {
                    free.map(drop).map_err(|_| Halt::Away("capture has ended".to_owned()))?;
                    return Ok(own);
                }
                more = wanted.changed() => more.map_err(|_| Halt::Away("the bridge is ending".to_owned()))?,
            }
        }
    }
}
