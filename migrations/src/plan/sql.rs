//! SQL expressions of the plan: exactly one, over columns of one row, giving the same for the same row every time.
//!
//! Copy, stream and replay each evaluate an expression, at different moments and in different sessions; only what
//! depends on the row alone makes them agree. Whether names and types exist is for `doctor`, on the live database.

mod functions;

use super::SqlExpression;
use crate::code::Code;
use sqlparser::ast::{
    AccessExpr, CastKind, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident,
    ObjectNamePart, Subscript, Value,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, Tokenizer, Whitespace};
use std::collections::BTreeSet;

const EXPRESSION_BYTES_MAX: usize = 4096;
const RECURSION_MAX: usize = 40;

/// Why a text is not an expression that a plan may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unfit {
    pub code: Code,
    pub message: String,
    pub hint: String,
}

fn unfit(code: Code, message: impl Into<String>, hint: impl Into<String>) -> Unfit {
    Unfit { code, message: message.into(), hint: hint.into() }
}

fn unsupported(what: &str) -> Unfit {
    unfit(
        Code::PlanSql,
        format!("{what} cannot stand in a column's expression"),
        "write one expression over the columns of the same row, e.g. `(total * 100)::bigint`",
    )
}

/// Parses one expression and collects the columns that it reads.
pub(super) fn expression(text: &str) -> Result<SqlExpression, Unfit> {
    if text.len() > EXPRESSION_BYTES_MAX {
        let message = format!("the expression is longer than {EXPRESSION_BYTES_MAX} bytes");
        return Err(unfit(Code::PlanSql, message, "put it into an immutable SQL function and call that"));
    }
    let parsed = parse(text)?;
    let mut columns = BTreeSet::new();
    // A stack of our own: a long chain of operators is a deep tree.
    let mut open = vec![&parsed];
    while let Some(expr) = open.pop() {
        visit(expr, &mut columns, &mut open)?;
    }
    Ok(SqlExpression { text: text.trim().to_owned(), columns })
}

fn parse(text: &str) -> Result<Expr, Unfit> {
    let not_sql = |why: String| {
        let why = why.trim_start_matches("sql parser error: ").to_owned();
        let hint = "write one PostgreSQL expression without `;`, e.g. `(total * 100)::bigint`";
        unfit(Code::PlanSql, format!("this is not one SQL expression: {why}"), hint)
    };
    let dialect = PostgreSqlDialect {};
    let tokens = Tokenizer::new(&dialect, text).tokenize().map_err(|error| not_sql(error.to_string()))?;
    let comments = |token: &Token| {
        let Token::Whitespace(space) = token else { return false };
        matches!(space, Whitespace::SingleLineComment { .. } | Whitespace::MultiLineComment(_))
    };
    if tokens.iter().any(comments) {
        let hint = "write the comment after a `#` in the YAML: in a statement it would hide what follows";
        return Err(unfit(Code::PlanSql, "the expression contains a comment", hint));
    }
    let mut parser = Parser::new(&dialect).with_recursion_limit(RECURSION_MAX).with_tokens(tokens);
    let parsed = parser.parse_expr().map_err(|error| not_sql(error.to_string()))?;
    match parser.next_token().token {
        Token::EOF => Ok(parsed),
        other => Err(not_sql(format!("`{other}` follows a whole expression"))),
    }
}

/// Looks at one node and puts the ones below it on the stack. What is not known to depend on the row alone is refused.
fn visit<'e>(expr: &'e Expr, columns: &mut BTreeSet<String>, open: &mut Vec<&'e Expr>) -> Result<(), Unfit> {
    match expr {
        Expr::Identifier(ident) => {
            columns.insert(column(ident)?);
        }
        Expr::Value(value) => literal(&value.value)?,
        Expr::TypedString(typed) => literal(&typed.value.value)?,
        Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, expr, .. } => open.push(expr),
        Expr::Function(function) => call(function, open)?,
        Expr::IsFalse(e)
        | Expr::IsNotFalse(e)
        | Expr::IsTrue(e)
        | Expr::IsNotTrue(e)
        | Expr::IsNull(e)
        | Expr::IsNotNull(e)
        | Expr::IsUnknown(e)
        | Expr::IsNotUnknown(e)
        | Expr::Nested(e) => open.push(e),
        Expr::UnaryOp { expr, .. }
        | Expr::Collate { expr, .. }
        | Expr::Extract { expr, .. }
        | Expr::Ceil { expr, .. }
        | Expr::Floor { expr, .. } => open.push(expr),
        Expr::IsDistinctFrom(a, b) | Expr::IsNotDistinctFrom(a, b) => open.extend([a.as_ref(), b.as_ref()]),
        Expr::BinaryOp { left, right, .. }
        | Expr::AnyOp { left, right, .. }
        | Expr::AllOp { left, right, .. } => {
            open.extend([left.as_ref(), right.as_ref()]);
        }
        Expr::AtTimeZone { timestamp: a, time_zone: b } | Expr::Position { expr: a, r#in: b } => {
            open.extend([a.as_ref(), b.as_ref()]);
        }
        Expr::InList { expr, list, .. } => {
            open.push(expr);
            open.extend(list);
        }
        Expr::Between { expr, low, high, .. } => open.extend([expr.as_ref(), low.as_ref(), high.as_ref()]),
        Expr::Like { expr, pattern, escape_char, .. }
        | Expr::ILike { expr, pattern, escape_char, .. }
        | Expr::SimilarTo { expr, pattern, escape_char, .. } => {
            open.extend([expr.as_ref(), pattern.as_ref()]);
            open.extend(escape_char.as_deref());
        }
        Expr::Case { operand, conditions, else_result, .. } => {
            open.extend(operand.as_deref());
            open.extend(conditions.iter().flat_map(|when| [&when.condition, &when.result]));
            open.extend(else_result.as_deref());
        }
        Expr::Tuple(items) => open.extend(items),
        Expr::Array(array) => open.extend(&array.elem),
        Expr::Interval(interval) => open.push(&interval.value),
        _ => return visit_rare(expr, open),
    }
    Ok(())
}

