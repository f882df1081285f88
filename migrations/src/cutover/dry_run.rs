//! What a crossing would do, told by [`advance`] itself in a world where every step succeeds.

use super::{Awaited, Compared, Next, Seen, Step, advance};
use crate::crossing::{Digest, Moment};
use crate::gate::{Gate, Side};
use crate::journal::{Generation, SliceState};
use crate::lsn::EndLsn;
use crate::plan::{Plan, Slice, Table};
use crate::stage::{Event, IllegalMove, Stage};

/// Longer than any crossing is.
const STEPS_MAX: usize = 100;

/// The steps that follow `wish`, each a line with the names of what it touches.
pub fn dry_run(
    plan: &Plan,
    slice: &Slice,
    state: &SliceState,
    wish: Event,
    now: Moment,
) -> Result<Vec<String>, IllegalMove> {
    let mut seen = Seen { since: Some(now), ..Seen::default() };
    seen.plan = plan.hash.parse().unwrap_or_default();
    (seen.forward.is_following, seen.reverse.is_following) = (true, true);
    let names = Names::of(plan, slice);
    let mut lines = vec![names.event(&wish)];
    let mut state = state.after(Generation(0), &wish)?;
    // There is someone to wait for.
    seen.proxies.live = 1;
    for _ in 0..STEPS_MAX {
        match advance(&state, &seen, now) {
            Next::Done | Next::Wait(Awaited::Deadline, _) => break,
            Next::Do(step) => {
                lines.push(names.step(step, &state));
                succeed(&mut seen, step, &state);
            }
            Next::Wait(awaited, _) => {
                lines.push(names.wait(awaited));
                arrive(&mut seen, awaited, &state);
            }
            Next::Journal(event) => {
                lines.push(names.event(&event));
                state = state.after(Generation(0), &event)?;
                turn(&mut seen, &event);
            }
        }
    }
    Ok(lines)
}

/// A new epoch or stage: what was seen before counts no more. The entry turns the monolith's gate where it says so.
fn turn(seen: &mut Seen, event: &Event) {
    seen.proxies.drained = 0;
    seen.proxies.current = 0;
    (seen.compared, seen.is_numbered) = (None, false);
    seen.is_reserved &= matches!(event, Event::CutoverStarted { .. });
    if let Event::CutoverAborted { epoch, .. } | Event::RollbackCommitted { epoch } = event {
        seen.monolith = Some(Gate { epoch: *epoch, is_shut: false });
    }
}

fn succeed(seen: &mut Seen, step: Step, state: &SliceState) {
    match step {
        Step::Fence(side) => *gate(seen, side) = Some(Gate { epoch: state.epoch, is_shut: true }),
        Step::Open(side) => *gate(seen, side) = Some(Gate { epoch: state.epoch, is_shut: false }),
        Step::Inspect => seen.ready = Some(Digest::default()),
        Step::Reserve(_) => seen.is_reserved = true,
        Step::Compare => {
            let (Stage::Cutting { crossing, .. } | Stage::Returning { crossing, .. }) = state.stage else {
                return;
            };
            seen.compared = Some(Compared { differences: 0, schema: crossing.schema });
        }
        Step::Number(_) => seen.is_numbered = true,
    }
}

fn gate(seen: &mut Seen, side: Side) -> &mut Option<Gate> {
    match side {
        Side::Monolith => &mut seen.monolith,
        Side::Service => &mut seen.service,
    }
}

fn arrive(seen: &mut Seen, awaited: Awaited, state: &SliceState) {
    match awaited {
        Awaited::WayBack => seen.reverse.began = Some(EndLsn::default()),
        Awaited::Drained => seen.proxies.drained = seen.proxies.live,
        Awaited::Acknowledged => seen.proxies.current = seen.proxies.live,
        Awaited::Fence(Side::Monolith) => seen.forward.fenced = Some(state.epoch),
        Awaited::Fence(Side::Service) => seen.reverse.fenced = Some(state.epoch),
        Awaited::LittleLag(_) | Awaited::Deadline => {}
    }
}

/// Tells steps, waits and entries with the names of what they touch.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    plan: &'a Plan,
    slice: &'a Slice,
}

impl<'a> Names<'a> {
    pub fn of(plan: &'a Plan, slice: &'a Slice) -> Self {
        Self { plan, slice }
    }

    pub fn wait(&self, awaited: Awaited) -> String {
        format!("wait until {awaited}")
    }

    fn side(&self, side: Side) -> String {
        match side {
            Side::Monolith => "the monolith".to_owned(),
            Side::Service => format!("service {}", self.slice.service),
        }
    }

    fn tables(&self, side: Side) -> String {
        let name = |table: &Table| table.name_at(side).to_string();
        self.slice.tables.iter().map(name).collect::<Vec<_>>().join(", ")
    }

    pub fn step(&self, step: Step, state: &SliceState) -> String {
        let epoch = state.epoch;
        match step {
            Step::Inspect => {
                let tables = self.tables(Side::Monolith);
                format!("look whether {tables} and service {} are ready", self.slice.service)
            }
            Step::Reserve(side) => {
                let of = |side| format!("{} of {}", self.tables(side), self.side(side));
                format!("keep vacuums and DDL off {} and {}", of(side), of(side.other()))
            }
            Step::Fence(side) => {
                format!("shut the gate of {} on {} (epoch {epoch})", self.side(side), self.tables(side))
            }
            Step::Open(side) => {
                format!("open the gate of {} on {} (epoch {epoch})", self.side(side), self.tables(side))
            }
            Step::Compare => {
                format!("compare what changed in {} on both sides", self.tables(Side::Monolith))
            }
            Step::Number(side) => {
                format!("set the sequences of {} in {}", self.tables(side), self.side(side))
            }
        }
    }

    pub fn event(&self, event: &Event) -> String {
        let service = &self.slice.service;
        let said = match event {
            Event::CutoverPrepared { .. } => {
                format!("keep the changes of service {service} for the way back")
            }
            Event::CutoverStarted { .. } | Event::RollbackStarted { .. } => {
                let writes =
                    self.slice.routes.iter().filter(|route| !route.is_pinned && !self.slice.may_share(route));
                let writes: Vec<_> = writes.map(|route| route.pattern.to_string()).collect();
                format!("hold {} at the proxies of {}", writes.join(", "), self.plan.name)
            }
            Event::CutoverCommitted { returns_at: None, .. } => {
                format!("service {service} owns the slice: the point of no return")
            }
            Event::CutoverCommitted { .. } => {
                format!("service {service} owns the slice; it returns by itself unless it is confirmed")
            }
            Event::CutoverAborted { .. } => "the monolith owns the slice, and its gate opens".to_owned(),
            Event::RollbackCommitted { .. } => {
                "the monolith owns the slice again, and its gate opens".to_owned()
            }
            Event::RollbackAborted { .. } => format!("service {service} owns the slice still"),
            Event::Released { .. } => "let go what the proxies hold".to_owned(),
            _ => return format!("journal {}", event.name()),
        };
        format!("journal {}: {said}", event.name())
    }
}
