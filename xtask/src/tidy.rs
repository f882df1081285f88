//! The rules that neither the compiler nor clippy checks: who may import whom, no import circles, and how files begin
//! and are named.

mod circles;
mod file;
mod packages;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::terminal;

pub fn run(root: &Path) -> Result<ExitCode> {
    let findings = findings(root)?;
    for finding in &findings {
        println!("{finding}");
    }
    let count = findings.len();
    terminal::verdict(count == 0, &if count == 0 { "tidy".to_owned() } else { format!("{count} findings") });
    Ok(if count == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Every broken rule of the repository at `root`, as `file: what is wrong`.
pub fn findings(root: &Path) -> Result<Vec<String>> {
    let metadata = packages::read(root)?;
    let mut findings = packages::broken(&metadata);
    for package in metadata.workspace_packages() {
        for target in package.targets.iter().filter(|target| target.is_lib() || target.is_bin()) {
            let source = target.src_path.as_std_path();
            findings.extend(circle_findings(root, source)?);
        }
        let Some(folder) = package.manifest_path.parent() else { continue };
        for path in rust_files(folder.as_std_path())? {
            let relative = path.strip_prefix(root).unwrap_or(&path);
            findings.extend(file::broken(relative, &read(&path)?));
        }
    }
    findings.sort();
    findings.dedup();
    Ok(findings)
}

fn circle_findings(root: &Path, source: &Path) -> Result<Vec<String>> {
    let circles = circles::find(source, &|path| fs::read_to_string(path).ok())?;
    let folder = source.parent().unwrap_or(source);
    let place = folder.strip_prefix(root).unwrap_or(folder).display();
    Ok(circles.iter().map(|circle| format!("{place}: {}", circle.shown(folder))).collect())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// All Rust files under a folder, sorted. What tools generated is left out.
fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    const GENERATED: [&str; 3] = ["target", "corpus", "artifacts"];
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                if !GENERATED.iter().any(|name| entry.file_name() == *name) {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    if files.is_empty() {
        bail!("found no source under {}", folder.display());
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_house_is_tidy() {
        let findings = findings(&lab::root()).unwrap();
        assert!(findings.is_empty(), "\n{}", findings.join("\n"));
    }

    #[test]
    fn a_folder_without_a_workspace_is_an_error() {
        assert!(findings(&std::env::temp_dir().join("strangler-no-repository")).is_err());
    }
}
