//! `strangler init`: a first plan, from a live database or for routing only.

use crate::draft::{self, Draft};
use crate::invocation::{Invocation, environment_or_any};
use crate::survey::{Survey, SurveyedTable, survey};
use crate::ui::figure;
use crate::ui::grid::{Grid, bad, plain, strong};
use migrations::code::Code;
use migrations::names::{ServiceName, SliceName};
use migrations::problem::Problem;
use serde_json::json;
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

#[derive(Debug, clap::Args)]
#[command(after_help = "With a database but no --table, `init` lists the tables.\n\
    Without a database, `init` writes a plan for routing only, and needs --upstream and --service.\n\
    With --add, it adds a slice to the plan that is there, and leaves the rest of the file as it is.")]
pub(crate) struct Args {
    /// The monolith's database, for a role that may read its catalog; the URL is not written to the plan
    #[arg(value_name = "DATABASE_URL", hide_env_values = true)]
    database: Option<String>,
    /// A table to move, as `schema.table`; `*` stands for any characters; repeat it for each table
    #[arg(long = "table", value_name = "TABLE", requires = "database")]
    tables: Vec<String>,
    /// The monolith's URL
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// The service's name, and its URL
    #[arg(long, value_name = "NAME[=URL]")]
    service: Option<String>,
    /// The slice's name [default: the service's]
    #[arg(long)]
    slice: Option<String>,
    /// Add the slice to the existing plan
    #[arg(long, conflicts_with_all = ["force", "name", "upstream", "listen"])]
    add: bool,
    /// The address where the proxy listens
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    listen: String,
    /// The plan's name [default: the folder's name]
    #[arg(long)]
    name: Option<String>,
    /// Overwrite an existing plan
    #[arg(long)]
    force: bool,
}

pub(crate) async fn run(call: &Invocation<'_>, args: &Args) -> Result<(), Problem> {
    let Some(url) = &args.database else {
        if args.service.is_none() || args.upstream.is_none() && !args.add {
            return Err(Problem::new(Code::CommandUsage, "`init` needs a database, or both --upstream and --service", "for routing only: `strangler init --upstream http://127.0.0.1:4000 --service orders=http://127.0.0.1:4001`").remedy("with tables: `strangler init postgres://user@host/database` lists them"));
        }
        return write(call, args, Vec::new(), None);
    };
    let survey = survey(url).await?;
    if args.tables.is_empty() {
        list(call, &survey);
        return Ok(());
    }
    let mut tables: Vec<SurveyedTable> = Vec::new();
    for pattern in &args.tables {
        let found = survey.matching(pattern);
        if found.is_empty() {
            return Err(not_found(pattern, &survey));
        }
        tables.extend(found);
    }
    let mut seen = BTreeSet::new();
    tables.retain(|table| seen.insert(table.name.clone()));
    write(call, args, tables, Some(&survey))
}

fn not_found(pattern: &str, survey: &Survey) -> Problem {
    match survey.view(pattern) {
        Some(view) => Problem::new(
            Code::CommandUsage,
            format!(
                "`{}` is a materialized view: it has no changes of its own that could be followed",
                view.name
            ),
            format!(
                "move what it reads ({}), make the view in the service's database, and refresh it there",
                view.reads.join(", ")
            ),
        ),
        None => Problem::new(
            Code::CommandUsage,
            format!("the database has no table `{pattern}`"),
            "`strangler init DATABASE_URL` lists the tables",
        ),
    }
}

fn list(call: &Invocation<'_>, survey: &Survey) {
    let mut grid = Grid::new(&["table", "key", "rows (estimate)", "references"]);
    for table in &survey.tables {
        let key = if table.key.is_empty() { bad("none") } else { plain(table.key.join(", ")) };
        let rows = plain(figure::count(table.rows_estimated));
        grid.row([strong(&table.name), key, rows, plain(table.points_to.join(", "))]);
    }
    let tables = survey.tables.iter().map(|table| {
        json!({ "table": table.name, "key": table.key, "rows_estimated": table.rows_estimated, "points_to": table.points_to })
    });
    let views = survey.views.iter().map(|view| json!({ "view": view.name, "reads": view.reads }));
    let next = "strangler init DATABASE_URL --table SCHEMA.TABLE …";
    call.ui.json(&json!({
        "tables": tables.collect::<Vec<_>>(), "materialized_views": views.collect::<Vec<_>>(), "next_steps": [next],
    }));
    call.ui.line(grid.text());
    if !survey.views.is_empty() {
        let mut grid = Grid::new(&["materialized view", "reads"]);
        survey.views.iter().for_each(|view| grid.row([strong(&view.name), plain(view.reads.join(", "))]));
        call.ui.line(String::new());
        call.ui.line(grid.text());
    }
    call.ui.hint(&format!("name the tables that move together: `{next}`"));
}

