//! Two databases of two applications on a server of its own, and the plan that leads from one to the other.

#![allow(dead_code, reason = "each test program uses only a part of it")]

use controller::{Draft, Store, StoreError};
use lab::Cluster;
use migrations::code::Code;
use migrations::crossing::{Crossing, Digest, Intent, Moment, Preparing};
use migrations::finding::Finding;
use migrations::journal::{Generation, JournalId, SliceState, State};
use migrations::lsn::{CommitLsn, EndLsn, Of};
use migrations::names::SliceName;
use migrations::plan::Plan;
use migrations::preflight::Aim;
use migrations::stage::{Epoch, Event};
use postgres::gate;
use std::collections::BTreeMap;
use tokio_postgres::error::DbError;
use tokio_postgres::{Client, NoTls};

/// What strangler's own tables are made beside: two databases of two applications.
const MONOLITH: &str = "
    CREATE ROLE app LOGIN;
    GRANT CREATE ON SCHEMA public TO app;
    SET ROLE app;
    CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL);
    CREATE TABLE orders (id serial PRIMARY KEY, customer_id int NOT NULL, note text, total numeric(12,2) NOT NULL);
    CREATE TABLE lines (order_id int NOT NULL, no int NOT NULL, qty int NOT NULL, PRIMARY KEY (order_id, no)) PARTITION BY RANGE (order_id);
    CREATE TABLE lines_1 PARTITION OF lines FOR VALUES FROM (0) TO (1000);";
const SERVICE: &str = "
    GRANT CREATE ON SCHEMA public TO app;
    SET ROLE app;
    CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL);
    CREATE TABLE orders (id serial PRIMARY KEY, customer_id int NOT NULL, note text, total_cents bigint NOT NULL);
    CREATE TABLE items (order_id int NOT NULL, no int NOT NULL, quantity int NOT NULL, PRIMARY KEY (order_id, no));
    CREATE FUNCTION noop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER audit BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION noop();";

const PLAN: &str = r#"
version: 1
name: shop
monolith: { upstream: "http://127.0.0.1:1", database: "MONOLITH" }
services: { orders: { upstream: "http://127.0.0.1:2", database: "SERVICE" } }
slices:
  orders:
    service: orders
    routes: { show: "GET /orders/{id}" }
    tables:
      - from: public.orders
        set: { total_cents: "(total * 100)::bigint" }
        reverse: { total: "total_cents / 100.0" }
      - { from: public.lines, to: public.items, rename: { qty: quantity } }
    reference: [public.customers]
    triggers: { audit: skip }
"#;

pub struct World {
    pub cluster: Cluster,
    pub plan: Plan,
    pub admin: BTreeMap<String, String>,
    pub slice: SliceName,
}

impl World {
    /// A server with these options, nothing of strangler's in it.
    pub async fn new(options: &str) -> World {
        let cluster = Cluster::start_with(options);
        cluster.database("monolith");
        cluster.database("service");
        cluster.sql("monolith", MONOLITH);
        cluster.sql("service", SERVICE);
        let admin = [("monolith", "monolith"), ("orders", "service")]
            .map(|(part, database)| (part.to_owned(), url(&cluster, "postgres", database)));
        let slice = "orders".parse().unwrap();
        World { plan: plan(&text(&cluster)), admin: admin.into_iter().collect(), cluster, slice }
    }

    pub fn plan_with(&self, from: &str, to: &str) -> Plan {
        let text = text(&self.cluster);
        assert!(text.contains(from), "{from}");
        plan(&text.replace(from, to))
    }

    pub fn plan_with_all(&self, edits: &[(&str, &str)]) -> Plan {
        let mut all = text(&self.cluster);
        for (from, to) in edits {
            assert!(all.contains(from), "{from}");
            all = all.replace(from, to);
        }
        plan(&all)
    }

    /// strangler's URL of a database.
    pub fn url(&self, database: &str) -> String {
        url(&self.cluster, "strangler", database)
    }

