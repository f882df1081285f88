//! The live table: what `desired` says, made ready for requests, swapped in one atomic step.
//!
//! A request keeps one table to its end. An older generation of the same journal is never taken.

pub(crate) mod route;

use crate::client;
use crate::freshness::Freshness;
use crate::freshness::marks::Count;
use crate::metrics::{Metrics, RouteCounters};
use crate::route::Routes;
use crate::upstream::address::{self, BadAddress};
use crate::upstream::{Patience, Pool, Target, Targets};
use arc_swap::ArcSwapOption;
use migrations::code::Code;
use migrations::control::{Desired, TableRoute};
use migrations::journal::{Generation, JournalId};
use migrations::names::{ServiceName, SliceName};
use migrations::pattern::Access;
use migrations::plan::Sticky;
use migrations::problem::Diagnostic;
use migrations::share::Share;
use route::{LiveRoute, LiveSlice};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};

pub(crate) struct Live {
    pub(crate) acts_on: (JournalId, Generation),
    /// The hash of the plan.
    pub(crate) plan: String,
    /// Answers what matches no route.
    pub(crate) monolith: Arc<Pool>,
    pub(crate) counters: RouteCounters,
    /// The slices whose reads are shared while the service follows the monolith.
    pub(crate) followers: Vec<Follower>,
    routes: Routes,
    live_routes: Vec<LiveRoute>,
    services: Vec<Arc<Pool>>,
    metrics: Arc<Metrics>,
}

pub(crate) struct Follower {
    pub(crate) freshness: Arc<Freshness>,
    pub(crate) sticky: Sticky,
    pub(crate) salt: u64,
}

impl Live {
    pub(crate) fn route(&self, method: &str, path: &[u8]) -> Option<usize> {
        self.routes.find(method, path).map(|number| number as usize)
    }

    pub(crate) fn nth(&self, number: usize) -> Option<&LiveRoute> {
        self.live_routes.get(number)
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
    live: ArcSwapOption<Live>,
    lasting: Mutex<Lasting>,
    /// The table in use, and earlier ones that requests still hold.
    alive: Mutex<Vec<Weak<Live>>>,
    targets: Targets,
    metrics: Arc<Metrics>,
}

/// What outlives a swap, beside the table itself.
#[derive(Default)]
struct Lasting {
    desired: Option<Desired>,
    freshness: BTreeMap<SliceName, Arc<Freshness>>,
    unserved: Vec<Arc<Freshness>>,
}

impl Tables {
    pub(crate) fn new(patience: Patience, metrics: Arc<Metrics>) -> Self {
        Self {
            count: Arc::default(),
            bridge: Arc::default(),
            live: ArcSwapOption::empty(),
            lasting: Mutex::default(),
            alive: Mutex::default(),
            targets: Targets::new(patience),
            metrics,
        }
    }

    pub(crate) fn live(&self) -> Option<Arc<Live>> {
        self.live.load_full()
    }

    /// The table in use, for code that does not wait. It is cheaper than [`Tables::live`].
    pub(crate) fn peek(&self) -> arc_swap::Guard<Option<Arc<Live>>> {
        self.live.load()
    }

    pub(crate) fn acts_on(&self) -> Option<(JournalId, Generation, String)> {
        self.live.load().as_ref().map(|live| (live.acts_on.0, live.acts_on.1, live.plan.clone()))
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
        self.live.store(Some(next.clone()));
        self.settle(&next);
        self.note_alive(&next);
        self.metrics.generation.set(desired.generation.0 as i64);
        self.metrics.ready.set(1);
        lasting.desired = Some(desired);
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

    fn followers(&self, routes: &[TableRoute], lasting: &mut Lasting) -> Vec<Follower> {
        let is_shared = |e: &&TableRoute| e.follows && e.access == Access::Read && e.share != Share::MONOLITH;
        let shared: BTreeMap<_, _> = routes.iter().filter(is_shared).map(|e| (&e.slice, &e.sticky)).collect();
        for (slice, freshness) in &lasting.freshness {
            freshness.set_followed(shared.contains_key(slice));
        }
        let mut followers = Vec::with_capacity(shared.len());
        for (slice, sticky) in shared {
            let freshness = lasting.freshness.entry(slice.clone()).or_insert_with(|| {
                let counters = self.metrics.barriers(slice.as_str());
                let fresh = Arc::new(Freshness::new(slice.clone(), self.count.clone(), counters));
                lasting.unserved.push(fresh.clone());
                fresh
            });
            let salt = client::salt(slice.as_str());
            followers.push(Follower { freshness: freshness.clone(), sticky: sticky.clone(), salt });
        }
        followers
    }
}
