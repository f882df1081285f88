//! The live table: what `desired` says, made ready for requests, swapped in one atomic step.
//!
//! A request takes one table and keeps it to its end. Of one journal an older generation is never taken. Does
//! not know how `desired` arrives, or what a single request is decided to be.

pub mod route;

use crate::client;
use crate::freshness::Freshness;
use crate::freshness::marks::Count;
use crate::metrics::{Metrics, RouteCounters};
use crate::route::Routes;
use crate::upstream::address::{self, BadAddress};
use crate::upstream::{Patience, Pool, Target, Targets};
use arc_swap::ArcSwapOption;
use migrations::control::{Desired, TableRoute};
use migrations::journal::{Generation, JournalId};
use migrations::names::{ServiceName, SliceName};
use migrations::pattern::Access;
use migrations::plan::Sticky;
use migrations::share::Share;
use route::{LiveRoute, LiveSlice};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// One table, ready for requests.
pub struct Live {
    /// The journal and generation it is of.
    pub acts_on: (JournalId, Generation),
    /// The hash of its plan.
    pub plan: String,
    /// Who answers what matches no route.
    pub monolith: Arc<Pool>,
    /// What is counted about requests.
    pub counters: RouteCounters,
    /// Slices of which reads are shared while the service follows the monolith.
    pub followers: Vec<Follower>,
    routes: Routes,
    live_routes: Vec<LiveRoute>,
    services: Vec<Arc<Pool>>,
    metrics: Arc<Metrics>,
}

/// A slice that clients may wait for.
pub struct Follower {
    /// Its marks and barriers.
    pub freshness: Arc<Freshness>,
    /// What its clients are recognised by.
    pub sticky: Sticky,
    /// What makes its buckets its own.
    pub salt: u64,
}

impl Live {
    /// The route of a request.
    pub fn route(&self, method: &str, path: &[u8]) -> Option<usize> {
        self.routes.find(method, path).map(|number| number as usize)
    }

    /// The route of that number.
    pub fn nth(&self, number: usize) -> Option<&LiveRoute> {
        self.live_routes.get(number)
    }

    /// Every address of every upstream.
    pub fn targets(&self) -> impl Iterator<Item = Arc<Target>> {
        self.pools().flat_map(|pool| pool.targets.iter().cloned())
    }

    /// Whether an authority is one of our upstreams.
    pub fn is_upstream(&self, tls: bool, authority: &str) -> bool {
        let mut targets = self.pools().flat_map(|pool| &pool.targets);
        targets.any(|target| address::is_authority(&target.upstream, tls, authority))
    }

