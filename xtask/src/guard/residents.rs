//! The processes that were given a private folder for temporary files: what left its group is known by it.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::TEMPORARY;

/// How often they are looked for until none is left.
const ROUNDS: u32 = 20;
const REST: Duration = Duration::from_millis(50);

/// Kills what was given `folder` for temporary files; says whether there was any.
pub fn kill_all(folder: &Path) -> bool {
    let given = format!("{TEMPORARY}={}", folder.display()).into_bytes();
    let mut found = false;
    // One of them may restart the others until it is dead itself.
    for _ in 0..ROUNDS {
        let (mut residents, mut unknown) = (false, false);
        for pid in processes() {
            match was_given(pid, &given) {
                Some(true) => {
                    residents = true;
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
                Some(false) => {}
                None => unknown = true,
            }
        }
        if !residents && !unknown {
            break;
        }
        found |= residents;
        std::thread::sleep(REST);
    }
    found
}

/// The ids of all processes that may be killed.
fn processes() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()).filter(|pid| *pid > 1)
}

/// Whether a process was started with this `NAME=value`; `None` while its program is just being started.
///
/// Linux lets the starter go on before the new program's environment can be read (`execve` ends `vfork`'s wait first);
/// until then it reads as empty, though the program itself is known. Dead processes and the kernel's own have no
/// program, and another user's is not shown: they were given nothing of ours.
fn was_given(pid: i32, wanted: &[u8]) -> Option<bool> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    if environment.is_empty() && std::fs::read_link(format!("/proc/{pid}/exe")).is_ok() {
        return None;
    }
    Some(environment.split(|byte| *byte == 0).any(|variable| variable == wanted))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::Command;

    use super::super::Folder;
    use super::*;

    #[test]
    fn what_left_its_group_ends_with_the_folder_that_it_was_given() {
        let folder = Folder::make("guard-test").unwrap();
        let path = folder.path().to_owned();
        let start = |temporary: &Path| {
            let mut sleep = Command::new("sleep");
            sleep.arg("300").env(TEMPORARY, temporary).process_group(0).spawn().unwrap()
        };
        let (mut ours, mut other) = (start(&path), start(&path.join("other")));
        drop(folder);
        assert_eq!(ours.wait().unwrap().signal(), Some(9));
        assert!(other.try_wait().unwrap().is_none(), "it was given another folder");
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(!path.exists());
    }
}
