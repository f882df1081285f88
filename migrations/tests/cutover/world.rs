//! A world in which a slice is cut over: two databases with their change streams, two lanes, two proxies, writers, and
//! coordinators that may stall, come back or lose their memory. What they decide, and what gates and journal allow, is the
//! product's own code.

use migrations::crossing::{Digest, Intent, Moment, Preparing};
use migrations::cutover::{Compared, LaneSeen, Next, ProxiesSeen, Seen, Step, advance};
use migrations::gate::{Act, Gate, Head, Side};
use migrations::journal::{Generation, SliceState};
use migrations::lane::Right;
use migrations::lsn::{CommitLsn, EndLsn, Of};
use migrations::stage::{Epoch, Event, Owner, Stage};
use std::time::Duration;

/// The three times that matter to a coordinator: at once, after the drain, after the hold.
const TIMES: [Moment; 3] = [Moment(0), Moment(2_000), Moment(1_000_000_000)];
const PLAN: Digest = Digest(1);

/// What is broken on purpose. The whole protocol has none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// The fence is only said, and the gate stays open.
    NoFence,
    /// The fence does not wait for writers.
    NoBarrier,
    /// The end is read before the fence.
    PositionFirst,
    /// Gates take any epoch.
    NoEpoch,
    /// The journal takes any entry.
    NoCompareAndSwap,
    /// The service opens before the decision.
    OpenFirst,
    /// The service lets everybody write.
    NoServiceGate,
    /// A rollback does not wait for what the service wrote.
    NoReverseWait,
    /// A lane applies what the other lane wrote.
    NoDirection,
    /// An abort leaves the gates' epoch as it is.
    AbortKeepsEpoch,
}

/// How large the world is.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The first goes to the monolith's database directly, the others through either proxy.
    pub writes: usize,
    pub coordinators: usize,
    pub cutovers: u8,
    pub rollbacks: u8,
    /// How often a person aborts.
    pub aborts: u8,
    /// How often a coordinator loses its memory.
    pub crashes: u8,
    pub mutant: Option<Mutant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Write {
    New,
    Held(u8),
    /// Begun in a database, and let pass by its gate.
    Begun(Side),
    Acknowledged,
    Refused,
}

/// An entry of a database's change stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    Client(u8),
    /// Written by the lane that comes from the other side.
    Lane(u8),
    Fence(u8),
}

/// More changes than a bounded world makes.
const STREAM_MAX: usize = 12;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Database {
    pub gate: Gate,
    stream: [Option<Change>; STREAM_MAX],
}

impl Database {
    pub fn changes(&self) -> impl Iterator<Item = Change> {
        self.stream.iter().map_while(|change| *change)
    }

    fn push(&mut self, change: Change) {
        let free = self.stream.iter_mut().find(|place| place.is_none());
        *free.expect("STREAM_MAX is enough") = Some(change);
    }

    /// The value of each row: the last write to it. Writes 0 and 1 are to one row.
    fn rows(&self) -> [Option<u8>; 2] {
        let mut rows = [None; 2];
        for change in self.changes() {
            if let Change::Client(write) | Change::Lane(write) = change {
                rows[usize::from(write) / 2] = Some(write);
            }
        }
        rows
    }

    fn has(&self, write: u8) -> bool {
        self.changes().any(|change| matches!(change, Change::Client(one) | Change::Lane(one) if one == write))
    }
}

/// A lane: how far it has read, if it has begun and for which way back, and which fence it has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Lane {
    pub place: Option<u8>,
    attempt: Generation,
    pub fenced: Option<Epoch>,
    pub foreign: bool,
}

