//! What a fresh machine lacks, and how it gets it.
//!
//! On Debian and its children the packages are installed; elsewhere they are named and the person installs them.
//! Everything comes from the system's own repositories and from rustup. Debian starts the servers that it installs,
//! Postgres on port 5432 and nginx on port 80. That is prevented: this program starts private servers.

use std::io::IsTerminal;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::terminal;
use lab::{postgres, process};

const LOOK_LIMIT: Duration = Duration::from_secs(30);
/// Debian keeps servers where an ordinary user's `PATH` does not look.
pub const NGINX: &str = "/usr/sbin/nginx";
/// As [`NGINX`].
pub const HAPROXY: &str = "/usr/sbin/haproxy";
/// While this file is here, Debian makes no cluster when a Postgres server package is installed.
const NO_DEFAULT_CLUSTER: &str = "/etc/postgresql-common/createcluster.d/no-main-cluster-yet.conf";

/// The packages that bring a server, and the service that Debian would start now and with the machine.
const SERVERS: [(&str, &str); 2] = [("nginx-light", "nginx"), ("haproxy", "haproxy")];
/// Runs its arguments while Debian starts no installed service. The shell removes its policy whatever happens, also on
/// an interruption. A policy that the machine has already is kept.
const WITHOUT_STARTS: &str = "set -e; policy=/usr/sbin/policy-rc.d; if [ ! -e $policy ]; then \
    trap 'rm -f $policy' EXIT; trap 'exit 130' HUP INT TERM; \
    printf '#!/bin/sh\\nexit 101\\n' > $policy; chmod 755 $policy; fi; \"$@\"";

#[derive(Clone, Copy, Debug, Default)]
pub struct Need {
    pub build: bool,
    pub lint: bool,
    pub postgres: bool,
    /// Java and Maven, to fetch and run a broker.
    pub kafka: bool,
    /// What compiles Java.
    pub jdk: bool,
    pub kcat: bool,
    /// The proxies that ours is compared with, and what measures them.
    pub rivals: bool,
}

impl Need {
    /// Everything but what only benches need.
    pub fn everything() -> Need {
        Need { build: true, lint: true, postgres: true, kafka: true, ..Need::default() }
    }

