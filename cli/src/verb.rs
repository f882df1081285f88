//! The verbs, one per file: its options, and what it does.

pub(crate) mod abort;
pub(crate) mod check;
pub(crate) mod complete;
pub(crate) mod completions;
pub(crate) mod confirm;
pub(crate) mod cutover;
pub(crate) mod doctor;
pub(crate) mod down;
pub(crate) mod init;
pub(crate) mod install;
pub(crate) mod journal;
pub(crate) mod part;
pub(crate) mod readers;
pub(crate) mod reconcile;
pub(crate) mod rehearse;
pub(crate) mod reload;
pub(crate) mod rollback;
pub(crate) mod route;
pub(crate) mod status;
pub(crate) mod sync;
pub(crate) mod tail;
pub(crate) mod uninstall;
pub(crate) mod up;
pub(crate) mod verify;
pub(crate) mod writers;

use migrations::code::Code;
use migrations::names::SliceName;
use migrations::problem::Problem;

/// The plan lacks this slice; names those that it has.
pub(crate) fn no_slice<'a>(slice: &SliceName, known: impl Iterator<Item = &'a SliceName>) -> Problem {
    let known: Vec<&str> = known.map(SliceName::as_str).collect();
    let remedy = match &known[..] {
        [] => "it has none yet; write one under `slices:` in the plan".to_owned(),
        known => format!("it has: {}", known.join(", ")),
    };
    Problem::new(Code::SliceUnknown, format!("the plan has no slice `{slice}`"), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_that_is_not_there_names_those_that_are() {
        let slice: SliceName = "ordres".parse().unwrap();
        let known: [SliceName; 2] = ["carts", "orders"].map(|name| name.parse().unwrap());
        assert_eq!(no_slice(&slice, known.iter()).remedy, "it has: carts, orders");
        assert!(no_slice(&slice, [].iter()).remedy.contains("`slices:`"));
    }
}
