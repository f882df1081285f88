//! How requests fared at all live proxies, and whether the upstreams are well: rows for the status, and findings.

use migrations::api::{AgentStatus, RouteTraffic};
use migrations::code::Code;
use migrations::control::{ProxyReport, Report};
use migrations::fared::Fared;
use migrations::finding::Finding;
use migrations::gate::Side;
use migrations::names::{RouteName, SliceName};
use migrations::plan::{Plan, Upstream};
use std::collections::BTreeMap;

/// So many requests must have been seen before failures among them are worth a word.
const REQUESTS_MIN: u64 = 20;
/// One failure in so many requests is worth a word.
const FAILURE_IN: u64 = 20;
/// So many findings about routes are shown.
const FINDINGS_MAX: usize = 10;

type Route = Option<(SliceName, RouteName)>;

/// What the live proxies reported, added up.
#[derive(Default)]
pub(super) struct Seen(BTreeMap<(Route, Side), (Fared, f64)>);

impl Seen {
    pub(super) fn of(agents: &[AgentStatus]) -> Self {
        let mut seen = Self::default();
        for proxy in live_proxies(agents) {
            // Soon after a proxy's start, one request would be a high rate.
            let seconds = proxy.window_ms.max(1_000) as f64 / 1_000.0;
            for row in &proxy.fared {
                let (sum, per_second) = seen.0.entry((row.route.clone(), row.side)).or_default();
                sum.add(&row.fared);
                *per_second += row.fared.requests as f64 / seconds;
            }
        }
        seen
    }

    /// The sides that got requests of a route, or of those that match none.
    pub(super) fn traffic(&self, route: &Route) -> Vec<RouteTraffic> {
        let row = |side| {
            let (fared, per_second) = self.0.get(&(route.clone(), side))?;
            Some(RouteTraffic {
                side,
                per_second: *per_second,
                requests: fared.requests,
                errors: fared.errors,
                unanswered: fared.unanswered,
                p99_ms: fared.p99_ms(),
            })
        };
        [Side::Monolith, Side::Service].into_iter().filter_map(row).collect()
    }

    /// The routes of which a side answers too many requests with 5xx, or not at all: those with the most failures.
    pub(super) fn failing(&self, plan: &Plan, is_led: impl Fn(&SliceName) -> bool) -> Vec<Finding> {
        let is_failing = |fared: &Fared| {
            fared.requests >= REQUESTS_MIN && fared.failed().saturating_mul(FAILURE_IN) >= fared.requests
        };
        let mut failing: Vec<_> = self.0.iter().filter(|(_, (fared, _))| is_failing(fared)).collect();
        failing.sort_by_key(|(_, (fared, _))| std::cmp::Reverse(fared.failed()));
        let finding = |((route, side), (fared, _)): (&(Route, Side), &(Fared, f64))| {
            let service =
                route.as_ref().and_then(|(slice, _)| plan.slices.get(slice)).map(|slice| &slice.service);
            let (who, whose) = match (side, service) {
                (Side::Service, Some(service)) => (format!("service {service}"), "the service's"),
                _ => ("the monolith".to_owned(), "the monolith's"),
            };
            let what =
                route.as_ref().map_or("no route".to_owned(), |(slice, route)| format!("{slice}.{route}"));
            let message = format!(
                "{who} failed {} of the last {} requests of {what}: {} with 5xx, {} without an answer",
                fared.failed(),
                fared.requests,
                fared.errors,
                fared.unanswered
            );
            let remedy = match route {
                Some((slice, _)) if *side == Side::Service && !is_led(slice) => {
                    format!(
                        "look at {whose} log; `strangler route set {what} monolith` takes its requests back"
                    )
                }
                Some((slice, _)) if *side == Side::Service => {
                    format!("look at {whose} log; `strangler rollback {slice}` gives the slice back")
                }
                _ => format!("look at {whose} log"),
            };
            Finding::warning(Code::UpstreamErrors, message, remedy)
        };
        failing.into_iter().take(FINDINGS_MAX).map(finding).collect()
    }
}

/// The upstreams of the plan that a live proxy cannot use. One that has no address left is an error.
pub(super) fn unwell(plan: &Plan, agents: &[AgentStatus]) -> Vec<Finding> {
    let services =
        plan.services.iter().map(|(name, service)| (format!("service {name}"), &service.upstreams));
    let upstreams = std::iter::once(("the monolith".to_owned(), &plan.monolith.upstreams)).chain(services);
    upstreams.filter_map(|(who, addresses)| unwell_upstream(&who, addresses, agents)).collect()
}

fn unwell_upstream(who: &str, upstreams: &[Upstream], agents: &[AgentStatus]) -> Option<Finding> {
    let addresses: Vec<String> = upstreams.iter().map(Upstream::to_string).collect();
    let (mut down, mut is_gone, mut proxies, mut of) = (Vec::new(), false, 0, 0);
    for proxy in live_proxies(agents) {
        let mut here: Vec<&String> = addresses.iter().filter(|one| proxy.unhealthy.contains(one)).collect();
        of += 1;
        proxies += u32::from(!here.is_empty());
        is_gone |= here.len() == addresses.len();
        here.retain(|one| !down.contains(one));
        down.extend(here);
    }
    let shown: Vec<&str> = down.iter().map(|one| one.as_str()).collect();
    let message =
        format!("{who} does not answer at {}, as {proxies} of {of} live proxies see it", shown.join(", "));
    let remedy =
        "start it, or correct its `upstream` in the plan; with `proxy.health_path`, it must answer 2xx there";
    if down.is_empty() {
        None
    } else if is_gone {
        Some(Finding::error(Code::UpstreamUnwell, message, remedy))
    } else {
        Some(Finding::warning(Code::UpstreamUnwell, message, remedy))
    }
}