    pub fn kafka() -> Need {
        Need { kafka: true, ..Need::default() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    pub what: &'static str,
    source: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// A Debian package, and what Homebrew calls it.
    Package {
        debian: &'static str,
        brew: &'static str,
    },
    Rustup(&'static str),
}

const fn package(what: &'static str, debian: &'static str, brew: &'static str) -> Missing {
    Missing { what, source: Source::Package { debian, brew } }
}

pub fn missing(need: &Need) -> Vec<Missing> {
    let mut missing = Vec::new();
    let mut check = |needed: bool, here: fn() -> bool, what: Missing| {
        if needed && !here() {
            missing.push(what);
        }
    };
    check(need.build, || runs("cc", &["--version"]), package("a C compiler", "build-essential", "gcc"));
    check(need.build, || runs("c++", &["--version"]), package("a C++ compiler", "build-essential", "gcc"));
    check(need.build, || runs("make", &["--version"]), package("make", "build-essential", "make"));
    check(need.build, || runs("cmake", &["--version"]), package("cmake", "cmake", "cmake"));
    let pkg_config = package("pkg-config", "pkg-config", "pkgconf");
    check(need.build, || runs("pkg-config", &["--version"]), pkg_config);
    check(need.build, openssl, package("OpenSSL's headers", "libssl-dev", "openssl@3"));
    let rustfmt = Missing { what: "rustfmt", source: Source::Rustup("rustfmt") };
    check(need.lint, || runs("cargo", &["fmt", "--version"]), rustfmt);
    let clippy = Missing { what: "clippy", source: Source::Rustup("clippy") };
    check(need.lint, || runs("cargo", &["clippy", "--version"]), clippy);
    let server = package("Postgres server programs, 14 or newer", "postgresql", "postgresql@17");
    check(need.postgres, || postgres::programs().is_some(), server);
    let java = package("Java 17 or newer", "default-jre-headless", "openjdk");
    check(need.kafka, || java_version() >= Some(lab::OLDEST_JAVA), java);
    check(need.kafka, || runs("mvn", &["-v"]), package("Maven", "maven", "maven"));
    check(
        need.jdk,
        || runs("javac", &["-version"]),
        package("Java's compiler", "default-jdk-headless", "openjdk"),
    );
    check(need.kcat, || runs("kcat", &["-V"]), package("kcat", "kcat", "kcat"));
    check(need.rivals, || runs(NGINX, &["-v"]), package("nginx", "nginx-light", "nginx"));
    check(need.rivals, || runs(HAPROXY, &["-v"]), package("HAProxy", "haproxy", "haproxy"));
    // wrk prints its version and its usage, and then fails.
    let wrk = || process::answer(Command::new("wrk").arg("-v"), LOOK_LIMIT).is_ok();
    check(need.rivals, wrk, package("wrk", "wrk", "wrk"));
    let venv = || runs("python3", &["-c", "import ensurepip, venv"]);
    check(need.rivals, venv, package("Python's venv", "python3-venv", "python"));
    missing
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    let answer = process::answer(Command::new(program).args(arguments), LOOK_LIMIT);
    answer.is_ok_and(|(status, _, _)| status.success())
}

/// Homebrew keeps OpenSSL where pkg-config does not look, and the build does.
fn openssl() -> bool {
    let kegs = ["/opt/homebrew/opt/openssl@3", "/usr/local/opt/openssl@3"];
    runs("pkg-config", &["--exists", "openssl"]) || kegs.iter().any(|keg| Path::new(keg).exists())
}

fn java_version() -> Option<u32> {
    let (_, _, text) = process::answer(Command::new("java").arg("-version"), LOOK_LIMIT).ok()?;
    parse_java_version(&text)
}

/// `openjdk version "17.0.15" 2025-04-15` → 17; the old numbering `"1.8.0"` → 1, which is too old in any case.
fn parse_java_version(text: &str) -> Option<u32> {
    let quoted = text.split('"').nth(1)?;
    quoted.split(|digit: char| !digit.is_ascii_digit()).next()?.parse().ok()
}

/// Makes sure that everything needed is here, by installing what is missing.
pub fn ensure(need: &Need, yes: bool) -> Result<()> {
    let lacking = missing(need);
    if lacking.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = lacking.iter().map(|missing| missing.what).collect();
    println!("This machine lacks: {}", names.join(", "));
    for component in components(&lacking) {
        process::succeed(Command::new("rustup").args(["component", "add", component])).with_context(
            || {
                format!(
                    "`{component}` is missing; without rustup, install it the way this Rust was installed"
                )
            },
        )?;
    }
    let packages = packages(&lacking);
    if !packages.is_empty() {
        install(&packages, &lacking, yes)?;
    }
    let still: Vec<&str> = missing(need).iter().map(|missing| missing.what).collect();
    if !still.is_empty() {
        bail!(
            "after the installation this is still missing: {}. The system's own packages may be too old; newer \
             Postgres: https://wiki.postgresql.org/wiki/Apt",
            still.join(", ")
        );
    }
    Ok(())
}

fn components(lacking: &[Missing]) -> Vec<&'static str> {
    let sources = lacking.iter().map(|missing| missing.source);
    sources
        .filter_map(|source| match source {
            Source::Rustup(component) => Some(component),
            Source::Package { .. } => None,
        })
        .collect()
}

/// The Debian packages, each once, in order.
fn packages(lacking: &[Missing]) -> Vec<&'static str> {
    let mut packages = Vec::new();
    for missing in lacking {
        if let Source::Package { debian, .. } = missing.source
            && !packages.contains(&debian)
        {
            packages.push(debian);
        }
    }
    packages
}

/// How this process becomes root for a moment.
fn as_root() -> Result<Vec<&'static str>> {
    let user = process::output(Command::new("id").arg("-u"), LOOK_LIMIT)?;
    if user.trim() == "0" {
        return Ok(Vec::new());
    }
    if !runs("sudo", &["--version"]) {
        bail!("neither root nor sudo");
    }
    // Without a terminal no password can be typed: fail at once rather than wait.
    Ok(if std::io::stdin().is_terminal() { vec!["sudo"] } else { vec!["sudo", "-n"] })
}

fn install(packages: &[&str], lacking: &[Missing], yes: bool) -> Result<()> {
    let by_hand = format!("apt-get install {}", packages.join(" "));
    if !runs("apt-get", &["--version"]) {
        bail!("please install them and try again. With Homebrew: brew install {}", brews(lacking));
    }
    let root = as_root().with_context(|| format!("please run, as root: {by_hand}"))?;
    let question = format!("Run `{}`?", [root.join(" "), by_hand.clone()].join(" ").trim());
    if !yes && std::env::var_os("CI").is_none() && !terminal::agrees(&question) {
        bail!("nothing was installed. To do it by hand, as root: {by_hand}");
    }
    let root = Root(root);
    root.apt(&["update"])?;
    if !packages.contains(&"postgresql") {
        root.apt_install(packages)?;
        return root.keep_down(packages);
    }
    root.apt_install(&["postgresql-common"])?;
    // On a machine with clusters, a new server package makes no cluster by itself.
    let folder = Path::new(NO_DEFAULT_CLUSTER).parent().unwrap_or(Path::new("/etc")).display().to_string();
    let write = format!("mkdir -p {folder} && echo 'create_main_cluster = false' > {NO_DEFAULT_CLUSTER}");
    root.run(&["sh", "-c", &write])?;
    let installed = root.apt_install(packages);
    root.run(&["rm", "-f", NO_DEFAULT_CLUSTER])?;
    installed?;
    root.keep_down(packages)
}

