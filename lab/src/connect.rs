//! One Kafka Connect worker on this machine with Debezium's connectors, fetched from Maven Central by their coordinates.
//!
//! It is a standalone worker on loopback with a small heap: for comparing and measuring, not for production.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::{Map, Value};
use tempfile::TempDir;

use crate::kafka::{LOG4J, VERSION};
use crate::maven::{self, Library};
use crate::process::Background;
use crate::{Broker, FOLDER_PREFIX, free_port, interrupt};

const HEAP: &str = "-Xmx384m";
const LOG: &str = "connect.log";
/// Loading the plugins takes a busy machine a minute.
const START_LIMIT: Duration = Duration::from_secs(240);
const RUN_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(20);
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(200);

const WORKER: Library = Library {
    name: "Kafka Connect",
    folder: "connect-4.1.1",
    megabytes: 54,
    artifacts: &[
        ("org.apache.kafka", "connect-runtime", VERSION),
        ("org.apache.kafka", "connect-json", VERSION),
        ("org.apache.kafka", "connect-transforms", VERSION),
        ("org.apache.kafka", "kafka_2.13", VERSION),
        // The command line, which the runtime lacks.
        ("org.apache.kafka", "kafka-tools", VERSION),
        ("org.apache.logging.log4j", "log4j-slf4j-impl", LOG4J),
        ("org.apache.logging.log4j", "log4j-core", LOG4J),
    ],
    without: &[],
};

/// The worker brings these; a second copy beside a connector breaks its loading.
const BROUGHT: &[&str] = &[
    "com.fasterxml.jackson.core",
    "com.fasterxml.jackson.datatype",
    "org.apache.kafka",
    "org.slf4j",
    "org.lz4",
    "at.yawk.lz4",
    "org.xerial.snappy",
    "com.github.luben",
];

/// A connector that can be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plugin {
    /// Debezium's PostgreSQL connector.
    Postgres,
    /// Debezium's JDBC sink.
    Jdbc,
}

impl Plugin {
    /// The version of Debezium that is fetched.
    pub fn version(self) -> &'static str {
        match self {
            Plugin::Postgres => "3.6.1.Final",
            // Later versions name an artifact that Maven Central does not have.
            Plugin::Jdbc => "3.5.0.Final",
        }
    }

    fn library(self) -> Library {
        match self {
            Plugin::Postgres => Library {
                name: "Debezium's PostgreSQL connector",
                folder: "debezium-postgres-3.6.1",
                megabytes: 28,
                artifacts: &[("io.debezium", "debezium-connector-postgres", "3.6.1.Final")],
                without: BROUGHT,
            },
            Plugin::Jdbc => Library {
                name: "Debezium's JDBC sink",
                folder: "debezium-jdbc-3.5.0",
                megabytes: 60,
                artifacts: &[("io.debezium", "debezium-connector-jdbc", "3.5.0.Final")],
                without: BROUGHT,
            },
        }
    }

    fn class(self) -> &'static str {
        match self {
            Plugin::Postgres => "io.debezium.connector.postgresql.PostgresConnector",
            Plugin::Jdbc => "io.debezium.connector.jdbc.JdbcSinkConnector",
        }
    }
}

/// Warnings only, but for the connectors', which say how far they are.
const LOGGING: &str = "\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{HH:mm:ss.SSS} %p %c{1} %m%n
logger.debezium.name = io.debezium
logger.debezium.level = info
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
";

/// How records are written: as JSON, with or without the Connect schema of each.
fn settings(broker: &str, port: u16, folder: &Path, plugins: &[PathBuf], schemas: bool) -> String {
    let plugins: Vec<_> = plugins.iter().map(|plugin| plugin.display().to_string()).collect();
    format!(
        "bootstrap.servers={broker}
listeners=http://127.0.0.1:{port}
plugin.path={}
plugin.discovery=service_load
key.converter=org.apache.kafka.connect.json.JsonConverter
key.converter.schemas.enable={schemas}
value.converter=org.apache.kafka.connect.json.JsonConverter
value.converter.schemas.enable={schemas}
offset.storage.file.filename={}
offset.flush.interval.ms=1000
",
        plugins.join(","),
        folder.join("offsets").display()
    )
}

/// A running worker. Dropping it kills it, and its folder goes.
#[derive(Debug)]
pub struct Worker {
    server: Background,
    port: u16,
    folder: TempDir,
}

