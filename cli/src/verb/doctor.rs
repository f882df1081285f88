//! `strangler doctor`: checks that the live systems are ready, and shows how to fix each problem.

use crate::invocation::{Invocation, typed};
use crate::verb::no_slice;
use crate::view;
use migrations::api::Status;
use migrations::code::Code;
use migrations::finding::{Finding, Severity};
use migrations::names::SliceName;
use migrations::plan::{LogChoice, Plan, Slice};
use migrations::preflight::{Aim, Diagnosis, Readiness};
use migrations::problem::Problem;
use serde_json::json;
use std::path::Path;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this slice [default: all slices]
    #[arg(value_parser = typed::<SliceName>)]
    slice: Option<SliceName>,
    /// Fail also if a slice cannot be cut over now. A slice that is followed is always held to it
    #[arg(long)]
    cutover: bool,
}

pub(crate) async fn run(call: &Invocation<'_>, args: &Args) -> Result<(), Problem> {
    let plan = call.plan()?;
    if let Some(slice) = args.slice.as_ref().filter(|slice| !plan.slices.contains_key(*slice)) {
        return Err(no_slice(slice, plan.slices.keys()));
    }
    let mut progress = call.ui.progress();
    progress.state("checking the live systems");
    let mut diagnosis = crate::part::doctor(&plan, args.slice.as_ref()).await;
    // No copy needs an upstream, but its clients do.
    diagnosis.following.retain(|finding| finding.code != Code::UpstreamUnreachable);
    let here = crate::part::upstreams(&plan, args.slice.as_ref()).await;
    let status = running(call).await;
    let service = args.slice.as_ref().and_then(|slice| plan.slices.get(slice)).map(|slice| &slice.service);
    diagnosis.following.extend(view::upstreams(status.as_ref(), here, service));
    diagnosis.following.extend(crate::part::certificates(&plan));
    let seen = status.map(|status| seen_by_proxies(status, &diagnosis.following));
    diagnosis.following.extend(seen.unwrap_or_default());
    diagnosis.following.extend(disk(&plan, call.house().dir()));
    diagnosis.following.extend(crate::part::out_of_reach(&plan.log).await);
    progress.clear();
    let subject =
        args.slice.as_ref().map_or_else(|| format!("plan {}", plan.name), |slice| format!("slice {slice}"));
    for finding in &diagnosis.following {
        show(call, finding);
    }
    if !diagnosis.may_follow() {
        return Err(not_ready(call, args, &subject, "", diagnosis.following));
    }
    call.ui.tick(&format!("{subject}: the live systems are ready"));
    for (slice, readiness) in &diagnosis.cutover {
        show_readiness(call, slice, readiness, args.cutover || readiness.is_next);
    }
    let one_way = if args.cutover { one_way(&plan, args.slice.as_ref()) } else { Vec::new() };
    if !one_way.is_empty() {
        one_way.iter().for_each(|finding| show(call, finding));
        return Err(not_ready(call, args, &subject, " for a cutover", one_way));
    }
    let is_asked = |readiness: &&Readiness| args.cutover || readiness.is_next;
    if diagnosis.cutover.values().filter(is_asked).any(|readiness| !readiness.is_ready()) {
        return Err(not_ready(call, args, &subject, " for a cutover", diagnosis.findings(Aim::Cutover)));
    }
    let next = next(&plan, args.slice.as_ref(), &diagnosis, call.house().up().is_some());
    call.ui.json(&json!({
        "ready": true, "findings": diagnosis.following, "cutover": diagnosis.cutover, "next_steps": next
    }));
    call.ui.next_steps(&next);
    Ok(())
}

/// What the controller says, if one runs.
async fn running(call: &Invocation<'_>) -> Option<Status> {
    call.remote().ok()?.status().await.ok()
}

/// What only running proxies can see: a balancer in front that is not believed, certificates on other machines.
fn seen_by_proxies(status: Status, here: &[Finding]) -> Vec<Finding> {
    let is_known = |one: &Finding| here.iter().any(|known| one.message.ends_with(&known.message));
    let is_meant = |one: &Finding| match one.code {
        Code::ProxyForwardedIgnored => true,
        Code::ProxyCertificate => !is_known(one),
        _ => false,
    };
    status.findings.into_iter().filter(is_meant).collect()
}