/// The proxies that throw away what a balancer says: an application that insists on https redirects for ever behind them.
pub(super) fn ignoring(agents: &[AgentStatus]) -> Option<Finding> {
    let ignores = |agent: &&AgentStatus| match &agent.report {
        Report::Proxy(proxy) => agent.live && proxy.ignores_forwarded,
        Report::Bridge(_) => false,
    };
    let names: Vec<&str> = agents.iter().filter(ignores).map(|agent| agent.agent.name.as_str()).collect();
    if names.is_empty() {
        return None;
    }
    let message = format!(
        "requests come with X-Forwarded-Proto or Forwarded, and {} does not believe them: applications hear `http`, and one \
         that insists on https redirects for ever",
        names.join(", ")
    );
    let remedy = "if a balancer of yours, where TLS ends, stands in front of every proxy and sets X-Forwarded-Proto and \
                  X-Forwarded-For, write `trust_forwarded: true` under `proxy:` and run `strangler reload`; otherwise clients send this, and \
                  it is right to throw it away";
    Some(Finding::warning(Code::ProxyForwardedIgnored, message, remedy))
}

fn live_proxies(agents: &[AgentStatus]) -> impl Iterator<Item = &ProxyReport> {
    agents.iter().filter(|agent| agent.live).filter_map(|agent| match &agent.report {
        Report::Proxy(proxy) => Some(proxy),
        Report::Bridge(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use migrations::control::{AgentId, AgentKind};
    use migrations::fared::RouteFared;

    fn plan() -> Plan {
        let text = "version: 1\nname: shop\nmonolith: { upstream: ['http://a:1', 'http://a:2'] }\n\
                    services: { orders: { upstream: 'http://b:1' } }\n\
                    slices: { orders: { service: orders, routes: { list: GET /orders } } }\n";
        migrations::plan::check("p", text, &|_| None).unwrap().0
    }

    fn agent(live: bool, proxy: ProxyReport) -> AgentStatus {
        let agent = AgentId { kind: AgentKind::Proxy, name: "p-1-a".to_owned() };
        let report = Report::Proxy(proxy);
        AgentStatus {
            agent,
            address: None,
            live,
            seen_ms_ago: 0,
            generation: None,
            plan: String::new(),
            report,
        }
    }

    fn unhealthy(addresses: &[&str]) -> AgentStatus {
        let unhealthy = addresses.iter().map(|one| (*one).to_owned()).collect();
        agent(true, ProxyReport { unhealthy, ..ProxyReport::default() })
    }

    #[test]
    fn an_upstream_without_an_address_left_is_an_error_and_one_with_some_a_warning() {
        let found = |agents: &[AgentStatus]| unwell(&plan(), agents);
        assert_eq!(found(&[unhealthy(&[]), unhealthy(&["http://elsewhere:1"])]), []);
        let [some] = &found(&[unhealthy(&[]), unhealthy(&["http://a:2"])])[..] else { panic!("one") };
        assert!(
            !some.is_error()
                && some.message.contains("the monolith does not answer at http://a:2, as 1 of 2")
        );
        let [monolith, service] = &found(&[unhealthy(&["http://a:1", "http://a:2", "http://b:1"])])[..]
        else {
            panic!("two")
        };
        assert!(monolith.is_error() && service.is_error() && service.message.starts_with("service orders"));
        let silent = AgentStatus { live: false, ..unhealthy(&["http://b:1"]) };
        assert_eq!(found(&[silent]), []);
    }

    #[test]
    fn a_proxy_that_throws_a_balancers_word_away_is_named() {
        let ignoring_one =
            |live| agent(live, ProxyReport { ignores_forwarded: true, ..ProxyReport::default() });
        assert_eq!(ignoring(&[agent(true, ProxyReport::default()), ignoring_one(false)]), None);
        let found = ignoring(&[ignoring_one(true)]).unwrap();
        assert!(found.message.contains("p-1-a") && found.remedy.contains("trust_forwarded: true"), "{found}");
    }

    #[test]
    fn proxies_are_added_up_and_failures_among_many_requests_are_found() {
        let route = || Some(("orders".parse().unwrap(), "list".parse().unwrap()));
        let proxy = |window_ms, requests, errors, unanswered| {
            let fared = Fared { requests, errors, unanswered, took: vec![0, requests] };
            let fared = vec![RouteFared { route: route(), side: Side::Service, fared }];
            agent(true, ProxyReport { window_ms, fared, ..ProxyReport::default() })
        };
        let seen = Seen::of(&[proxy(10_000, 100, 3, 0), proxy(50_000, 100, 2, 5)]);
        let [row] = &seen.traffic(&route())[..] else { panic!("one side") };
        assert_eq!(
            (row.per_second, row.requests, row.errors, row.unanswered, row.p99_ms),
            (12.0, 200, 5, 5, Some(2))
        );
        assert_eq!(seen.traffic(&None), []);
        let [found] = &seen.failing(&plan(), |_| false)[..] else { panic!("one") };
        assert!(
            found.message.contains("service orders failed 10 of the last 200 requests of orders.list"),
            "{found}"
        );
        assert!(found.remedy.contains("route set orders.list monolith"), "{found}");
        assert!(seen.failing(&plan(), |_| true)[0].remedy.contains("rollback orders"));
        assert_eq!(Seen::of(&[proxy(10_000, 19, 19, 0)]).failing(&plan(), |_| false), [], "too few");
        assert_eq!(Seen::of(&[proxy(10_000, 200, 9, 0)]).failing(&plan(), |_| false), [], "too rare");
    }
}
