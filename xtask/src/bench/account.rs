//! What the kernel counts for a program: CPU time of a whole process group, memory of one process (proc(5)).
//!
//! Other programs on the machine hardly change these counts, so they are the steadiest figures here.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use lab::process;

/// CPU time, user and system, that the living processes of a process group have used so far.
pub fn cpu_seconds(group: i32) -> Result<f64> {
    let used = members(group)?.into_iter().filter_map(|folder| {
        // A process may end between being listed and being read.
        Some(group_and_ticks(&fs::read_to_string(folder.join("stat")).ok()?)?.1)
    });
    Ok(used.sum::<u64>() as f64 / ticks_per_second()?)
}

/// Memory that the living processes of a process group have resident, in KiB.
pub fn resident_kib(group: i32) -> Result<f64> {
    let sizes = members(group)?.into_iter().filter_map(|folder| {
        // A process may end between being listed and being read.
        kibibytes(&fs::read_to_string(folder.join("status")).ok()?, "VmRSS")
    });
    Ok(sizes.sum())
}

/// The folders of a process group's processes under `/proc`.
fn members(group: i32) -> Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for entry in fs::read_dir("/proc").context("processes are measured on Linux only")?.flatten() {
        let is_process = entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok());
        let stat = || fs::read_to_string(entry.path().join("stat")).ok();
        if is_process && stat().and_then(|text| group_and_ticks(&text)).is_some_and(|(of, _)| of == group) {
            folders.push(entry.path());
        }
    }
    anyhow::ensure!(!folders.is_empty(), "the process group {group} is gone");
    Ok(folders)
}

/// Process group and utime + stime: fields 5, 14 and 15. The name in field 2 may hold blanks and parentheses.
fn group_and_ticks(stat: &str) -> Option<(i32, u64)> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some((fields.get(2)?.parse().ok()?, number(11)? + number(12)?))
}

fn ticks_per_second() -> Result<f64> {
    let text = process::output(Command::new("getconf").arg("CLK_TCK"), Duration::from_secs(10))?;
    text.trim().parse().with_context(|| format!("`getconf CLK_TCK` said {text:?}"))
}

/// The most memory that a process has had resident so far, in MiB.
pub fn peak_mib(pid: i32) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("{path} cannot be read"))?;
    kibibytes(&text, "VmHWM").map(|size| size / 1024.0).with_context(|| format!("{path} has no VmHWM"))
}

fn kibibytes(status: &str, field: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "77 (a) b (c) S 1 42 42 0 -1 4194560 1 0 0 0 30 12 5 6 20 0 1 0 100 0 0";
        assert_eq!(group_and_ticks(stat), Some((42, 42)));
        assert_eq!(group_and_ticks("nonsense"), None);
    }

    #[test]
    fn memory_is_read_from_its_own_line() {
        let status = "Name:\tx\nVmPeak:\t  900 kB\nVmHWM:\t  2048 kB\nVmRSS:\t  1000 kB\n";
        assert_eq!(kibibytes(status, "VmHWM"), Some(2048.0));
        assert_eq!(kibibytes(status, "VmSwap"), None);
        assert!(peak_mib(std::process::id().cast_signed()).unwrap() > 0.1);
    }
}
