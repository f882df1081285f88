//! A slice is evicted and its tables are emptied while proxies have not heard of it: one is cut off from the controller, one
//! stands still, one was killed and begins again with the table that it stored.

use crate::folder::signal;
use crate::house::House;
use crate::shop;
use migrations::control::READERS_LEAVE;
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_postgres::NoTls;

/// An order that both sides have, from the first copy on.
const ORDER: i64 = 7;

/// The way to the controller, which can be cut.
struct Way {
    port: u16,
    is_open: watch::Sender<bool>,
}

impl Way {
    async fn to(controller: u16) -> Way {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (is_open, watched) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut watched = watched.clone();
                tokio::spawn(async move {
                    if *watched.borrow()
                        && let Ok(mut far) = TcpStream::connect(("127.0.0.1", controller)).await
                    {
                        tokio::select! {
                            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                            _ = watched.wait_for(|is_open| !is_open) => {}
                        }
                    }
                });
            }
        });
        Way { port, is_open }
    }

    fn cut(&self) {
        self.is_open.send_replace(false);
    }

    fn mend(&self) {
        self.is_open.send_replace(true);
    }
}

/// One more proxy, in a folder of its own.
struct Proxy {
    name: &'static str,
    port: u16,
    admin: u16,
    way: Way,
    process: Child,
}

impl Proxy {
    async fn start(house: &House, name: &'static str) -> Proxy {
        let way = Way::to(house.controller).await;
        let [port, admin] = [(); 2].map(|()| lab::free_port().unwrap());
        let process = Proxy::process(house, name, (port, admin), way.port);
        Proxy { name, port, admin, way, process }
    }

    fn process(house: &House, name: &str, (port, admin): (u16, u16), way: u16) -> Child {
        let edit = |plan: &str| {
            let lines = plan.lines().map(|line| match line.starts_with("proxy:") {
                true => format!("proxy: {{ listen: '127.0.0.1:{port}', admin: '127.0.0.1:{admin}' }}\n"),
                false => format!("{line}\n"),
            });
            lines.collect()
        };
        let mut command = house.command_in(name, &["proxy"], edit);
        command.args(["--controller", &format!("http://127.0.0.1:{way}")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Kills it with -9 and starts it again, with the files that it left.
    fn restart(&mut self, house: &House) {
        self.process.kill().and_then(|()| self.process.wait()).unwrap();
        self.process = Proxy::process(house, self.name, (self.port, self.admin), self.way.port);
    }

    fn signal(&self, number: Signal) {
        signal(i32::try_from(self.process.id()).unwrap(), number);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill().and_then(|()| self.process.wait());
    }
}

type ByProxy = BTreeMap<&'static str, Vec<(Instant, String)>>;

/// Who answered when, by proxy: `service` or `monolith`.
#[derive(Clone, Default)]
struct Answers(Arc<Mutex<ByProxy>>);

impl Answers {
    /// Reads the order again and again; it must always be there.
    fn read_on(&self, proxy: &Proxy) {
        let (answers, name, url) =
            (self.clone(), proxy.name, format!("http://127.0.0.1:{}/orders/{ORDER}", proxy.port));
        tokio::spawn(async move {
            let http =
                reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().unwrap();
            loop {
                // A proxy that was killed does not answer for a moment.
                if let Ok(answer) = http.get(&url).send().await {
                    let side = answer.headers().get("x-side").map(|side| side.to_str().unwrap().to_owned());
                    let (status, side) = (answer.status().as_u16(), side.unwrap_or_default());
                    let said = answer.text().await.unwrap_or_default();
                    let side = if status == 404 { format!("404 {said} of {side}") } else { side };
                    answers.0.lock().unwrap().entry(name).or_default().push((Instant::now(), side));
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }

    fn count(&self, name: &str, side: &str, after: Instant) -> usize {
        let answers = self.0.lock().unwrap();
        let of = answers.get(name).into_iter().flatten();
        of.filter(|(at, answered)| *at > after && answered == side).count()
    }

    fn lost(&self) -> Vec<String> {
        let answers = self.0.lock().unwrap();
        let all =
            answers.iter().flat_map(|(name, answers)| answers.iter().map(move |(_, side)| (name, side)));
        all.filter(|(_, side)| side.starts_with("404"))
            .map(|(name, side)| format!("{name}: {side}"))
            .collect()
    }
}

/// The slot is dropped, and capture has made another one.
const LOSE_SLOT: &str = "DO $$ DECLARE lost name; BEGIN
    SELECT slot_name INTO lost FROM pg_replication_slots WHERE slot_name LIKE 'strangler%' AND NOT temporary;
    LOOP
        PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = lost AND active;
        BEGIN
            PERFORM pg_drop_replication_slot(lost);
            EXIT;
        EXCEPTION WHEN object_in_use THEN PERFORM pg_sleep(0.01);
        END;
    END LOOP; END $$";

#[tokio::test(flavor = "multi_thread")]
async fn no_proxy_reads_from_a_copy_that_is_emptied_whatever_it_has_not_heard() {
    let house = shop::reading_at_the_service().await;
    let (cut, frozen) = (Proxy::start(&house, "cut").await, Proxy::start(&house, "frozen").await);
    let mut killed = Proxy::start(&house, "killed").await;
    let (answers, begun) = (Answers::default(), Instant::now());
    for proxy in [&cut, &frozen, &killed] {
        answers.read_on(proxy);
    }
    let names = ["cut", "frozen", "killed"];
    let each = |side: &str, after| names.iter().all(|name| answers.count(name, side, after) > 10);
    house.eventually("reads at the service by each", || each("service", begun));

    for proxy in [&cut, &frozen, &killed] {
        proxy.way.cut();
    }
    frozen.signal(Signal::SIGSTOP);
    let evicted = Instant::now();
    house.at_source(LOSE_SLOT);
    killed.restart(&house);
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE active AND NOT temporary";
    house.eventually("another slot", || house.at_source(slots) == "1");
    // The copy's snapshot waits for this transaction, after the tables were emptied: so they stay empty.
    let (client, connection) =
        tokio_postgres::connect(&house.source.url("app", "shop"), NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.unwrap();
    let count = "SELECT count(*) FROM orders";
    house.eventually("empty tables", || house.at_sink(count) == "0");
    let emptied = Instant::now();
    let waited = emptied - evicted;
    assert!(waited >= READERS_LEAVE, "the bridge did not wait for readers: {waited:?}");
    assert!(answers.count("cut", "service", evicted) > 0, "the service was not read by a lease");
    frozen.signal(Signal::SIGCONT);
    house.eventually("reads at the monolith by each", || {
        each("monolith", emptied) || !answers.lost().is_empty()
    });
    assert_eq!(house.at_sink(count), "0", "they were read while the copy was empty");
    // The frozen one may still have had an answer of before.
    assert_eq!(["cut", "killed"].map(|name| answers.count(name, "service", emptied)), [0; 2]);
    assert_eq!(answers.lost(), Vec::<String>::new());

    client.batch_execute("COMMIT").await.unwrap();
    house.eventually("the slice again", || house.status()["slices"]["orders"]["stage"] == "following");
    for proxy in [&cut, &frozen, &killed] {
        proxy.way.mend();
    }
    assert_eq!(answers.lost(), Vec::<String>::new());
    house.assert_equal();
}
