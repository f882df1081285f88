//! One real Kafka broker on this machine, fetched from Maven Central by its coordinates.
//!
//! It is broker and KRaft controller in one process, on loopback, with a small heap. It is private and for trying
//! out: this is not how to run Kafka in production.

mod record;

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::maven::{self, Library};
use crate::process::{self, Background};
use crate::{FOLDER_PREFIX, free_port, interrupt};
use record::records;

pub use record::Record;

/// Fixed, so that a run next year does what this one did. It needs Java 17.
pub(crate) const VERSION: &str = "4.1.1";
/// What Kafka logs with; the broker's own artifact names the interface only.
pub(crate) const LOG4J: &str = "2.24.3";
/// KRaft wants a cluster id of 16 bytes in base64; one broker alone needs no unique one.
const CLUSTER_ID: &str = "MkU3OEVBNTcwNTJENDM2Qk";
const LOG: &str = "server.log";
const HEAP: &str = "-Xmx512m";
const FORMAT_LIMIT: Duration = Duration::from_secs(60);
const START_LIMIT: Duration = Duration::from_secs(90);
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// The broker and its tools.
const LIBRARY: Library = Library {
    name: "Kafka",
    folder: VERSION,
    megabytes: 43,
    artifacts: &[
        ("org.apache.kafka", "kafka_2.13", VERSION),
        ("org.apache.logging.log4j", "log4j-slf4j-impl", LOG4J),
        ("org.apache.logging.log4j", "log4j-core", LOG4J),
    ],
    without: &[],
};

pub fn is_fetched() -> bool {
    LIBRARY.is_fetched()
}

/// Fetches Kafka and what it needs into `target/kafka/VERSION`, once.
pub fn fetch() -> Result<PathBuf> {
    LIBRARY.fetch()
}

/// The broker logs this when its controller has admitted it and clients may connect.
const STARTED: &str = "Kafka Server started";
/// Warnings and [`STARTED`] only; the usual start alone is a thousand lines.
const LOGGING: &str = "\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{HH:mm:ss.SSS} %p %c{1} %m%n
logger.start.name = kafka.server.KafkaRaftServer
logger.start.level = info
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
";

/// The broker's settings: small, quick to start, and without topics that make themselves. After a kill -9 the
/// controller admits the broker again only when its old session has run out, hence the short one.
fn settings(folder: &Path, port: u16, controller_port: u16, guards: &Guards) -> String {
    let Guards { listeners, advertised, protocols, rest } = guards;
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}{listeners}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}{advertised}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}
log.dirs={}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
num.network.threads=2
num.io.threads=4
background.threads=2
log.cleaner.dedupe.buffer.size=16777216
{rest}",
        folder.join("data").display()
    )
}

/// Settings of listeners that ask who comes: with TLS, with TLS on both sides, and with a login. The users are kept in the
/// cluster (SCRAM) and in the settings (PLAIN). `certificates` holds `server.pem` (key and certificate) and `ca.pem`.
fn guards(certificates: &Path, doors: &Doors) -> Guards {
    let Doors { tls, mutual, login_tls, login_plain } = doors;
    let at = |host: &str| {
        format!(
            ",TLS://{host}:{tls},MUTUAL://{host}:{mutual},LOGINTLS://{host}:{login_tls},LOGINPLAIN://{host}:{login_plain}"
        )
    };
    let login = |listener: &str| {
        let (listener, module) = (format!("listener.name.{listener}"), "org.apache.kafka.common.security");
        format!(
            "{listener}.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
{listener}.scram-sha-256.sasl.jaas.config={module}.scram.ScramLoginModule required;
{listener}.scram-sha-512.sasl.jaas.config={module}.scram.ScramLoginModule required;
{listener}.plain.sasl.jaas.config={module}.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";
"
        )
    };
    Guards {
        listeners: at("127.0.0.1"),
        advertised: at("localhost"),
        protocols: ",TLS:SSL,MUTUAL:SSL,LOGINTLS:SASL_SSL,LOGINPLAIN:SASL_PLAINTEXT".to_owned(),
        rest: format!(
            "ssl.keystore.type=PEM
ssl.keystore.location={}
ssl.truststore.type=PEM
ssl.truststore.location={}
listener.name.mutual.ssl.client.auth=required
{}{}",
            certificates.join("server.pem").display(),
            certificates.join("ca.pem").display(),
            login("logintls"),
            login("loginplain"),
        ),
    }
}