fn visit_rare<'e>(expr: &'e Expr, open: &mut Vec<&'e Expr>) -> Result<(), Unfit> {
    match expr {
        Expr::Substring { expr, substring_from, substring_for, .. } => {
            open.push(expr);
            open.extend(substring_from.as_deref());
            open.extend(substring_for.as_deref());
        }
        Expr::Trim { trim_what, expr, trim_characters, .. } => {
            open.push(expr);
            open.extend(trim_what.as_deref());
            open.extend(trim_characters.iter().flatten());
        }
        Expr::Overlay { expr, overlay_what, overlay_from, overlay_for } => {
            open.extend([expr.as_ref(), overlay_what.as_ref(), overlay_from.as_ref()]);
            open.extend(overlay_for.as_deref());
        }
        Expr::CompoundFieldAccess { root, access_chain } => {
            open.push(root);
            for access in access_chain {
                match access {
                    AccessExpr::Subscript(Subscript::Index { index }) => open.push(index),
                    AccessExpr::Subscript(Subscript::Slice { lower_bound, upper_bound, stride }) => {
                        open.extend([lower_bound, upper_bound, stride].into_iter().flatten());
                    }
                    // A field of a composite value: a name, not a column.
                    AccessExpr::Dot(Expr::Identifier(_)) => {}
                    AccessExpr::Dot(_) => return Err(unsupported("this kind of field access")),
                }
            }
        }
        Expr::CompoundIdentifier(parts) => {
            let written: Vec<&str> = parts.iter().map(|part| part.value.as_str()).collect();
            let message = format!("`{}` names a column of a table", written.join("."));
            let hint = format!("write the column alone: `{}`", written.last().copied().unwrap_or_default());
            return Err(unfit(Code::PlanSql, message, hint));
        }
        Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => {
            return Err(unsupported("a subquery"));
        }
        Expr::Wildcard(_) | Expr::QualifiedWildcard(..) => return Err(unsupported("`*`")),
        _ => return Err(unsupported("this construct")),
    }
    Ok(())
}

/// A column's name as the catalog has it: unquoted ones are lower case (PostgreSQL manual, 4.1.1).
fn column(ident: &Ident) -> Result<String, Unfit> {
    if ident.quote_style.is_some() {
        return Ok(ident.value.clone());
    }
    let name = ident.value.to_lowercase();
    if functions::is_unsteady_word(&name) {
        return Err(unsteady(&name));
    }
    Ok(name)
}

fn literal(value: &Value) -> Result<(), Unfit> {
    let text = match value {
        Value::Placeholder(text) => return Err(unsupported(&format!("the placeholder `{text}`"))),
        Value::SingleQuotedString(text)
        | Value::EscapedStringLiteral(text)
        | Value::UnicodeStringLiteral(text)
        | Value::NationalStringLiteral(text) => text,
        Value::DollarQuotedString(quoted) => &quoted.value,
        _ => return Ok(()),
    };
    if functions::is_moment(text) { Err(unsteady(&format!("'{}'", text.trim()))) } else { Ok(()) }
}

fn unsteady(what: &str) -> Unfit {
    unfit(
        Code::PlanUnsteadySql,
        format!("`{what}` may return another value each time, so copy, stream and verify would disagree"),
        "use only what depends on the row; let a column default of the service's table fill the rest",
    )
}

