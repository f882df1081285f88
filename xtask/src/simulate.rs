//! `cargo xtask simulate`: lives the worlds of the controller's simulation, as many as are wanted, or one of them again.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use lab::process;

/// The test that lives the worlds, and the variables that it reads.
const TEST: &str = "simulation::no_world_comes_to_a_bad_end";
const SEED_VARIABLE: &str = "STRANGLER_TEST_SEED";
const SEEDS_VARIABLE: &str = "STRANGLER_TEST_SEEDS";

#[derive(Args, Debug)]
pub struct Wish {
    /// How many worlds, from seed 0 on.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// Live this one world again, and print everything that happens if it comes to a bad end.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
}

pub fn run(wish: &Wish) -> Result<ExitCode> {
    let mut cargo = process::cargo();
    // With the features of the whole workspace, or else its dependencies would be compiled once more.
    cargo.args(["test", "--locked", "--workspace", "--lib", TEST, "--", "--nocapture"]);
    cargo.env_remove(SEED_VARIABLE).env(SEEDS_VARIABLE, wish.seeds.to_string());
    if let Some(seed) = wish.seed {
        cargo.env(SEED_VARIABLE, seed.to_string());
    }
    process::succeed(&mut cargo).context("a world came to a bad end; its seed is printed above")?;
    Ok(ExitCode::SUCCESS)
}
