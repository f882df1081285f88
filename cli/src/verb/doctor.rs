//! `strangler doctor`: checks that the live systems are ready, and shows how to fix each problem.

use crate::invocation::{Invocation, typed};
use crate::verb::no_slice;
use migrations::code::Code;
use migrations::finding::Finding;
use migrations::names::SliceName;
use migrations::plan::{LogChoice, Plan, Slice};
use migrations::problem::Problem;
use serde_json::json;
use std::path::Path;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this slice [default: all slices]
    #[arg(value_parser = typed::<SliceName>)]
    slice: Option<SliceName>,
}

pub(crate) async fn run(call: &Invocation<'_>, args: &Args) -> Result<(), Problem> {
    let plan = call.plan()?;
    if let Some(slice) = args.slice.as_ref().filter(|slice| !plan.slices.contains_key(*slice)) {
        return Err(no_slice(slice, plan.slices.keys()));
    }
    let mut progress = call.ui.progress();
    progress.state("checking the live systems");
    let mut findings = crate::part::doctor(&plan, args.slice.as_ref()).await;
    findings.extend(disk(&plan, call.house().dir()));
    progress.clear();
    let errors = findings.iter().filter(|finding| finding.is_error()).count();
    let subject =
        args.slice.as_ref().map_or_else(|| format!("plan {}", plan.name), |slice| format!("slice {slice}"));
    if errors > 0 {
        let errors = if errors == 1 { "1 error".to_owned() } else { format!("{errors} errors") };
        return Err(Problem::new(
            Code::SliceNotReady,
            format!("{subject}: not ready, {errors}"),
            "fix each finding marked ✗, then run `strangler doctor` again",
        )
        .with(findings));
    }
    for finding in &findings {
        call.ui.finding(finding);
    }
    let next = next(&plan, args.slice.as_ref(), call.house().up().is_some());
    call.ui.tick(&format!("{subject}: the live systems are ready"));
    call.ui.json(&json!({ "ready": true, "findings": findings, "next_steps": next }));
    call.ui.next_steps(&next);
    Ok(())
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

fn next(plan: &Plan, slice: Option<&SliceName>, is_up: bool) -> Vec<String> {
    if !is_up {
        return vec!["strangler up --detach".to_owned()];
    }
    let with_tables = plan.slices.values().filter(|candidate| !candidate.is_stateless());
    let mut named = with_tables.filter(|candidate| slice.is_none_or(|slice| *slice == candidate.name));
    let start = named.next().map(|slice| format!("strangler sync start {}", slice.name));
    vec![start.unwrap_or_else(|| "strangler status".to_owned())]
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
