//! Free ports on the loopback interface.
//!
//! A port is only known to be free at the moment of asking; the callers bind within seconds. Ports once given out are
//! not given out again by this process.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};

const TRIES: usize = 100;

/// A TCP port of 127.0.0.1 on which nobody listens now.
///
/// # Errors
/// When the system has none to give.
pub fn free() -> Result<u16> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    for _ in 0..TRIES {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("no port is free on 127.0.0.1")?;
        let port = listener.local_addr()?.port();
        if GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(port) {
            return Ok(port);
        }
    }
    bail!("no new port is free on 127.0.0.1")
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_port_is_given_twice() {
        let ports: std::collections::BTreeSet<u16> = (0..20).map(|_| super::free().unwrap()).collect();
        assert_eq!(ports.len(), 20);
    }
}
