//! What a person sees of a run: a line for everything that happens, and on a terminal a last line that says how it goes.
//! All lines are kept in a file, too.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::terminal;

#[derive(Debug)]
pub struct Screen {
    began: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: File,
    /// What the last line says, on a terminal.
    state: Option<String>,
}

impl Screen {
    pub fn open(log: &Path) -> Result<Screen> {
        let file = File::create(log).with_context(|| format!("{} cannot be written", log.display()))?;
        let state = std::io::stdout().is_terminal().then(String::new);
        Ok(Screen { began: Instant::now(), inner: Mutex::new(Inner { file, state }) })
    }

    /// Something happened.
    pub fn line(&self, text: &str) {
        let line = format!("{:>7.1} s  {text}", self.began.elapsed().as_secs_f64());
        let mut inner = self.lock();
        // The screen shows the same; a full disk ends the run elsewhere.
        let _ = writeln!(inner.file, "{line}");
        match &inner.state {
            None => println!("{line}"),
            Some(state) => print!("\r\x1b[K{line}\n{}", terminal::dim(state)),
        }
        let _ = std::io::stdout().flush();
    }

    /// Into the file alone.
    pub fn keep(&self, text: &str) {
        let _ = writeln!(self.lock().file, "{text}");
    }

    /// How it goes, for a terminal.
    pub fn state(&self, text: &str) {
        let mut inner = self.lock();
        if let Some(state) = &mut inner.state {
            text.clone_into(state);
            print!("\r\x1b[K{}", terminal::dim(state));
            let _ = std::io::stdout().flush();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
