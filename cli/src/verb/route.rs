//! `strangler route`: shows and sets where requests go.

use crate::edit;
use crate::invocation::{Invocation, typed};
use crate::outlook::destination;
use crate::remote::Remote;
use crate::ui::grid::{Grid, good, plain, strong};
use migrations::api::{Acknowledged, RouteStatus, SetShares, SliceStatus, Status};
use migrations::code::Code;
use migrations::names::{Requests, RouteName};
use migrations::pattern::Access;
use migrations::problem::Problem;
use migrations::share::Share;
use serde_json::json;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Show every route and where it goes
    List,
    /// Send requests to the monolith, or to the service for all or some of the clients
    Set(Set),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Set {
    /// A slice, for all its routes that may be shared, or one of its routes
    #[arg(value_name = "SLICE[.ROUTE]", value_parser = typed::<Requests>)]
    route: Requests,
    /// `monolith`, `service`, or a percentage of clients such as `25%`; each client stays on its side
    #[arg(value_name = "monolith|service|N%", value_parser = typed::<Share>)]
    share: Share,
    /// Take requests back to the monolith even while its database, and with it the journal, is down
    #[arg(long)]
    emergency: bool,
    /// The reason, for the journal
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

pub(crate) async fn run(call: &Invocation<'_>, verb: &Verb) -> Result<(), Problem> {
    let remote = call.remote()?;
    match verb {
        Verb::List => list(call, &remote.status().await?),
        Verb::Set(set) => share(call, &remote, set).await?,
    }
    Ok(())
}

fn list(call: &Invocation<'_>, status: &Status) {
    let mut grid = Grid::new(&["route", "matches", "access", "goes to"]);
    let mut rows = Vec::new();
    for (slice, stands) in &status.slices {
        for route in &stands.routes {
            let name = format!("{slice}.{}", route.name);
            let goes = if route.pinned {
                plain("monolith, always")
            } else if route.recalled {
                plain("the monolith for now")
            } else if route.share == Share::MONOLITH {
                plain(destination(route.share))
            } else {
                good(destination(route.share))
            };
            grid.row([
                strong(&name),
                plain(String::from(route.pattern.clone())),
                plain(access(route.access)),
                goes,
            ]);
            rows.push(json!({
                "slice": slice, "route": route.name, "match": route.pattern, "access": route.access,
                "share": route.share, "pinned": route.pinned, "recalled": route.recalled, "stage": stands.stage.name(), "epoch": stands.epoch, "owner": stands.owner,
            }));
        }
    }
    call.ui.json(&json!({ "routes": rows, "generation": status.generation }));
    call.ui.line(grid.text());
    call.ui.hint("change a route with `strangler route set SLICE[.ROUTE] monolith|service|N%`");
}

async fn share(call: &Invocation<'_>, remote: &Remote, set: &Set) -> Result<(), Problem> {
    let Requests { slice, route } = set.route.clone();
    let wish = SetShares {
        slice: slice.clone(),
        route: route.clone(),
        share: set.share,
        emergency: set.emergency,
        actor: call.actor(),
        reason: set.reason.clone(),
    };
    edit::warn(call, remote).await;
    let outcome = remote.set_shares(&wish).await?;
    let Acknowledged { live, have, silent } = outcome.proxies;
    // The decision is made. If the controller fails to answer now, the message only has fewer details.
    let status = remote.status().await.ok();
    let stands = status.as_ref().and_then(|status| status.slices.get(&slice));
    let what = stands.map_or("requests", |stands| subject(stands, route.as_ref()));
    call.ui.line(format!(
        "{}: {what} go to {}, on {have} of {live} live proxies",
        set.route,
        destination(set.share)
    ));
    call.ui.outcome(&outcome);
    if have < live {
        return Err(Problem::new(
            Code::CommandTimedOut,
            format!("{} of {live} live proxies do not act on this yet", live - have),
            "the decision stands; `strangler status` shows the proxies that are behind",
        )
        .remedy("restart a proxy that was started with another version of the plan"));
    }
    if silent > 0 {
        return Err(Problem::new(
            Code::CommandTimedOut,
            format!("silent proxies that may serve on by what they heard last: {silent}"),
            "the decision stands; `strangler status` shows them",
        )
        .remedy("start each again, or wait: one that was stopped for good is forgotten after 60 s"));
    }
    if live == 0 {
        call.ui.hint("no proxy is live; start one with `strangler up --detach`");
    }
    Ok(())
}

fn subject(slice: &SliceStatus, route: Option<&RouteName>) -> &'static str {
    let named = route.and_then(|name| slice.routes.iter().find(|route| route.name == *name));
    match named {
        Some(RouteStatus { access: Access::Read, .. }) => "reads",
        Some(RouteStatus { access: Access::Write, .. }) => "writes",
        None if slice.has_tables => "reads",
        None => "requests",
    }
}

fn access(access: Access) -> &'static str {
    match access {
        Access::Read => "read",
        Access::Write => "write",
    }
}
