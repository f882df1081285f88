//! A first plan as text, with comments on what to change. Pure.

use crate::survey::{Survey, SurveyedTable};
use migrations::names::NAME_LEN_MAX;
use std::collections::BTreeSet;
use std::fmt::Write;

#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) name: String,
    pub(crate) upstream: String,
    pub(crate) service: String,
    pub(crate) service_upstream: String,
    pub(crate) slice: String,
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
    let Draft { name, upstream, listen, .. } = draft;
    let database = match draft.tables.is_empty() {
        true => "",
        false => {
            "\n  database: ${MONOLITH_DATABASE_URL}   # with strangler's own role, which `strangler install` creates"
        }
    };
    format!(
        "# A strangler plan, written by `strangler init`. Edit it, then run `strangler check`.
version: 1
name: {name}
monolith:
  upstream: {upstream}   # the monolith's address today{database}
services:
{}proxy: {{ listen: \"{listen}\" }}   # clients connect here from now on
  # If TLS ends at a balancer in front, write `proxy: {{ listen: …, trust_forwarded: true }}`: otherwise applications that
  # insist on https redirect for ever.
slices:
{}",
        service_lines(draft),
        slice_lines(draft, survey)
    )
}

/// The plan's text with the slice, and with its service if that is new; the rest stays as it is. Fails with the name of a
/// block that is not written with one entry a line.
pub(crate) fn added(
    plan: &str,
    draft: &Draft,
    survey: Option<&Survey>,
    is_new: bool,
) -> Result<String, &'static str> {
    let with_service = match is_new {
        true => grown(plan, "services", &service_lines(draft))?,
        false => plan.to_owned(),
    };
    grown(&with_service, "slices", &slice_lines(draft, survey))
}

