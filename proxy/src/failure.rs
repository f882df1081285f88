//! Why no upstream answered a request. Each case has its own consequence.

use crate::descriptors::comes_of_shortage;
use http1::Malformed;
use migrations::code::Code;
use pingora::{Error, ErrorType};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    NoTable,
    /// The write was held for as long as it may. It was not sent.
    HoldExpired,
    /// There is no room for another held write. It was not sent.
    HoldFull,
    /// The request is not HTTP, or two servers could read it in two ways.
    Malformed(Malformed),
    /// Other servers read the path of the request as another route's.
    AmbiguousPath,
    TooLarge,
    /// The client speaks plain HTTP where TLS is spoken.
    NotTls,
    /// The client was too slow to send the request or to take the answer.
    ClientLate,
    ClientLeft,
    Unresolved,
    Refused,
    ConnectLate,
    NoTls,
    /// The upstream closed the connection.
    Broken,
    /// The upstream answered, but not in HTTP that can be passed on.
    BadAnswer(Malformed),
    Late,
    AnswerTooLarge,
    /// The proxy itself has no descriptor, port or place for a connection to the upstream. Nothing was sent.
    Exhausted,
}

impl Failure {
    pub(crate) fn to_connect(error: &Error) -> Failure {
        match error.etype() {
            _ if comes_of_shortage(error) => Failure::Exhausted,
            ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Failure::ConnectLate,
            ErrorType::TLSHandshakeFailure | ErrorType::InvalidCert | ErrorType::HandshakeError => {
                Failure::NoTls
            }
            _ => Failure::Refused,
        }
    }

    /// Where the manual explains it, if it does.
    pub(crate) fn code(self) -> Option<Code> {
        match self {
            Failure::HoldExpired => Some(Code::HoldExpired),
            Failure::HoldFull => Some(Code::HoldFull),
            _ => None,
        }
    }

    /// Whether there was no connection, so that nothing was sent.
    pub(crate) fn is_unconnected(self) -> bool {
        matches!(self, Failure::Unresolved | Failure::Refused | Failure::ConnectLate | Failure::NoTls)
    }

    pub(crate) fn is_upstreams(self) -> bool {
        self.is_unconnected()
            || matches!(
                self,
                Failure::Broken | Failure::BadAnswer(_) | Failure::Late | Failure::AnswerTooLarge
            )
    }

    pub(crate) fn is_late(self) -> bool {
        matches!(self, Failure::ConnectLate | Failure::Late)
    }
}
