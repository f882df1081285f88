//! Real servers for tests: private Postgres clusters on free ports, which can be killed and started again.
//!
//! Used by tests only; knows nothing of strangler. Where Postgres is missing a test fails and says how to install it.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test bed fails loudly")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// The oldest Postgres that the tests hold on.
const OLDEST: u32 = 14;

/// A free port on loopback, as far as one can know.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A running cluster with `wal_level = logical`; stopped and removed when dropped.
#[derive(Debug)]
pub struct Cluster {
    bin: PathBuf,
    dir: TempDir,
    port: u16,
    options: String,
}

impl Cluster {
    /// Makes and starts one.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// Makes and starts one with more server options, e.g. `-c wal_level=replica`.
    pub fn start_with(options: &str) -> Self {
        let bin = binaries();
        let dir = tempfile::Builder::new().prefix("testbed-").tempdir().unwrap();
        if is_root() {
            // Postgres refuses to run as root, so its folder belongs to its own user.
            succeed(Command::new("chown").arg("postgres").arg(dir.path()));
        }
        let mut initdb = as_owner(&bin.join("initdb"));
        initdb.args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "-D"]);
        succeed(initdb.arg(dir.path().join("data")));
        let mut cluster = Self { bin, dir, port: 0, options: options.to_owned() };
        for _ in 0..5 {
            cluster.port = free_port();
            if cluster.try_start() {
                return cluster;
            }
        }
        panic!("Postgres did not start: {:?}", std::fs::read_to_string(cluster.dir.path().join("log")));
    }

    fn try_start(&self) -> bool {
        let options = format!(
            "-p {} -h 127.0.0.1 -k '' -c wal_level=logical -c max_wal_senders=20 -c max_replication_slots=20 \
             -c shared_buffers=32MB {}",
            self.port, self.options
        );
        let mut start = as_owner(&self.bin.join("pg_ctl"));
        start.arg("-D").arg(self.data()).arg("-l").arg(self.dir.path().join("log"));
        start.args(["-w", "-t", "60", "-o", &options, "start"]);
        // Its output would be inherited by the server and never end, so it goes to the log alone.
        start.stdout(Stdio::null()).stderr(Stdio::null());
        start.status().unwrap().success()
    }

    /// Starts it again on the same port after [`Cluster::kill`].
    pub fn restart(&self) {
        assert!(self.try_start(), "Postgres did not come back on port {}", self.port);
    }

    /// Starts it again after [`Cluster::kill`] with other options than before.
    pub fn restart_with(&mut self, options: &str) {
        options.clone_into(&mut self.options);
        self.restart();
    }

    /// Ends it at once: the postmaster by SIGKILL, and with it every backend.
    pub fn kill(&self) {
        let pid = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        let pid = pid.lines().next().unwrap().trim().to_owned();
        succeed(Command::new("kill").args(["-9", &pid]));
        // Backends see that the postmaster is gone and end too; a new postmaster waits for them.
        let mut stop = as_owner(&self.bin.join("pg_ctl"));
        let _ = stop.arg("-D").arg(self.data()).args(["-m", "immediate", "-w", "stop"]).output();
    }

    /// Keeps a copy of its disk, for [`Cluster::set_back`]. It is killed for that, and started again.
    pub fn save(&self) {
        self.kill();
        succeed(Command::new("cp").arg("-a").arg(self.data()).arg(self.dir.path().join("saved")));
        self.restart();
    }

    /// Puts the disk back as it was at [`Cluster::save`]: the same server on the same timeline, as it was then.
    pub fn set_back(&self) {
        self.kill();
        std::fs::remove_dir_all(self.data()).unwrap();
        std::fs::rename(self.dir.path().join("saved"), self.data()).unwrap();
        self.restart();
    }

    /// Makes a database and returns a superuser's URL for it.
    pub fn database(&self, name: &str) -> String {
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        self.url("postgres", name)
    }

    /// A URL for a user, who needs no password here.
    pub fn url(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}:secret@127.0.0.1:{}/{database}", self.port)
    }

    /// Runs SQL as superuser and returns the rows, unaligned.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let mut psql = Command::new(self.bin.join("psql"));
        psql.args(["-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-d"])
            .arg(self.url("postgres", database));
        succeed(psql.args(["-c", sql])).trim_end().to_owned()
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut stop = as_owner(&self.bin.join("pg_ctl"));
        // Nothing more can be done in a drop than to try.
        let _ = stop.arg("-D").arg(self.data()).args(["-m", "immediate", "-w", "stop"]).output();
    }
}

/// The folder of the newest server programs here, Debian's or on the `PATH`.
fn binaries() -> PathBuf {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = debian.map(|entry| entry.path().join("bin")).chain(std::env::split_paths(&path));
    let whole = folders.filter(|bin| ["initdb", "pg_ctl", "psql"].iter().all(|name| bin.join(name).exists()));
    let newest = whole.filter_map(|bin| Some((major_version(&bin)?, bin))).max();
    match newest {
        Some((version, bin)) if version >= OLDEST => bin,
        _ => panic!(
            "no Postgres server of version {OLDEST} or newer is here; `apt-get install postgresql` installs one"
        ),
    }
}

/// `pg_ctl (PostgreSQL) 15.18 (Debian …)` → 15.
fn major_version(bin: &Path) -> Option<u32> {
    let said = Command::new(bin.join("pg_ctl")).arg("--version").output().ok()?.stdout;
    let said = String::from_utf8_lossy(&said);
    let number = said.split_whitespace().nth(2)?;
    number.split(|digit: char| !digit.is_ascii_digit()).next()?.parse().ok()
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().unwrap().stdout.trim_ascii() == b"0"
}

fn as_owner(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(program).current_dir("/");
    command
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} did not start: {error}"));
    let program = command.get_program().to_owned();
    assert!(output.status.success(), "{program:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
