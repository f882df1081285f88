//! One real Kafka broker on this machine, fetched from Maven Central by its coordinates.
//!
//! It is broker and KRaft controller in one process, on loopback, with a small heap. It is private and for trying
//! out: nothing here is how to run Kafka in production. What is written to it is not known here.

mod metadata;

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::process::{self, Background};
use crate::{guard, interrupt, port, terminal};

/// Fixed, so that a run next year does what this one did. It needs Java 17.
pub const VERSION: &str = "4.1.1";
/// The oldest Java that this Kafka runs on.
pub const OLDEST_JAVA: u32 = 17;
/// What Kafka logs with; the broker's own artifact names the interface only.
const LOG4J: &str = "2.24.3";
/// KRaft wants a cluster id of 16 bytes in base64; one broker alone needs no unique one.
const CLUSTER_ID: &str = "MkU3OEVBNTcwNTJENDM2Qk";
const FETCH_MARK: &str = "complete";
const FORMAT_LIMIT: Duration = Duration::from_secs(60);
const START_LIMIT: Duration = Duration::from_secs(90);
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// `cargo xtask kafka`: a broker until Ctrl-C.
///
/// # Errors
/// When Java or Maven is missing, the fetch fails, or the broker does not start.
pub fn run(port: Option<u16>, folder: Option<&Path>) -> Result<ExitCode> {
    let mut broker = Broker::start(folder, port)?;
    terminal::note("Kafka answers; Ctrl-C ends it");
    println!("{}", broker.address());
    loop {
        if let Err(interrupted) = interrupt::sleep(Duration::from_millis(500)) {
            broker.stop()?;
            return Err(interrupted);
        }
        broker.server.must_run()?;
    }
}

/// Fetches Kafka and what it needs into `target/kafka/VERSION`, once.
///
/// # Errors
/// When Maven is missing or cannot reach Maven Central.
pub fn fetch() -> Result<PathBuf> {
    let home = crate::target().join("kafka").join(VERSION);
    let libraries = home.join("libs");
    if libraries.join(FETCH_MARK).exists() {
        return Ok(home);
    }
    terminal::note(&format!("fetching Kafka {VERSION} from Maven Central (43 MB, once)"));
    fs::create_dir_all(&home)?;
    fs::write(home.join("pom.xml"), pom())?;
    fs::write(home.join("log4j2.properties"), LOGGING)?;
    let mut maven = Command::new("mvn");
    maven.args(["-B", "-q", "dependency:copy-dependencies", "-DincludeScope=runtime"]);
    maven.arg(format!("-DoutputDirectory={}", libraries.display())).current_dir(&home);
    let what = "Maven cannot fetch Kafka; it needs Maven Central (a proxy belongs in ~/.m2/settings.xml)";
    process::succeed(&mut maven).context(what)?;
    fs::write(libraries.join(FETCH_MARK), "")?;
    Ok(home)
}

fn pom() -> String {
    let dependency = |group: &str, artifact: &str, version: &str| {
        format!(
            "    <dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>\
             <version>{version}</version></dependency>\n"
        )
    };
    let kafka = dependency("org.apache.kafka", "kafka_2.13", VERSION);
    let binding = dependency("org.apache.logging.log4j", "log4j-slf4j-impl", LOG4J);
    let core = dependency("org.apache.logging.log4j", "log4j-core", LOG4J);
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\">\n  <modelVersion>4.0.0</modelVersion>\n  \
         <groupId>private</groupId>\n  <artifactId>kafka-home</artifactId>\n  <version>1</version>\n  \
         <packaging>pom</packaging>\n  <dependencies>\n{kafka}{binding}{core}  </dependencies>\n</project>\n"
    )
}

/// Warnings only; the usual start alone is a thousand lines.
const LOGGING: &str = "\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{HH:mm:ss.SSS} %p %c{1} %m%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
";

/// The broker's settings; small, quick to start, and nothing is made without being asked for. After a kill -9 the
/// controller admits the broker again only when its old session has run out, hence the short one.
fn settings(folder: &Path, port: u16, controller_port: u16) -> String {
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
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
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
num.network.threads=2
num.io.threads=4
background.threads=2
log.cleaner.dedupe.buffer.size=16777216
",
        folder.join("data").display()
    )
}

/// The broker. Dropping it kills it; its folder goes too unless the caller named it or kept it.
#[derive(Debug)]
pub struct Broker {
    folder: PathBuf,
    port: u16,
    server: Background,
    kept: bool,
}

