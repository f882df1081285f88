//! Comparing a source table's rows with a sink table's, as SQL that the sink's database runs over the source's texts.
//!
//! Pure. The sink's database makes the mapped values by the same casts and expressions as when rows are applied, so only
//! values are compared: a numeric's scale, the spacing of a jsonb, the zone of a timestamptz and the blanks that fill a
//! char(n) are no difference. Texts are compared byte by byte, whatever the column's collation calls equal; so are types of
//! which nothing but their text is known, whatever their own operators call equal, if they have any.

use super::{Input, Mapping, Output, Statement, list};
use migrations::column_type::ColumnType;
use migrations::names::quote_identifier;

/// The number of a row among the parameters.
pub(super) const NUMBER: &str = "strangler_n";

/// Another text for each version of the row `t`: no two versions at one place have the same inserting transaction.
pub(crate) const VERSION: &str = "t.tableoid::text || t.ctid::text || t.xmin::text AS version";

/// How a table's rows are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// Whole rows in: those that are not the same in the sink come out, as number from 1, the version of the sink's row
    /// (none if there is no such row), and the indexes in [`Comparison::columns`] that differ.
    pub differing: Statement,
    /// Keys in: those that the sink has come out, as number and version.
    pub found: Statement,
    /// The compared sink columns.
    pub columns: Vec<String>,
    /// Pairs of a source's and a sink's key column that hold the same value; none if an expression makes a key.
    pub key: Option<Vec<(String, String)>>,
}

impl Mapping {
    pub fn comparison(&self) -> Comparison {
        let key = self.outputs.iter().filter(|output| output.is_key).map(|output| {
            let input = self.inputs.iter().find(|input| Some(input.index) == output.source)?;
            Some((input.name.clone(), output.column.clone()))
        });
        Comparison {
            differing: self.differing(),
            found: self.found(),
            columns: self.outputs.iter().map(|output| output.column.clone()).collect(),
            key: key.collect(),
        }
    }

    fn differing(&self) -> Statement {
        let outputs = || self.outputs.iter().enumerate();
        let made = list(outputs().map(|(n, output)| format!("{} AS c{n}", made(output))));
        let stored = list(outputs().map(|(n, output)| format!("{} AS d{n}", stored(output))));
        let differs = |n: usize| format!("t.d{n} IS DISTINCT FROM s.c{n}");
        let columns = list(outputs().map(|(n, _)| format!("CASE WHEN {} THEN {n} END", differs(n))));
        let any: Vec<String> = outputs().map(|(n, _)| differs(n)).collect();
        let sql = format!(
            "SELECT s.n, t.version, array_remove(ARRAY[{columns}], NULL)::int[] \
             FROM (SELECT r.{NUMBER} AS n, {}, {made} FROM {}) AS s \
             LEFT JOIN LATERAL (SELECT {VERSION}, {stored} FROM {} AS t WHERE {} LIMIT 1) AS t ON true \
             WHERE t.version IS NULL OR {}",
            self.keys(),
            numbered(&self.inputs),
            self.to.quoted(),
            self.matching_numbered(),
            any.join(" OR "),
        );
        Statement { sql, columns: self.source_indexes() }
    }

    fn found(&self) -> Statement {
        let inputs = self.key_inputs();
        let sql = format!(
            "SELECT s.n, t.version FROM (SELECT r.{NUMBER} AS n, {} FROM {}) AS s \
             JOIN LATERAL (SELECT {VERSION} FROM {} AS t WHERE {} LIMIT 1) AS t ON true",
            self.keys(),
            numbered(&inputs),
            self.to.quoted(),
            self.matching_numbered(),
        );
        Statement { sql, columns: inputs.iter().map(|input| input.index).collect() }
    }

    fn keys(&self) -> String {
        let keys = self.outputs.iter().filter(|output| output.is_key).enumerate();
        list(keys.map(|(n, output)| format!("({})::{} AS k{n}", output.expression, output.cast_type)))
    }

    fn matching_numbered(&self) -> String {
        let keys = self.outputs.iter().filter(|output| output.is_key).enumerate();
        let parts: Vec<String> = keys.map(|(n, output)| output.is(&format!("s.k{n}"))).collect();
        parts.join(" AND ")
    }
}