fn brews(lacking: &[Missing]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for missing in lacking {
        if let Source::Package { brew, .. } = missing.source
            && !names.contains(&brew)
        {
            names.push(brew);
        }
    }
    names.join(" ")
}

/// Waits for another running apt. Questions get their default answers.
const APT: [&str; 6] =
    ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-o", "DPkg::Lock::Timeout=120"];

/// The prefix that makes a command run as root.
struct Root(Vec<&'static str>);

impl Root {
    fn apt_install(&self, packages: &[&str]) -> Result<()> {
        let install = [&APT[..], &["install", "-y", "--no-install-recommends"], packages].concat();
        self.run(&[&["sh", "-c", WITHOUT_STARTS, "sh"], &install[..]].concat())
    }

    fn apt(&self, arguments: &[&str]) -> Result<()> {
        self.run(&[&APT, arguments].concat())
    }

    /// Keeps the servers among these packages from starting with the machine. A server that was here before is not
    /// among them.
    fn keep_down(&self, packages: &[&str]) -> Result<()> {
        let brought = SERVERS.iter().filter(|(package, _)| packages.contains(package));
        for (_, service) in brought {
            let disable = format!("! command -v systemctl > /dev/null || systemctl disable {service}");
            self.run(&["sh", "-c", &disable])?;
        }
        Ok(())
    }

    /// Runs on the terminal and in our own process group, because sudo may ask for a password there.
    fn run(&self, words: &[&str]) -> Result<()> {
        let words = [self.0.as_slice(), words].concat();
        terminal::note(&format!("# {}", words.join(" ")));
        let (program, arguments) = words.split_first().context("an empty command")?;
        let stdin = if std::io::stdin().is_terminal() { Stdio::inherit() } else { Stdio::null() };
        let status = Command::new(program).args(arguments).stdin(stdin).status();
        let status = status.with_context(|| format!("`{program}` cannot be started"))?;
        if !status.success() {
            bail!("`{}` failed ({status})", words.join(" "));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_says_its_version_in_quotes() {
        assert_eq!(parse_java_version("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK"), Some(17));
        assert_eq!(parse_java_version("openjdk version \"25\" 2025-09-16"), Some(25));
        assert_eq!(parse_java_version("java version \"1.8.0_392\""), Some(1));
        assert_eq!(parse_java_version("command not found"), None);
    }

    #[test]
    fn a_package_is_asked_for_once() {
        let lacking = [
            package("a C compiler", "build-essential", "gcc"),
            package("make", "build-essential", "make"),
            package("Maven", "maven", "maven"),
            Missing { what: "clippy", source: Source::Rustup("clippy") },
        ];
        assert_eq!(packages(&lacking), ["build-essential", "maven"]);
        assert_eq!(components(&lacking), ["clippy"]);
        assert_eq!(brews(&lacking), "gcc make maven");
    }

    #[test]
    fn the_policy_against_starts_goes_again_and_the_commands_end_counts() {
        let policy = std::env::temp_dir().join(format!("strangler-policy-{}", std::process::id()));
        let script = WITHOUT_STARTS.replace("/usr/sbin/policy-rc.d", &policy.display().to_string());
        let run = |command: &str| {
            let words = ["-c", &script, "sh", "sh", "-c", command, policy.to_str().unwrap()];
            process::answer(Command::new("sh").args(words), LOOK_LIMIT).unwrap().0.code()
        };
        assert_eq!(run("\"$0\""), Some(101), "meanwhile it says no");
        assert!(!policy.exists());
        std::fs::write(&policy, "theirs").unwrap();
        assert_eq!(run("exit 3"), Some(3));
        assert_eq!(std::fs::read_to_string(&policy).unwrap(), "theirs");
        std::fs::remove_file(policy).unwrap();
    }

    #[test]
    fn a_program_that_is_not_there_does_not_run() {
        assert!(runs("true", &[]));
        assert!(!runs("false", &[]));
        assert!(!runs("no-such-program-anywhere", &[]));
    }
}
