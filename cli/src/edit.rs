//! An edited plan: whether the file is what runs, and how it is taken in.

use crate::house::PlanCopy;
use crate::invocation::Invocation;
use crate::part::Part;
use crate::remote::Remote;
use crate::renewal::{self, Renewal, Word};
use migrations::api::{AgentStatus, Outline, Status};
use migrations::code::Code;
use migrations::control::Report;
use migrations::finding::Finding;
use migrations::plan::Plan;
use migrations::problem::Problem;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long proxies and bridge may take to act on the new plan.
const FOLLOW_MAX: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What came of an edit.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) replaced: Vec<String>,
    pub(crate) stopped: Vec<String>,
}

/// That the plan's file is not what the controller runs.
pub(crate) fn edited(call: &Invocation<'_>, status: &Status) -> Option<Finding> {
    let is_other = match call.read() {
        Ok((plan, ..)) => !status.plan_hash.is_empty() && plan.hash != status.plan_hash,
        // Its variables may not be set in this shell. The text tells.
        Err(_) => {
            let text = |path: PathBuf| std::fs::read_to_string(path).ok();
            let runs =
                text(call.house().plan_copy(PlanCopy::Running)).filter(|_| call.house().up().is_some());
            let file = text(call.plan_file().to_path_buf());
            matches!((runs, file), (Some(runs), Some(file)) if runs != file)
        }
    };
    is_other.then(|| {
        let message = format!("the plan file {} differs from what runs", call.plan_file().display());
        let remedy = if call.house().up().is_some() {
            "run `strangler reload`; `strangler check` shows whether it is sound"
        } else {
            "give the controller, then the bridge and the proxies, this plan: start each again with it"
        };
        Finding::warning(Code::PlanEdited, message, remedy)
    })
}

/// Says so before a command decides something by the plan that runs.
pub(crate) async fn warn(call: &Invocation<'_>, remote: &Remote) {
    // The command itself says what is wrong with a controller that does not answer.
    let Ok(status) = remote.status().await else { return };
    if let Some(finding) = edited(call, &status) {
        call.ui.warn(&format!("{} [{}]", finding.message, finding.code.as_str()));
        call.ui.hint(&finding.remedy);
    }
}

/// Has the `up` that runs here take the plan in.
pub(crate) async fn take(
    call: &Invocation<'_>,
    remote: &Remote,
    plan: &Plan,
    renewal: &Renewal,
) -> Result<Taken, Problem> {
    remote.may_reload(&Outline::of(plan)).await.map_err(|problem| match problem.code {
        Code::ApiUnreachable => problem
            .remedy("without a controller nobody knows what is in use; `strangler down`, then `strangler up --detach` takes the plan without asking"),
        _ => problem,
    })?;
    let mut progress = call.ui.progress();
    progress.state("replacing the parts");
    let mut taken = Taken::default();
    let report = |word: &Word| match word {
        Word::Replaced { part, ms } => {
            progress.step(&format!("the {part} is replaced"), Some(*ms));
            taken.replaced.push(part.clone());
        }
        Word::Stopped { part } => {
            progress.step(&format!("the {part} is stopped: the plan needs none"), None);
            taken.stopped.push(part.clone());
        }
        Word::Done | Word::Failed(_) => {}
    };
    let asked = renewal::ask(&call.house(), renewal, report).await;
    if asked.is_ok() {
        progress.state("waiting for the parts to act on the plan");
        followed(remote, plan).await?;
    }
    progress.clear();
    asked.map(|()| taken)
}

/// Waits until every live part acts on the plan.
async fn followed(remote: &Remote, plan: &Plan) -> Result<(), Problem> {
    let until = Instant::now() + FOLLOW_MAX;
    loop {
        let why = match remote.status().await {
            Ok(status) => match behind(&status, plan) {
                None => return Ok(()),
                Some(why) => why,
            },
            Err(problem) => problem.message,
        };
        if Instant::now() >= until {
            return Err(Problem::new(
                Code::CommandTimedOut,
                format!("the plan was taken, but not every part acts on it yet: {why}"),
                "look at `strangler status`; the parts go on trying",
            ));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn behind(status: &Status, plan: &Plan) -> Option<String> {
    if status.plan_hash != plan.hash {
        return Some("the controller runs another plan".to_owned());
    }
    let is_bridge = |agent: &&AgentStatus| matches!(agent.report, Report::Bridge(_)) && agent.live;
    let is_behind = |agent: &&AgentStatus| agent.live && agent.plan != plan.hash;
    if let Some(behind) = status.agents.iter().find(is_behind) {
        return Some(format!("{} acts on another plan", behind.agent.name));
    }
    let needs_bridge = Part::of(plan).contains(&Part::Bridge);
    (needs_bridge && !status.agents.iter().any(|agent| is_bridge(&agent)))
        .then(|| "no bridge has reported yet".to_owned())
}