/// What listeners that ask who comes add to the settings.
#[derive(Debug, Default)]
struct Guards {
    listeners: String,
    advertised: String,
    protocols: String,
    rest: String,
}

/// The only user of a guarded broker, by any mechanism.
pub const USER: &str = "us";
pub const PASSWORD: &str = "open-sesame";

/// The ports of a guarded broker's listeners. It calls itself `localhost` there.
#[derive(Clone, Copy, Debug)]
pub struct Doors {
    pub tls: u16,
    /// TLS, and a client's certificate.
    pub mutual: u16,
    pub login_tls: u16,
    pub login_plain: u16,
}

/// A running broker. Dropping it kills it; its folder goes too, unless the caller named or kept it.
#[derive(Debug)]
pub struct Broker {
    server: Background,
    folder: PathBuf,
    port: u16,
    private: Option<TempDir>,
}

impl Broker {
    /// Starts a broker in a private folder.
    pub fn start(port: Option<u16>) -> Result<Broker> {
        let private = tempfile::Builder::new().prefix(&format!("{FOLDER_PREFIX}kafka-")).tempdir()?;
        let mut broker = Broker::open(private.path(), port)?;
        broker.private = Some(private);
        Ok(broker)
    }

    /// Starts a broker in `folder`. If the folder held a broker before, this one takes up its data and, unless another
    /// is asked for, its port.
    pub fn open(folder: &Path, port: Option<u16>) -> Result<Broker> {
        let folder = std::path::absolute(folder)?;
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let port = match port.or_else(|| earlier_port(&folder)) {
            Some(port) => port,
            None => free_port()?,
        };
        let settings = settings(&folder, port, free_port()?, &Guards::default());
        Broker::open_with(folder, port, &settings, &[])
    }

    /// Starts a broker that also has listeners which ask who comes.
    pub fn guarded(certificates: &Path) -> Result<(Broker, Doors)> {
        let private = tempfile::Builder::new().prefix(&format!("{FOLDER_PREFIX}kafka-")).tempdir()?;
        let port = free_port()?;
        let doors = Doors {
            tls: free_port()?,
            mutual: free_port()?,
            login_tls: free_port()?,
            login_plain: free_port()?,
        };
        let settings = settings(private.path(), port, free_port()?, &guards(certificates, &doors));
        let users = ["SCRAM-SHA-256", "SCRAM-SHA-512"]
            .map(|mechanism| format!("{mechanism}=[name={USER},password={PASSWORD}]"));
        let mut broker = Broker::open_with(private.path().to_owned(), port, &settings, &users)?;
        broker.private = Some(private);
        Ok((broker, doors))
    }

    fn open_with(folder: PathBuf, port: u16, settings: &str, users: &[String]) -> Result<Broker> {
        fs::write(folder.join("server.properties"), settings)?;
        fs::write(folder.join("log4j2.properties"), LOGGING)?;
        fs::write(folder.join("port"), port.to_string())?;
        if !folder.join("data").join("meta.properties").exists() {
            let mut format = java(&folder, "kafka.tools.StorageTool")?;
            format.args(["format", "-t", CLUSTER_ID, "-c", "server.properties"]);
            format.args(users.iter().flat_map(|user| ["--add-scram", user]));
            process::output(&mut format, FORMAT_LIMIT).context("Kafka's storage cannot be formatted")?;
        }
        Ok(Broker { server: serve(&folder, port)?, folder, port, private: None })
    }

    /// Where clients connect, as `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Fails, with the end of its log, if it has ended.
    pub fn must_run(&mut self) -> Result<()> {
        self.server.must_run()
    }

