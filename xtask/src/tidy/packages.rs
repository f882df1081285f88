//! Who may import whom, checked by `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use cargo_metadata::camino::Utf8Path;
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Node, Package, PackageId};

/// What a crate of the workspace may import of the others. Crates are named by their folders.
struct Rule {
    folder: &'static str,
    imports: &'static [&'static str],
    /// Only its tests may import these.
    in_tests: &'static [&'static str],
}

const RULES: [Rule; 12] = [
    Rule { folder: "migrations", imports: &[], in_tests: &[] },
    Rule { folder: "cdc-bridge/rows", imports: &["migrations"], in_tests: &[] },
    Rule { folder: "postgres", imports: &["migrations", "cdc-bridge/rows"], in_tests: &["lab"] },
    Rule { folder: "link", imports: &["migrations"], in_tests: &[] },
    Rule { folder: "proxy/http1", imports: &[], in_tests: &[] },
    Rule { folder: "proxy", imports: &["migrations", "link", "proxy/http1"], in_tests: &["lab"] },
    Rule {
        folder: "cdc-bridge",
        imports: &["migrations", "link", "postgres", "cdc-bridge/rows"],
        in_tests: &["lab"],
    },
    Rule {
        folder: "controller",
        imports: &["migrations", "link", "postgres", "cdc-bridge/rows"],
        in_tests: &["lab"],
    },
    Rule {
        folder: "cli",
        imports: &[
            "migrations",
            "link",
            "postgres",
            "proxy",
            "proxy/http1",
            "cdc-bridge",
            "cdc-bridge/rows",
            "controller",
        ],
        in_tests: &["lab"],
    },
    // The demo's shop is the patient: it does not know the surgeon.
    Rule { folder: "monolith-demo", imports: &[], in_tests: &["lab"] },
    Rule { folder: "lab", imports: &[], in_tests: &[] },
    Rule { folder: "xtask", imports: &["lab"], in_tests: &[] },
];

/// Crates that do no IO, and `xtask`, which must build on a machine that has nothing but Rust yet.
const LIGHT: [&str; 4] = ["migrations", "cdc-bridge/rows", "proxy/http1", "xtask"];
/// What those do not depend on, directly or through others.
const HEAVY: [&str; 7] = ["tokio", "tokio-postgres", "pingora", "hyper", "reqwest", "rdkafka", "redb"];

/// The workspace at `root`, with all packages that it needs on this system.
pub fn read(root: &Path) -> Result<Metadata> {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    MetadataCommand::new()
        .current_dir(root)
        .other_options(vec!["--locked".to_owned(), "--filter-platform".to_owned(), platform])
        .exec()
        .with_context(|| format!("cannot read the workspace at {}", root.display()))
}

pub fn broken(metadata: &Metadata) -> Vec<String> {
    let mut broken = Vec::new();
    for package in metadata.workspace_packages() {
        let folder = inside(metadata, package.manifest_path.parent());
        let ours = package.dependencies.iter().filter(|dependency| dependency.path.is_some());
        let imports = ours.map(|dependency| {
            (inside(metadata, dependency.path.as_deref()), dependency.kind == DependencyKind::Development)
        });
        broken.extend(forbidden(folder, imports));
        if LIGHT.contains(&folder) {
            let needed = needed(metadata, package);
            let heavy = HEAVY.iter().filter(|name| needed.contains(**name));
            broken.extend(
                heavy.map(|name| format!("{folder}: it may not depend on {name}, not even through others")),
            );
        }
    }
    broken
}

fn inside<'a>(metadata: &Metadata, folder: Option<&'a Utf8Path>) -> &'a str {
    folder.and_then(|folder| folder.strip_prefix(&metadata.workspace_root).ok()).map_or("", Utf8Path::as_str)
}

/// What is wrong with the imports of one crate. Each import says whether it is for tests only.
fn forbidden<'a>(folder: &str, imports: impl Iterator<Item = (&'a str, bool)>) -> Vec<String> {
    let Some(rule) = RULES.iter().find(|rule| rule.folder == folder) else {
        return vec![format!("{folder}: a new crate; say in xtask/src/tidy/packages.rs what it may import")];
    };
    imports
        .filter(|(to, in_tests)| !rule.imports.contains(to) && (!in_tests || !rule.in_tests.contains(to)))
        .map(|(to, _)| format!("{folder}: it may not import {to}"))
        .collect()
}

/// The names of all packages that a package is built with, tests apart.
fn needed<'a>(metadata: &'a Metadata, package: &'a Package) -> BTreeSet<&'a str> {
    let nodes: BTreeMap<&PackageId, &Node> =
        metadata.resolve.iter().flat_map(|resolve| &resolve.nodes).map(|node| (&node.id, node)).collect();
    let (mut reached, mut open) = (BTreeSet::from([&package.id]), vec![&package.id]);
    while let Some(node) = open.pop().and_then(|id| nodes.get(id)) {
        for dependency in &node.deps {
            let built = dependency.dep_kinds.iter().any(|kind| kind.kind != DependencyKind::Development);
            if built && reached.insert(&dependency.pkg) {
                open.push(&dependency.pkg);
            }
        }
    }
    reached.into_iter().map(|id| metadata[id].name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(folder: &str, to: &str, in_tests: bool) -> bool {
        forbidden(folder, std::iter::once((to, in_tests))).is_empty()
    }

    #[test]
    fn a_crate_imports_only_what_its_rule_names() {
        for (folder, to) in [
            ("proxy", "migrations"),
            ("cdc-bridge", "cdc-bridge/rows"),
            ("controller", "postgres"),
            ("cli", "controller"),
            ("xtask", "lab"),
        ] {
            assert!(allows(folder, to, false) && allows(folder, to, true), "{folder} → {to}");
        }
        for (folder, to) in [
            ("migrations", "proxy"),
            ("cdc-bridge/rows", "postgres"),
            ("cdc-bridge", "proxy"),
            ("controller", "cdc-bridge"),
            ("proxy", "controller"),
            ("monolith-demo", "migrations"),
            ("cli", "monolith-demo"),
            ("cli", "xtask"),
            ("xtask", "migrations"),
            ("lab", "migrations"),
        ] {
            assert!(!allows(folder, to, false) && !allows(folder, to, true), "{folder} → {to}");
        }
    }

    #[test]
    fn the_lab_is_for_tests() {
        for folder in ["proxy", "cdc-bridge", "controller", "cli", "monolith-demo"] {
            assert!(allows(folder, "lab", true) && !allows(folder, "lab", false), "{folder}");
        }
    }

    #[test]
    fn a_new_crate_needs_a_rule() {
        assert_eq!(forbidden("dashboard", std::iter::empty()).len(), 1);
    }

    #[test]
    fn what_a_crate_needs_is_found_through_others() {
        let metadata = read(&lab::root()).unwrap();
        let of = |folder| {
            let packages = metadata.workspace_packages();
            let package =
                packages.into_iter().find(|one| inside(&metadata, one.manifest_path.parent()) == folder);
            needed(&metadata, package.unwrap())
        };
        assert!(of("proxy").contains("hyper"), "through reqwest");
        assert!(!of("monolith-demo").contains("tempfile"), "its tests alone use it");
    }
}
