//! Why a request was not answered by an upstream, told apart by what follows from it.

use http1::Malformed;
use pingora::{Error, ErrorType};

/// What went wrong, and on whose side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// There is no table yet.
    NoTable,
    /// The request is not HTTP, or could be read in two ways.
    Malformed(Malformed),
    /// The request's body is larger than the plan allows.
    TooLarge,
    /// The request, or its acceptance of the answer, did not come in time.
    ClientLate,
    /// The client is gone.
    ClientLeft,
    /// The upstream's name is not known.
    Unresolved,
    /// The upstream cannot be connected to.
    Refused,
    /// Connecting took too long.
    ConnectLate,
    /// The upstream cannot be spoken to over TLS.
    NoTls,
    /// The upstream broke off, or its answer is not HTTP.
    Broken,
    /// The upstream did not answer in time.
    Late,
    /// The upstream's answer is larger than the plan allows.
    AnswerTooLarge,
}

impl Failure {
    /// Why an upstream could not be connected to.
    pub fn to_connect(error: &Error) -> Failure {
        match error.etype() {
            ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Failure::ConnectLate,
            ErrorType::TLSHandshakeFailure | ErrorType::InvalidCert | ErrorType::HandshakeError => {
                Failure::NoTls
            }
            _ => Failure::Refused,
        }
    }

    /// Whether nothing was sent, because nobody could be sent to.
    pub fn is_unconnected(self) -> bool {
        matches!(self, Failure::Unresolved | Failure::Refused | Failure::ConnectLate | Failure::NoTls)
    }

    /// Whether it is the upstream's.
    pub fn is_upstreams(self) -> bool {
        self.is_unconnected() || matches!(self, Failure::Broken | Failure::Late | Failure::AnswerTooLarge)
    }

    /// Whether something took too long.
    pub fn is_late(self) -> bool {
        matches!(self, Failure::ConnectLate | Failure::Late)
    }
}
