//! A first plan as text, with comments on what to change. Pure.

use crate::survey::{Survey, SurveyedTable};
use migrations::names::NAME_LEN_MAX;
use std::collections::BTreeSet;
use std::fmt::Write;

#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) name: String,
    pub(crate) upstream: String,
    /// The slice has the same name.
    pub(crate) service: String,
    pub(crate) service_upstream: String,
    pub(crate) listen: String,
    /// Tables that move; empty for a plan that only routes.
    pub(crate) tables: Vec<SurveyedTable>,
}

/// Turns text into a name that a plan accepts: lower-case letters, digits and dashes. None if nothing is left.
pub(crate) fn name(text: &str) -> Option<String> {
    let lower = text.to_lowercase();
    let mapped: String = lower.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let words: Vec<&str> = mapped.split('-').filter(|word| !word.is_empty()).collect();
    let joined = words.join("-");
    let from_letter = joined.trim_start_matches(|c: char| !c.is_ascii_lowercase());
    let cut: String = from_letter.chars().take(NAME_LEN_MAX).collect();
    Some(cut.trim_end_matches('-').to_owned()).filter(|name| !name.is_empty())
}

/// The environment variable with a service's database URL.
pub(crate) fn variable(service: &str) -> String {
    format!("{}_DATABASE_URL", service.to_uppercase().replace('-', "_"))
}

