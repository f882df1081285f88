//! Who answers a request, and why: one pure function from facts to a decision.
//!
//! It does not know HTTP, cookies, or how the facts were found.

use migrations::share::Share;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Monolith,
    Service,
}

/// Why a side was chosen. The access log and a metric show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    Unmatched,
    /// The plan keeps the route at the monolith.
    Pinned,
    Share,
    Override,
    /// The client wrote, and the service may not have the write yet.
    Wrote,
    /// The client read newer data at the monolith than the service may have.
    Saw,
    Raised,
    /// Every read needs proof that the service has caught up, and it did not come in time.
    Behind,
    /// No controller has confirmed the table lately, and the service's copy may be given up by now.
    Alone,
    /// A controller says that the service's copy is too old to be read.
    Old,
    Unwell,
    Fallback,
    /// The service answered a read with 5xx.
    Erred,
    /// Writes of the slice are held, and this one was not sent.
    Held,
    /// The request may not be forwarded, so the proxy itself answers.
    Here,
}

impl Why {
    pub(crate) const ALL: [Why; 15] = [
        Why::Unmatched,
        Why::Pinned,
        Why::Share,
        Why::Override,
        Why::Wrote,
        Why::Saw,
        Why::Raised,
        Why::Behind,
        Why::Alone,
        Why::Old,
        Why::Unwell,
        Why::Fallback,
        Why::Erred,
        Why::Held,
        Why::Here,
    ];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Why::Unmatched => "unmatched",
            Why::Pinned => "pinned",
            Why::Share => "share",
            Why::Override => "override",
            Why::Wrote => "wrote",
            Why::Saw => "saw",
            Why::Raised => "raised",
            Why::Behind => "behind",
            Why::Alone => "alone",
            Why::Old => "old",
            Why::Unwell => "unwell",
            Why::Fallback => "fallback",
            Why::Erred => "erred",
            Why::Held => "held",
            Why::Here => "here",
        }
    }

    /// The index in [`Why::ALL`].
    pub(crate) fn number(self) -> usize {
        self as usize
    }
}

/// Why a client must not read from the service now, and the barrier that must pass first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stale {
    Wrote(u64),
    Saw(u64),
    /// Nobody knows what the client has seen.
    Unknown(u64),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) share: Share,
    /// The part of the share that no longer needs a barrier.
    pub(crate) settled: Share,
    pub(crate) bucket: u16,
    pub(crate) is_read: bool,
    /// Whether the service's data follow the monolith's.
    pub(crate) follows: bool,
    /// Whether the monolith's data are behind the service's.
    pub(crate) leads: bool,
    /// Whether no controller has confirmed the table lately.
    pub(crate) is_alone: bool,
    /// Whether the controller says that the copy is too old, or that the route was taken back in an emergency.
    pub(crate) is_old: bool,
    /// The side that a tester with the right secret asked for.
    pub(crate) asked: Option<Side>,
    pub(crate) stale: Option<Stale>,
    pub(crate) service_is_well: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) side: Side,
    pub(crate) why: Why,
}

/// In a slice that follows, writes ignore what a tester asks: only a cutover moves them.
pub(crate) fn decide(case: &Case) -> Decision {
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
            Some(Stale::Unknown(_)) => return monolith(Why::Behind),
            None if case.is_alone => return monolith(Why::Alone),
            None if case.is_old => return monolith(Why::Old),
            None if !case.settled.takes(case.bucket) => return monolith(Why::Raised),
            None => {}
        }
    }
    // It has no tables: a controller says this only because somebody took it back. What the service owns is never taken back.
    if case.is_old && !case.follows && !case.leads {
        return monolith(Why::Old);
    }
    if case.is_read && !case.leads && !case.service_is_well {
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
            leads: false,
            is_alone: false,
            is_old: false,
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
        assert_eq!(
            outcome(&Case { stale: Some(Stale::Unknown(3)), ..case() }),
            (Side::Monolith, Why::Behind)
        );
        assert_eq!(outcome(&Case { settled: Share::MONOLITH, ..case() }), (Side::Monolith, Why::Raised));
        let stateless = Case { follows: false, settled: Share::MONOLITH, ..case() };
        assert_eq!(outcome(&stateless), (Side::Service, Why::Share));
    }

    #[test]
    fn a_copy_is_not_read_while_nobody_says_that_it_still_is_one_or_that_it_is_too_old() {
        let alone = Case { is_alone: true, ..case() };
        let old = Case { is_old: true, ..case() };
        for (kept_back, why) in [(alone, Why::Alone), (old, Why::Old)] {
            assert_eq!(outcome(&kept_back), (Side::Monolith, why));
            let owned = Case { follows: false, leads: true, ..kept_back };
            assert_eq!(outcome(&owned), (Side::Service, Why::Share));
            let without_tables = Case { leads: false, ..owned };
            let (side, why) =
                if why == Why::Old { (Side::Monolith, why) } else { (Side::Service, Why::Share) };
            assert_eq!(outcome(&without_tables), (side, why), "it has no tables");
            assert_eq!(outcome(&Case { is_read: false, ..without_tables }), (side, why), "a write likewise");
        }
    }

    #[test]
    fn only_reads_leave_an_unwell_service_and_none_of_a_slice_that_it_owns() {
        let unwell = Case { service_is_well: false, ..case() };
        assert_eq!(outcome(&unwell), (Side::Monolith, Why::Unwell));
        assert_eq!(outcome(&Case { is_read: false, ..unwell }), (Side::Service, Why::Share));
        let owned = Case { follows: false, leads: true, ..unwell };
        assert_eq!(outcome(&owned), (Side::Service, Why::Share));
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