/// Adds entries, indented by two, to the end of a block. Makes the block if there is none.
fn grown(plan: &str, block: &'static str, entries: &str) -> Result<String, &'static str> {
    let lines: Vec<&str> = plan.lines().collect();
    let key = format!("{block}:");
    let Some(start) = lines.iter().position(|line| line.starts_with(&key)) else {
        return Ok(format!("{}\n{key}\n{entries}", plan.trim_end()));
    };
    let after = lines[start][key.len()..].trim_start();
    if !after.is_empty() && !after.starts_with('#') {
        return Err(block);
    }
    let is_entry = |line: &&str| line.starts_with(' ') && !line.trim_start().starts_with('#');
    let is_inside = |line: &&str| line.starts_with([' ', '#']) || line.trim().is_empty();
    let inside = lines[start + 1..].iter().take_while(|line| is_inside(line)).count();
    let body = &lines[start + 1..start + 1 + inside];
    let end = start + 1 + body.iter().rposition(|line| line.starts_with(' ')).map_or(0, |last| last + 1);
    let indent =
        body.iter().find(|line| is_entry(line)).map_or(2, |line| line.len() - line.trim_start().len());
    let entries: Vec<String> = entries
        .lines()
        .map(|line| format!("{}{}", " ".repeat(indent), line.get(2..).unwrap_or("")))
        .collect();
    let all: Vec<&str> = lines[..end]
        .iter()
        .copied()
        .chain(entries.iter().map(String::as_str))
        .chain(lines[end..].iter().copied())
        .collect();
    Ok(all.join("\n") + "\n")
}

fn service_lines(draft: &Draft) -> String {
    let Draft { service, service_upstream, tables, .. } = draft;
    let database = match tables.is_empty() {
        true => String::new(),
        false => format!("    database: ${{{}}}   # with strangler's own role, too\n", variable(service)),
    };
    format!("  {service}:\n    upstream: {service_upstream}   # the new service's address\n{database}")
}

fn slice_lines(draft: &Draft, survey: Option<&Survey>) -> String {
    let Draft { service, slice, tables, .. } = draft;
    let mut lines = format!(
        "  {slice}:
    service: {service}
    routes:   # guessed from the name: replace them with the application's real routes
"
    );
    let path = tables.first().map_or_else(|| slice.clone(), |table| bare(&table.name).to_owned());
    for (route, method, rest) in [
        ("list", "GET", ""),
        ("show", "GET", "/{id}"),
        ("place", "POST", ""),
        ("change", "PUT", "/{id}"),
        ("remove", "DELETE", "/{id}"),
    ] {
        // Writing to a string cannot fail.
        let _ = writeln!(lines, "      {route}: {method} /{path}{rest}");
    }
    if let Some(survey) = survey.filter(|_| !tables.is_empty()) {
        lines.push_str(&table_lines(tables, survey));
    }
    lines
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
    for view in &survey.views {
        let read: Vec<&str> =
            view.reads.iter().map(String::as_str).filter(|table| moved.contains(table)).collect();
        if !read.is_empty() {
            let _ = writeln!(
                lines,
                "    # materialized view {} reads {}: a view is not followed; make it at the service, and refresh it there",
                view.name,
                read.join(", ")
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
    use crate::survey::SurveyedView;

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
            slice: "orders".to_owned(),
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
            views: vec![SurveyedView {
                name: "public.totals".to_owned(),
                reads: vec!["public.invoices".to_owned(), "public.orders".to_owned()],
            }],
        };
        let text = text(&draft(vec![orders, odd]), Some(&survey));
        assert_eq!(findings(&text), Vec::<String>::new(), "{text}");
        assert!(text.contains("- 'sales.order items'   # no primary key"), "{text}");
        assert!(text.contains("    reference:   # tables they reference: copied and followed, never moved\n      - { from: public.customers, drop: [password_hash, 'card number'] }"));
        assert!(
            text.contains("# public.invoices stays in the monolith and references public.orders"),
            "{text}"
        );
        assert!(text.contains("# materialized view public.totals reads public.orders: "), "{text}");
    }

    #[test]
    fn a_slice_is_added_where_the_others_stand_and_nothing_else_changes() {
        let reviews = Draft {
            service: "reviews".to_owned(),
            slice: "stars".to_owned(),
            service_upstream: "http://127.0.0.1:4002".to_owned(),
            ..draft(Vec::new())
        };
        let two = text(&draft(Vec::new()), None);
        let four = two.lines().map(|line| {
            let indent = line.len() - line.trim_start().len();
            format!("{}{}", " ".repeat(indent), line)
        });
        let four = four.collect::<Vec<_>>().join("\n");
        let commented = format!("{two}\n  # the last word\n\n# limits\nlimits: {{ max_wal_kept: 4GiB }}\n");
        for plan in [
            two,
            four,
            commented,
            "version: 1\nname: shop\nmonolith: { upstream: http://127.0.0.1:4000 }".to_owned(),
        ] {
            let grown = added(&plan, &reviews, None, true).unwrap();
            let found = findings(&grown);
            assert_eq!(found, Vec::<String>::new(), "{grown}");
            let mut left = plan.lines().filter(|line| !line.trim().is_empty());
            let mut next = left.next();
            for line in grown.lines() {
                if next == Some(line) {
                    next = left.by_ref().next();
                }
            }
            assert_eq!(next, None, "a line is gone from:\n{plan}\nin:\n{grown}");
            assert!(grown.contains("stars:") && grown.contains("reviews:"));
        }
        let flow = "version: 1\nname: shop\nmonolith: { upstream: http://127.0.0.1:4000 }\nservices: {}\n";
        assert_eq!(added(flow, &reviews, None, true), Err("services"));
    }

    #[test]
    fn any_text_becomes_a_valid_name() {
        assert_eq!(name("Order_Items").as_deref(), Some("order-items"));
        assert_eq!(name("2nd  Shop!").as_deref(), Some("nd-shop"));
        assert_eq!(name("123"), None);
        assert_eq!(variable("order-items"), "ORDER_ITEMS_DATABASE_URL");
    }
}