/// Slices that can never be cut over as the plan is. Without a name, those that only route are not meant.
fn one_way(plan: &Plan, slice: Option<&SliceName>) -> Vec<Finding> {
    let meant = plan.slices.values().filter(|one| match slice {
        Some(name) => one.name == *name,
        None => !one.tables.is_empty(),
    });
    let found = meant.filter(|one| !one.may_return()).map(|one| {
        let (why, hint) = if one.tables.is_empty() {
            ("it has no tables that move", "share its routes: `strangler route set`")
        } else {
            (
                "a table has `set` and no `reverse`",
                "write `reverse` for it in the plan, then run `strangler install`",
            )
        };
        Finding::error(Code::PlanNoWayBack, format!("slice {} cannot be cut over: {why}", one.name), hint)
    });
    found.collect()
}

/// People see each finding in its place; a failure's document has them all.
fn show(call: &Invocation<'_>, finding: &Finding) {
    if !call.ui.is_json() {
        call.ui.finding(finding);
    }
}

fn show_readiness(call: &Invocation<'_>, slice: &SliceName, readiness: &Readiness, is_asked: bool) {
    call.ui.line(format!("for a cutover of {slice}:"));
    for precondition in &readiness.preconditions {
        let findings = match is_asked || call.ui.is_verbose() {
            true => precondition.findings.clone(),
            false => folded(slice, &precondition.findings),
        };
        findings.iter().for_each(|finding| show(call, finding));
        if precondition.is_met() {
            call.ui.tick(&precondition.says);
        }
    }
}

/// Long before a cutover nobody shall remove foreign keys yet: they are counted, and the statements are left out.
fn folded(slice: &SliceName, findings: &[Finding]) -> Vec<Finding> {
    let is_key = |finding: &&Finding| finding.code == Code::SourceForeignKeyAcross;
    let (keys, others): (Vec<&Finding>, Vec<&Finding>) = findings.iter().partition(is_key);
    let mut folded: Vec<Finding> = others.into_iter().cloned().collect();
    if let Some(first) = keys.first() {
        let removed = keys.iter().filter(|key| key.is_error()).count();
        let message = format!(
            "{} foreign keys lead over the border of slice {slice}, and {removed} of them must go before a cutover",
            keys.len()
        );
        let remedy = format!("nothing is to be done now; `strangler doctor {slice} --verbose` lists them");
        folded.push(Finding { message, remedy, severity: severest(&keys, first), ..(*first).clone() });
    }
    folded
}

fn severest(findings: &[&Finding], first: &Finding) -> Severity {
    findings.iter().find(|finding| finding.is_error()).map_or(first.severity, |finding| finding.severity)
}

fn not_ready(
    call: &Invocation<'_>,
    args: &Args,
    subject: &str,
    what: &str,
    findings: Vec<Finding>,
) -> Problem {
    let errors = findings.iter().filter(|finding| finding.is_error()).count();
    let errors = if errors == 1 { "1 error".to_owned() } else { format!("{errors} errors") };
    let slice = args.slice.as_ref().map(|slice| format!(" {slice}")).unwrap_or_default();
    let option = if args.cutover { " --cutover" } else { "" };
    let problem = Problem::new(
        Code::SliceNotReady,
        format!("{subject}: not ready{what}, {errors}"),
        format!("fix each finding marked ✗, then run `strangler doctor{slice}{option}` again"),
    );
    if call.ui.is_json() { problem.with(findings) } else { problem }
}

/// The disk must have room for the largest size of the embedded log.
fn disk(plan: &Plan, folder: &Path) -> Option<Finding> {
    let LogChoice::Embedded { bytes_max } = plan.log else { return None };
    if plan.slices.values().all(Slice::is_stateless) {
        return None;
    }
    // `up` makes the folder. Until then its nearest existing parent is on the same disk.
    let place = folder.ancestors().find(|place| place.exists())?;
    let disk = nix::sys::statvfs::statvfs(place).ok()?;
    too_small(bytes_max, disk.blocks_available() * disk.fragment_size(), folder)
}

fn too_small(bytes_max: u64, free: u64, folder: &Path) -> Option<Finding> {
    (free < bytes_max).then(|| {
        Finding::warning(
            Code::HouseDisk,
            format!(
                "the embedded log may grow to {} MiB, but the disk of {} has {} MiB free",
                bytes_max >> 20,
                folder.display(),
                free >> 20
            ),
            "free some space, or set a smaller `log: { embedded: { max: … } }` in the plan",
        )
    })
}

