//! `examples/search`: Postgres → bridge → Kafka → Flink → OpenSearch.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::process::{self, Background};
use lab::{free_port, interrupt};
use serde_json::Value;

use super::house::{House, LOOK};
use super::rows::{self, Rows};
use super::{comes_to, kcat, load};
use crate::demo::probe;
use crate::terminal;

const FETCH_LIMIT: Duration = Duration::from_secs(900);
const START_LIMIT: Duration = Duration::from_secs(180);
/// More documents are not found by one search.
const DOCUMENTS_MAX: usize = 10_000;

const ORDERS: &str = "SELECT o.id, c.name AS customer, c.town, o.note, o.total_cents, o.state, o.placed \
    FROM orders o JOIN customers c ON c.id = o.customer_id";
const CUSTOMERS: &str = "SELECT c.id, c.name AS customer, count(o.id) AS orders, coalesce(sum(o.total_cents), 0)::bigint AS spent_cents \
    FROM customers c LEFT JOIN orders o ON o.customer_id = c.id AND o.state <> 'cancelled' GROUP BY c.id";

/// How many comparisons failed.
pub fn run(with_search: bool, with_kcat: bool, stay: bool) -> Result<usize> {
    terminal::heading("Flink SQL and OpenSearch, kcat");
    let house =
        House::open("search", &file("strangler.yaml")?, &file("monolith.sql")?, &file("service.sql")?)?;
    let mut search = if with_search { Some(Search::start(&house)?) } else { None };
    terminal::during("changing rows in the monolith", || load::run(&house))?;
    let postgres = |query: &'static str| rows::of_postgres(&house.monolith, "shop", query);
    let mut wrong = 0;
    let mut hold = |held: bool| wrong += usize::from(!held);
    if let Some(search) = &mut search {
        let claims = [
            ("OpenSearch has each order with its customer", "orders", ORDERS),
            ("OpenSearch has each customer's aggregate", "customers", CUSTOMERS),
        ];
        for (claim, index, query) in claims {
            hold(comes_to(claim, || postgres(query), || search.rows(index))?);
        }
    }
    if with_kcat {
        let broker = house.broker.address();
        for table in ["orders", "customers"] {
            let claim = format!("kcat reads table {table} from its topic");
            let query = if table == "orders" { "SELECT * FROM orders" } else { "SELECT * FROM customers" };
            hold(comes_to(
                &claim,
                || postgres(query),
                || kcat::rows(&broker, &format!("shop.public.{table}")),
            )?);
        }
    }
    if let (true, Some(search)) = (stay, &search) {
        show(&house, search)?;
    }
    Ok(wrong)
}

fn show(house: &House, search: &Search) -> Result<()> {
    println!(
        "\nIt stays up until Ctrl-C. In another terminal:\n\n  psql '{}' -c \"UPDATE orders SET note = 'a blue sofa' WHERE id = 7\"\n  \
         curl 'http://{}/orders/_search?q=sofa&pretty'\n\nThe plan is in {}.",
        house.monolith_url(),
        search.address,
        house.folder().display()
    );
    house.stay()
}

/// A file of the example.
fn file(name: &str) -> Result<String> {
    let path = example().join(name);
    fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))
}

fn example() -> PathBuf {
    lab::root().join("examples").join("search")
}

/// OpenSearch, and the Flink job that fills it. What is dropped first stands first.
struct Search {
    flink: Background,
    server: Background,
    /// Where OpenSearch answers.
    address: String,
}

impl Search {
    fn start(house: &House) -> Result<Search> {
        let (opensearch, flink) =
            terminal::during("fetching Flink and OpenSearch from Maven Central, 180 MB, once", || {
                anyhow::Ok((compiled("opensearch")?, compiled("flink")?))
            })?;
        let (http, transport) = (free_port()?.to_string(), free_port()?.to_string());
        let home = house.folder().join("opensearch");
        fs::create_dir_all(home.join("config"))?;
        let mut server =
            java(&opensearch, &["--add-opens=java.base/java.nio=ALL-UNNAMED"], "search.SearchServer");
        server.arg(&home).args([&http, &transport]);
        let log = house.folder().join("opensearch.log");
        let mut server = Background::start("OpenSearch", &mut server, &log)?;
        let address = format!("127.0.0.1:{http}");
        terminal::during("starting OpenSearch", || {
            interrupt::await_until("the start of OpenSearch", START_LIMIT, LOOK, || {
                server.must_run()?;
                let answer = probe::send(&address, "GET", "/_cluster/health", None);
                Ok(answer.is_ok_and(|answer| answer.status == 200).then_some(()))
            })
        })?;
        let opens =
            ["--add-opens=java.base/java.util=ALL-UNNAMED", "--add-opens=java.base/java.lang=ALL-UNNAMED"];
        let mut job = java(&flink, &opens, "search.RunSql");
        job.arg(example().join("search.sql"));
        job.arg(format!("BROKERS={}", house.broker.address())).arg(format!("SEARCH=http://{address}"));
        let flink = Background::start("the Flink job", &mut job, &house.folder().join("flink.log"))?;
        Ok(Search { flink, server, address })
    }

    fn must_run(&mut self) -> Result<()> {
        self.server.must_run()?;
        self.flink.must_run()
    }

    /// The documents of an index; none before it has one.
    fn rows(&mut self, index: &str) -> Result<Rows> {
        self.must_run()?;
        let path = format!("/{index}/_search?size={DOCUMENTS_MAX}");
        let _ = probe::send(&self.address, "POST", &format!("/{index}/_refresh"), None)?;
        let answer = probe::send(&self.address, "GET", &path, None)?;
        if answer.status == 404 {
            return Ok(Rows::new());
        }
        ensure!(answer.status == 200, "OpenSearch answers {}: {}", answer.status, answer.body);
        let answer: Value = serde_json::from_str(&answer.body)?;
        let hits = answer["hits"]["hits"].as_array().context("OpenSearch's answer has no hits")?;
        ensure!(hits.len() < DOCUMENTS_MAX, "index {index} has more documents than one search finds");
        hits.iter().map(|hit| rows::keyed(hit["_source"].as_object().cloned().unwrap_or_default())).collect()
    }
}

/// Compiles a part of the example, and fetches what it needs.
fn compiled(part: &str) -> Result<PathBuf> {
    let built = lab::target().join("examples").join("search").join(part);
    let mut maven = Command::new("mvn");
    maven.args(["-B", "-q", "compile", "dependency:copy-dependencies", "-DincludeScope=runtime"]);
    maven.arg(format!("-Dstrangler.target={}", lab::target().display()));
    maven
        .arg(format!("-DoutputDirectory={}", built.join("libs").display()))
        .current_dir(example().join(part));
    process::succeed_within(&mut maven, FETCH_LIMIT)
        .context("Maven cannot build it; it needs Maven Central (a proxy belongs in ~/.m2/settings.xml)")?;
    Ok(built)
}

fn java(built: &Path, opens: &[&str], class: &str) -> Command {
    let mut java = Command::new("java");
    java.args(["-Xms64m", "-Xmx320m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError"]);
    java.args(opens).arg("-cp");
    java.arg(format!("{}:{}/*", built.join("classes").display(), built.join("libs").display()));
    java.arg(class);
    java
}