pub(crate) fn text(draft: &Draft, survey: Option<&Survey>) -> String {
    let Draft { name, upstream, service, service_upstream, listen, tables } = draft;
    let with_tables = !tables.is_empty();
    let database = |variable: &str, comment: &str| {
        if with_tables { format!("\n{variable}{comment}") } else { String::new() }
    };
    let monolith_database = database(
        "  database: ${MONOLITH_DATABASE_URL}",
        "   # with strangler's own role, which `strangler install` creates",
    );
    let service_database = database(&format!("    database: ${{{}}}", variable(service)), "   # the same");
    let mut plan = format!(
        "# A strangler plan, written by `strangler init`. Edit it, then run `strangler check`.
version: 1
name: {name}
monolith:
  upstream: {upstream}   # the monolith's address today{monolith_database}
services:
  {service}:
    upstream: {service_upstream}   # the new service's address{service_database}
proxy: {{ listen: \"{listen}\" }}   # clients connect here from now on
slices:
  {service}:
    service: {service}
    routes:   # guessed from the name: replace them with the application's real routes
"
    );
    let path = tables.first().map_or_else(|| service.clone(), |table| bare(&table.name).to_owned());
    for (route, method, rest) in [
        ("list", "GET", ""),
        ("show", "GET", "/{id}"),
        ("place", "POST", ""),
        ("change", "PUT", "/{id}"),
        ("remove", "DELETE", "/{id}"),
    ] {
        // Writing to a string cannot fail.
        let _ = writeln!(plan, "      {route}: {method} /{path}{rest}");
    }
    if let Some(survey) = survey.filter(|_| with_tables) {
        plan.push_str(&table_lines(tables, survey));
    }
    plan
}

fn table_lines(tables: &[SurveyedTable], survey: &Survey) -> String {
    let moved: BTreeSet<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    let mut lines =
        String::from("    tables:   # these move together; a table can be renamed and its columns mapped\n");
    for table in tables {
        let key = if table.key.is_empty() {
            "no primary key: add one before `strangler install`".to_owned()
        } else {
            format!("key: {}", table.key.join(", "))
        };
        let _ = writeln!(lines, "      - {}   # {key}", scalar(&table.name));
    }
    let needed: BTreeSet<&str> = tables
        .iter()
        .flat_map(|table| table.points_to.iter().map(String::as_str))
        .filter(|name| !moved.contains(name))
        .collect();
    if !needed.is_empty() {
        lines.push_str("    reference:   # tables they reference: copied and followed, never moved\n");
        for name in needed {
            let secrets = survey.table(name).map(|table| table.secrets.as_slice()).unwrap_or_default();
            let _ = match secrets {
                [] => writeln!(lines, "      - {}", scalar(name)),
                secrets => {
                    let secrets: Vec<String> = secrets.iter().map(|column| scalar(column)).collect();
                    writeln!(
                        lines,
                        "      - {{ from: {}, drop: [{}] }}   # they look like secrets",
                        scalar(name),
                        secrets.join(", ")
                    )
                }
            };
        }
    }
    let behind = survey.tables.iter().filter(|table| !moved.contains(table.name.as_str()));
    for table in behind {
        for target in table.points_to.iter().filter(|target| moved.contains(target.as_str())) {
            let _ = writeln!(
                lines,
                "    # {} stays in the monolith and references {target}: does it belong to this slice?",
                table.name
            );
        }
    }
    lines
}

fn bare(table: &str) -> &str {
    table.rsplit('.').next().unwrap_or(table)
}

/// A name as YAML, with quotes if it needs them.
fn scalar(name: &str) -> String {
    let is_plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.');
    if is_plain { name.to_owned() } else { format!("'{}'", name.replace('\'', "''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, key: &[&str], points_to: &[&str]) -> SurveyedTable {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        SurveyedTable {
            name: name.to_owned(),
            key: owned(key),
            rows_estimated: 0,
            points_to: owned(points_to),
            secrets: Vec::new(),
        }
    }

    fn draft(tables: Vec<SurveyedTable>) -> Draft {
        Draft {
            name: "shop".to_owned(),
            upstream: "http://127.0.0.1:4000".to_owned(),
            service: "orders".to_owned(),
            service_upstream: "http://127.0.0.1:4001".to_owned(),
            listen: "127.0.0.1:8080".to_owned(),
            tables,
        }
    }

    /// What `check` finds, with both database URLs set.
    fn findings(text: &str) -> Vec<String> {
        let environment = |name: &str| match name {
            "MONOLITH_DATABASE_URL" => Some("postgres://strangler:secret@localhost/shop".to_owned()),
            "ORDERS_DATABASE_URL" => Some("postgres://strangler:secret@localhost/orders".to_owned()),
            _ => None,
        };
        match migrations::plan::check("strangler.yaml", text, &environment) {
            Ok((_, warnings)) => warnings.iter().map(ToString::to_string).collect(),
            Err(findings) => findings.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn check_accepts_a_plan_that_only_routes() {
        assert_eq!(findings(&text(&draft(Vec::new()), None)), Vec::<String>::new());
    }

    #[test]
    fn check_accepts_a_plan_with_tables_and_tables_that_stay_are_named() {
        let orders = table("public.orders", &["id"], &["public.customers"]);
        let odd = table("sales.order items", &[], &["public.orders"]);
        let survey = Survey {
            tables: vec![
                orders.clone(),
                odd.clone(),
                SurveyedTable {
                    secrets: vec!["password_hash".to_owned(), "card number".to_owned()],
                    ..table("public.customers", &["id"], &[])
                },
                table("public.invoices", &["id"], &["public.orders"]),
            ],
        };
        let text = text(&draft(vec![orders, odd]), Some(&survey));
        assert_eq!(findings(&text), Vec::<String>::new(), "{text}");
        assert!(text.contains("- 'sales.order items'   # no primary key"), "{text}");
        assert!(text.contains("    reference:   # tables they reference: copied and followed, never moved\n      - { from: public.customers, drop: [password_hash, 'card number'] }"));
        assert!(
            text.contains("# public.invoices stays in the monolith and references public.orders"),
            "{text}"
        );
    }

    #[test]
    fn any_text_becomes_a_valid_name() {
        assert_eq!(name("Order_Items").as_deref(), Some("order-items"));
        assert_eq!(name("2nd  Shop!").as_deref(), Some("nd-shop"));
        assert_eq!(name("123"), None);
        assert_eq!(variable("order-items"), "ORDER_ITEMS_DATABASE_URL");
    }
}