fn next(plan: &Plan, slice: Option<&SliceName>, diagnosis: &Diagnosis, is_up: bool) -> Vec<String> {
    if !is_up {
        return vec!["strangler up --detach".to_owned()];
    }
    let with_tables = plan.slices.values().filter(|candidate| !candidate.is_stateless());
    let mut named = with_tables.filter(|candidate| slice.is_none_or(|slice| *slice == candidate.name));
    let Some(slice) = named.next().map(|slice| &slice.name) else {
        return vec!["strangler status".to_owned()];
    };
    if diagnosis.cutover.get(slice).is_some_and(|readiness| readiness.is_next) {
        return vec![format!("strangler rehearse {slice}"), format!("strangler cutover {slice}")];
    }
    vec![format!("strangler sync start {slice}")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_the_log_may_fill_is_told_before_it_is_full() {
        let folder = Path::new(".strangler");
        assert_eq!(too_small(8 << 30, 8 << 30, folder), None);
        let finding = too_small(8 << 30, 100 << 20, folder).unwrap();
        assert!(finding.message.contains("8192 MiB") && finding.message.contains("100 MiB"), "{finding}");
    }

    #[test]
    fn foreign_keys_are_counted_long_before_a_cutover() {
        let orders: SliceName = "orders".parse().unwrap();
        let key = |n: u32| {
            let remedy = "ALTER TABLE lines DROP CONSTRAINT lines_fk;";
            Finding::error(Code::SourceForeignKeyAcross, format!("key {n}"), remedy)
        };
        let may_stay = Finding::warning(Code::SourceForeignKeyAcross, "key 3", "");
        let other = Finding::warning(Code::SourceUnmarkedTrigger, "a trigger", "");
        let [first, second] = &folded(&orders, &[key(1), other.clone(), key(2), may_stay])[..] else {
            panic!("two")
        };
        assert_eq!(first, &other);
        assert!(
            second.is_error()
                && second.message.starts_with("3 foreign keys")
                && second.message.contains("2 of them")
        );
        assert!(!second.remedy.contains("DROP") && second.remedy.contains("--verbose"), "{second}");
        assert_eq!(folded(&orders, std::slice::from_ref(&other)), [other]);
    }

    #[test]
    fn a_slice_without_a_way_back_is_never_ready_for_a_cutover() {
        let plan = |tables: &str| {
            let text = format!(
                "version: 1\nname: shop\nmonolith: {{ upstream: 'http://127.0.0.1:1', database: 'postgres://u@h/m' }}\n\
                 services: {{ orders: {{ upstream: 'http://127.0.0.1:2', database: 'postgres://u@h/s' }} }}\n\
                 slices: {{ orders: {{ service: orders, routes: {{ list: GET /orders }}{tables} }} }}\n"
            );
            migrations::plan::check("strangler.yaml", &text, &|_| None).unwrap().0
        };
        let orders: SliceName = "orders".parse().unwrap();
        let found = |tables: &str, slice| one_way(&plan(tables), slice).len();
        assert_eq!(found(", tables: [public.orders]", Some(&orders)), 0);
        let set = ", tables: [{ from: public.orders, set: { cents: 'total * 100' } }]";
        assert_eq!((found(set, Some(&orders)), found(set, None)), (1, 1));
        assert_eq!((found("", Some(&orders)), found("", None)), (1, 0));
    }

    #[test]
    fn only_an_embedded_log_of_tables_asks_for_a_disk() {
        let plan = |log: &str, tables: &str| {
            let text = format!(
                "version: 1\nname: shop\nmonolith: {{ upstream: 'http://127.0.0.1:1', database: 'postgres://u@h/m' }}\n\
                 services: {{ orders: {{ upstream: 'http://127.0.0.1:2', database: 'postgres://u@h/s' }} }}\n\
                 slices: {{ orders: {{ service: orders, routes: {{ list: GET /orders }}{tables} }} }}\n{log}"
            );
            migrations::plan::check("strangler.yaml", &text, &|_| None).unwrap().0
        };
        let (here, tables) = (Path::new("/"), ", tables: [public.orders]");
        let kafka = "log: { kafka: { brokers: 'localhost:9092' } }";
        assert_eq!(disk(&plan(kafka, tables), here), None);
        let log = "log: { embedded: { max: 1024GiB } }";
        assert_eq!(disk(&plan(log, ""), here), None);
        let root = nix::sys::statvfs::statvfs("/").unwrap();
        let fits = root.blocks_available() * root.fragment_size() >= 1 << 40;
        assert_eq!(disk(&plan(log, tables), here).is_none(), fits);
    }
}
