//! Programs that this one starts: in the foreground on the terminal, quietly for their output, or in the background
//! with a log file. Each has its own process group, so that Ctrl-C reaches only us and we end them in good order.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::interrupt;

/// How much of a log an error message shows, in bytes and in lines.
const SHOWN_OF_LOG: (u64, usize) = (16 * 1024, 20);

/// A short program ends sooner than [`interrupt::LOOK_EVERY`]; the pauses grow up to that.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// How long a program on the terminal may take to end when we are interrupted.
const FAREWELL_LIMIT: Duration = Duration::from_secs(20);

/// A running child with its own process group; dropping it kills the group.
#[derive(Debug)]
struct Group {
    child: Child,
    name: String,
    ended: Option<ExitStatus>,
}

impl Group {
    fn start(command: &mut Command) -> Result<Group> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child =
            command.process_group(0).spawn().with_context(|| format!("`{name}` cannot be started"))?;
        Ok(Group { child, name, ended: None })
    }

    fn poll(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended =
                self.child.try_wait().with_context(|| format!("`{}` cannot be awaited", self.name))?;
        }
        Ok(self.ended)
    }

    /// Waits until it ends; `None` when `limit` passed first.
    fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let end = Instant::now() + limit;
        let mut pause = FIRST_PAUSE;
        loop {
            if let Some(status) = self.poll()? {
                return Ok(Some(status));
            }
            if Instant::now() >= end {
                return Ok(None);
            }
            std::thread::sleep(pause);
            pause = interrupt::LOOK_EVERY.min(pause * 2);
        }
    }

    fn signal(&self, signal: Signal) {
        if self.ended.is_none() {
            // A group that has just ended needs no signal.
            let _ = killpg(Pid::from_raw(self.child.id().cast_signed()), signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if matches!(self.poll(), Ok(None)) {
            self.signal(Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

/// Cargo in the root, without the variables that cargo sets for a program it runs: some build scripts watch them, and
/// would compile their crate, and all that needs it, anew.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") || text == "CARGO_CRATE_NAME"
        {
            cargo.env_remove(&name);
        }
    }
    cargo.current_dir(crate::root());
    cargo
}

/// Runs a program on the terminal to its end. When `go_on` fails it is asked to end, and killed if it does not.
fn run_while(command: &mut Command, go_on: impl Fn() -> Result<()>) -> Result<ExitStatus> {
    let mut group = Group::start(command.stdin(Stdio::null()))?;
    loop {
        if let Some(status) = group.poll()? {
            return Ok(status);
        }
        if let Err(why) = go_on() {
            group.signal(Signal::SIGTERM);
            group.wait(FAREWELL_LIMIT)?;
            return Err(why);
        }
        std::thread::sleep(interrupt::LOOK_EVERY);
    }
}

/// Runs a program on the terminal; anything but success is an error.
pub fn succeed(command: &mut Command) -> Result<()> {
    let status = run_while(command, interrupt::check)?;
    must_succeed(command, status)
}

/// As [`succeed`], within `limit`.
pub fn succeed_within(command: &mut Command, limit: Duration) -> Result<()> {
    let line = shown(command);
    let end = Instant::now() + limit;
    let status = run_while(command, || {
        interrupt::check()?;
        anyhow::ensure!(Instant::now() < end, "`{line}` did not end within {} s", limit.as_secs());
        Ok(())
    })?;
    must_succeed(command, status)
}

fn must_succeed(command: &Command, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs a program quietly and gives its standard output.
pub fn output(command: &mut Command, limit: Duration) -> Result<String> {
    let (status, out, err) = answer(command, limit)?;
    if !status.success() {
        let words = if err.trim().is_empty() { out.trim() } else { err.trim() };
        bail!("`{}` failed ({status}): {words}", shown(command));
    }
    Ok(out)
}

/// Runs a program quietly and gives its status, standard output and standard error, whatever they are.
pub fn answer(command: &mut Command, limit: Duration) -> Result<(ExitStatus, String, String)> {
    collect(command, limit, interrupt::check)
}

/// As [`answer`], but goes on when we are interrupted: for cleaning up.
pub fn finish(command: &mut Command, limit: Duration) -> Result<(ExitStatus, String, String)> {
    collect(command, limit, || Ok(()))
}

fn collect(
    command: &mut Command,
    limit: Duration,
    go_on: impl Fn() -> Result<()>,
) -> Result<(ExitStatus, String, String)> {
    let mut group = Group::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let out = collected(group.child.stdout.take());
    let err = collected(group.child.stderr.take());
    let end = Instant::now() + limit;
    let status = loop {
        if let Some(status) = group.wait(Duration::from_millis(200))? {
            break status;
        }
        go_on()?;
        if Instant::now() >= end {
            bail!("`{}` did not end within {} s", shown(command), limit.as_secs());
        }
    };
    Ok((status, out.join().unwrap_or_default(), err.join().unwrap_or_default()))
}

fn collected(stream: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            let _ = stream.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The command as a person would type it, passwords in URLs left out.
pub fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(command.get_program()).to_string_lossy().into_owned();
    let arguments = command.get_args().map(|argument| without_password(&argument.to_string_lossy()));
    std::iter::once(name).chain(arguments).collect::<Vec<_>>().join(" ")
}

/// Replaces the password in `scheme://user:password@host` by stars.
fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let Some((account, host)) = rest.rsplit_once('@') else { return text.to_owned() };
    match account.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:***@{host}"),
        None => text.to_owned(),
    }
}

/// A program in the background that writes its output to a log file. Dropping it kills its whole process group.
#[derive(Debug)]
pub struct Background {
    group: Group,
    name: String,
    log: PathBuf,
}

impl Background {
    /// Starts it; what it says is appended to `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Background> {
        let file = File::options().create(true).append(true).open(log);
        let file = file.with_context(|| format!("the log {} cannot be opened", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        Ok(Background { group: Group::start(command)?, name: name.to_owned(), log: log.to_owned() })
    }

    /// Its process id, which is the id of its process group too.
    pub fn pid(&self) -> i32 {
        self.group.child.id().cast_signed()
    }

    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.group.poll()?.is_none())
    }

    /// Fails, with the end of its log, if it has ended.
    pub fn must_run(&mut self) -> Result<()> {
        if let Some(status) = self.group.poll()? {
            bail!(
                "{} ended early ({status}). The end of {}:\n{}",
                self.name,
                self.log.display(),
                self.log_end()
            );
        }
        Ok(())
    }

    /// Asks it to end with `signal` and waits; after `limit` it is killed.
    pub fn stop(&mut self, signal: Signal, limit: Duration) -> Result<()> {
        self.group.signal(signal);
        if self.group.wait(limit)?.is_none() {
            self.kill();
        }
        Ok(())
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        let group = &mut self.group;
        interrupt::await_until(&what, limit, interrupt::LOOK_EVERY, || group.poll())
    }

    /// Sends a signal to its process group.
    pub fn signal(&self, signal: Signal) {
        self.group.signal(signal);
    }

    /// Kills it with -9 and waits until it is gone.
    pub fn kill(&mut self) {
        self.group.signal(Signal::SIGKILL);
        // Nothing survives SIGKILL, but a busy system may take seconds to end the process.
        let _ = self.group.wait(Duration::from_secs(10));
    }

    /// The last lines of what it said.
    pub fn log_end(&self) -> String {
        end_of(&self.log)
    }
}

/// The processes that `parent` started and that have not been waited for, as Linux lists them. Other systems do not tell.
pub fn children(parent: Pid) -> Vec<Pid> {
    let threads = std::fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    let pids =
        |list: String| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>();
    lists.flat_map(pids).map(Pid::from_raw).collect()
}

/// The last lines of a log file.
pub fn end_of(log: &Path) -> String {
    let (bytes, lines) = SHOWN_OF_LOG;
    let mut tail = Vec::new();
    let read = File::open(log).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
        file.take(bytes).read_to_end(&mut tail)
    });
    if let Err(error) = read {
        return format!("(no log: {error})");
    }
    let text = String::from_utf8_lossy(&tail).into_owned();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_collected_and_failure_speaks() {
        let second = Duration::from_secs(5);
        assert_eq!(output(Command::new("echo").arg("hello"), second).unwrap(), "hello\n");
        let error = output(Command::new("sh").args(["-c", "echo why >&2; exit 3"]), second).unwrap_err();
        assert!(error.to_string().contains("why"), "{error}");
        let error = output(Command::new("sleep").arg("60"), Duration::from_millis(300)).unwrap_err();
        assert!(error.to_string().contains("did not end"), "{error}");
    }

    #[test]
    fn a_program_on_the_terminal_that_takes_too_long_is_ended() {
        succeed_within(&mut Command::new("true"), Duration::from_secs(5)).unwrap();
        let error = succeed_within(Command::new("sleep").arg("60"), Duration::from_millis(100)).unwrap_err();
        assert!(error.to_string().contains("did not end"), "{error}");
    }

    #[test]
    fn dropping_a_background_program_kills_its_children_too() {
        let log =
            std::env::temp_dir().join(format!("{}process-test-{}", crate::FOLDER_PREFIX, std::process::id()));
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 300 & echo $!; wait"]);
        let shell = Background::start("shell", &mut command, &log).unwrap();
        let inner = interrupt::await_until("pid", Duration::from_secs(5), interrupt::LOOK_EVERY, || {
            Ok(shell.log_end().trim().parse::<u32>().ok())
        });
        let inner = inner.unwrap();
        drop(shell);
        let gone = || {
            let state = std::fs::read_to_string(format!("/proc/{inner}/stat")).unwrap_or_default();
            Ok((state.is_empty() || state.contains(") Z ")).then_some(()))
        };
        interrupt::await_until("death", Duration::from_secs(5), interrupt::LOOK_EVERY, gone).unwrap();
        std::fs::remove_file(log).unwrap();
    }

    #[test]
    fn passwords_are_not_shown() {
        let mut command = Command::new("/usr/bin/strangler");
        command.args(["install", "--admin-url", "monolith=postgres://postgres:secret@127.0.0.1:1/shop"]);
        assert_eq!(
            shown(&command),
            "strangler install --admin-url monolith=postgres://postgres:***@127.0.0.1:1/shop"
        );
    }
}
