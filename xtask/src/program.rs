//! A program in the background that answers HTTP when it is well, and that can be killed, frozen and started again.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use lab::interrupt;
use lab::process::Background;
use nix::sys::signal::Signal;

use crate::demo::probe;

/// Seeding ten thousand orders takes seconds; a busy machine may need longer.
const START_LIMIT: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(50);

/// What can be killed, frozen and brought back.
pub trait Victim: Send {
    /// With -9.
    fn kill(&mut self);
    /// Starts it again, and does not wait.
    fn restart(&mut self) -> Result<()>;
    /// Stops it where it is: its connections stay, and it answers nobody.
    fn freeze(&mut self);
    fn thaw(&mut self);
    fn is_well(&mut self) -> bool;
    /// Fails if it ended by itself.
    fn must_run(&mut self) -> Result<()>;
}

#[derive(Debug)]
pub struct Program {
    name: String,
    command: Command,
    /// `host:port` and path of what answers 200 when it is well.
    health: (String, &'static str),
    log: PathBuf,
    running: Background,
}

impl Program {
    /// Starts it, and waits until it is well. What it says is appended to `log`.
    pub fn start(
        name: &str,
        mut command: Command,
        health: (&str, &'static str),
        log: &Path,
    ) -> Result<Program> {
        let running = Background::start(name, &mut command, log)?;
        let health = (health.0.to_owned(), health.1);
        let mut program = Program { name: name.to_owned(), command, health, log: log.to_owned(), running };
        program.await_well()?;
        Ok(program)
    }

    /// Leaves an argument out from the next start on.
    pub fn leave_out(&mut self, argument: &str) {
        let mut command = Command::new(self.command.get_program());
        command.args(self.command.get_args().filter(|one| *one != argument));
        command.envs(self.command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        self.command = command;
    }

    fn await_well(&mut self) -> Result<()> {
        interrupt::await_until(&format!("the start of {}", self.name), START_LIMIT, LOOK, || {
            self.running.must_run()?;
            Ok(Program::is_well(self).then_some(()))
        })
    }

    pub fn is_well(&self) -> bool {
        let (address, path) = &self.health;
        probe::send(address, "GET", path, None).is_ok_and(|answer| answer.status == 200)
    }

    pub fn must_run(&mut self) -> Result<()> {
        self.running.must_run()
    }

    /// Asks it to end. Whether it did within `limit`; otherwise it was killed.
    pub fn end(&mut self, limit: Duration) -> Result<bool> {
        self.running.signal(Signal::SIGTERM);
        let ended = self.running.wait(limit).is_ok();
        self.running.kill();
        Ok(ended)
    }
}

impl Victim for &mut Program {
    fn kill(&mut self) {
        self.running.kill();
    }

    fn restart(&mut self) -> Result<()> {
        self.running = Background::start(&self.name, &mut self.command, &self.log)?;
        Ok(())
    }

    fn freeze(&mut self) {
        self.running.signal(Signal::SIGSTOP);
    }

    fn thaw(&mut self) {
        self.running.signal(Signal::SIGCONT);
    }

    fn is_well(&mut self) -> bool {
        Program::is_well(self)
    }

    fn must_run(&mut self) -> Result<()> {
        self.running.must_run()
    }
}
