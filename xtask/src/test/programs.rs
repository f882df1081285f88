//! Every test program of the workspace, several at a time: most tests wait for a database, a broker or a clock, so that
//! one program alone leaves the processors idle.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use cargo_metadata::{Message, TargetKind};

use lab::process;

use crate::terminal;

/// How many run at once. With more, tests of timing begin to fail on a machine with two processors.
const AT_ONCE: usize = 3;
const LIMIT: Duration = Duration::from_mins(15);

struct Program {
    name: String,
    /// Cargo runs a test in the folder of its package.
    folder: PathBuf,
    file: PathBuf,
    /// Files under `tests/` take longest; they begin first.
    is_unit: bool,
}

/// Compiles all test programs and runs them; says which failed after the last has ended.
pub fn run(broker: &str) -> Result<()> {
    let found = programs()?;
    anyhow::ensure!(!found.is_empty(), "cargo names no test program");
    let waiting = Mutex::new(VecDeque::from(found));
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let runners: Vec<_> =
            (0..AT_ONCE).map(|_| scope.spawn(|| run_from(&waiting, &failed, broker))).collect();
        runners
            .into_iter()
            .try_for_each(|runner| runner.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    let failed = failed.into_inner().unwrap_or_default();
    anyhow::ensure!(failed.is_empty(), "{} failed", failed.join(", "));
    Ok(())
}

fn run_from(waiting: &Mutex<VecDeque<Program>>, failed: &Mutex<Vec<String>>, broker: &str) -> Result<()> {
    loop {
        let Some(program) = waiting.lock().ok().and_then(|mut waiting| waiting.pop_front()) else {
            return Ok(());
        };
        let start = Instant::now();
        let mut command = Command::new(&program.file);
        command.current_dir(&program.folder).env(super::KAFKA_VARIABLE, broker);
        let (status, out, err) = process::answer(&mut command, LIMIT)?;
        // The lock keeps the output of two programs apart.
        let Ok(mut failed) = failed.lock() else { return Ok(()) };
        terminal::note(&format!("\n{} ({:.1} s)", program.name, start.elapsed().as_secs_f64()));
        print!("{out}{err}");
        if !status.success() {
            failed.push(program.name);
        }
    }
}

fn programs() -> Result<Vec<Program>> {
    let compile =
        ["test", "--locked", "--workspace", "--no-run", "--message-format", "json-render-diagnostics"];
    let messages = process::output(process::cargo().args(compile), LIMIT)?;
    let mut found = Vec::new();
    for message in Message::parse_stream(messages.as_bytes()) {
        let Message::CompilerArtifact(artifact) = message.context("cargo's messages cannot be read")? else {
            continue;
        };
        let (true, Some(file)) = (artifact.profile.test, artifact.executable) else { continue };
        let folder = artifact.manifest_path.parent().context("a manifest lies in a folder")?;
        found.push(Program {
            name: format!("{} {}", folder.file_name().unwrap_or_default(), artifact.target.name),
            folder: folder.into(),
            file: file.into(),
            is_unit: !artifact.target.kind.contains(&TargetKind::Test),
        });
    }
    found.sort_by_key(|program| program.is_unit);
    Ok(found)
}
