//! The rules of the house that no compiler checks: who may depend on whom, which files are pure, how files begin, how
//! long they are, what they may not say or be called.
//!
//! This file reads the repository; each rule is a function over text in `tidy/`, with a test that shows it failing.

mod dependencies;
mod source;
mod text;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::terminal;

/// Crates under the station law, with the stations that are excepted from it.
const STATIONS: [(&str, &[&str]); 3] =
    [("proxy", &[]), ("cdc-bridge", &["feed", "lane", "log"]), ("controller", &[])];

/// One broken rule, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, from the repository's root.
    pub file: String,
    /// Counted from 1; 0 when the whole file is meant.
    pub line: usize,
    /// What is wrong, and what to do instead.
    pub message: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            0 => write!(formatter, "{}: {}", self.file, self.message),
            line => write!(formatter, "{}:{line}: {}", self.file, self.message),
        }
    }
}

/// `cargo xtask tidy`: prints what is wrong.
///
/// # Errors
/// When the repository cannot be read.
pub fn run(root: &Path) -> Result<ExitCode> {
    let findings = findings(root)?;
    for finding in &findings {
        println!("{finding}");
    }
    let count = findings.len();
    terminal::verdict(count == 0, &if count == 0 { "tidy".to_owned() } else { format!("{count} findings") });
    Ok(if count == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Every broken rule of the repository at `root`.
///
/// # Errors
/// When a file cannot be read, or no source is found at all.
pub fn findings(root: &Path) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut files = 0;
    for name in dependencies::unknown_members(&read(&root.join("Cargo.toml"))?) {
        let message =
            format!("`{name}` is a new crate: say in xtask/src/tidy/dependencies.rs who may import it");
        findings.push(Finding { file: "Cargo.toml".to_owned(), line: 0, message });
    }
    for name in dependencies::crates() {
        let text = read(&root.join(name).join("Cargo.toml"))?;
        let place = format!("{name}/Cargo.toml");
        for message in dependencies::broken(name, &text) {
            findings.push(Finding { file: place.clone(), line: 0, message });
        }
        for path in rust_files(&root.join(name))? {
            files += 1;
            let relative = path.strip_prefix(root).unwrap_or(&path);
            let text = read(&path)?;
            let pure = pure_by_law(root, relative);
            for (line, message) in source::broken(relative, &text, pure) {
                findings.push(Finding { file: relative.display().to_string(), line, message });
            }
        }
    }
    if files == 0 {
        bail!("no source was found under {}", root.display());
    }
    Ok(findings)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))
}

/// Whether the station law wants this file pure: it lies in a folder `x/` beside a file `x.rs`, and is no test module.
fn pure_by_law(root: &Path, relative: &Path) -> bool {
    if relative.file_name().is_some_and(|name| name == "tests.rs") {
        return false;
    }
    STATIONS.iter().any(|(name, excepted)| {
        let Ok(inside) = relative.strip_prefix(Path::new(name).join("src")) else { return false };
        let folders: Vec<&Path> =
            inside.ancestors().skip(1).filter(|folder| folder.parent().is_some()).collect();
        let excepted = folders.iter().any(|folder| excepted.iter().any(|name| *folder == Path::new(name)));
        let source = root.join(name).join("src");
        !excepted && folders.iter().any(|folder| source.join(folder).with_extension("rs").exists())
    })
}

/// All Rust files of a crate, sorted; what tools generated is not ours.
fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    const NOT_OURS: [&str; 3] = ["target", "corpus", "artifacts"];
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("{} cannot be read", folder.display()))? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                if !NOT_OURS.iter().any(|name| entry.file_name() == *name) {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_house_is_tidy() {
        let findings = findings(&crate::root()).unwrap();
        let shown: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(shown.is_empty(), "\n{}", shown.join("\n"));
    }

    #[test]
    fn a_folder_beside_its_file_is_pure_and_the_log_is_not() {
        let root = std::env::temp_dir().join(format!("strangler-tidy-{}", std::process::id()));
        for folder in
            ["proxy/src/route", "proxy/src/loose", "cdc-bridge/src/log", "cdc-bridge/src/sink/apply"]
        {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for file in ["proxy/src/route.rs", "cdc-bridge/src/log.rs", "cdc-bridge/src/sink.rs"] {
            fs::write(root.join(file), "").unwrap();
        }
        let pure = |file: &str| pure_by_law(&root, Path::new(file));
        assert!(pure("proxy/src/route/pattern.rs"));
        assert!(pure("cdc-bridge/src/sink/apply/batch.rs"));
        for impure in [
            "proxy/src/route.rs",
            "proxy/src/loose/x.rs",
            "proxy/src/route/tests.rs",
            "cdc-bridge/src/log/kafka.rs",
            "cli/src/verb/check.rs",
            "proxy/tests/route/x.rs",
        ] {
            assert!(!pure(impure), "{impure}");
        }
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_repository_without_its_crates_is_an_error_not_tidy() {
        assert!(findings(&std::env::temp_dir().join("strangler-no-repository")).is_err());
    }
}
