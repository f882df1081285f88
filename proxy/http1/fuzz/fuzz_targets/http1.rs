//! Any bytes: the crate reads them as the model does, however they are cut. The first byte says what they are, the second where
//! they are cut. The corpus gives the first inputs: they are written into the folder that `SEEDS` names.

#![no_main]

#[path = "../../tests/conversation/mod.rs"]
mod conversation;

use conversation::cases::{ANSWERS, REQUESTS, cases};
use conversation::{Kind, check};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

/// The model knows no bounds, so longer cases are left out.
const BYTES_MAX: usize = 900;

fuzz_target!(
    init: {
        if let Some(folder) = std::env::var_os("SEEDS") {
            write_seeds(Path::new(&folder)).expect("the seeds are written");
        }
    },
    |input: &[u8]| {
        let [kind, cut, bytes @ ..] = input else { return };
        check(Kind::ALL[usize::from(*kind) % Kind::ALL.len()], bytes, usize::from(*cut));
    }
);

fn write_seeds(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let requests = cases(REQUESTS).into_iter().map(|case| (Kind::Requests, case.sent));
    let answers = cases(ANSWERS).into_iter().map(|case| (Kind::Answers(case.to), case.sent));
    let fit = requests.chain(answers).filter(|(_, sent)| sent.len() <= BYTES_MAX);
    for (number, (kind, sent)) in fit.enumerate() {
        let kind = Kind::ALL.iter().position(|one| *one == kind).unwrap_or_default();
        let input = [&[kind as u8, (sent.len() / 2).min(255) as u8], &sent[..]].concat();
        std::fs::write(folder.join(format!("case-{number:03}")), input)?;
    }
    Ok(())
}
