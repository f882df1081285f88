//! `cargo xtask consumers`: programs of others read our topics, and what each makes of them is compared with Postgres.
//!
//! It fetches some hundred megabytes of Java programs and takes minutes, so it is no part of `cargo xtask test`.

mod house;
mod jdbc;
mod kcat;
mod load;
mod rows;
mod search;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};
use lab::interrupt;

use crate::demo;
use crate::prerequisites::Need;
use crate::{lock, terminal};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Consumer {
    /// Flink SQL with an aggregate, from the topics to OpenSearch: examples/search.
    Search,
    /// kcat, which reads records one by one.
    Kcat,
    /// Debezium's JDBC sink, from the topics of 69 tables to another Postgres database.
    Jdbc,
}

#[derive(Args, Clone, Debug)]
pub struct Wish {
    /// Only these.
    #[arg(value_enum)]
    only: Vec<Consumer>,
    /// Leave everything running until Ctrl-C, with changes to try.
    #[arg(long)]
    stay: bool,
    /// Take the programs that the last build left.
    #[arg(long)]
    built: bool,
    /// Install missing Debian packages without asking.
    #[arg(long)]
    pub yes: bool,
}

impl Wish {
    pub fn need(&self) -> Need {
        let kcat = self.wants(Consumer::Kcat);
        Need { build: true, postgres: true, kafka: true, jdk: true, kcat, ..Need::default() }
    }

    fn wants(&self, consumer: Consumer) -> bool {
        self.only.is_empty() || self.only.contains(&consumer)
    }
}

pub fn run(wish: &Wish) -> Result<ExitCode> {
    let _lock = lock::take(&house::folder())?;
    if !wish.built {
        demo::build()?;
    }
    let mut wrong = 0;
    if wish.wants(Consumer::Search) || wish.wants(Consumer::Kcat) {
        wrong += search::run(wish.wants(Consumer::Search), wish.wants(Consumer::Kcat), wish.stay)?;
    }
    if wish.wants(Consumer::Jdbc) {
        wrong += jdbc::run(wish.stay)?;
    }
    let told = if wrong == 0 {
        "every consumer has what Postgres has".to_owned()
    } else {
        format!("{wrong} differ")
    };
    terminal::heading(&told);
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Compares until both are equal, or it takes too long. Whether they are; if not, the difference is shown.
fn comes_to(
    claim: &str,
    expected: impl Fn() -> Result<rows::Rows>,
    mut found: impl FnMut() -> Result<rows::Rows>,
) -> Result<bool> {
    let compare = || -> Result<Option<usize>> {
        let expected = expected()?;
        Ok((found()? == expected).then_some(expected.len()))
    };
    match interrupt::await_until(claim, house::ARRIVAL_LIMIT, house::LOOK, compare) {
        Ok(count) => {
            terminal::verdict(true, &format!("{claim} ({count} rows)"));
            Ok(true)
        }
        Err(error) if error.is::<interrupt::Interrupted>() => Err(error),
        Err(error) => {
            terminal::verdict(false, &format!("{claim}: {error:#}"));
            println!("{}", rows::difference(&expected()?, &found()?));
            Ok(false)
        }
    }
}
