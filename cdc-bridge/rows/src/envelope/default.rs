//! A column's default as Debezium reads it from the catalog's expression (its source, `PostgresDefaultValueConverter`):
//! a literal is its value, a function a placeholder of the type, and what is computed otherwise mostly nothing.

use super::format::Format;
use super::value;
use crate::change::Column;
use migrations::column_type::{ColumnType, Form};
use migrations::plan::Decimals;

/// What the server computes at the time of an insert, besides functions.
const TIMES: [&str; 5] = ["current_timestamp", "current_time", "current_date", "localtime", "localtimestamp"];

/// The default as JSON; none where the column has none that Debezium reads.
pub(super) fn json(column: &Column, format: &Format) -> Option<Vec<u8>> {
    let text = text(column)?;
    // Connect takes no struct for a default.
    if matches!(column.kind, ColumnType::NumericAny) && format.decimals == Decimals::Precise {
        return None;
    }
    let mut json = Vec::new();
    value::write(&column.kind, format, text.as_bytes(), &mut json).then_some(json)
}

/// The default as the text that the type prints.
fn text(column: &Column) -> Option<String> {
    let expression = column.default.as_deref()?;
    let placeholder = match &column.kind {
        ColumnType::Enum { .. } => return enum_label(expression),
        ColumnType::Text => return literal(expression, ""),
        ColumnType::Json | ColumnType::Jsonb => return literal(expression, "{}"),
        ColumnType::Printed { form: Form::Xml, .. } => return literal(expression, ""),
        ColumnType::Bool => {
            let word = literal(expression.trim(), "false")?;
            return Some(if word.eq_ignore_ascii_case("true") { "t" } else { "f" }.to_owned());
        }
        ColumnType::Numeric { .. } | ColumnType::NumericAny => "0.0",
        ColumnType::Float4 | ColumnType::Float8 => "0.0",
        ColumnType::Int2 | ColumnType::Int4 | ColumnType::Int8 => "0",
        ColumnType::Uuid => "00000000-0000-0000-0000-000000000000",
        ColumnType::Date => "1970-01-01",
        ColumnType::Time { .. } => "00:00:00",
        ColumnType::Timestamp { .. } => "1970-01-01 00:00:00",
        ColumnType::Timestamptz => "1970-01-01 00:00:00+00",
        ColumnType::Printed { form: Form::Interval, .. } => "00:00:00",
        ColumnType::Printed { form: Form::Bits { .. }, .. } => "0",
        ColumnType::Oid
        | ColumnType::Bytea
        | ColumnType::Array(_)
        | ColumnType::Printed { .. }
        | ColumnType::Composite { .. }
        | ColumnType::Unsupported(_) => return None,
    };
    // An infinite time has no number that Java could make of it.
    literal(expression.trim(), placeholder).filter(|text| !text.ends_with("infinity"))
}

/// The first text in quotes, or the whole expression where there is none.
fn literal(expression: &str, placeholder: &str) -> Option<String> {
    if is_function(expression) || TIMES.iter().any(|time| expression.eq_ignore_ascii_case(time)) {
        return Some(placeholder.to_owned());
    }
    if expression.starts_with("NULL::") {
        return None;
    }
    let Some((_, quoted)) = expression.split_once('\'') else { return Some(expression.to_owned()) };
    let (mut text, mut rest) = (String::new(), quoted);
    loop {
        let (part, after) = rest.split_once('\'')?;
        text.push_str(part);
        rest = match after.strip_prefix('\'') {
            Some(rest) => rest,
            None => return Some(text),
        };
        text.push('\'');
    }
}

/// Whether it begins with a call, in parentheses or not: `nextval('a'::regclass)`, `(now() + '1 day'::interval)`.
fn is_function(expression: &str) -> bool {
    let expression = expression.strip_prefix('(').unwrap_or(expression);
    let name = expression.find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '.'));
    let arguments = name.filter(|len| *len > 0).and_then(|len| expression[len..].strip_prefix('('));
    arguments.and_then(|arguments| arguments.lines().next()).is_some_and(|line| line.contains(')'))
}

/// Debezium leaves quotes within a label doubled.
fn enum_label(expression: &str) -> Option<String> {
    let (label, _) = expression.rsplit_once("::")?;
    Some(label.strip_prefix('\'')?.strip_suffix('\'')?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn default(kind: ColumnType, expression: &str) -> Option<String> {
        let column = Column {
            name: "c".to_owned(),
            kind,
            declared: None,
            is_key: false,
            key_position: 0,
            nullable: true,
            number: 0,
            stored: None,
            default: Some(expression.to_owned()),
        };
        let format = Format::of(&migrations::plan::Publish::default(), &column);
        json(&column, &format).map(|json| String::from_utf8(json).unwrap())
    }

    #[test]
    fn defaults_are_read_as_debezium_reads_them() {
        let numeric = ColumnType::Numeric { precision: 5, scale: 2 };
        let mood = ColumnType::Enum { name: "mood".to_owned(), labels: Vec::new() };
        let (time, stamp) = (ColumnType::Time { precision: 6 }, ColumnType::Timestamp { precision: 3 });
        let interval = ColumnType::Printed { name: "interval".to_owned(), form: Form::Interval };
        let bits = |length| ColumnType::Printed {
            name: "bit".to_owned(),
            form: Form::Bits { length: Some(length) },
        };
        for (kind, expression, expected) in [
            (ColumnType::Int4, "5", Some("5")),
            (ColumnType::Int4, "'-5'::integer", Some("-5")),
            (ColumnType::Int4, "nextval('orders_id_seq'::regclass)", Some("0")),
            (ColumnType::Int4, "(1 + 2)", None),
            (ColumnType::Int8, "NULL::bigint", None),
            (ColumnType::Bool, "true", Some("true")),
            (ColumnType::Text, "'it''s'::text", Some("\"it's\"")),
            (ColumnType::Text, "lower('X'::text)", Some("\"\"")),
            (ColumnType::Text, "CURRENT_USER", Some("\"CURRENT_USER\"")),
            (numeric.clone(), "1.5", Some("\"AJY=\"")),
            (numeric, "1.555", None),
            (ColumnType::NumericAny, "1.5", None),
            (ColumnType::Float8, "'-0.5'::numeric", Some("-0.5")),
            (ColumnType::Jsonb, "'{}'::jsonb", Some("\"{}\"")),
            (ColumnType::Uuid, "gen_random_uuid()", Some("\"00000000-0000-0000-0000-000000000000\"")),
            (ColumnType::Date, "CURRENT_DATE", Some("0")),
            (ColumnType::Date, "'infinity'::date", None),
            (ColumnType::Date, "('now'::text)::date", None),
            (time, "'12:00:00'::time without time zone", Some("43200000000")),
            (stamp, "now()", Some("0")),
            (ColumnType::Timestamptz, "(now() + '1 day'::interval)", Some("\"1970-01-01T00:00:00.000000Z\"")),
            (interval, "'1 day'::interval", Some("86400000000")),
            (bits(1), "B'1'::\"bit\"", Some("true")),
            (bits(3), "B'101'::\"bit\"", Some("\"BQ==\"")),
            (mood, "'sad'::public.mood", Some("\"sad\"")),
            (ColumnType::Bytea, "'\\x00'::bytea", None),
        ] {
            assert_eq!(default(kind.clone(), expression).as_deref(), expected, "{kind:?} {expression}");
        }
    }
}
