//! `cargo xtask bench`: which measurements there are.

use crate::{Misuse, Options};

/// Why the command line cannot be followed.
pub fn refusal(options: &Options) -> Misuse {
    Misuse(match options.words.first().map(String::as_str) {
        Some(case @ ("cdc" | "proxy")) => format!("`bench {case}` does not measure anything yet"),
        Some(other) => format!("there is no `bench {other}`; say cdc or proxy"),
        None => "bench what? Say cdc or proxy".to_owned(),
    })
}
