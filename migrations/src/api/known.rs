//! What a wish names: verbs, slices and routes, and what was likely meant where nothing has that name.

use crate::code::Code;
use crate::journal::State;
use crate::names::SliceName;
use crate::plan::{Plan, Slice};
use crate::problem::Problem;
use crate::stage::Stage;

/// The plan's slice of that name; else a refusal that knows what was likely meant.
pub fn known_slice<'p>(plan: &'p Plan, state: &State, name: &SliceName) -> Result<&'p Slice, Problem> {
    if let Some(slice) = plan.slices.get(name) {
        return Ok(slice);
    }
    if state.slice(name).stage != Stage::Monolith {
        let message = format!("the journal knows slice {name}, but the plan does not name it any more");
        return Err(Problem::new(
            Code::SliceUnknown,
            message,
            "put it back into the plan and run `strangler reload`",
        ));
    }
    let names = plan.slices.keys().map(SliceName::as_str);
    Err(Problem::new(
        Code::SliceUnknown,
        format!("the plan has no slice {name}"),
        likely(name.as_str(), names, "slices"),
    ))
}

pub(super) fn likely<'c>(
    word: &str,
    candidates: impl Iterator<Item = &'c str> + Clone,
    what: &str,
) -> String {
    let near = candidates.clone().max_by(|a, b| {
        let like = |candidate: &str| strsim::normalized_damerau_levenshtein(word, candidate);
        like(a).total_cmp(&like(b))
    });
    match near {
        None => format!("the plan names no {what}"),
        Some(near) if strsim::normalized_damerau_levenshtein(word, near) >= 0.5 => {
            format!("did you mean {near}?")
        }
        Some(_) => format!("its {what} are {}", candidates.collect::<Vec<_>>().join(", ")),
    }
}