fn write(
    call: &Invocation<'_>,
    args: &Args,
    tables: Vec<SurveyedTable>,
    survey: Option<&Survey>,
) -> Result<(), Problem> {
    let (service, service_upstream) = service(args, &tables)?;
    let slice: SliceName =
        args.slice.as_deref().unwrap_or(&service).parse().map_err(|error| {
            Problem::new(Code::CommandUsage, format!("{error}"), "write `--slice orders`")
        })?;
    let draft = Draft {
        name: args.name.clone().unwrap_or_else(|| folder_name(&call.plan_file_absolute())),
        upstream: args.upstream.clone().unwrap_or_else(|| "http://127.0.0.1:4000".to_owned()),
        service,
        service_upstream,
        slice: slice.to_string(),
        listen: args.listen.clone(),
        tables,
    };
    let file = call.plan_file().display();
    let mut says_forwarded = true;
    if args.add {
        let text = added(call, &draft, survey)?;
        says_forwarded = text.contains("trust_forwarded");
        replace(call.plan_file(), &text)?;
        call.ui.tick(&format!("added slice {slice} to {file}"));
    } else {
        save(call.plan_file(), &draft::text(&draft, survey), args.force)?;
        call.ui.tick(&format!("wrote {file}"));
    }
    let variables: Vec<String> = match draft.tables.is_empty() {
        true => Vec::new(),
        false => vec!["MONOLITH_DATABASE_URL".to_owned(), draft::variable(&draft.service)],
    };
    call.ui.json(&json!({
        "plan": file.to_string(), "slice": slice, "variables": variables, "next_steps": ["strangler check"],
    }));
    if !variables.is_empty() {
        call.ui.hint(&format!(
            "set {}, for example `export MONOLITH_DATABASE_URL=postgres://strangler:PASSWORD@HOST/DATABASE`",
            variables.join(" and ")
        ));
    }
    if !says_forwarded {
        // A new plan says this in a comment.
        call.ui.hint(
            "if TLS ends at a balancer in front of the proxy, write `trust_forwarded: true` under `proxy:`: otherwise applications \
             that insist on https redirect for ever",
        );
    }
    call.ui.hint("edit the plan, then run `strangler check`");
    Ok(())
}

/// The plan's text with one slice more. What it was must be sound, and what it becomes; variables need no values yet.
fn added(call: &Invocation<'_>, draft: &Draft, survey: Option<&Survey>) -> Result<String, Problem> {
    let text = call.plan_text()?;
    let (plan, _) = call.check(&text, environment_or_any)?;
    if plan.slices.keys().any(|slice| slice.as_str() == draft.slice) {
        return Err(Problem::new(
            Code::CommandUsage,
            format!("the plan has a slice `{}` already", draft.slice),
            "name the new one with `--slice NAME`",
        ));
    }
    let is_new = !plan.services.keys().any(|service| service.as_str() == draft.service);
    let grown = draft::added(&text, draft, survey, is_new).map_err(|block| {
        Problem::new(
            Code::CommandUsage,
            format!(
                "`{block}:` of the plan is not written with one entry a line, so nothing can be added to it"
            ),
            "write each entry on a line of its own, then run it again",
        )
    })?;
    call.check(&grown, environment_or_any)?;
    Ok(grown)
}

/// The service's name and URL. Without a name, the service is named after the first table.
fn service(args: &Args, tables: &[SurveyedTable]) -> Result<(String, String), Problem> {
    let given = args.service.as_deref();
    let (name, url) = match given.and_then(|text| text.split_once('=')) {
        Some((name, url)) => (Some(name.to_owned()), Some(url.to_owned())),
        None => (given.map(str::to_owned), None),
    };
    let lent = || tables.first().and_then(|table| draft::name(table.name.rsplit('.').next()?));
    let name = name.or_else(lent).unwrap_or_else(|| "service".to_owned());
    let name: ServiceName = name.parse().map_err(|error| {
        Problem::new(Code::CommandUsage, format!("{error}"), "write `--service orders=http://…`")
    })?;
    Ok((name.to_string(), url.unwrap_or_else(|| "http://127.0.0.1:4001".to_owned())))
}

fn folder_name(plan: &Path) -> String {
    let folder = plan.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    folder.as_deref().and_then(draft::name).unwrap_or_else(|| "migration".to_owned())
}

/// Puts a new text in the file's place, whole or not at all.
fn replace(path: &Path, text: &str) -> Result<(), Problem> {
    let beside = path.with_extension("yaml.new");
    let written = std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, path));
    written.map_err(|error| {
        let _ = std::fs::remove_file(&beside);
        Problem::new(
            Code::CommandFailed,
            format!("could not write {}: {error}", path.display()),
            "make its folder writable; the plan is as it was",
        )
    })
}

fn save(path: &Path, text: &str, force: bool) -> Result<(), Problem> {
    let mut options = OpenOptions::new();
    options.write(true).create(force).truncate(force).create_new(!force);
    let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| {
        let file = path.display();
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => Problem::new(
                Code::CommandUsage,
                format!("{file} already exists"),
                "add a slice to it with --add, overwrite it with --force, or name another file with --plan FILE",
            ),
            _ => Problem::new(
                Code::CommandFailed,
                format!("could not write {file}: {error}"),
                "name another file with --plan FILE",
            ),
        }
    })
}
