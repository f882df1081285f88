//! A long-lived `psql` for many queries. A query takes a fraction of a millisecond; starting a `psql` for each would
//! take ten.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use lab::{interrupt, postgres, process};

/// Ends each answer.
const MARK: &str = "-- that was all --";
/// No single statement of a measurement takes longer.
const ANSWER_LIMIT: Duration = Duration::from_secs(600);
/// How often a wait for a slow answer checks for an interruption.
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub struct Session {
    child: Child,
    questions: ChildStdin,
    answers: Receiver<String>,
    log: std::path::PathBuf,
}

impl Session {
    /// Opens it; what goes wrong in it is written to `log`.
    pub fn open(url: &str, log: &Path) -> Result<Session> {
        let psql = postgres::programs().context("there is no Postgres here")?.join("psql");
        let file = File::options().create(true).append(true).open(log);
        let file = file.with_context(|| format!("{} cannot be opened", log.display()))?;
        let mut command = Command::new(psql);
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url]).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file);
        let mut child = command.spawn().context("`psql` cannot be started")?;
        let questions = child.stdin.take().context("`psql` has no input")?;
        let output = child.stdout.take().context("`psql` has no output")?;
        let (send, answers) = channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            // The session may be gone.
            lines.map(|line| send.send(line)).take_while(Result::is_ok).for_each(drop);
        });
        let mut session = Session { child, questions, answers, log: log.to_owned() };
        session.ask("SELECT 1")?;
        Ok(session)
    }

    /// Runs SQL; gives the rows as text, columns separated by `|`.
    pub fn ask(&mut self, sql: &str) -> Result<String> {
        let question = format!("{sql};\n\\echo {MARK}\n");
        let sent = self.questions.write_all(question.as_bytes()).and_then(|()| self.questions.flush());
        let mut rows: Vec<String> = Vec::new();
        let end = Instant::now() + ANSWER_LIMIT;
        loop {
            match self.answers.recv_timeout(LOOK_EVERY) {
                Ok(line) if line == MARK => return Ok(rows.join("\n")),
                Ok(line) => rows.push(line),
                Err(RecvTimeoutError::Timeout) => {
                    interrupt::check()?;
                    if Instant::now() > end {
                        bail!("no answer within {} s to: {sql}", ANSWER_LIMIT.as_secs());
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    sent.ok();
                    bail!("`psql` gave up at: {sql}\n{}", process::end_of(&self.log));
                }
            }
        }
    }

    pub fn number(&mut self, sql: &str) -> Result<f64> {
        let text = self.ask(sql)?;
        text.trim().parse().with_context(|| format!("no number but {text:?} from: {sql}"))
    }

    /// Queries every `pause` until `condition` holds; gives the database's time of day then, in seconds.
    pub fn await_holding(&mut self, condition: &str, limit: Duration, pause: Duration) -> Result<f64> {
        let sql = format!("SELECT coalesce(({condition}), false), extract(epoch FROM clock_timestamp())");
        let end = Instant::now() + limit;
        loop {
            let answer = self.ask(&sql)?;
            match answer.split_once('|') {
                Some(("t", time)) => return time.parse().with_context(|| format!("no time: {answer:?}")),
                Some(("f", _)) => {}
                _ => bail!("neither true nor false but {answer:?} from: {condition}"),
            }
            if Instant::now() > end {
                bail!("within {} s this did not come true: {condition}", limit.as_secs());
            }
            interrupt::check()?;
            std::thread::sleep(pause);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A killed `psql` loses nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