    /// Adds up what was counted under this table.
    fn add_up(&self) {
        let monolith = &*self.monolith.name;
        self.metrics.add_up(&self.counters, |number| match self.nth(number) {
            Some(LiveRoute { slice, name, .. }) => ([&slice.name, name], [monolith, &slice.service.name]),
            None => (["", ""], [monolith; 2]),
        });
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

/// Why a `desired` cannot be used. The table in use stays.
#[derive(Debug, thiserror::Error)]
pub enum BadDesired {
    /// An address that is none.
    #[error("an upstream of the table has no usable address; run `strangler check`")]
    Address(#[from] BadAddress),
    /// A route to a service that is not in the table.
    #[error("the table has no service `{0}`; run `strangler check`")]
    Service(ServiceName),
}

/// The table in use, and all that outlives a swap.
pub struct Tables {
    /// Numbers this proxy's barriers.
    pub count: Arc<Count>,
    /// Where the bridge serves barriers.
    pub bridge: Arc<ArcSwapOption<String>>,
    live: ArcSwapOption<Live>,
    held: Mutex<Held>,
    /// The table in use, and those before it that requests may still hold.
    alive: Mutex<Vec<Weak<Live>>>,
    targets: Targets,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Held {
    desired: Option<Desired>,
    freshness: BTreeMap<SliceName, Arc<Freshness>>,
    unserved: Vec<Arc<Freshness>>,
}

impl Tables {
    /// No table yet.
    pub fn new(patience: Patience, metrics: Arc<Metrics>) -> Self {
        Self {
            count: Arc::default(),
            bridge: Arc::default(),
            live: ArcSwapOption::empty(),
            held: Mutex::default(),
            alive: Mutex::default(),
            targets: Targets::new(patience),
            metrics,
        }
    }

    /// The table in use.
    pub fn live(&self) -> Option<Arc<Live>> {
        self.live.load_full()
    }

    /// The table in use, for a moment without waiting: cheaper than [`Tables::live`].
    pub fn peek(&self) -> arc_swap::Guard<Option<Arc<Live>>> {
        self.live.load()
    }

    /// What a request for something newer names.
    pub fn holds(&self) -> Option<(JournalId, Generation, String)> {
        self.live.load().as_ref().map(|live| (live.acts_on.0, live.acts_on.1, live.plan.clone()))
    }

    /// Slices whose barriers nobody asks for yet; each is given out once.
    pub fn take_unserved(&self) -> Vec<Arc<Freshness>> {
        std::mem::take(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner).unserved)
    }

    /// Closes kept connections to upstreams that are of no use any more.
    pub fn sweep(&self) {
        self.targets.sweep();
    }

    /// Adds up what was counted under every table that a request may still count under.
    pub fn add_up(&self) {
        let alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        alive.iter().filter_map(Weak::upgrade).for_each(|live| live.add_up());
    }

    /// Puts a newer table in use. Whether it was newer; an equal one only brings the bridge's address. Blocks on the
    /// resolver.
    pub fn take(&self, desired: Desired) -> Result<bool, BadDesired> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.desired.as_ref().is_some_and(|now| !desired.replaces(now) || desired == *now) {
            return Ok(false);
        }
        let next = Arc::new(self.prepared(&desired, &mut held)?);
        self.bridge.store(desired.bridge.clone().map(Arc::new));
        self.live.store(Some(next.clone()));
        self.settle(&next);
        self.note_alive(&next);
        self.metrics.generation.set(desired.generation.0 as i64);
        self.metrics.ready.set(1);
        held.desired = Some(desired);
        Ok(true)
    }

    fn note_alive(&self, next: &Arc<Live>) {
        let mut alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        alive.retain(|table| table.strong_count() > 0);
        alive.push(Arc::downgrade(next));
    }

    /// Gives every raised share the number of the barrier it waits for: one that starts after the swap.
    fn settle(&self, live: &Live) {
        for route in live.live_routes.iter().filter(|route| route.waits_for_its_number()) {
            route.settle_at(self.count.mark());
        }
    }

    fn prepared(&self, desired: &Desired, held: &mut Held) -> Result<Live, BadDesired> {
        let table = &desired.table;
        let pool = |name: &str, addresses: &[String]| {
            self.targets.pool(name, addresses, self.metrics.pool(name)).map(Arc::new)
        };
        let mut services = BTreeMap::new();
        for (name, addresses) in &table.services {
            services.insert(name, pool(name.as_str(), addresses)?);
        }
        let followers = self.followers(&table.routes, held);
        let before = self.live();
        let old_routes = before.iter().flat_map(|live| &live.live_routes);
        let old: HashMap<_, _> =
            old_routes.map(|old| ((&old.entry().slice, &old.entry().route), old)).collect();
        let mut slice: Option<Arc<LiveSlice>> = None;
        let routes = table.routes.iter().map(|entry| {
            let common = match slice.take().filter(|slice| slice.is_of(entry)) {
                Some(slice) => slice,
                None => {
                    let service = services.get(&entry.service);
                    let service = service.ok_or_else(|| BadDesired::Service(entry.service.clone()))?;
                    let of_slice = |f: &&Follower| entry.follows && f.freshness.slice == entry.slice;
                    let freshness = followers.iter().find(of_slice).map(|f| f.freshness.clone());
                    Arc::new(LiveSlice::new(entry, service.clone(), freshness))
                }
            };
            slice = Some(common.clone());
            let old = old.get(&(&entry.slice, &entry.route)).copied();
            Ok(LiveRoute::new(entry, common, old))
        });
        Ok(Live {
            acts_on: (desired.journal, desired.generation),
            plan: desired.plan.clone(),
            monolith: pool("monolith", &table.monolith)?,
            counters: RouteCounters::new(table.routes.len()),
            routes: Routes::new(table.routes.iter().map(|entry| &entry.pattern)),
            live_routes: routes.collect::<Result<_, BadDesired>>()?,
            services: services.into_values().collect(),
            followers,
            metrics: self.metrics.clone(),
        })
    }

    /// One for each slice that follows and has a shared read.
    fn followers(&self, routes: &[TableRoute], held: &mut Held) -> Vec<Follower> {
        let is_shared = |e: &&TableRoute| e.follows && e.access == Access::Read && e.share != Share::MONOLITH;
        let shared: BTreeMap<_, _> = routes.iter().filter(is_shared).map(|e| (&e.slice, &e.sticky)).collect();
        for (slice, freshness) in &held.freshness {
            freshness.set_followed(shared.contains_key(slice));
        }
        let mut followers = Vec::with_capacity(shared.len());
        for (slice, sticky) in shared {
            let freshness = held.freshness.entry(slice.clone()).or_insert_with(|| {
                let counters = self.metrics.barriers(slice.as_str());
                let fresh = Arc::new(Freshness::new(slice.clone(), self.count.clone(), counters));
                held.unserved.push(fresh.clone());
                fresh
            });
            let salt = client::salt(slice.as_str());
            followers.push(Follower { freshness: freshness.clone(), sticky: sticky.clone(), salt });
        }
        followers
    }
}
