//! `cargo xtask bench`: which measurements there are.

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::{Misuse, Options};

/// Runs the measurement that the command line names.
///
/// # Errors
/// When it names none that there is.
pub fn run(options: &Options) -> Result<ExitCode> {
    match options.words.first().map(String::as_str) {
        Some(case @ ("cdc" | "proxy")) => {
            bail!(Misuse(format!("`bench {case}` does not measure anything yet")))
        }
        Some(other) => bail!(Misuse(format!("there is no `bench {other}`; say cdc or proxy"))),
        None => bail!(Misuse("bench what? Say cdc or proxy".to_owned())),
    }
}
