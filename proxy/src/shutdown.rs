//! How a proxy is told to end: by a signal, or by whoever runs it in this process.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

#[derive(Debug)]
pub struct Shutdown(Option<watch::Receiver<Stop>>);

/// Stops a proxy that was started with [`Shutdown::by_hand`]. Dropping it stops the proxy at once.
#[derive(Debug)]
pub struct Stopper(watch::Sender<Stop>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    No,
    Gracefully,
    AtOnce,
}

impl Shutdown {
    pub fn by_signal() -> Self {
        Self(None)
    }

    pub fn by_hand() -> (Stopper, Self) {
        let (sender, receiver) = watch::channel(Stop::No);
        (Stopper(sender), Self(Some(receiver)))
    }
}

impl Stopper {
    /// Takes no new connections. Requests under way may end, for as long as `proxy.drain` says.
    pub fn stop(&self) {
        self.0.send_replace(Stop::Gracefully);
    }

    pub fn stop_at_once(&self) {
        self.0.send_replace(Stop::AtOnce);
    }
}

impl Shutdown {
    /// Waits until the proxy is to end. False: at once.
    pub(crate) async fn asked(&self) -> bool {
        match &self.0 {
            Some(by_hand) => {
                let mut by_hand = by_hand.clone();
                by_hand.wait_for(|stop| *stop != Stop::No).await.is_ok_and(|stop| *stop == Stop::Gracefully)
            }
            None => {
                either_signal().await;
                true
            }
        }
    }

    /// Waits until an end that has begun is to be over at once.
    pub(crate) async fn asked_again(&self) {
        match &self.0 {
            Some(by_hand) => {
                let mut by_hand = by_hand.clone();
                let _ = by_hand.wait_for(|stop| *stop == Stop::AtOnce).await;
            }
            None => either_signal().await,
        }
    }
}

async fn either_signal() {
    let Ok(mut term) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    let Ok(mut interrupt) = signal(SignalKind::interrupt()) else { return std::future::pending().await };
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
}