    pub fn stop(&mut self) -> Result<()> {
        self.server.stop(Signal::SIGTERM, STOP_LIMIT)
    }

    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Stops it where it is: connections stay, and nobody answers.
    pub fn freeze(&self) {
        self.server.signal(Signal::SIGSTOP);
    }

    /// Lets it go on after [`Broker::freeze`].
    pub fn thaw(&self) {
        self.server.signal(Signal::SIGCONT);
    }

    /// Starts it again after [`Broker::stop`] or [`Broker::kill`], on the same folder and port.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        self.server = serve(&self.folder, self.port)?;
        Ok(())
    }

    /// The names of all topics, Kafka's own included, as the broker keeps them on its disk.
    pub fn topics(&self) -> Result<BTreeSet<String>> {
        let entries = fs::read_dir(self.folder.join("data"))?.collect::<Result<Vec<_>, _>>()?;
        let names = entries.iter().filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names.filter_map(|name| topic_of(&name).map(str::to_owned)).collect())
    }

    /// All records of a topic, partition by partition, as the broker keeps them on its disk. They must not be
    /// compressed.
    pub fn records(&self, topic: &str) -> Result<Vec<Record>> {
        records(&self.folder.join("data"), topic)
    }

    /// What the server has said since it was started last.
    pub fn log(&self) -> PathBuf {
        self.folder.join(LOG)
    }

    /// The folder with its data and its log.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Leaves its folder behind.
    pub fn keep(&mut self) {
        if let Some(private) = &mut self.private {
            private.disable_cleanup(true);
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The topic of a folder with a partition, `topic-0`. A removed partition ends in `-delete` for a while.
fn topic_of(folder: &str) -> Option<&str> {
    let (topic, partition) = folder.rsplit_once('-')?;
    partition.parse::<u32>().is_ok().then_some(topic)
}

fn earlier_port(folder: &Path) -> Option<u16> {
    fs::read_to_string(folder.join("port")).ok()?.trim().parse().ok()
}

/// Starts the server process and waits until clients may connect.
fn serve(folder: &Path, port: u16) -> Result<Background> {
    if TcpStream::connect(("127.0.0.1", port)).is_ok() {
        bail!("another program listens on 127.0.0.1:{port} already; choose another port");
    }
    let mut command = java(folder, "kafka.Kafka")?;
    command.arg("server.properties");
    let log = folder.join(LOG);
    // Each start has its own log, so that no line of the last start counts.
    let _ = fs::remove_file(&log);
    let mut server = Background::start("the Kafka broker", &mut command, &log)?;
    interrupt::await_until("the start of Kafka", START_LIMIT, Duration::from_millis(50), || {
        server.must_run()?;
        Ok(fs::read_to_string(&log)?.contains(STARTED).then_some(()))
    })?;
    Ok(server)
}

fn java(folder: &Path, class: &str) -> Result<Command> {
    maven::java(folder, &LIBRARY, HEAP, class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broker_comes_back_on_its_port_after_a_kill() {
        let mut broker = Broker::start(None).unwrap();
        let (address, folder) = (broker.address(), broker.folder().to_owned());
        broker.kill();
        assert!(TcpStream::connect(&address).is_err());
        broker.restart().unwrap();
        assert_eq!(broker.address(), address);
        assert!(TcpStream::connect(&address).is_ok());
        assert_eq!(broker.topics().unwrap(), BTreeSet::from(["__cluster_metadata".to_owned()]));
        broker.stop().unwrap();
        broker.restart().unwrap();
        drop(broker);
        assert!(!folder.exists());
    }

    #[test]
    fn a_partition_names_its_topic_until_it_is_removed() {
        assert_eq!(topic_of("shop.public.orders-12"), Some("shop.public.orders"));
        assert_eq!(topic_of("shop-x-0"), Some("shop-x"));
        for other in ["shop-0.5ebc4f3a-delete", "meta.properties", "recovery-point-offset-checkpoint"] {
            assert_eq!(topic_of(other), None, "{other}");
        }
    }
}
