//! `strangler reload`: takes an edited plan into what runs here. No request is lost, and a plan that is broken, or that changes
//! what is in use, changes nothing.

use crate::edit;
use crate::invocation::Invocation;
use crate::renewal::Renewal;
use crate::verb::up::executable;
use migrations::code::Code;
use migrations::problem::Problem;
use serde_json::json;

pub(crate) async fn run(call: &Invocation<'_>) -> Result<(), Problem> {
    let (plan, mut warnings, source) = call.read()?;
    if call.house().up().is_none() {
        return Err(Problem::new(
            Code::UpNone,
            format!("no `strangler up` runs in {}", call.house().dir().display()),
            "start it with `strangler up --detach`\nparts that are run one by one: start each again with the new plan, the controller first",
        ));
    }
    crate::part::check_certificates(&plan)?;
    let remote = call.remote()?;
    let renewal = Renewal { source, executable: executable()?, every_part: false };
    let taken = edit::take(call, &remote, &plan, &renewal).await?;
    call.ui.rendered(&warnings);
    let certificates = crate::part::certificates(&plan);
    certificates.iter().for_each(|finding| call.ui.finding(finding));
    warnings.extend(certificates);
    call.ui.tick(&format!("plan `{}` is in use; replaced: {}", plan.name, taken.replaced.join(", ")));
    call.ui.json(&json!({
        "plan": plan.name.as_str(), "hash": plan.hash, "replaced": taken.replaced, "stopped": taken.stopped,
        "findings": warnings, "next_steps": ["strangler status"],
    }));
    call.ui.next_steps(&["strangler status".to_owned()]);
    Ok(())
}
