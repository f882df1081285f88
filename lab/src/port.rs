//! Free ports on the loopback interface.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};

/// The system gives none of these to outgoing connections: a server that was killed finds its port free again.
const PORTS: Range<u16> = 15_000..32_000;
const TRIES: usize = 100;

/// A port of 127.0.0.1 on which nothing listens now. This process gets each port once, because who asked for it may
/// not listen yet.
pub fn free_port() -> Result<u16> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    for _ in 0..TRIES {
        let port = rand::random_range(PORTS);
        let is_free = TcpListener::bind(("127.0.0.1", port)).is_ok();
        if is_free && GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(port) {
            return Ok(port);
        }
    }
    bail!("found no free port on 127.0.0.1 in {TRIES} tries")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn no_port_is_given_twice() {
        let ports: BTreeSet<u16> = (0..20).map(|_| super::free_port().unwrap()).collect();
        assert_eq!(ports.len(), 20);
    }
}
