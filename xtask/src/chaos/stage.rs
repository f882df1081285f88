//! All that runs in a chaos: databases, broker, shop, customers, and each part of strangler by itself, as a supervisor such
//! as systemd would start it.

use std::fs;

use anyhow::Result;
use lab::{Broker, free_port};

use super::schedule::{Blow, Part};
use super::screen::Screen;
use super::victim::{self, Database, Fate, Log};
use super::{Wish, folder};
use crate::demo::shop::Shop;
use crate::demo::strangler::Strangler;
use crate::demo::traffic::Traffic;
use crate::program::{Program, Victim};
use crate::terminal;

/// All that runs. Its fields end in this order: first what uses the others.
pub struct Stage {
    pub traffic: Traffic,
    pub proxies: [Program; 2],
    pub bridge: Program,
    pub controller: Program,
    pub strangler: Strangler,
    pub shop: Shop,
    pub broker: Option<Broker>,
}

impl Stage {
    pub fn set(wish: &Wish, seed: u64, screen: &Screen) -> Result<Stage> {
        let logs = folder().join("log");
        if logs.exists() {
            fs::remove_dir_all(&logs)?;
        }
        fs::create_dir_all(&logs)?;
        screen.line(&format!("log: {}; starting databases, shop and strangler", wish.log().name()));
        let broker = if wish.embedded { None } else { Some(Broker::start(None)?) };
        let shop = Shop::open()?;
        let listen = format!("127.0.0.1:{}", free_port()?);
        let kafka = broker.as_ref().map(Broker::address);
        let mut strangler = Strangler::unpack(&folder(), &shop, &listen, kafka.as_deref())?;
        // Each part is started by itself, and the second proxy has no folder with a token.
        strangler.set("STRANGLER_TOKEN", &format!("chaos-{}", rand::random::<u64>()));
        // Clients come through both proxies in turn, and some keep no cookies.
        strangler.set("CONSISTENCY", "strong");
        let second = strangler.beside(&folder().join("second-proxy"))?;
        strangler.show_as_admin("install")?;
        let start = |name: &str, strangler: &Strangler, verb: &str, port: u16, path: &'static str| {
            let log = logs.join(format!("{}.log", name.replace(' ', "-")));
            let health = format!("127.0.0.1:{port}");
            Program::start(name, strangler.command(&[verb]), (&health, path), &log)
        };
        let ports = strangler.ports;
        let controller = start("controller", &strangler, "controller", ports.controller, "/healthz")?;
        let bridge = start("bridge", &strangler, "bridge", ports.bridge, "/healthz")?;
        let proxies = [
            start("first proxy", &strangler, "proxy", ports.admin, "/readyz")?,
            start("second proxy", &second, "proxy", second.ports.admin, "/readyz")?,
        ];
        let mut traffic = Traffic::prepared(&shop, &[&strangler.proxy, &second.proxy], &folder());
        traffic.seed = seed;
        Ok(Stage { traffic, proxies, bridge, controller, strangler, shop, broker })
    }

    /// Each part with its blows.
    pub fn fates(&mut self, blows: &[Blow]) -> (&Strangler, Vec<Fate<'_>>) {
        let logs = folder().join("log");
        let Stage { proxies, bridge, controller, strangler, shop, broker, .. } = self;
        let [first, second] = proxies;
        let Shop { orders, monolith_cluster, orders_cluster, .. } = shop;
        let monolith =
            Database { cluster: monolith_cluster, name: "shop", log: logs.join("monolith-database.log") };
        let service =
            Database { cluster: orders_cluster, name: "orders", log: logs.join("service-database.log") };
        let mut victims: Vec<(Part, Box<dyn Victim + '_>)> = vec![
            (Part::Controller, Box::new(controller)),
            (Part::Bridge, Box::new(bridge)),
            (Part::FirstProxy, Box::new(first)),
            (Part::SecondProxy, Box::new(second)),
            (Part::Service, Box::new(orders)),
            (Part::MonolithDatabase, Box::new(monolith)),
            (Part::ServiceDatabase, Box::new(service)),
        ];
        if let Some(broker) = broker {
            victims.push((Part::Kafka, Box::new(Log { broker, log: logs.join("kafka.log") })));
        }
        let own = |part| blows.iter().copied().filter(|blow| blow.part == part).collect();
        let fates =
            victims.into_iter().map(|(part, victim)| Fate { part, blows: own(part), victim }).collect();
        (strangler, fates)
    }

    /// The servers' own logs go with their folders.
    pub fn keep_logs(&self) {
        let logs = folder().join("log");
        let mut kept = vec![
            (self.shop.monolith_cluster.log(), "monolith-database.log"),
            (self.shop.orders_cluster.log(), "service-database.log"),
            (self.shop.monolith_cluster.folder().join("application.log"), "monolith.log"),
            (self.shop.orders_cluster.folder().join("application.log"), "service.log"),
        ];
        kept.extend(self.broker.iter().map(|broker| (broker.log(), "kafka.log")));
        for (from, name) in kept {
            if let Err(error) = victim::keep(&from, &logs.join(name)) {
                terminal::note(&format!("{name} is not kept: {error:#}"));
            }
        }
    }
}
