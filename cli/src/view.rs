//! How the live proxies see the upstreams. They are what clients reach; this machine may see others, or none. Pure.

use migrations::api::{AgentStatus, Status};
use migrations::code::Code;
use migrations::control::{ProxyReport, Report};
use migrations::finding::{Finding, Severity};
use migrations::names::ServiceName;
use serde_json::{Value, json};

pub(crate) fn proxies(status: &Status) -> impl Iterator<Item = (&AgentStatus, &ProxyReport)> {
    status.agents.iter().filter(|agent| agent.live).filter_map(|agent| match &agent.report {
        Report::Proxy(proxy) => Some((agent, proxy)),
        Report::Bridge(_) => None,
    })
}

/// Whether live proxies have looked at every upstream.
pub(crate) fn is_known(status: &Status) -> bool {
    let mut proxies = proxies(status).peekable();
    proxies.peek().is_some() && proxies.all(|(_, proxy)| !proxy.is_checking)
}

/// For `up`: each live proxy, and the addresses that it cannot use.
pub(crate) fn document(status: &Status) -> Vec<Value> {
    let proxies = proxies(status);
    proxies
        .map(|(agent, proxy)| json!({ "name": agent.agent.name, "address": agent.address, "unhealthy": proxy.unhealthy }))
        .collect()
}

/// What is wrong with the upstreams: as the live proxies see them, and as this machine does. Where the proxies know, what this
/// machine cannot reach is only a warning.
pub(crate) fn upstreams(
    status: Option<&Status>,
    mut here: Vec<Finding>,
    service: Option<&ServiceName>,
) -> Vec<Finding> {
    let Some(status) = status.filter(|status| is_known(status)) else { return here };
    let is_meant = |finding: &&Finding| {
        finding.code == Code::UpstreamUnwell
            && service.is_none_or(|service| {
                !finding.message.starts_with("service ")
                    || finding.message.starts_with(&format!("service {service} "))
            })
    };
    let seen: Vec<Finding> = status.findings.iter().filter(is_meant).cloned().collect();
    // Of an upstream that the proxies call down, this machine need not say the same.
    let who = |finding: &Finding| finding.message.split(" does not ").next().unwrap_or_default().to_owned();
    here.retain(|finding| !seen.iter().any(|one| finding.message.starts_with(&format!("{} ", who(one)))));
    for finding in &mut here {
        finding.severity = Severity::Warning;
        finding.message.push_str("; the live proxies reach it");
    }
    seen.into_iter().chain(here).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(findings: &[Finding], is_checking: bool) -> Status {
        serde_json::from_value(json!({
            "plan": "shop", "journal": "00000000-0000-0000-0000-000000000000", "generation": 0, "now": 0, "slices": {},
            "findings": findings,
            "agents": [{
                "agent": { "kind": "proxy", "name": "p" }, "address": null, "live": true, "seen_ms_ago": 1, "generation": 0,
                "report": { "proxy": { "answered": {}, "failed": 0, "unhealthy": [], "slices": {}, "is_checking": is_checking } },
            }],
        }))
        .unwrap()
    }

    #[test]
    fn what_the_proxies_see_counts_and_this_machine_only_adds() {
        let here = |who: &str| {
            Finding::error(Code::UpstreamUnreachable, format!("{who} takes no connection at x"), "start it")
        };
        let seen = |who: &str| {
            Finding::error(Code::UpstreamUnwell, format!("{who} does not answer at x"), "start it")
        };
        let found =
            |status: Option<&Status>, here: &[&Finding], service: Option<&str>| -> Vec<(bool, String)> {
                let service = service.map(|name| name.parse().unwrap());
                let here = here.iter().map(|one| (*one).clone()).collect();
                let found = upstreams(status, here, service.as_ref());
                found.into_iter().map(|one| (one.is_error(), one.message)).collect()
            };
        let (monolith, orders) = (here("the monolith"), here("service orders"));
        let down = || vec![(true, "the monolith takes no connection at x".to_owned())];
        assert_eq!(found(None, &[&monolith], None), down());
        assert_eq!(
            found(Some(&status(&[], true)), &[&monolith], None),
            down(),
            "the proxies do not know yet"
        );
        let reached = (false, "the monolith takes no connection at x; the live proxies reach it".to_owned());
        assert_eq!(found(Some(&status(&[], false)), &[&monolith], None), [reached]);
        let both = status(&[seen("the monolith"), seen("service orders"), seen("service stock")], false);
        let answers = |who: &str| (true, format!("{who} does not answer at x"));
        assert_eq!(
            found(Some(&both), &[&monolith, &orders], Some("orders")),
            [answers("the monolith"), answers("service orders")]
        );
        assert_eq!(found(Some(&both), &[], None).len(), 3);
    }
}
