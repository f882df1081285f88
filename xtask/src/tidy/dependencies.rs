//! Who may depend on whom, read from a crate's manifest. It reads the few forms of TOML that manifests use.

/// All crates of the workspace, by folder and by package name.
const WORKSPACE: [(&str, &str); 9] = [
    ("migrations", "strangler-migration"),
    ("proxy", "strangler-proxy"),
    ("cdc-bridge", "strangler-cdc-bridge"),
    ("cdc-bridge/rows", "strangler-rows"),
    ("controller", "strangler-controller"),
    ("cli", "strangler-cli"),
    ("monolith-demo", "monolith-demo"),
    ("testbed", "testbed"),
    ("xtask", "xtask"),
];

/// What the core may not know: no runtime, no sockets, no broker, no database.
const NOT_IN_THE_CORE: [&str; 6] = ["tokio", "tokio-util", "pingora", "rdkafka", "tokio-postgres", "reqwest"];
/// All that xtask may use, so that the first command on a fresh machine compiles in seconds.
const LIGHT: [&str; 4] = ["anyhow", "nix", "serde", "serde_json"];

/// The crates of the workspace, by folder.
pub fn crates() -> impl Iterator<Item = &'static str> {
    WORKSPACE.iter().map(|(folder, _)| *folder)
}

/// The members of the workspace that no rule names, from the root manifest: each new one must say who may import it.
pub fn unknown_members(manifest: &str) -> Vec<String> {
    let members =
        manifest.split_once("members = [").map_or("", |(_, rest)| rest.split(']').next().unwrap_or_default());
    let names = members.split(',').map(|name| name.trim().trim_matches('"')).filter(|name| !name.is_empty());
    names.filter(|name| crates().all(|known| known != *name)).map(str::to_owned).collect()
}

/// The crates of the workspace that a crate may import, for its tests or altogether.
fn allowed(folder: &str, in_tests: bool) -> &'static [&'static str] {
    match folder {
        "monolith-demo" if in_tests => &["testbed"],
        "cdc-bridge" if in_tests => &["migrations", "cdc-bridge/rows", "testbed"],
        "proxy" | "controller" if in_tests => &["migrations", "testbed"],
        "cli" if in_tests => &["migrations", "proxy", "cdc-bridge", "controller", "testbed"],
        "cdc-bridge" => &["migrations", "cdc-bridge/rows"],
        "proxy" | "controller" | "cdc-bridge/rows" => &["migrations"],
        "cli" => &["migrations", "proxy", "cdc-bridge", "controller"],
        _ => &[],
    }
}

/// The broken dependency rules of the crate in `folder`, whose manifest is `manifest`.
pub fn broken(folder: &str, manifest: &str) -> Vec<String> {
    let dependencies = read(manifest);
    let mut broken = Vec::new();
    for (other, package) in WORKSPACE {
        let imports = |dependency: &&Dependency| dependency.name == other || dependency.name == package;
        let mut imports = dependencies.iter().filter(imports);
        if imports.any(|dependency| !allowed(folder, dependency.in_tests).contains(&other)) {
            broken.push(format!("{folder} may not depend on {other}: {}", reason(folder, other)));
        }
    }
    for Dependency { name, .. } in &dependencies {
        if ["migrations", "cdc-bridge/rows"].contains(&folder) && NOT_IN_THE_CORE.contains(&name.as_str()) {
            broken.push(format!("the core may not depend on {name}: it decides, others do"));
        }
        if folder == "xtask" && !LIGHT.contains(&name.as_str()) {
            broken
                .push(format!("xtask may not depend on {name}: it stays quick to build on a fresh machine"));
        }
    }
    broken
}

fn reason(folder: &str, other: &str) -> &'static str {
    match (folder, other) {
        (_, "xtask") => "nobody imports xtask",
        (_, "testbed") => "it is for tests, in dev-dependencies",
        ("testbed", _) => "it knows nothing of strangler",
        ("monolith-demo", _) | (_, "monolith-demo") => "the patient does not know the surgeon",
        ("migrations", _) => "the core imports no crate of the workspace",
        ("xtask", _) => "it drives the finished binaries, as a user would",
        _ => "they speak by the words in migrations::control",
    }
}

/// One dependency: its key, or the package that the key renames.
#[derive(Debug, PartialEq, Eq)]
struct Dependency {
    name: String,
    in_tests: bool,
}