    /// Starts, or gives up, what is captured for the slice in both databases, as a bridge does.
    pub async fn publish(&self, is_wanted: bool) {
        let kinds = if is_wanted { "'moved', 'reference'" } else { "" };
        for database in ["monolith", "service"] {
            let us = self.client("strangler", database).await;
            let publish = format!("SELECT strangler.publish('orders', ARRAY[{kinds}]::text[])");
            // Not every test installs both.
            match us.batch_execute(&publish).await {
                Err(error) if database == "monolith" => panic!("{error:?}"),
                _ => {}
            }
        }
    }

    /// Whether a plan may compute a column by this expression.
    pub fn takes(&self, expression: &str) -> bool {
        let text = text(&self.cluster).replace("(total * 100)::bigint", expression);
        migrations::plan::check("plan.yaml", &text, &|_| None).is_ok()
    }

    pub async fn install(&self) -> Vec<String> {
        let mut lines = Vec::new();
        controller::install(&self.plan, &self.admin, &mut |line| lines.push(line.to_owned())).await.unwrap();
        lines
    }

    pub async fn uninstall(&self) -> Result<Vec<String>, controller::InstallError> {
        let mut lines = Vec::new();
        controller::uninstall(&self.plan, &self.admin, &mut |line| lines.push(line.to_owned())).await?;
        Ok(lines)
    }

    /// What doctor finds but the upstreams, which do not run here, and what is doubtful in every such world.
    pub async fn findings(&self) -> Vec<Finding> {
        let mut found = controller::doctor(&self.plan, Some(&self.slice)).await.findings(Aim::Cutover);
        let known = [
            Code::UpstreamUnreachable,
            Code::SourceWalUnlimited,
            Code::SourcePartitioned,
            Code::WriterUnwatched,
            Code::SinkForeignKeyStrict,
        ];
        found.retain(|finding| !known.contains(&finding.code));
        found
    }

    pub async fn codes(&self) -> Vec<Code> {
        codes_of(&self.findings().await)
    }

    /// Writes the slice's head, as a journal would.
    pub fn stands(&self, stage: &str, epoch: u64) {
        self.monolith(
            &format!(
                "INSERT INTO strangler.slice VALUES ('{}', '{{\"stage\": \"{stage}\", \"copied_at\": \"0/10\"}}', {epoch}, 0)
                 ON CONFLICT (slice) DO UPDATE SET stage = excluded.stage, epoch = excluded.epoch",
                self.slice
            ),
        );
    }

    /// Runs SQL in the monolith's database as the superuser.
    pub fn monolith(&self, sql: &str) -> String {
        self.cluster.sql("monolith", sql)
    }

    /// Runs SQL in the service's database as the superuser.
    pub fn service(&self, sql: &str) -> String {
        self.cluster.sql("service", sql)
    }

    /// The slice's gates on both sides, as a copy makes them.
    pub async fn make_gates(&self) {
        for database in ["monolith", "service"] {
            gate::make(&self.client("strangler", database).await, &self.slice, Epoch(0)).await.unwrap();
        }
    }

    /// A connection to one of the two databases.
    pub async fn client(&self, user: &str, database: &str) -> Client {
        client(&self.cluster, user, database).await
    }
}

fn text(cluster: &Cluster) -> String {
    PLAN.replace("MONOLITH", &url(cluster, "strangler", "monolith"))
        .replace("SERVICE", &url(cluster, "strangler", "service"))
}

/// A user's URL, with a password `p@ss` that has to be written otherwise in a URL.
pub fn url(cluster: &Cluster, user: &str, database: &str) -> String {
    format!("postgres://{user}:p%40ss@127.0.0.1:{}/{database}", cluster.port())
}

