//! How many file descriptors the proxy may use, and for what.
//!
//! A client's connection, and the connection to an upstream that its request needs, take one each. What else the proxy opens
//! has a reserve: listeners, health checks, the admin port, the controller, the log.

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The most client connections, if the plan does not set `proxy.max_connections`.
const CLIENTS_MAX: usize = 65_536;
/// The reserve: this many descriptors, and one of every 32 of the limit.
const RESERVE: usize = 64;
const RESERVE_SHARE: usize = 32;
/// The fewest client connections. If the limit of open files is very low, they use up the reserve.
const CLIENTS_MIN: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Clients' connections.
    pub(crate) clients: usize,
    /// Connections to upstreams that rest between two requests.
    pub(crate) kept: usize,
    /// Connections to upstreams whose clients have left, with writes under way.
    pub(crate) outliving: usize,
}

impl Bounds {
    /// As many as fit under a limit of open files, and at most as many as the plan says.
    pub(crate) fn of(limit: usize, wanted: Option<usize>) -> Self {
        let usable = limit.saturating_sub(RESERVE + limit / RESERVE_SHARE);
        // Sixteen clients take 32 descriptors, with four for connections that rest, and one for a write that outlives its
        // client.
        let most = (usable.saturating_mul(16) / 37).max(CLIENTS_MIN);
        let clients = wanted.unwrap_or(CLIENTS_MAX).min(most);
        if wanted.is_some_and(|wanted| wanted > clients) {
            tracing::warn!(
                clients,
                limit,
                "the limit of open files is too low for `proxy.max_connections`; raise it (`ulimit -n`) to two and a half \
                 times that number"
            );
        }
        Self { clients, kept: (clients / 4).max(1), outliving: (clients / 16).max(1) }
    }
}

/// Raises this process's limit of open files as far as it may. Returns the limit.
pub(crate) fn raised_limit() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 1024 };
    let is_raised = soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    usize::try_from(if is_raised { hard } else { soft }).unwrap_or(usize::MAX)
}

/// Whether this machine or process has no descriptor, port or buffer left for a connection. It says nothing about the other
/// side.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    let short = [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM, Errno::EADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| short.contains(&Errno::from_raw(code)))
}

/// Whether such an error lies behind this one.
pub(crate) fn comes_of_shortage(error: &pingora::Error) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error.root_cause());
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(is_shortage) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The connections to upstreams: how many there are, how many of them rest, and how many outlive their clients. Each client has
/// room for one, whatever the others do.
#[derive(Debug)]
pub(crate) struct Budget {
    open: Arc<Share>,
    kept: Arc<Share>,
    outliving: Arc<Share>,
}

#[derive(Debug)]
struct Share {
    places: usize,
    taken: AtomicUsize,
}

/// One place of a share, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<Share>);

/// A place for a connection to an upstream.
#[derive(Debug)]
pub(crate) struct Lease {
    budget: Arc<Budget>,
    _open: Place,
}

impl Budget {
    pub(crate) fn new(bounds: Bounds) -> Arc<Self> {
        let Bounds { clients, kept, outliving } = bounds;
        let share = |places| Arc::new(Share { places, taken: AtomicUsize::new(0) });
        let open = share(clients + kept + outliving);
        Arc::new(Self { open, kept: share(kept), outliving: share(outliving) })
    }

    /// `None` if there are as many as there may be.
    pub(crate) fn lease(self: &Arc<Self>) -> Option<Lease> {
        Some(Lease { _open: self.open.take()?, budget: self.clone() })
    }
}

impl Share {
    fn take(self: &Arc<Self>) -> Option<Place> {
        let place = Place(self.clone());
        let before = self.taken.fetch_add(1, Relaxed);
        (before < self.places).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Relaxed);
    }
}

impl Lease {
    /// A place for a rest. `None` if too many rest already.
    pub(crate) fn rest(&self) -> Option<Place> {
        self.budget.kept.take()
    }

    /// A place without a client. `None` if too many have outlived theirs already.
    pub(crate) fn outlive(&self) -> Option<Place> {
        self.budget.outliving.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_finds_a_descriptor_for_its_upstream() {
        for limit in [0, 100, 256, 1024, 20_000, 1 << 20, usize::MAX] {
            for wanted in [None, Some(1), Some(300), Some(usize::MAX)] {
                let bounds = Bounds::of(limit, wanted);
                assert!(bounds.clients >= 1 && bounds.clients <= wanted.unwrap_or(CLIENTS_MAX), "{bounds:?}");
                if limit >= 256 {
                    let used = bounds.clients.saturating_mul(2) + bounds.kept + bounds.outliving;
                    assert!(used <= limit - RESERVE, "{bounds:?} of {limit}");
                }
            }
        }
        assert_eq!(Bounds::of(1024, None), Bounds { clients: 401, kept: 100, outliving: 25 });
    }

    #[test]
    fn the_limit_of_open_files_is_raised_as_far_as_it_may() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard / 2, hard).unwrap();
        assert_eq!(raised_limit() as u64, hard);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap().0, hard);
    }

    #[test]
    fn places_are_given_back() {
        let budget = Budget::new(Bounds { clients: 1, kept: 1, outliving: 1 });
        let leases = [(); 3].map(|()| budget.lease().unwrap());
        assert!(budget.lease().is_none());
        let (rest, alone) = (leases[0].rest().unwrap(), leases[1].outlive().unwrap());
        assert!(leases[1].rest().is_none() && leases[2].outlive().is_none());
        drop((leases, rest, alone));
        assert!(budget.lease().is_some_and(|lease| lease.rest().is_some()));
    }

    #[test]
    fn only_what_this_side_lacks_is_a_shortage() {
        for (code, is_short) in
            [(Errno::EMFILE, true), (Errno::EADDRNOTAVAIL, true), (Errno::ECONNREFUSED, false)]
        {
            let error = io::Error::from_raw_os_error(code as i32);
            assert_eq!(is_shortage(&error), is_short, "{error}");
            let wrapped = pingora::Error::because(pingora::ErrorType::ConnectError, "", error);
            assert_eq!(comes_of_shortage(&wrapped.more_context("a name")), is_short);
        }
    }
}
