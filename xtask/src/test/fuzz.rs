//! The fuzz targets. They are not in the workspace, so nothing else would notice that one no longer compiles. The one of
//! `http1` is quick enough to find something within a minute, so it runs that long.
//!
//! It needs neither cargo-fuzz nor a nightly compiler: the stable one can count the edges that libFuzzer follows.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use lab::process;

const RUN: Duration = Duration::from_mins(1);
/// Beyond its own time: reading the inputs of earlier runs.
const LIMIT: Duration = Duration::from_mins(5);

/// What libFuzzer wants to see: each edge's count, where the edges are, and what is compared.
const FLAGS: [&str; 8] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=3",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions=on",
    "-Coverflow-checks=on",
    "-Ccodegen-units=1",
];

pub fn run() -> Result<()> {
    let bridges =
        ["check", "--locked", "--manifest-path", "cdc-bridge/fuzz/Cargo.toml", "--target-dir", "target/fuzz"];
    process::succeed(process::cargo().args(bridges))?;
    let folder = lab::root().join("target/fuzz");
    let host = host()?;
    let http1 = ["build", "--locked", "--release", "--manifest-path", "proxy/http1/fuzz/Cargo.toml"];
    let mut build = process::cargo();
    // With `--target`, the flags do not reach build scripts.
    build.args(http1).args(["--target", &host, "--target-dir"]).arg(&folder);
    process::succeed(build.env("RUSTFLAGS", FLAGS.join(" ")).env_remove("CARGO_ENCODED_RUSTFLAGS"))?;
    fuzz(&folder.join(&host).join("release/http1"), &folder)
}

/// Runs with the inputs that earlier runs in this folder found, and those of the corpus. An input that fails is kept and named.
fn fuzz(program: &std::path::Path, folder: &std::path::Path) -> Result<()> {
    let (found, seeds): (PathBuf, PathBuf) = (folder.join("http1-found"), folder.join("http1-seeds"));
    for inputs in [&found, &seeds] {
        std::fs::create_dir_all(inputs).with_context(|| format!("cannot make {}", inputs.display()))?;
    }
    let mut command = Command::new(program);
    command.arg(&found).arg(&seeds).env("SEEDS", &seeds);
    // The same inputs in each run: a change finds its own faults, and not those of others.
    command.arg("-seed=1").arg(format!("-max_total_time={}", RUN.as_secs()));
    command.arg(format!("-artifact_prefix={}/http1-", folder.display()));
    // The model knows no bounds, so inputs stay below the crate's. Memory in MiB, time in s.
    command.args([
        "-max_len=900",
        "-rss_limit_mb=512",
        "-timeout=10",
        "-verbosity=0",
        "-print_final_stats=1",
    ]);
    process::succeed_within(&mut command, RUN + LIMIT)
}

fn host() -> Result<String> {
    let told = process::output(Command::new("rustc").arg("-vV"), LIMIT)?;
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not name its host")?.to_owned())
}
