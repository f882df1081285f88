//! The live table: what `desired` says, made ready for requests, swapped in one atomic step.
//!
//! A request keeps one table to its end. An older generation of the same journal is never taken.

pub(crate) mod route;

use crate::client::{self, Naming};
use crate::descriptors::Budget;
use crate::doubt::Doubt;
use crate::freshness::Freshness;
use crate::freshness::marks::Count;
use crate::headers::preflight;
use crate::hold::Holds;
use crate::hold::traffic::{InFlight, Traffic};
use crate::metrics::{Metrics, RouteCounters};
use crate::route::Routes;
use crate::route::decision::Side;
use crate::tally::{self, End, Tally, Terms};
use crate::upstream::address::{self, BadAddress};
use crate::upstream::{Patience, Pool, Target, Targets};
use arc_swap::ArcSwapOption;
use http1::RequestHead;
use link::ActsOn;
use migrations::code::Code;
use migrations::control::{Desired, SliceTraffic, Table, TableRoute};
use migrations::fared::RouteFared;
use migrations::names::{ServiceName, SliceName};
use migrations::path;
use migrations::plan::{Consistency, HoldBounds, Sticky};
use migrations::problem::Diagnostic;
use migrations::stage::Hold;
use route::{LiveRoute, LiveSlice};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst, fence};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

pub(crate) struct Live {
    pub(crate) acts_on: ActsOn,
    /// Answers what matches no route.
    pub(crate) monolith: Arc<Pool>,
    pub(crate) counters: RouteCounters,
    /// The slices whose reads are shared while the service follows the monolith, if it is remembered what clients did.
    pub(crate) followers: Vec<Follower>,
    routes: Routes,
    live_routes: Vec<LiveRoute>,
    /// Of each route, and last of what matches none. They outlive a swap.
    tallies: Vec<Arc<Tally>>,
    terms: Arc<Terms>,
    services: Vec<Arc<Pool>>,
    /// Every slice that has routes or a hold.
    slices: BTreeMap<SliceName, Slice>,
    metrics: Arc<Metrics>,
}

/// What a table and its successors know of a slice's writes.
struct Slice {
    traffic: Arc<Traffic>,
    hold: Option<Hold>,
}

/// What a write may do, by the table that is in use.
pub(crate) enum Entry {
    /// It may be sent by the table that placed it, and counts as in flight.
    Goes(InFlight),
    /// Its slice is held.
    Held,
    /// Another table is in use, which must place it first.
    Moved(Arc<Live>),
}

pub(crate) struct Follower {
    pub(crate) freshness: Arc<Freshness>,
    pub(crate) sticky: Sticky,
    pub(crate) salt: u64,
    pub(crate) naming: Naming,
}

impl Live {
    pub(crate) fn route(&self, method: &str, path: &[u8]) -> Option<usize> {
        self.routes.find(method, path).map(|number| number as usize)
    }

    /// The number of a request's route, if this were its path. A preflight takes the route of the method that it asks for, unless
    /// it matches a route itself.
    pub(crate) fn route_at(&self, request: &RequestHead, path: &[u8]) -> Option<usize> {
        let own = self.route(request.method(), path);
        own.or_else(|| self.route(preflight::asked_for(request)?, path))
    }

    /// Whether some server would read the request's path as that of another route, or of none.
    pub(crate) fn is_ambiguous(&self, request: &RequestHead) -> bool {
        let readings = path::readings(request.path());
        !readings.is_empty() && {
            let route = self.route_at(request, request.path());
            readings.iter().any(|reading| self.route_at(request, reading) != route)
        }
    }

    pub(crate) fn nth(&self, number: usize) -> Option<&LiveRoute> {
        self.live_routes.get(number)
    }

    /// Counts how a request fared at a side.
    pub(crate) fn tally(&self, route: Option<usize>, side: Side, end: End, took: Duration) {
        let side = match side {
            Side::Monolith => migrations::gate::Side::Monolith,
            Side::Service => migrations::gate::Side::Service,
        };
        if let Some(tally) = self.tallies.get(route.unwrap_or(self.live_routes.len())) {
            tally.count(&self.terms, side, end, took);
        }
    }