impl Broker {
    /// Starts a broker in `folder`, or in a private one. A folder that held a broker before is taken up again, with
    /// its data and, unless another is asked for, on its port.
    ///
    /// # Errors
    /// When Kafka cannot be fetched or formatted, or does not answer in time (with the end of its log).
    pub fn start(folder: Option<&Path>, port: Option<u16>) -> Result<Broker> {
        let home = fetch()?;
        let earlier = folder.and_then(earlier_port);
        let port = match port.or(earlier) {
            Some(port) => port,
            None => port::free()?,
        };
        let (folder, kept) = match folder {
            Some(folder) => (std::path::absolute(folder)?, true),
            None => {
                let name = format!("{}kafka-{}-{port}", guard::FOLDER_PREFIX, std::process::id());
                (std::env::temp_dir().join(name), false)
            }
        };
        fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        if !kept {
            guard::folder(&folder);
        }
        let properties = folder.join("server.properties");
        fs::write(&properties, settings(&folder, port, port::free()?))?;
        fs::write(folder.join("port"), port.to_string())?;
        if !folder.join("data").join("meta.properties").exists() {
            let mut format = java(&home, "kafka.tools.StorageTool");
            format.args(["format", "-t", CLUSTER_ID, "-c"]).arg(&properties);
            process::output(&mut format, FORMAT_LIMIT).context("Kafka's storage cannot be formatted")?;
        }
        let server = serve(&home, &folder, port)?;
        Ok(Broker { folder, port, server, kept })
    }

    /// Where clients connect, as `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Stops the broker in good order.
    ///
    /// # Errors
    /// When it cannot be awaited.
    pub fn stop(&mut self) -> Result<()> {
        self.server.stop(Signal::SIGTERM, STOP_LIMIT)
    }

    /// Kills it with -9.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts it again after [`Broker::stop`] or [`Broker::kill`], on the same folder and port.
    ///
    /// # Errors
    /// As [`Broker::start`].
    #[cfg(test)]
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        self.server = serve(&fetch()?, &self.folder, self.port)?;
        Ok(())
    }

    /// The names of all topics, Kafka's own included.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub fn topics(&self) -> Result<Vec<String>> {
        Ok(metadata::ask(self.port)?.topics)
    }

    /// The folder with its data and its log.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Leaves its folder behind.
    pub fn keep(&mut self) {
        self.kept = true;
        guard::keep(&self.folder);
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
        if !self.kept {
            guard::remove(&self.folder);
        }
    }
}

fn earlier_port(folder: &Path) -> Option<u16> {
    fs::read_to_string(folder.join("port")).ok()?.trim().parse().ok()
}

/// Starts the server process and waits until the broker answers.
fn serve(home: &Path, folder: &Path, port: u16) -> Result<Background> {
    if TcpStream::connect(("127.0.0.1", port)).is_ok() {
        bail!("someone else listens on 127.0.0.1:{port} already; choose another with --port");
    }
    let mut command = java(home, "kafka.Kafka");
    command.arg(folder.join("server.properties")).current_dir(folder);
    let mut server = Background::start("the Kafka broker", &mut command, &folder.join("server.log"))?;
    interrupt::await_until("the start of Kafka", START_LIMIT, Duration::from_millis(100), || {
        server.must_run()?;
        // Before it is up, refusals and half answers are the rule.
        Ok(metadata::knows_a_broker(port).ok().filter(|known| *known).map(drop))
    })?;
    Ok(server)
}

fn java(home: &Path, class: &str) -> Command {
    let mut java = Command::new("java");
    java.args(["-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError"]);
    // Otherwise each of its threads keeps a buffer of the largest record that it ever wrote.
    java.arg("-Djdk.nio.maxCachedBufferSize=1048576");
    java.args(["-Djava.awt.headless=true", "-Dcom.sun.management.jmxremote=false"]);
    java.arg(format!("-Dlog4j2.configurationFile={}", home.join("log4j2.properties").display()));
    java.arg("-cp").arg(format!("{}/*", home.join("libs").display())).arg(class);
    java
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prerequisites::{self, Need};

    #[test]
    fn the_broker_comes_back_on_its_port_after_a_kill() {
        let lacking: Vec<&str> = prerequisites::missing(&Need::kafka()).iter().map(|one| one.what).collect();
        assert!(lacking.is_empty(), "{lacking:?} is missing; `cargo xtask prerequisites` installs it");
        let mut broker = Broker::start(None, None).unwrap();
        let (address, folder) = (broker.address(), broker.folder.clone());
        broker.kill();
        assert!(metadata::knows_a_broker(broker.port).is_err());
        broker.restart().unwrap();
        assert_eq!(broker.address(), address);
        assert!(metadata::knows_a_broker(broker.port).unwrap());
        assert_eq!(broker.topics().unwrap(), [""; 0]);
        broker.stop().unwrap();
        broker.restart().unwrap();
        drop(broker);
        assert!(!folder.exists());
    }
}
