//! A real Kafka broker of a test's own, which can be killed. It runs from what `cargo xtask kafka` fetches.

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

use super::house::free_port;

const CLUSTER_ID: &str = "MkU3OEVBNTcwNTJENDM2Qk";
const START_PATIENCE: Duration = Duration::from_secs(60);
const ASK_PATIENCE: Duration = Duration::from_secs(5);

/// Broker and KRaft controller in one process; killed and removed when dropped.
pub struct Broker {
    folder: TempDir,
    home: PathBuf,
    port: u16,
    server: Child,
}

impl Broker {
    pub fn start() -> Self {
        let (folder, home, port) = (tempfile::tempdir().unwrap(), home(), free_port());
        let settings = settings(folder.path(), port, free_port());
        fs::write(folder.path().join("server.properties"), settings).unwrap();
        let mut format = java(&home, folder.path(), "kafka.tools.StorageTool");
        let formatted =
            format.args(["format", "-t", CLUSTER_ID, "-c", "server.properties"]).status().unwrap();
        assert!(formatted.success(), "{}", log(folder.path()));
        let server = serve(&home, folder.path());
        let broker = Self { folder, home, port, server };
        broker.await_answer();
        broker
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Kills it with -9.
    pub fn kill(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }

    /// Starts it again on the same folder and port.
    pub fn restart(&mut self) {
        self.server = serve(&self.home, self.folder.path());
        self.await_answer();
    }

    fn await_answer(&self) {
        let until = Instant::now() + START_PATIENCE;
        while answer(&self.address()).is_none() {
            assert!(Instant::now() < until, "the broker does not answer\n{}", log(self.folder.path()));
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have been killed before.
        let _ = self.server.kill().and_then(|()| self.server.wait());
    }
}

/// The names of all topics with this prefix.
pub fn topics(brokers: &str, prefix: &str) -> Vec<String> {
    let mut topics = answer(brokers).expect("the broker answers");
    topics.retain(|topic| topic.starts_with(prefix));
    topics
}

/// All topics, once a broker has joined its cluster.
fn answer(brokers: &str) -> Option<Vec<String>> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("log_level", "0");
    let consumer: BaseConsumer = config.create().unwrap();
    let metadata = consumer.fetch_metadata(None, ASK_PATIENCE).ok()?;
    let is_up = !metadata.brokers().is_empty();
    is_up.then(|| metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
}

fn home() -> PathBuf {
    // A relative folder counts from the workspace, where cargo stands, and not from this crate, where tests do.
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = workspace.join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()));
    let versions = fs::read_dir(target.join("kafka")).into_iter().flatten().flatten();
    let fetched = versions.map(|entry| entry.path()).filter(|home| home.join("libs/complete").exists());
    fetched
        .max()
        .expect("no Kafka under target/kafka; `cargo xtask test` fetches it (it needs Java and Maven)")
}

fn java(home: &Path, folder: &Path, class: &str) -> Command {
    let mut java = Command::new("java");
    java.args([
        "-Xms64m",
        "-Xmx256m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Djava.awt.headless=true",
    ]);
    java.arg(format!("-Dlog4j2.configurationFile={}", home.join("log4j2.properties").display()));
    java.arg("-cp").arg(format!("{}/*", home.join("libs").display())).arg(class).current_dir(folder);
    let log = File::options().create(true).append(true).open(folder.join("server.log")).unwrap();
    java.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    java
}

fn serve(home: &Path, folder: &Path) -> Child {
    java(home, folder, "kafka.Kafka").arg("server.properties").spawn().expect("Java starts")
}

fn log(folder: &Path) -> String {
    fs::read_to_string(folder.join("server.log")).unwrap_or_default()
}

/// Small and quick; the short session lets it come back soon after a kill.
fn settings(folder: &Path, port: u16, controller: u16) -> String {
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
num.network.threads=1
num.io.threads=2
background.threads=1
log.cleaner.enable=false
",
        folder.join("data").display()
    )
}