pub async fn client(cluster: &Cluster, user: &str, database: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(&url(cluster, user, database), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

pub fn plan(text: &str) -> Plan {
    match migrations::plan::check("plan.yaml", text, &|_| None) {
        Ok((plan, _)) => plan,
        Err(findings) => panic!("{findings:#?}"),
    }
}

/// The SQLSTATE with which a writer is refused; none where it may write.
pub async fn refusal(client: &Client, sql: &str) -> Option<String> {
    client.batch_execute(sql).await.err().map(|error| error.as_db_error().unwrap().code().code().to_owned())
}

/// What the server says to a writer that it refuses.
pub async fn refused(client: &Client, sql: &str) -> DbError {
    client.batch_execute(sql).await.unwrap_err().as_db_error().unwrap().clone()
}

pub fn codes_of(found: &[Finding]) -> Vec<Code> {
    found.iter().map(|finding| finding.code).collect()
}

/// A controller's part: it decides and writes the journal in the monolith's database.
pub struct Decider {
    pub store: Store,
    pub state: State,
    pub slice: SliceName,
    _folder: tempfile::TempDir,
}

impl Decider {
    /// One that knows what the journal says.
    pub async fn of(world: &World) -> Decider {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::of(&world.plan, folder.path());
        let mut decider = Decider {
            store,
            state: State::empty(JournalId(uuid::Uuid::nil())),
            slice: world.slice.clone(),
            _folder: folder,
        };
        decider.read().await;
        decider
    }

    /// Reads the whole journal again.
    pub async fn read(&mut self) {
        let loaded = self.store.load(Generation(0)).await.unwrap();
        self.state = State::replay(loaded.journal, &loaded.entries).unwrap();
    }

    /// Writes what an event comes to.
    pub async fn decide(&mut self, event: Event) -> Result<(), StoreError> {
        let decided = self.state.plan_move(&self.slice, event).unwrap();
        let draft = Draft { actor: "ann".to_owned(), reason: String::new(), decided };
        let entry = self.store.append(self.state.generation, &draft).await?;
        self.state.apply(&entry).unwrap();
        Ok(())
    }

    /// All of these, one after the other.
    pub async fn decide_all(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.decide(event).await.unwrap();
        }
    }

    pub fn head(&self) -> SliceState {
        self.state.slice(&self.slice)
    }
}

const CROSSING: Crossing = Crossing {
    intent: Intent::Cutover { for_ms: Some(600_000) },
    plan: Digest(7),
    schema: Digest(8),
    reverse_from: Of::service(EndLsn(9)),
};

/// A slice's way from the beginning to one that follows.
pub fn followed() -> [Event; 2] {
    [Event::SyncStarted { replace: false }, Event::CopyCompleted { copied_at: Of::monolith(CommitLsn(0x10)) }]
}

pub fn prepared() -> Event {
    let (intent, plan) = (CROSSING.intent, CROSSING.plan);
    Event::CutoverPrepared { preparing: Preparing { intent, plan, hold_ms: 5_000, until: Moment(1) } }
}

pub fn started(epoch: u64) -> Event {
    Event::CutoverStarted { epoch: Epoch(epoch), crossing: CROSSING, until: Moment(2) }
}

pub fn committed(epoch: u64) -> Event {
    Event::CutoverCommitted { epoch: Epoch(epoch), returns_at: Some(Moment(3)) }
}

pub fn aborted(epoch: u64) -> Event {
    Event::CutoverAborted { epoch: Epoch(epoch), why: "because".to_owned() }
}

pub fn released(epoch: u64) -> Event {
    Event::Released { epoch: Epoch(epoch) }
}

pub fn rollback_started(epoch: u64) -> Event {
    Event::RollbackStarted { epoch: Epoch(epoch), until: Moment(4) }
}

pub fn rollback_committed(epoch: u64) -> Event {
    Event::RollbackCommitted { epoch: Epoch(epoch) }
}

pub fn rollback_aborted(epoch: u64) -> Event {
    Event::RollbackAborted { epoch: Epoch(epoch), why: "because".to_owned(), returns_at: None }
}