/// All dependencies, of every kind.
fn read(manifest: &str) -> Vec<Dependency> {
    let mut dependencies = Vec::new();
    let mut table = String::new();
    for line in manifest.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(header) = line.strip_prefix('[') {
            table = header.trim_matches(['[', ']']).to_owned();
        }
        let in_tests = table.contains("dev-dependencies");
        let mut found = |name: &str| {
            let name = name.trim().trim_matches('"').to_owned();
            dependencies.push(Dependency { name, in_tests });
        };
        // `[dependencies.tokio]` names one in the header.
        let of_one = table.rsplit_once('.').filter(|(before, _)| is_dependencies(before));
        if line.starts_with('[') {
            of_one.into_iter().for_each(|(_, name)| found(name));
        } else if let Some((key, value)) = line.split_once('=') {
            if is_dependencies(&table) {
                found(key.split('.').next().unwrap_or_default());
                renamed(value).into_iter().for_each(found);
            } else if of_one.is_some() && key.trim() == "package" {
                found(value);
            }
        }
    }
    dependencies
}

/// `dependencies`, `dev-dependencies`, `build-dependencies`, also under `target.'cfg(…)'`.
fn is_dependencies(table: &str) -> bool {
    let last = table.rsplit('.').next().unwrap_or_default();
    ["dependencies", "dev-dependencies", "build-dependencies"].contains(&last)
}

/// The package in `{ package = "x", … }`.
fn renamed(value: &str) -> Option<&str> {
    let (_, rest) = value.split_once("package")?;
    rest.split('"').nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_allowed_pass() {
        let manifest =
            "[package]\nname = \"x\"\n[dependencies]\nmigrations.workspace = true\nserde = \"1\"\n";
        assert_eq!(broken("proxy", manifest), Vec::<String>::new());
        assert_eq!(
            broken("cli", "[dependencies]\nproxy.workspace = true\ncontroller = { workspace = true }"),
            [""; 0]
        );
        assert_eq!(broken("xtask", "[dependencies]\nanyhow.workspace = true\n"), [""; 0]);
    }

    #[test]
    fn a_forbidden_one_is_found_in_every_spelling() {
        for manifest in [
            "[dependencies]\ncontroller.workspace = true",
            "[dependencies]\ncontroller = { workspace = true }",
            "[dev-dependencies]\ncontroller = { path = \"../controller\" }",
            "[dependencies.controller]\nworkspace = true",
            "[build-dependencies]\nstrangler-controller = { path = \"../controller\" }",
            "[target.'cfg(unix)'.dependencies]\n\"controller\" = \"1\"",
            "[dependencies]\nboss = { package = \"strangler-controller\", path = \"../controller\" }",
            "[dependencies.boss]\npackage = \"strangler-controller\"",
        ] {
            assert_eq!(broken("proxy", manifest).len(), 1, "{manifest}");
        }
    }

    #[test]
    fn each_crate_has_its_own_rule() {
        let imports =
            |folder: &str, name: &str| !broken(folder, &format!("[dependencies]\n{name} = \"1\"")).is_empty();
        assert!(imports("migrations", "tokio"));
        assert!(imports("migrations", "tokio-postgres"));
        assert!(imports("migrations", "proxy"));
        assert!(imports("cdc-bridge", "proxy"));
        assert!(imports("controller", "cdc-bridge"));
        assert!(imports("monolith-demo", "migrations"));
        assert!(imports("cli", "monolith-demo"));
        assert!(imports("cli", "xtask"));
        assert!(imports("xtask", "migrations"));
        assert!(imports("xtask", "tokio"));
        assert!(!imports("cdc-bridge", "tokio-postgres"));
    }

    #[test]
    fn the_test_bed_is_for_tests() {
        assert_eq!(broken("proxy", "[dev-dependencies]\ntestbed.workspace = true"), [""; 0]);
        assert_eq!(broken("proxy", "[dependencies]\ntestbed.workspace = true").len(), 1);
        assert_eq!(broken("monolith-demo", "[dev-dependencies]\ntestbed.workspace = true"), [""; 0]);
        assert_eq!(broken("monolith-demo", "[dependencies]\ntestbed.workspace = true").len(), 1);
        assert_eq!(broken("migrations", "[dev-dependencies]\ntestbed.workspace = true").len(), 1);
        assert_eq!(broken("testbed", "[dependencies]\nmigrations.workspace = true").len(), 1);
    }

    #[test]
    fn a_new_member_must_have_its_rule() {
        let manifest = "[workspace]\nmembers = [\n  \"proxy\",\n  \"cli\", \"dashboard\"]\nexclude = [\"x\"]";
        assert_eq!(unknown_members(manifest), ["dashboard"]);
    }

    #[test]
    fn other_tables_are_not_dependencies() {
        let manifest = "[features]\ntokio = []\n[lints]\nworkspace = true\n[package.metadata]\nproxy = \"1\" # proxy = 1";
        assert_eq!(broken("migrations", manifest), [""; 0]);
    }
}
