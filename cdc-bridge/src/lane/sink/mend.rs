//! Mends rows that a verification has proven to differ: in a transaction of the lane, with its mark, while the gate is shut.
//!
//! Between two batches the sink is exactly a prefix of the source's transactions. The proof says that the source's row, as
//! it was read, is the row of that prefix, unless the lane has changed it since. A row that the lane has changed since is
//! left alone. A later change of the row comes later in the stream, and finds the mended row.

use super::Sink;
use crate::lane::changed::Changed;
use crate::lane::halt::Halt;
use crate::lane::mending::{Deed, Mend, MendRow};
use crate::lane::refusal::RowError;
use postgres::in_words;
use rows::change::Relation;
use rows::reduce::TableRows;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl Sink {
    /// Whether rows may be mended now: not in the middle of a large transaction.
    pub(crate) fn is_between(&self) -> bool {
        !self.in_transaction
    }

    pub(crate) async fn mend(&mut self, mend: Mend, changed: &Changed) -> Result<(), Halt> {
        let mended = self.mend_inner(&mend, changed).await;
        if mended.is_err() && self.in_transaction {
            self.in_transaction = false;
            let _ = self.client.batch_execute("ROLLBACK").await;
        }
        let mended = mended?;
        // Who asked may have stopped.
        let _ = mend.answer.send(mended);
        Ok(())
    }

    async fn mend_inner(&mut self, mend: &Mend, changed: &Changed) -> Result<Vec<Option<String>>, Halt> {
        let mut refused = Vec::with_capacity(mend.rows.len());
        self.begin().await?;
        for row in &mend.rows {
            if changed.is_touched(&mend.relation.table, &row.key, mend.since) {
                refused.push(Some("it changed meanwhile".to_owned()));
                continue;
            }
            self.client.batch_execute("SAVEPOINT mend").await.map_err(Halt::of)?;
            match self.mend_row(&mend.relation, row).await {
                Ok(()) => {
                    self.client.batch_execute("RELEASE mend").await.map_err(Halt::of)?;
                    refused.push(None);
                }
                Err(error) if error.is_about_rows() => {
                    self.client.batch_execute("ROLLBACK TO mend").await.map_err(Halt::of)?;
                    refused.push(Some(words(&error)));
                }
                Err(error) => return Err(error.into_halt()),
            }
        }
        self.client.batch_execute("COMMIT").await.map_err(Halt::of)?;
        self.in_transaction = false;
        Ok(refused)
    }

    async fn mend_row(&mut self, relation: &Arc<Relation>, row: &MendRow) -> Result<(), RowError> {
        let mut rows = TableRows {
            relation: relation.clone(),
            inserts: Vec::new(),
            updates: BTreeMap::new(),
            deletes: Vec::new(),
        };
        match &row.deed {
            Deed::Insert(tuple) => {
                rows.inserts.push(tuple.clone());
                self.insert(&rows).await?;
            }
            Deed::Update(tuple) => {
                rows.updates.insert(BTreeSet::new(), vec![tuple.clone()]);
                self.update(&rows).await?;
            }
            Deed::Delete(tuple) => {
                rows.deletes.push(tuple.clone());
                self.delete(&rows).await?;
            }
        }
        // What is deferred would otherwise refuse all rows at the end.
        let check = "SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED";
        Ok(self.client.batch_execute(check).await?)
    }
}

fn words(error: &RowError) -> String {
    match error {
        RowError::Db(error) => in_words(error),
        _ => "the row to change is not there".to_owned(),
    }
}