/// What a coordinator is about to do. It may do it much later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Intended {
    Step(Step2, Epoch),
    Entry { event: u16, at: u8 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step2 {
    Inspect,
    Fence(Side),
    Open(Side),
    Compare,
    Number,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Coordinator {
    /// The state and epoch that its memory is of.
    of: (u16, Epoch),
    is_mine: bool,
    is_ready: bool,
    equal: Option<bool>,
    is_numbered: bool,
    intends: Option<Intended>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct World {
    state: u16,
    generation: u8,
    pub monolith: Database,
    pub service: Database,
    pub forward: Lane,
    pub reverse: Lane,
    /// What the bridge and each proxy have heard.
    bridge: u16,
    proxies: [u16; 2],
    writes: [Write; 3],
    coordinators: [Coordinator; 2],
    cutovers: u8,
    rollbacks: u8,
    aborts: u8,
    crashes: u8,
    /// A fence whose end was read before it was shut (a mutant's).
    early: Option<Epoch>,
    pub broken: Option<&'static str>,
}

/// States and events by number: few are ever met, and a world stays small.
#[derive(Default)]
pub struct Names {
    states: Vec<SliceState>,
    events: Vec<Event>,
    /// Whether choices are to have names.
    pub is_told: bool,
}

fn number<T: PartialEq>(known: &mut Vec<T>, one: T) -> u16 {
    let at = known.iter().position(|other| *other == one).unwrap_or_else(|| {
        known.push(one);
        known.len() - 1
    });
    u16::try_from(at).unwrap()
}

impl Names {
    fn state(&mut self, state: SliceState) -> u16 {
        number(&mut self.states, state)
    }

    fn event(&mut self, event: Event) -> u16 {
        number(&mut self.events, event)
    }

    pub fn of(&self, world: &World) -> &SliceState {
        &self.states[usize::from(world.state)]
    }
}

/// Everything that may happen next, with names where they are wanted.
pub struct Choices {
    pub worlds: Vec<(String, World)>,
    is_told: bool,
}

impl Choices {
    fn add(&mut self, name: impl FnOnce() -> String, world: World) {
        self.worlds.push((if self.is_told { name() } else { String::new() }, world));
    }
}

pub fn beginning(names: &mut Names, bounds: Bounds) -> World {
    let stage = Stage::Following { copied_at: Of::monolith(CommitLsn(1)) };
    let state = names.state(SliceState { stage, ..SliceState::default() });
    let service = Database { gate: Gate { epoch: Epoch(0), is_shut: true }, ..Database::default() };
    World {
        state,
        generation: 0,
        monolith: Database::default(),
        service,
        forward: Lane { place: Some(0), ..Lane::default() },
        reverse: Lane::default(),
        bridge: state,
        proxies: [state; 2],
        // Those beyond the bounds never begin.
        writes: [0, 1, 2].map(|at| if at < bounds.writes { Write::New } else { Write::Refused }),
        coordinators: [Coordinator::default(); 2],
        cutovers: bounds.cutovers,
        rollbacks: bounds.rollbacks,
        aborts: bounds.aborts,
        crashes: bounds.crashes,
        early: None,
        broken: None,
    }
}

impl World {
    fn database(&mut self, side: Side) -> &mut Database {
        match side {
            Side::Monolith => &mut self.monolith,
            Side::Service => &mut self.service,
        }
    }

    fn is_open(&self, side: Side, bounds: Bounds) -> bool {
        match side {
            Side::Monolith => !self.monolith.gate.is_shut,
            Side::Service => !self.service.gate.is_shut || bounds.mutant == Some(Mutant::NoServiceGate),
        }
    }

    /// What must never be; none if all is well.
    pub fn violation(&self, names: &Names, bounds: Bounds) -> Option<&'static str> {
        if let Some(broken) = self.broken {
            return Some(broken);
        }
        let (monolith, service) = (self.is_open(Side::Monolith, bounds), !self.service.gate.is_shut);
        if monolith && service {
            return Some("I1: both sides accept writes");
        }
        let state = names.of(self);
        let is_owner_shut = match state.stage.owner() {
            Owner::Monolith => !monolith,
            Owner::Service => !service,
            Owner::Nobody => false,
        };
        if is_owner_shut && !state.is_crossing() {
            return Some("I6: nothing is under way, and the owner's gate is shut");
        }
        for (write, status) in (0u8..).zip(&self.writes) {
            let times = [&self.monolith, &self.service].map(|database| {
                let is = |change: &Change| matches!(change, Change::Client(one) | Change::Lane(one) if *one == write);
                let is_first = |change: &Change| *change == Change::Client(write);
                (database.changes().filter(is_first).count(), database.changes().filter(is).count())
            });
            if times[0].0 + times[1].0 > 1 {
                return Some("I4: a write was executed twice");
            }
            if times.iter().any(|(_, applied)| *applied > 1) {
                return Some("I7: a change came back to where it had been");
            }
            if *status != Write::Acknowledged {
                continue;
            }
            if service && !self.service.has(write) || monolith && !self.monolith.has(write) {
                return Some("I2: an acknowledged write is missing where writes are accepted");
            }
        }
        None
    }

    /// Exactly one side is open, it is the owner's, nothing waits, and nothing is left to do.
    pub fn is_settled(&self, names: &Names) -> bool {
        let state = names.of(self);
        let owner = match state.stage.owner() {
            Owner::Monolith => Side::Monolith,
            Owner::Service => Side::Service,
            Owner::Nobody => return false,
        };
        let gates = (self.monolith.gate.is_shut, self.service.gate.is_shut);
        !state.is_crossing()
            && gates == (owner == Side::Service, owner == Side::Monolith)
            && !self.writes.iter().any(|write| matches!(write, Write::Held(_)))
            && self.proxies.iter().all(|heard| *heard == self.state)
            && self.reverse.place.is_some() == state.has_way_back()
    }

    pub fn choices(&self, names: &mut Names, bounds: Bounds) -> Choices {
        let mut choices = Choices { worlds: Vec::new(), is_told: names.is_told };
        self.writers(names, bounds, &mut choices);
        self.lanes(names, bounds, &mut choices);
        self.news(&mut choices);
        self.people(names, bounds, &mut choices);
        for at in 0..bounds.coordinators {
            self.coordinator(at, names, bounds, &mut choices);
        }
        choices
    }

    fn writers(&self, names: &Names, bounds: Bounds, choices: &mut Choices) {
        for at in 0..self.writes.len() {
            let set = |write: Write, choices: &mut Choices| {
                let mut next = *self;
                next.writes[at] = write;
                choices.add(|| format!("w{at} becomes {write:?}"), next);
            };
            let sent = |side: Side, choices: &mut Choices| {
                let write = if self.is_open(side, bounds) { Write::Begun(side) } else { Write::Refused };
                set(write, choices);
            };
            match self.writes[at] {
                Write::New if at == 0 => sent(Side::Monolith, choices),
                Write::New => {
                    for proxy in 0..2u8 {
                        match self.route(proxy, names) {
                            None => set(Write::Held(proxy), choices),
                            Some(side) => sent(side, choices),
                        }
                    }
                }
                Write::Held(proxy) => {
                    match self.route(proxy, names) {
                        None => {}
                        Some(side) => sent(side, choices),
                    }
                    set(Write::Refused, choices);
                }
                Write::Begun(side) => {
                    let mut next = *self;
                    next.writes[at] = Write::Acknowledged;
                    next.database(side).push(Change::Client(u8::try_from(at).unwrap()));
                    choices.add(|| format!("w{at} committed at the {side}"), next);
                }
                Write::Acknowledged | Write::Refused => {}
            }
        }
    }

    /// Where a proxy sends writes, by what it has heard; none while it holds them.
    fn route(&self, proxy: u8, names: &Names) -> Option<Side> {
        let state = &names.states[usize::from(self.proxies[usize::from(proxy)])];
        match state.hold {
            Some(_) => None,
            None if state.stage.is_at_service() => Some(Side::Service),
            None => Some(Side::Monolith),
        }
    }

    fn news(&self, choices: &mut Choices) {
        if self.bridge != self.state {
            let next = World { bridge: self.state, ..*self };
            choices.add(|| "the bridge hears".to_owned(), next);
        }
        for proxy in 0..2 {
            if self.proxies[proxy] != self.state {
                let mut next = *self;
                next.proxies[proxy] = self.state;
                choices.add(|| format!("p{proxy} hears"), next);
            }
        }
    }

    fn people(&self, names: &mut Names, bounds: Bounds, choices: &mut Choices) {
        let state = names.of(self).clone();
        let mut wish = |what: &'static str, event: Event, left: fn(&mut World) -> &mut u8| {
            let mut next = *self;
            if *left(&mut next) == 0 {
                return;
            }
            *left(&mut next) -= 1;
            if next.append(names, bounds, self.generation, event) {
                choices.add(|| what.to_owned(), next);
            }
        };
        let intent = Intent::Cutover { for_ms: None };
        let preparing = Preparing { intent, plan: PLAN, hold_ms: 5_000, until: Moment(60_000) };
        wish("a person wants a cutover", Event::CutoverPrepared { preparing }, |world| &mut world.cutovers);
        let (epoch, why) = (state.epoch.next(), "by hand".to_owned());
        let abort = match state.stage {
            Stage::Returning { .. } => Event::RollbackAborted { epoch, why, returns_at: None },
            _ => Event::CutoverAborted { epoch, why },
        };
        wish("a person aborts", abort, |world| &mut world.aborts);
        for at in 0..bounds.coordinators {
            self.asked_to_give_back(at, names, bounds, choices);
        }
    }

    /// Whoever is asked writes the entry, and drives what it began.
    fn asked_to_give_back(&self, at: usize, names: &mut Names, bounds: Bounds, choices: &mut Choices) {
        if self.rollbacks == 0 || self.coordinators[at].intends.is_some() {
            return;
        }
        let mut next = World { rollbacks: self.rollbacks - 1, ..*self };
        let back = Event::RollbackStarted { epoch: names.of(self).epoch.next(), until: Moment(5_000) };
        if next.append(names, bounds, self.generation, back) {
            let of = (next.state, names.of(&next).epoch);
            next.coordinators[at] = Coordinator { of, is_mine: true, ..Coordinator::default() };
            choices.add(|| format!("a person wants a rollback of coordinator {at}"), next);
        }
    }

    /// Writes an entry if the journal is as long as it was when it was decided, with what it does to the monolith's gate.
    fn append(&mut self, names: &mut Names, bounds: Bounds, at: u8, event: Event) -> bool {
        if at != self.generation && bounds.mutant != Some(Mutant::NoCompareAndSwap) {
            return false;
        }
        let state = names.of(self).clone();
        let after = match state.after(Generation(u64::from(self.generation) + 1), &event) {
            Ok(after) => after,
            Err(_) if bounds.mutant == Some(Mutant::NoCompareAndSwap) => {
                let Ok(after) = forced(&state, &event) else { return false };
                after
            }
            Err(_) => return false,
        };
        let gate = self.monolith.gate;
        match &event {
            Event::CutoverCommitted { epoch, .. } => {
                let is_fenced = gate == Gate { epoch: *epoch, is_shut: true };
                let is_checked = !matches!(bounds.mutant, Some(Mutant::NoFence | Mutant::NoCompareAndSwap));
                if is_checked && !is_fenced {
                    return false;
                }
                if bounds.mutant.is_none() && self.monolith.rows() != self.service.rows() {
                    self.broken = Some("I2: the sides differ where the service takes over");
                }
            }
            Event::CutoverAborted { epoch, .. } | Event::RollbackCommitted { epoch } => {
                if matches!(event, Event::RollbackCommitted { .. })
                    && bounds.mutant.is_none()
                    && self.monolith.rows() != self.service.rows()
                {
                    self.broken = Some("I2: the sides differ where the monolith takes over");
                }
                let Some(opened) = gated(gate, Act::Open(*epoch), None, bounds) else { return false };
                self.monolith.gate = opened;
            }
            _ => {}
        }
        self.state = names.state(after);
        self.generation += 1;
        true
    }

    fn lanes(&self, names: &Names, bounds: Bounds, choices: &mut Choices) {
        let heard = &names.states[usize::from(self.bridge)];
        let forward = match heard.stage {
            Stage::Split { .. } | Stage::Returning { .. } => Right::Watch,
            _ => Right::Apply(heard.epoch),
        };
        let reverse = match heard.stage {
            Stage::Split { .. } | Stage::Returning { .. } => Right::Apply(heard.epoch),
            _ if heard.has_way_back() => Right::Watch,
            _ => Right::Rest,
        };
        self.lane(Side::Monolith, forward, Generation(0), bounds, choices);
        self.lane(Side::Service, reverse, heard.way_back, bounds, choices);
    }

    /// One step of the lane that reads `from`.
    fn lane(&self, from: Side, right: Right, attempt: Generation, bounds: Bounds, choices: &mut Choices) {
        let (lane, source, sink) = match from {
            Side::Monolith => (self.forward, &self.monolith, &self.service),
            Side::Service => (self.reverse, &self.service, &self.monolith),
        };
        let mut next = *self;
        let set = |next: &mut World, lane: Lane| match from {
            Side::Monolith => next.forward = lane,
            Side::Service => next.reverse = lane,
        };
        if right == Right::Rest {
            if lane != Lane::default() {
                set(&mut next, Lane::default());
                choices.add(|| format!("the lane from the {from} rests"), next);
            }
            return;
        }
        let Some(place) = lane.place.filter(|_| lane.attempt == attempt) else {
            if source.gate.is_shut {
                let place = u8::try_from(source.changes().count()).unwrap();
                set(&mut next, Lane { place: Some(place), attempt, ..Lane::default() });
                choices.add(|| format!("the lane from the {from} begins"), next);
            }
            return;
        };
        let Some(change) = source.stream.get(usize::from(place)).copied().flatten() else { return };
        let passed = Lane { place: Some(place + 1), ..lane };
        match (change, right) {
            (Change::Fence(epoch), _) => {
                let epoch = Epoch(u64::from(epoch));
                set(&mut next, Lane { fenced: lane.fenced.max(Some(epoch)), ..passed });
            }
            (Change::Lane(_), _) if bounds.mutant != Some(Mutant::NoDirection) => set(&mut next, passed),
            (Change::Client(write) | Change::Lane(write), Right::Apply(epoch)) => {
                let gate = gated(sink.gate, Act::Raise(epoch), None, bounds).unwrap_or(sink.gate);
                if !(gate.lets_apply(epoch) || bounds.mutant == Some(Mutant::NoEpoch) && gate.is_shut) {
                    return;
                }
                let database = next.database(from.other());
                database.gate = gate;
                database.push(Change::Lane(write));
                set(&mut next, passed);
            }
            // Forward, the place goes on, for a rollback goes on from there; back, the write is waited at.
            (_, Right::Watch | Right::Rest) if from == Side::Monolith => {
                set(&mut next, Lane { foreign: true, ..passed });
            }
            (_, Right::Watch | Right::Rest) if lane.foreign => return,
            (_, Right::Watch | Right::Rest) => set(&mut next, Lane { foreign: true, ..lane }),
        }
        choices.add(|| format!("the lane from the {from} reads {change:?}"), next);
    }

    fn coordinator(&self, at: usize, names: &mut Names, bounds: Bounds, choices: &mut Choices) {
        let mind = self.coordinators[at];
        if self.crashes > 0 && mind != (Coordinator { intends: mind.intends, ..Coordinator::default() }) {
            let mut next = *self;
            next.crashes -= 1;
            // What it had sent may still arrive.
            next.coordinators[at] = Coordinator { intends: mind.intends, ..Coordinator::default() };
            choices.add(|| format!("coordinator {at} crashes"), next);
        }
        if let Some(intended) = mind.intends {
            self.act(at, intended, names, bounds, choices);
            return;
        }
        let state = names.of(self).clone();
        let mind = if mind.of == (self.state, state.epoch) {
            mind
        } else {
            Coordinator { of: (self.state, state.epoch), ..Coordinator::default() }
        };
        let mut seen = self.seen(mind, &state, bounds);
        if bounds.mutant == Some(Mutant::NoReverseWait) && matches!(state.stage, Stage::Returning { .. }) {
            seen.reverse.fenced = Some(state.epoch);
            seen.compared = Some(Compared { differences: 0, schema: PLAN });
        }
        let mut known = Vec::new();
        for now in TIMES {
            let next = advance(&state, &seen, now);
            let intends = match next {
                Next::Wait(..) | Next::Done => continue,
                Next::Do(step) => Intended::Step(step2(step), state.epoch),
                Next::Journal(event) => Intended::Entry { event: names.event(event), at: self.generation },
            };
            if !known.contains(&intends) {
                known.push(intends);
                let mut next = *self;
                next.coordinators[at] = Coordinator { intends: Some(intends), ..mind };
                choices.add(|| format!("coordinator {at} decides {intends:?}"), next);
            }
        }
    }

    fn seen(&self, mind: Coordinator, state: &SliceState, bounds: Bounds) -> Seen {
        let lane = |lane: &Lane, attempt: Generation| LaneSeen {
            is_following: lane.place.is_some(),
            is_broken: false,
            lag: Duration::ZERO,
            fenced: lane.fenced,
            foreign: u64::from(lane.foreign),
            began: lane.place.filter(|_| lane.attempt == attempt).map(|_| EndLsn(1)),
        };
        let drained = (0..2).filter(|proxy| self.proxies[*proxy] == self.state).count();
        let in_flight = self.writes.iter().skip(1).any(|write| matches!(write, Write::Begun(_)));
        let current = u32::try_from(drained).unwrap();
        let mut monolith = self.monolith.gate;
        if let (Some(Mutant::NoFence), Stage::Cutting { .. }) = (bounds.mutant, state.stage) {
            let said = Change::Fence(u8::try_from(state.epoch.0).unwrap());
            if self.monolith.changes().any(|change| change == said) {
                monolith = Gate { epoch: state.epoch, is_shut: true };
            }
        }
        let mut service = self.service.gate;
        if bounds.mutant == Some(Mutant::AbortKeepsEpoch) && !service.is_shut {
            service.epoch = state.epoch;
        }
        Seen {
            plan: PLAN,
            since: mind.is_mine.then_some(Moment(0)),
            ready: mind.is_ready.then_some(PLAN),
            monolith: Some(monolith),
            service: Some(service),
            proxies: ProxiesSeen { live: 2, current, drained: if in_flight { 0 } else { current } },
            forward: lane(&self.forward, Generation(0)),
            reverse: lane(&self.reverse, state.way_back),
            compared: mind.equal.map(|equal| Compared { differences: u64::from(!equal), schema: PLAN }),
            // It keeps vacuums away, which there are none of here.
            is_reserved: true,
            is_numbered: mind.is_numbered,
            failed: None,
        }
    }

    /// What was decided meets the world as it is now.
    fn act(&self, at: usize, intended: Intended, names: &mut Names, bounds: Bounds, choices: &mut Choices) {
        let mut next = *self;
        next.coordinators[at].intends = None;
        let is_present = next.coordinators[at].of == (self.state, names.of(self).epoch);
        match intended {
            Intended::Entry { event, at: generation } => {
                let event = names.events[usize::from(event)].clone();
                if bounds.mutant == Some(Mutant::OpenFirst)
                    && let Event::CutoverCommitted { epoch, .. } = event
                    && next.service.gate.is_shut
                    && let Some(gate) = gated(next.service.gate, Act::Open(epoch), None, bounds)
                {
                    next.service.gate = gate;
                    next.coordinators[at].intends = Some(intended);
                    choices.add(|| format!("coordinator {at} opens the service early"), next);
                    return;
                }
                let is_written = next.append(names, bounds, generation, event.clone());
                if is_written {
                    let of = (next.state, names.of(&next).epoch);
                    next.coordinators[at] = Coordinator { of, is_mine: true, ..Coordinator::default() };
                }
                choices.add(|| format!("coordinator {at} journals {} ({is_written})", event.name()), next);
            }
            Intended::Step(step, epoch) => {
                next.step(at, step, epoch, names, bounds, is_present);
                choices.add(|| format!("coordinator {at} does {step:?} at {epoch}"), next);
            }
        }
    }

    fn step(
        &mut self,
        at: usize,
        step: Step2,
        epoch: Epoch,
        names: &Names,
        bounds: Bounds,
        is_present: bool,
    ) {
        let head = Head { owner: names.of(self).stage.owner(), epoch: names.of(self).epoch };
        let equal = self.monolith.rows() == self.service.rows();
        let mutant = bounds.mutant;
        match step {
            Step2::Fence(side) => {
                let writes = |write: &Write| *write == Write::Begun(side);
                let head = (side == Side::Monolith).then_some(head);
                let said = Change::Fence(u8::try_from(epoch.0).unwrap());
                if mutant == Some(Mutant::PositionFirst) && self.early != Some(epoch) {
                    self.early = Some(epoch);
                    self.database(side).push(said);
                    return;
                }
                if self.writes.iter().any(writes)
                    && !matches!(mutant, Some(Mutant::NoBarrier | Mutant::NoFence))
                {
                    // The lock is not to be had; it is tried again.
                    return;
                }
                let database = self.database(side);
                if let Some(gate) = gated(database.gate, Act::Fence(epoch), head, bounds) {
                    if mutant != Some(Mutant::NoFence) {
                        database.gate = gate;
                    }
                    let is_said = database.changes().any(|change| change == said);
                    if mutant != Some(Mutant::PositionFirst) && !is_said {
                        database.push(said);
                    }
                }
            }
            Step2::Open(side) => {
                let database = self.database(side);
                database.gate = gated(database.gate, Act::Open(epoch), None, bounds).unwrap_or(database.gate);
            }
            Step2::Inspect if is_present => self.coordinators[at].is_ready = true,
            Step2::Compare if is_present => {
                // Each of the mutants must fall by what it breaks, not by the comparison that would find it.
                self.coordinators[at].equal = Some(equal || mutant.is_some());
            }
            Step2::Number if is_present => self.coordinators[at].is_numbered = true,
            Step2::Inspect | Step2::Compare | Step2::Number => {}
        }
    }
}

fn step2(step: Step) -> Step2 {
    match step {
        Step::Inspect => Step2::Inspect,
        Step::Reserve(side) => unreachable!("the {side}'s tables are reserved already"),
        Step::Fence(side) => Step2::Fence(side),
        Step::Open(side) => Step2::Open(side),
        Step::Compare => Step2::Compare,
        Step::Number(_) => Step2::Number,
    }
}

/// The gate after an act, or none where it is refused.
fn gated(gate: Gate, act: Act, head: Option<Head>, bounds: Bounds) -> Option<Gate> {
    match (bounds.mutant, act) {
        (Some(Mutant::AbortKeepsEpoch), Act::Open(_)) if !gate.is_shut => Some(gate),
        (Some(Mutant::NoEpoch), Act::Fence(epoch)) => Some(Gate { epoch, is_shut: true }),
        (Some(Mutant::NoEpoch), Act::Open(epoch)) => Some(Gate { epoch, is_shut: false }),
        (Some(Mutant::NoEpoch), Act::Raise(epoch)) if gate.is_shut => Some(Gate { epoch, is_shut: true }),
        _ => gate.after(act, head).ok(),
    }
}

/// An entry that is written over whatever the journal says.
fn forced(state: &SliceState, event: &Event) -> Result<SliceState, ()> {
    let Some(epoch) = event.epoch() else { return Err(()) };
    let copied_at = Of::monolith(CommitLsn(1));
    let stage = match (state.stage, event) {
        (_, Event::CutoverAborted { .. }) => Stage::Following { copied_at },
        (Stage::Following { .. } | Stage::Cutting { .. }, Event::CutoverCommitted { .. }) => {
            let intent = Intent::Cutover { for_ms: None };
            let crossing = migrations::crossing::Crossing {
                intent,
                plan: PLAN,
                schema: PLAN,
                reverse_from: Of::service(EndLsn(1)),
            };
            Stage::Split { copied_at, crossing, returns_at: None }
        }
        _ => return Err(()),
    };
    let epoch = epoch.max(state.epoch);
    let hold = matches!(stage, Stage::Split { .. })
        .then_some(migrations::stage::Hold { epoch, until: Moment(5_000) });
    Ok(SliceState { stage, epoch, hold, preparing: None, ..state.clone() })
}
