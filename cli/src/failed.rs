//! A command that failed: why, and where the slice stands if that is known. As JSON both are one document.

use migrations::problem::Problem;
use serde::Serialize;
use serde_json::{Map, Value};

#[derive(Debug, Serialize)]
pub(crate) struct Failed {
    #[serde(flatten)]
    pub(crate) problem: Problem,
    exit: u8,
    /// The slice's document; empty where none is known.
    #[serde(flatten)]
    stands: Box<Map<String, Value>>,
}

impl Failed {
    pub(crate) fn with(problem: Problem, stands: &impl Serialize) -> Self {
        let stands = match serde_json::to_value(stands) {
            Ok(Value::Object(stands)) => stands,
            _ => Map::new(),
        };
        Self { exit: problem.exit(), problem, stands: Box::new(stands) }
    }

    pub(crate) fn exit(&self) -> u8 {
        self.exit
    }
}

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        Self { exit: problem.exit(), problem, stands: Box::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use migrations::code::Code;
    use serde_json::json;

    #[test]
    fn why_and_where_are_one_document() {
        let problem = Problem::new(Code::SliceStage, "no", "wait");
        let failed = Failed::with(problem, &json!({ "stage": "split", "next_steps": ["strangler status"] }));
        let document = serde_json::to_value(&failed).unwrap();
        assert_eq!((&document["exit"], &document["code"]), (&json!(4), &json!("slice.stage")));
        assert_eq!(
            (&document["stage"], &document["next_steps"][0]),
            (&json!("split"), &json!("strangler status"))
        );
    }
}
