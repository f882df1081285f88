//! A client's own connections to upstreams, between two of its requests.
//!
//! They serve no other client. An upstream may send more bytes than it was asked for, and late. On a shared connection, another
//! client would get these bytes as its answer.

use crate::connection::Connection;
use crate::upstream::{Pool, Target};
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

/// A client has at most one for each side that it uses.
const OWN_MAX: usize = 2;
/// A client's own connections are closed when it is silent for longer. Otherwise each idle client would keep a connection of the
/// upstream busy. The client's next request opens a new one.
pub(crate) const OWN_IDLE_MAX: Duration = Duration::from_secs(4);

/// The connections that rest between two requests of one client.
#[derive(Default)]
pub(crate) struct Own(Vec<(Arc<Target>, Connection)>);

impl Own {
    pub(crate) fn keep(&mut self, target: Arc<Target>, connection: Connection) {
        if let Some(connection) = connection.at_rest() {
            if self.0.len() >= OWN_MAX {
                self.0.remove(0);
            }
            self.0.push((target, connection));
        }
    }

    pub(crate) fn take(&mut self, target: &Arc<Target>) -> Option<Connection> {
        let at = self.0.iter().position(|(of, _)| Arc::ptr_eq(of, target))?;
        let (target, mut connection) = self.0.remove(at);
        connection.is_fit(target.address(), OWN_IDLE_MAX).then_some(connection)
    }

    /// The address of the pool to which a connection rests: the client stays at it. If all clients took turns at all addresses, they
    /// would need a connection to each.
    pub(crate) fn target_of(&self, pool: &Pool) -> Option<&Arc<Target>> {
        let is_of = |target: &Arc<Target>| pool.targets.iter().any(|of| Arc::ptr_eq(of, target));
        self.0.iter().map(|(target, _)| target).find(|target| target.is_well() && is_of(target))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Closes them.
    pub(crate) fn clear(&mut self) {
        self.0 = Vec::new();
    }

    /// Closes those that are no longer quiet, and wakes the task for the others.
    pub(crate) fn watch(&mut self, cx: &mut Context<'_>) {
        self.0.retain_mut(|(_, connection)| connection.rests_on(cx));
    }
}
