//! `cargo xtask demo`: the whole story on one machine. A shop with two databases, customers who never stop ordering,
//! and `strangler` taking the orders out of the monolith, command by command, on screen.
//!
//! This file sets up and tears down; `demo/story.rs` is the story. Everything that is started here ends here, whatever
//! happens in between.

mod at_service;
mod claims;
pub mod leftovers;
pub mod probe;
pub mod shop;
mod story;
pub mod strangler;
pub mod traffic;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

use clap::Args;
use lab::{Broker, free_port, interrupt, kafka, process};

use crate::prerequisites::{self, Need};
use crate::{kept, lock, terminal};
use claims::Claims;
use shop::Shop;
use strangler::Strangler;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Log {
    Kafka,
    Embedded,
}

impl Log {
    pub fn name(self) -> &'static str {
        match self {
            Log::Kafka => "kafka",
            Log::Embedded => "embedded",
        }
    }
}

#[derive(Args, Clone, Copy, Debug)]
pub struct Wish {
    /// Use a real broker; without --kafka and --embedded, do so if Java and Maven are found.
    #[arg(long, conflicts_with = "embedded")]
    kafka: bool,
    /// Use the bridge's own store on disk.
    #[arg(long)]
    embedded: bool,
    /// End after the story, exit with 0 only if every claim held, and write target/demo/report.json.
    #[arg(long)]
    once: bool,
    /// Leave the folders of databases and broker behind.
    #[arg(long)]
    pub keep: bool,
    /// Take the programs that the last build left.
    #[arg(long)]
    built: bool,
    /// Install missing Debian packages without asking.
    #[arg(long)]
    pub yes: bool,
}

impl Wish {
    fn log(&self) -> Option<Log> {
        match (self.kafka, self.embedded) {
            (true, _) => Some(Log::Kafka),
            (false, true) => Some(Log::Embedded),
            (false, false) => None,
        }
    }

    pub fn need(&self) -> Need {
        Need { build: true, postgres: true, kafka: self.kafka, ..Need::default() }
    }
}

/// All that runs for the demo. Its fields end in this order: first what uses the others.
pub struct Stage {
    pub traffic: traffic::Traffic,
    pub strangler: Strangler,
    pub shop: Shop,
    /// The broker, if the log is Kafka.
    pub broker: Option<Broker>,
    /// Whether someone watches: then there is time to read.
    pub watched: bool,
}

pub fn run(wish: &Wish) -> Result<ExitCode> {
    let _lock = lock::take(&demo_folder())?;
    let log = prepare(wish)?;
    let mut claims = Claims::new(log.name());
    let told = tell(wish, log, &mut claims);
    if let Err(error) = &told {
        if error.is::<interrupt::Interrupted>() {
            return told.map(|()| ExitCode::FAILURE);
        }
        println!("\n{} {error:#}", terminal::red("error:"));
        claims.hold("the story was told to its end", false);
    }
    let path = demo_folder().join("report.json");
    kept::write(&path, &claims)?;
    println!("\n{} (report: {})", claims.summary(), path.display());
    Ok(if claims.all_held() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn prepare(wish: &Wish) -> Result<Log> {
    terminal::heading("set-up");
    let log = match wish.log() {
        Some(log) => log,
        None if prerequisites::missing(&Need::kafka()).is_empty() => Log::Kafka,
        None => Log::Embedded,
    };
    let why = match (wish.log(), log) {
        (Some(_), _) => "as asked",
        (None, Log::Kafka) => "Java and Maven are here; --embedded does without",
        (None, Log::Embedded) => "Java or Maven is missing; --kafka installs them",
    };
    println!("log: {} ({why})", log.name());
    if !wish.built {
        build()?;
    }
    Ok(log)
}

/// Builds the programs that [`built`] names.
pub fn build() -> Result<()> {
    terminal::note("building strangler and the shop (some minutes the first time)");
    let mut cargo = process::cargo();
    process::succeed(cargo.args(["build", "-p", "strangler-cli", "-p", "monolith-demo"]))
}

fn broker() -> Result<Broker> {
    if !kafka::is_fetched() {
        terminal::during("fetching Kafka from Maven Central, 43 MB, this once", kafka::fetch)?;
    }
    terminal::during("starting Kafka", || Broker::start(None))
}

/// Sets the stage, tells the story, and stays up unless `--once` was given.
fn tell(wish: &Wish, log: Log, claims: &mut Claims) -> Result<()> {
    let broker = match log {
        Log::Kafka => Some(broker()?),
        Log::Embedded => None,
    };
    let shop = terminal::during("starting two Postgres clusters, the monolith and the service", Shop::open)?;
    let listen = format!("127.0.0.1:{}", free_port()?);
    let kafka = broker.as_ref().map(Broker::address);
    let strangler = Strangler::unpack(&demo_folder(), &shop, &listen, kafka.as_deref())?;
    let traffic = traffic::Traffic::prepared(&shop, &[&listen], &demo_folder());
    let watched = !wish.once && std::io::stdout().is_terminal();
    let mut stage = Stage { traffic, strangler, shop, broker, watched };
    if let Some(broker) = &stage.broker {
        println!("Kafka      {}", broker.address());
    }
    println!(
        "monolith   {}\nservice    {}\nproxy      http://{listen}",
        stage.shop.monolith_url, stage.shop.orders_url
    );
    if wish.keep {
        stage.keep();
    }
    let told = story::tell(&mut stage, claims);
    if let Err(error) = told {
        if !error.is::<interrupt::Interrupted>() {
            stage.show_logs();
        }
        return Err(error);
    }
    let was_stopped = if wish.once { false } else { story::stay(&mut stage)? };
    story::end(&mut stage, claims, was_stopped).inspect_err(|_| stage.show_logs())
}

impl Stage {
    fn keep(&mut self) {
        for folder in self.shop.keep() {
            println!("kept       {}", folder.display());
        }
        if let Some(broker) = &mut self.broker {
            broker.keep();
            println!("kept       {}", broker.folder().display());
        }
    }

    /// The ends of all logs, for a story that went wrong.
    fn show_logs(&self) {
        for (name, end) in self.strangler.log_ends() {
            println!("\n{}\n{end}", terminal::bold(&format!("the end of {name}:")));
        }
    }
}

/// Where the demo's plan, state, ledger and report are.
fn demo_folder() -> PathBuf {
    lab::target().join("demo")
}

/// A file of `monolith-demo`, as it is in the repository.
fn patient_file(name: &str) -> Result<String> {
    let path = lab::root().join("monolith-demo").join(name);
    std::fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))
}

fn built(name: &str) -> PathBuf {
    lab::target().join("debug").join(name)
}