    /// How requests fared lately, and how far that reaches back.
    pub(crate) fn fared(&self, now: Instant) -> (Duration, Vec<RouteFared>) {
        let window = self.terms.turn(now, &self.tallies);
        let routes = self.live_routes.iter().map(LiveRoute::entry);
        let names = routes.map(|entry| Some((&entry.slice, &entry.route))).chain([None]);
        (window, tally::rows(names.zip(&self.tallies)))
    }

    pub(crate) fn hold(&self, slice: &SliceName) -> Option<Hold> {
        self.slices.get(slice)?.hold
    }

    /// The writes of each slice, for the controller.
    pub(crate) fn traffic(&self) -> BTreeMap<SliceName, SliceTraffic> {
        self.slices.iter().map(|(name, slice)| (name.clone(), slice.traffic.seen())).collect()
    }

    pub(crate) fn targets(&self) -> impl Iterator<Item = Arc<Target>> {
        self.pools().flat_map(|pool| pool.targets.iter().cloned())
    }

    pub(crate) fn is_upstream(&self, tls: bool, authority: &str) -> bool {
        let mut targets = self.pools().flat_map(|pool| &pool.targets);
        targets.any(|target| address::is_authority(&target.upstream, tls, authority))
    }

    fn add_up(&self) {
        let monolith = &*self.monolith.name;
        self.metrics.add_up(&self.counters, |number| match self.nth(number) {
            Some(LiveRoute { slice, name, .. }) => ([&slice.name, name], [monolith, &slice.service.name]),
            None => (["", ""], [monolith; 2]),
        });
        self.slices.values().for_each(|slice| slice.traffic.show());
    }

    fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        std::iter::once(&self.monolith).chain(&self.services)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.add_up();
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum BadDesired {
    #[error("the table has an upstream without a usable address")]
    Address(#[from] BadAddress),
    #[error("the table has no service `{0}`")]
    Service(ServiceName),
}

impl Diagnostic for BadDesired {
    fn code(&self) -> Code {
        Code::ApiUnreadable
    }

    fn remedy(&self) -> String {
        match self {
            BadDesired::Address(_) => {
                "write each upstream as `http://host:port` or `https://host:port`, without a path, and run `strangler check`"
                    .to_owned()
            }
            BadDesired::Service(_) => "run `strangler check`".to_owned(),
        }
    }
}

/// The table in use, and everything that outlives a swap.
pub(crate) struct Tables {
    pub(crate) count: Arc<Count>,
    pub(crate) bridge: Arc<ArcSwapOption<String>>,
    pub(crate) holds: Arc<Holds>,
    pub(crate) doubt: Arc<Doubt>,
    /// The controller's report is outdated.
    pub(crate) news: Arc<Notify>,
    live: ArcSwapOption<Live>,
    lasting: Mutex<Lasting>,
    /// The table in use, and earlier ones that requests still hold.
    alive: Mutex<Vec<Weak<Live>>>,
    targets: Targets,
    terms: Arc<Terms>,
    unmatched: Arc<Tally>,
    consistency: Consistency,
    /// Whether clients may still learn something from proxies before this one: no raised share counts yet.
    is_after_others: AtomicBool,
    naming: Naming,
    metrics: Arc<Metrics>,
}

/// What outlives a swap, beside the table itself.
#[derive(Default)]
struct Lasting {
    desired: Option<Desired>,
    freshness: BTreeMap<SliceName, Arc<Freshness>>,
    traffic: BTreeMap<SliceName, Arc<Traffic>>,
    unserved: Vec<Arc<Freshness>>,
}

impl Tables {
    pub(crate) fn new(
        patience: Patience,
        bounds: HoldBounds,
        consistency: Consistency,
        naming: Naming,
        budget: Arc<Budget>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            count: Arc::default(),
            bridge: Arc::default(),
            holds: Arc::new(Holds::new(bounds)),
            doubt: Arc::new(Doubt::new()),
            news: Arc::default(),
            live: ArcSwapOption::empty(),
            lasting: Mutex::default(),
            alive: Mutex::default(),
            targets: Targets::new(patience, budget, metrics.unasked.clone()),
            terms: Arc::new(Terms::new(Instant::now())),
            unmatched: Arc::default(),
            consistency,
            // With strong consistency each read waits for a barrier of its own.
            is_after_others: AtomicBool::new(consistency == Consistency::Session),
            naming,
            metrics,
        }
    }

    /// Clients have learned everything from the proxies before this one: a barrier from now on covers it. Before, no raised
    /// share counts.
    pub(crate) fn settle_now(&self) {
        let _no_table_is_taken = self.lasting.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_after_others.store(false, SeqCst);
        self.live().iter().for_each(|live| self.settle(live));
    }

    pub(crate) fn live(&self) -> Option<Arc<Live>> {
        self.live.load_full()
    }

    /// The table in use, for code that does not wait. It is cheaper than [`Tables::live`].
    pub(crate) fn peek(&self) -> arc_swap::Guard<Option<Arc<Live>>> {
        self.live.load()
    }

    /// Asks whether a write that `placed` placed may be sent now. It is counted first: a drained hold must not miss it.
    pub(crate) fn enter(&self, placed: &Arc<Live>, traffic: &Arc<Traffic>) -> Entry {
        self.enter_with(placed, traffic, || {})
    }

    /// `pause` lets a test widen the gap between the two steps.
    fn enter_with(&self, placed: &Arc<Live>, traffic: &Arc<Traffic>, pause: impl FnOnce()) -> Entry {
        let in_flight = traffic.count();
        pause();
        // With the fence in `take`: either the newest table is seen here, or who put it in use sees the count.
        fence(SeqCst);
        match &*self.live.load() {
            Some(now) if !Arc::ptr_eq(now, placed) => Entry::Moved(now.clone()),
            _ if placed.hold(&traffic.slice).is_some() => Entry::Held,
            _ => Entry::Goes(in_flight),
        }
    }

    /// The hold of a slice in the table that is in use.
    pub(crate) fn hold(&self, slice: &SliceName) -> Option<Hold> {
        self.live.load().as_ref()?.hold(slice)
    }

    pub(crate) fn acts_on(&self) -> Option<ActsOn> {
        self.live.load().as_ref().map(|live| live.acts_on.clone())
    }

    /// Slices whose barriers no task asks for yet. Each is returned once.
    pub(crate) fn take_unserved(&self) -> Vec<Arc<Freshness>> {
        std::mem::take(&mut self.lasting.lock().unwrap_or_else(PoisonError::into_inner).unserved)
    }

    /// Closes kept connections that are useless by now.
    pub(crate) fn sweep(&self) {
        self.targets.sweep();
    }

    /// Adds up the counts of every table that a request may still use.
    pub(crate) fn add_up(&self) {
        let alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        alive.iter().filter_map(Weak::upgrade).for_each(|live| live.add_up());
    }

    /// Puts a newer table in use. Returns whether it was newer. Blocks on the resolver.
    pub(crate) fn take(&self, desired: Desired) -> Result<bool, BadDesired> {
        let mut lasting = self.lasting.lock().unwrap_or_else(PoisonError::into_inner);
        if lasting.desired.as_ref().is_some_and(|now| !desired.replaces(now) || desired == *now) {
            return Ok(false);
        }
        let next = Arc::new(self.prepared(&desired, &mut lasting)?);
        self.bridge.store(desired.bridge.clone().map(Arc::new));
        self.put_in_use(&next, &lasting);
        self.settle(&next);
        self.note_alive(&next);
        self.metrics.generation.set(desired.generation.0 as i64);
        self.metrics.ready.set(1);
        lasting.desired = Some(desired);
        Ok(true)
    }

    fn put_in_use(&self, next: &Arc<Live>, lasting: &Lasting) {
        let held = next.slices.iter().filter(|(_, slice)| slice.hold.is_some());
        held.for_each(|(name, _)| self.holds.begin(name));
        self.live.store(Some(next.clone()));
        // From here on, no write is sent by an older table without being counted: see `enter`.
        fence(SeqCst);
        for (slice, traffic) in &lasting.traffic {
            let hold = next.hold(slice);
            traffic.set_hold(hold);
            if hold.is_none() {
                self.holds.end(slice);
            }
        }
    }

    fn note_alive(&self, next: &Arc<Live>) {
        let mut alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        alive.retain(|table| table.strong_count() > 0);
        alive.push(Arc::downgrade(next));
    }

    /// Gives every raised share the number of the barrier it waits for: one that starts after the swap.
    fn settle(&self, live: &Live) {
        if self.is_after_others.load(SeqCst) {
            return;
        }
        for route in live.live_routes.iter().filter(|route| route.waits_for_its_number()) {
            route.settle_at(self.count.mark());
        }
    }

    fn prepared(&self, desired: &Desired, lasting: &mut Lasting) -> Result<Live, BadDesired> {
        let table = &desired.table;
        let pool = |name: &str, addresses: &[String]| {
            self.targets.pool(name, addresses, self.metrics.pool(name)).map(Arc::new)
        };
        let mut services = BTreeMap::new();
        for (name, addresses) in &table.services {
            services.insert(name, pool(name.as_str(), addresses)?);
        }
        let followers = self.followers(&table.routes, lasting);
        let slices = self.slices(table, lasting);
        let before = self.live();
        let old_routes = before.iter().flat_map(|live| live.live_routes.iter().zip(&live.tallies));
        let old: HashMap<_, _> =
            old_routes.map(|(old, tally)| ((&old.entry().slice, &old.entry().route), (old, tally))).collect();
        let tally = |entry: &TableRoute| {
            let known = old.get(&(&entry.slice, &entry.route));
            known.map_or_else(Arc::default, |(_, tally)| Arc::clone(tally))
        };
        let tallies = table.routes.iter().map(tally).chain([self.unmatched.clone()]).collect();
        let mut slice: Option<Arc<LiveSlice>> = None;
        let routes = table.routes.iter().map(|entry| {
            let common = match slice.take().filter(|slice| slice.is_of(entry)) {
                Some(slice) => slice,
                None => {
                    let service = services.get(&entry.service);
                    let service = service.ok_or_else(|| BadDesired::Service(entry.service.clone()))?;
                    let of_slice = |f: &&Follower| entry.follows && f.freshness.slice == entry.slice;
                    let freshness = followers.iter().find(of_slice).map(|f| f.freshness.clone());
                    let traffic = self.traffic(&entry.slice, lasting);
                    let (doubt, naming) = (self.doubt.clone(), self.naming);
                    Arc::new(LiveSlice::new(entry, service.clone(), freshness, traffic, doubt, naming))
                }
            };
            slice = Some(common.clone());
            Ok(LiveRoute::new(entry, common, old.get(&(&entry.slice, &entry.route)).map(|(old, _)| *old)))
        });
        Ok(Live {
            acts_on: ActsOn::of(desired),
            monolith: pool("monolith", &table.monolith)?,
            counters: RouteCounters::new(table.routes.len()),
            routes: Routes::new(table.routes.iter().map(|entry| &entry.pattern)),
            live_routes: routes.collect::<Result<_, BadDesired>>()?,
            tallies,
            terms: self.terms.clone(),
            services: services.into_values().collect(),
            followers: if self.consistency == Consistency::Session { followers } else { Vec::new() },
            slices,
            metrics: self.metrics.clone(),
        })
    }

    fn slices(&self, table: &Table, lasting: &mut Lasting) -> BTreeMap<SliceName, Slice> {
        let names = table.routes.iter().map(|entry| &entry.slice).chain(table.holds.keys());
        let names: BTreeSet<_> = names.collect();
        let slice = |name: &SliceName| {
            let (traffic, hold) = (self.traffic(name, lasting), table.holds.get(name).copied());
            (name.clone(), Slice { traffic, hold })
        };
        names.into_iter().map(slice).collect()
    }

    fn traffic(&self, slice: &SliceName, lasting: &mut Lasting) -> Arc<Traffic> {
        let new = || {
            let counters = self.metrics.holds.of(slice.as_str());
            Arc::new(Traffic::new(slice.clone(), counters, self.news.clone()))
        };
        lasting.traffic.entry(slice.clone()).or_insert_with(new).clone()
    }

    fn followers(&self, routes: &[TableRoute], lasting: &mut Lasting) -> Vec<Follower> {
        let shared = routes.iter().filter(|entry| entry.reads_a_copy());
        let shared: BTreeMap<_, _> = shared.map(|e| (&e.slice, &e.sticky)).collect();
        for (slice, freshness) in &lasting.freshness {
            freshness.set_followed(shared.contains_key(slice));
        }
        let mut followers = Vec::with_capacity(shared.len());
        for (slice, sticky) in shared {
            let freshness = lasting.freshness.entry(slice.clone()).or_insert_with(|| {
                let counters = self.metrics.barriers(slice.as_str());
                let (count, doubt) = (self.count.clone(), self.doubt.clone());
                let fresh = Arc::new(Freshness::new(slice.clone(), count, doubt, counters, self.consistency));
                lasting.unserved.push(fresh.clone());
                fresh
            });
            let salt = client::salt(slice.as_str());
            let (freshness, sticky) = (freshness.clone(), sticky.clone());
            followers.push(Follower { freshness, sticky, salt, naming: self.naming });
        }
        followers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptors::Bounds;
    use migrations::crossing::Moment;
    use migrations::stage::Epoch;

    fn desired(generation: u64, hold: Option<u64>) -> Desired {
        let hold = hold.map(|epoch| serde_json::json!({ "epoch": epoch, "until": Moment(u64::MAX) }));
        let route = serde_json::json!({
            "slice": "orders", "route": "place", "match": "POST /orders", "access": "write",
            "service": "orders", "share": "service", "sticky": migrations::plan::Sticky::Own, "follows": false,
        });
        let holds = hold.map(|hold| ("orders", hold));
        serde_json::from_value(serde_json::json!({
            "version": migrations::control::VERSION, "journal": "00000000-0000-0000-0000-000000000001", "generation": generation, "plan": "",
            "table": {
                "monolith": ["http://127.0.0.1:1"], "services": { "orders": ["http://127.0.0.1:1"] },
                "routes": [route], "holds": BTreeMap::from_iter(holds),
            },
            "lanes": {},
        }))
        .unwrap()
    }

    /// Writers race with tables that come and go. A write that is sent after its slice was drained would be lost.
    #[test]
    fn no_write_slips_between_a_hold_and_its_drain() {
        let patience =
            Patience { connect: Duration::from_secs(1), read: Duration::from_secs(1), is_asked: false };
        let metrics = Arc::new(Metrics::new().unwrap());
        let (naming, budget) = (Naming::of(""), Budget::new(Bounds::of(1024, None)));
        let tables =
            Tables::new(patience, HoldBounds::default(), Consistency::Session, naming, budget, metrics);
        tables.take(desired(0, None)).unwrap();
        let orders: SliceName = "orders".parse().unwrap();
        let (is_drained, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
        let writer = || {
            let mut sent = 0u64;
            while !is_over.load(SeqCst) {
                let live = tables.live().unwrap();
                let route = live.nth(live.route("POST", b"/orders").unwrap()).unwrap();
                match tables.enter_with(&live, &route.slice.traffic, std::thread::yield_now) {
                    Entry::Goes(_in_flight) => {
                        assert!(!is_drained.load(SeqCst), "a write was sent after the drain");
                        sent += 1;
                    }
                    Entry::Held => std::thread::sleep(Duration::from_micros(100)),
                    Entry::Moved(_) => {}
                }
            }
            sent
        };
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..4).map(|_| scope.spawn(writer)).collect();
            for epoch in 1..=200 {
                tables.take(desired(2 * epoch, Some(epoch))).unwrap();
                while !tables.live().unwrap().traffic()[&orders].is_drained(Epoch(epoch)) {
                    std::thread::yield_now();
                }
                is_drained.store(true, SeqCst);
                std::thread::sleep(Duration::from_micros(300));
                is_drained.store(false, SeqCst);
                tables.take(desired(2 * epoch + 1, None)).unwrap();
                std::thread::sleep(Duration::from_micros(300));
            }
            is_over.store(true, SeqCst);
            let sent: u64 = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
            assert!(sent > 200, "{sent} writes");
        });
    }
}