impl Worker {
    /// Fetches the connectors if they are not here, starts a worker on a broker, and waits until it answers. `schemas`
    /// says whether records carry their Connect schema.
    pub fn start(broker: &Broker, plugins: &[Plugin], schemas: bool) -> Result<Worker> {
        let mut folders = Vec::new();
        for plugin in plugins {
            let jars = plugin.library().fetch()?;
            folders.push(jars.parent().unwrap_or(&jars).to_owned());
        }
        let folder = tempfile::Builder::new().prefix(&format!("{FOLDER_PREFIX}connect-")).tempdir()?;
        let port = free_port()?;
        let settings = settings(&broker.address(), port, folder.path(), &folders, schemas);
        fs::write(folder.path().join("worker.properties"), settings)?;
        fs::write(folder.path().join("log4j2.properties"), LOGGING)?;
        let class = "org.apache.kafka.connect.cli.ConnectStandalone";
        let mut command = maven::java(folder.path(), &WORKER, HEAP, class)?;
        command.arg("worker.properties");
        let server = Background::start("Kafka Connect", &mut command, &folder.path().join(LOG))?;
        let mut worker = Worker { server, port, folder };
        interrupt::await_until("the start of Kafka Connect", START_LIMIT, LOOK, || {
            worker.server.must_run()?;
            Ok(worker.ask("GET", "/connectors", "").ok().map(drop))
        })?;
        Ok(worker)
    }

    /// Makes a connector of a plugin, and waits until it and its task run.
    pub fn create(&mut self, name: &str, plugin: Plugin, settings: &[(&str, &str)]) -> Result<Connector> {
        let mut config: Map<String, Value> =
            settings.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect();
        config.insert("connector.class".to_owned(), plugin.class().into());
        config.insert("tasks.max".to_owned(), "1".into());
        let connector = serde_json::json!({ "name": name, "config": config });
        self.ask("POST", "/connectors", &connector.to_string())
            .with_context(|| format!("the connector `{name}` cannot be made"))?;
        let connector = Connector { name: name.to_owned() };
        interrupt::await_until(&format!("the start of connector `{name}`"), RUN_LIMIT, LOOK, || {
            Ok(self.must_run(&connector)?.then_some(()))
        })
        .with_context(|| self.server.log_end())?;
        Ok(connector)
    }

    /// Fails if a connector or its task has failed; says whether both run.
    pub fn must_run(&mut self, connector: &Connector) -> Result<bool> {
        self.server.must_run()?;
        let name = &connector.name;
        let status: Value =
            serde_json::from_str(&self.ask("GET", &format!("/connectors/{name}/status"), "")?)?;
        let tasks = status["tasks"].as_array().into_iter().flatten();
        let parts: Vec<&Value> = std::iter::once(&status["connector"]).chain(tasks).collect();
        if let Some(failed) = parts.iter().find(|part| part["state"] == "FAILED") {
            bail!("the connector `{name}` failed: {}", failed["trace"].as_str().unwrap_or("no trace"));
        }
        Ok(parts.len() > 1 && parts.iter().all(|part| part["state"] == "RUNNING"))
    }

    /// Ends a connector. What it read up to stays noted.
    pub fn stop_connector(&mut self, connector: &Connector) -> Result<()> {
        self.ask("PUT", &format!("/connectors/{}/stop", connector.name), "").map(drop)
    }

    /// Starts a stopped connector again, and waits until it runs.
    pub fn resume_connector(&mut self, connector: &Connector) -> Result<()> {
        let name = &connector.name;
        self.ask("PUT", &format!("/connectors/{name}/resume"), "")?;
        interrupt::await_until(&format!("the start of connector `{name}`"), RUN_LIMIT, LOOK, || {
            Ok(self.must_run(connector)?.then_some(()))
        })
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.server.pid()
    }

    pub fn stop(&mut self) -> Result<()> {
        self.server.stop(Signal::SIGTERM, STOP_LIMIT)
    }

    /// What it has said.
    pub fn log(&self) -> PathBuf {
        self.folder.path().join(LOG)
    }

    /// Leaves its folder behind.
    pub fn keep(&mut self) {
        self.folder.disable_cleanup(true);
    }

    /// One question to its REST API. HTTP/1.0, so that the answer comes in one piece.
    fn ask(&self, method: &str, path: &str, body: &str) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        let (port, length) = (self.port, body.len());
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).context("Kafka Connect gives no answer")?;
        let (head, body) = answer.split_once("\r\n\r\n").context("Kafka Connect does not answer in HTTP")?;
        let status = head.split(' ').nth(1).unwrap_or_default();
        ensure!(status.starts_with('2'), "Kafka Connect answers {status}: {body}");
        Ok(body.to_owned())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.server.kill();
    }
}

/// A connector of a worker.
#[derive(Debug)]
pub struct Connector {
    name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_a_library_names_the_version_in_it() {
        for plugin in [Plugin::Postgres, Plugin::Jdbc] {
            let library = plugin.library();
            assert_eq!(library.artifacts[0].2, plugin.version());
            let version = plugin.version().trim_end_matches(".Final");
            assert!(library.folder.ends_with(version), "{}", library.folder);
        }
        assert!(WORKER.folder.ends_with(VERSION));
    }
}
