//! Who answers a request, and why: one pure function from what is known to a decision.
//!
//! Knows nothing of HTTP, of cookies or of how the facts were found out.

use migrations::share::Share;

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The system that is left.
    Monolith,
    /// The service that the slice moves to.
    Service,
}

/// Why a side was chosen; part of the access log and of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// No route matches.
    Unmatched,
    /// The client's bucket and the route's share.
    Share,
    /// A tester asked for the side.
    Override,
    /// The client wrote, and the service may not have it yet.
    Wrote,
    /// The client has read newer data at the monolith than the service may have.
    Saw,
    /// The share was raised, and the service may not have what the client read before.
    Raised,
    /// No address of the service passes its health check.
    Unwell,
    /// The service failed before it answered.
    Fallback,
}

impl Why {
    /// Every reason, in the order of [`Why::number`].
    pub const ALL: [Why; 8] = [
        Why::Unmatched,
        Why::Share,
        Why::Override,
        Why::Wrote,
        Why::Saw,
        Why::Raised,
        Why::Unwell,
        Why::Fallback,
    ];

    /// Its word in logs and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Why::Unmatched => "unmatched",
            Why::Share => "share",
            Why::Override => "override",
            Why::Wrote => "wrote",
            Why::Saw => "saw",
            Why::Raised => "raised",
            Why::Unwell => "unwell",
            Why::Fallback => "fallback",
        }
    }

    /// Its place in [`Why::ALL`].
    pub fn number(self) -> usize {
        self as usize
    }
}

/// Why a client must not read from the service now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// It wrote; the barrier of this number must pass first.
    Wrote(u64),
    /// It has seen newer data; the barrier of this number must pass first.
    Saw(u64),
}

/// What is known about a request that matches a route.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// How much of the route goes to the service.
    pub share: Share,
    /// The part of it that needs no barrier any more.
    pub settled: Share,
    /// The client's bucket.
    pub bucket: u16,
    /// Whether the request only reads.
    pub is_read: bool,
    /// Whether the service's data are copied after the monolith's.
    pub follows: bool,
    /// The side that a tester asked for, with the right secret.
    pub asked: Option<Side>,
    /// Whether the client waits for a barrier.
    pub stale: Option<Stale>,
    /// Whether some address of the service is well.
    pub service_is_well: bool,
}

/// Who answers, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// The side.
    pub side: Side,
    /// The reason.
    pub why: Why,
}

/// Decides. Writes of a slice that follows go where the share says whatever a tester asks: its writes move by
/// cutover only.
pub fn decide(case: &Case) -> Decision {
    let monolith = |why| Decision { side: Side::Monolith, why };
    if let Some(side) = case.asked
        && (case.is_read || !case.follows)
    {
        return Decision { side, why: Why::Override };
    }
    if !case.share.takes(case.bucket) {
        return monolith(Why::Share);
    }
    if case.is_read && case.follows {
        match case.stale {
            Some(Stale::Wrote(_)) => return monolith(Why::Wrote),
            Some(Stale::Saw(_)) => return monolith(Why::Saw),
            None if !case.settled.takes(case.bucket) => return monolith(Why::Raised),
            None => {}
        }
    }
    if case.is_read && !case.service_is_well {
        return monolith(Why::Unwell);
    }
    Decision { side: Side::Service, why: Why::Share }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(text: &str) -> Share {
        text.parse().unwrap()
    }

    fn case() -> Case {
        Case {
            share: share("50%"),
            settled: share("50%"),
            bucket: 1,
            is_read: true,
            follows: true,
            asked: None,
            stale: None,
            service_is_well: true,
        }
    }

    fn outcome(case: &Case) -> (Side, Why) {
        let decision = decide(case);
        (decision.side, decision.why)
    }

    #[test]
    fn a_bucket_below_the_share_reads_from_the_service() {
        assert_eq!(outcome(&case()), (Side::Service, Why::Share));
        assert_eq!(outcome(&Case { bucket: 5000, ..case() }), (Side::Monolith, Why::Share));
    }

    #[test]
    fn a_client_that_waits_for_a_barrier_reads_from_the_monolith() {
        assert_eq!(outcome(&Case { stale: Some(Stale::Wrote(3)), ..case() }), (Side::Monolith, Why::Wrote));
        assert_eq!(outcome(&Case { stale: Some(Stale::Saw(3)), ..case() }), (Side::Monolith, Why::Saw));
        assert_eq!(outcome(&Case { settled: Share::MONOLITH, ..case() }), (Side::Monolith, Why::Raised));
        let stateless = Case { follows: false, settled: Share::MONOLITH, ..case() };
        assert_eq!(outcome(&stateless), (Side::Service, Why::Share));
    }

    #[test]
    fn only_reads_leave_an_unwell_service() {
        let unwell = Case { service_is_well: false, ..case() };
        assert_eq!(outcome(&unwell), (Side::Monolith, Why::Unwell));
        assert_eq!(outcome(&Case { is_read: false, ..unwell }), (Side::Service, Why::Share));
    }

    #[test]
    fn a_tester_chooses_for_reads_but_never_moves_a_write_of_a_followed_slice() {
        let asked = Case { asked: Some(Side::Service), bucket: 9999, ..case() };
        assert_eq!(outcome(&asked), (Side::Service, Why::Override));
        assert_eq!(outcome(&Case { is_read: false, ..asked }), (Side::Monolith, Why::Share));
        assert_eq!(
            outcome(&Case { is_read: false, follows: false, ..asked }),
            (Side::Service, Why::Override)
        );
    }

    #[test]
    fn reasons_are_numbered_in_order() {
        assert!(Why::ALL.iter().enumerate().all(|(n, why)| why.number() == n));
    }
}