fn call<'e>(function: &'e Function, open: &mut Vec<&'e Expr>) -> Result<(), Unfit> {
    let name = match function.name.0.last() {
        Some(ObjectNamePart::Identifier(ident)) if ident.quote_style.is_none() => ident.value.to_lowercase(),
        Some(ObjectNamePart::Identifier(ident)) => ident.value.clone(),
        _ => return Err(unsupported("this kind of call")),
    };
    if functions::is_unsteady(&name) {
        return Err(unsteady(&name));
    }
    if function.over.is_some() {
        return Err(unsupported("a window function"));
    }
    let aggregates = function.filter.is_some() || !function.within_group.is_empty();
    if aggregates || functions::speaks_of_many_rows(&name) {
        return Err(unsupported(&format!("`{name}`, which reads many rows,")));
    }
    let args = match &function.args {
        FunctionArguments::None => return Ok(()),
        FunctionArguments::Subquery(_) => return Err(unsupported("a subquery")),
        FunctionArguments::List(list) => list,
    };
    if args.duplicate_treatment.is_some() || !args.clauses.is_empty() {
        return Err(unsupported(&format!("`{name}`, which reads many rows,")));
    }
    // With one argument it counts from today.
    if name == "age" && args.args.len() == 1 {
        return Err(unsteady("age"));
    }
    for arg in &args.args {
        match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
            | FunctionArg::Named { arg: FunctionArgExpr::Expr(expr), .. } => open.push(expr),
            _ => return Err(unsupported("this kind of argument")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(text: &str) -> Vec<String> {
        expression(text).unwrap().columns.into_iter().collect()
    }

    #[test]
    fn the_columns_read_are_collected() {
        assert_eq!(columns("(total * 100)::bigint"), ["total"]);
        assert_eq!(columns("coalesce(first_name, '') || ' ' || upper(\"Last\")"), ["Last", "first_name"]);
        assert_eq!(columns("CASE WHEN State = 'open' THEN 1 ELSE kind END"), ["kind", "state"]);
        assert_eq!(columns("data->'a'->>'b'"), ["data"]);
        assert_eq!(columns("substring(a from 2 for n)"), ["a", "n"]);
        assert_eq!(columns("extract(epoch from at at time zone 'UTC')"), ["at"]);
        assert_eq!(columns("at + interval '1 day'"), ["at"]);
        assert_eq!(columns("tags[1:2]"), ["tags"]);
        assert_eq!(columns("a = ANY(ARRAY[b, 2])"), ["a", "b"]);
        assert_eq!(columns("total_cents / 100.0"), ["total_cents"]);
        assert_eq!(columns("version + random"), ["random", "version"]);
        assert!(columns("'fixed'").is_empty());
        assert_eq!(columns("CASE hint WHEN 'come back tomorrow' THEN 'now or never' END"), ["hint"]);
    }

    #[test]
    fn what_does_not_depend_on_the_row_alone_is_refused() {
        for text in [
            "now()",
            "current_timestamp",
            "random() * x",
            "gen_random_uuid()",
            "public.clock_timestamp()",
            "nextval('s')",
            "'now'::timestamptz",
            "timestamp 'today'",
            "('now')::timestamptz",
            "date('today')",
            "at < 'Tomorrow 10:00'",
            "'{now}'::timestamptz[]",
            "$$now$$::date",
            "coalesce(at, U&'now')",
            "query_to_xml('select 1', true, true, '')",
            "dblink_exec(a)",
            "pg_read_file(a)",
            "age(born)",
            "CURRENT_DATE",
            "session_user",
        ] {
            assert_eq!(expression(text).unwrap_err().code, Code::PlanUnsteadySql, "{text}");
        }
    }

    #[test]
    fn what_is_not_one_plain_expression_is_refused() {
        for text in [
            "",
            "a b",
            "a; drop table x",
            "a, b",
            "a +",
            "(select 1)",
            "exists (select 1)",
            "a in (select b)",
            "sum(a)",
            "count(*)",
            "row_number() over ()",
            "max(a) filter (where b)",
            "$1",
            "?",
            "a -- comment",
            "a /* b */",
            "*",
            "t.*",
            "t.a",
            "string_agg(distinct a, ',')",
            "unnest(a)",
            "'open",
            "a) or (b",
            "array(select 1)",
        ] {
            assert_eq!(expression(text).map_err(|unfit| unfit.code), Err(Code::PlanSql), "{text}");
        }
    }

    #[test]
    fn size_and_depth_are_bounded() {
        assert!(expression(&vec!["a"; 1000].join("+")).is_ok());
        assert!(expression(&"(".repeat(2000)).is_err());
        assert!(expression(&format!("{}a{}", "(".repeat(1500), ")".repeat(1500))).is_err());
        assert!(expression(&format!("{}a", "not ".repeat(1000))).is_err());
        assert!(expression(&"a".repeat(5000)).is_err());
    }
}