/// The parameters as rows with numbers, each column under its source name.
pub(super) fn numbered(inputs: &[Input]) -> String {
    let named = |(n, input): (usize, &Input)| {
        format!("u.v{n}::{} AS {}", input.cast_type, quote_identifier(&input.name))
    };
    let casts = list(inputs.iter().enumerate().map(named));
    let arrays = list((1..=inputs.len()).map(|n| format!("${n}::text[]")));
    let names = list((0..inputs.len()).map(|n| format!("v{n}")));
    format!("(SELECT {casts}, u.{NUMBER} FROM unnest({arrays}) WITH ORDINALITY AS u({names}, {NUMBER})) AS r")
}

/// In which form two values of a column are compared.
#[derive(Debug, PartialEq, Eq)]
enum Form {
    /// As values of this type.
    Value(String),
    Text,
    Texts,
    /// By what the type prints.
    Printed,
}

impl Form {
    fn of(output: &Output) -> Form {
        let (kind, modifier) = output.kind.without_domain(output.modifier);
        let one = |one: &ColumnType, text: Form| match one {
            ColumnType::Text | ColumnType::Json => text,
            // Types whose column rounds what it is given.
            ColumnType::Numeric { .. }
            | ColumnType::NumericAny
            | ColumnType::Time { .. }
            | ColumnType::Timestamp { .. }
            | ColumnType::Timestamptz => Form::Value(kind.sql(modifier)),
            ColumnType::Printed { .. }
            | ColumnType::Composite { .. }
            | ColumnType::Array(_)
            | ColumnType::Unsupported(_) => Form::Printed,
            _ => Form::Value(output.cast_type.clone()),
        };
        match ColumnType::of(kind, modifier) {
            ColumnType::Array(element) => one(&element, Form::Texts),
            kind => one(&kind, Form::Text),
        }
    }

    fn wrap(&self, value: &str) -> String {
        match self {
            Form::Value(_) => value.to_owned(),
            Form::Text => format!("{value}::text COLLATE \"C\""),
            Form::Texts => format!("{value}::text[] COLLATE \"C\""),
            Form::Printed => format!("{} COLLATE \"C\"", printed(value)),
        }
    }
}

/// What a value's type prints. A cast to text may be a function of its own.
pub(crate) fn printed(value: &str) -> String {
    format!("CASE WHEN {value} IS DISTINCT FROM NULL THEN format('%s', {value}) END")
}

/// The value that the mapping makes.
pub(super) fn made(output: &Output) -> String {
    let form = Form::of(output);
    let kind = match &form {
        Form::Value(kind) => kind,
        // A cast to a length would cut a text, where applying the row refuses it.
        Form::Text | Form::Texts | Form::Printed => &output.cast_type,
    };
    form.wrap(&format!("({})::{kind}", output.expression))
}

/// The value that the sink holds.
pub(super) fn stored(output: &Output) -> String {
    Form::of(output).wrap(&format!("t.{}", quote_identifier(&output.column)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use migrations::column_type::{TypeName, TypeSeen};
    use std::collections::BTreeSet;

    fn output(kind: TypeSeen, modifier: i32, cast: &str) -> Output {
        Output {
            column: "c".to_owned(),
            cast_type: cast.to_owned(),
            is_key: false,
            expression: "\"c\"".to_owned(),
            reads: BTreeSet::new(),
            source: None,
            kind,
            modifier,
            equals: "=".to_owned(),
        }
    }

    fn base(name: &str) -> TypeSeen {
        TypeSeen::Base(name.to_owned())
    }

    #[test]
    fn a_text_is_compared_by_its_bytes_and_never_cut() {
        let varchar = output(base("varchar"), 7, "character varying");
        assert_eq!(made(&varchar), "(\"c\")::character varying::text COLLATE \"C\"");
        assert_eq!(stored(&varchar), "t.\"c\"::text COLLATE \"C\"");
        let citext = TypeSeen::Own(TypeName { schema: "ext".to_owned(), name: "citext".to_owned() });
        let texts = output(TypeSeen::Array(Box::new(citext)), -1, "ext.citext[]");
        assert_eq!(stored(&texts), "t.\"c\"::text[] COLLATE \"C\"");
    }

    #[test]
    fn a_number_is_rounded_as_its_column_rounds_it() {
        let numeric = output(base("numeric"), (12 << 16) + 2 + 4, "numeric");
        assert_eq!(
            (made(&numeric), stored(&numeric)),
            ("(\"c\")::numeric(12,2)".to_owned(), "t.\"c\"".to_owned())
        );
        let jsonb = output(base("jsonb"), -1, "jsonb");
        assert_eq!(made(&jsonb), "(\"c\")::jsonb");
        let moods = TypeSeen::Enum { name: "public.mood".to_owned(), labels: Vec::new() };
        assert_eq!(made(&output(moods, -1, "mood")), "(\"c\")::mood");
    }
}
