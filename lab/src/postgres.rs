//! Private Postgres clusters, each in its own folder and on its own port.
//!
//! They are as durable as a production server (fsync stays on, because they are killed) and small in all else.
//! Postgres refuses to run as root, so root runs it as the user `postgres`.
#![allow(clippy::panic, reason = "the methods for tests fail loudly")]

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};
use tempfile::TempDir;

use crate::process::{self, Background};
use crate::{FOLDER_PREFIX, free_port, interrupt};

/// How long the system may take to close the connections of killed backends.
const BACKENDS_END: Duration = Duration::from_millis(50);
/// The oldest Postgres that the bridge reads from: 14 sends binary values and streams big transactions.
const OLDEST: u32 = 14;
pub const SUPERUSER: &str = "postgres";
/// Every role's password. The clusters listen on loopback only and live for minutes.
pub const PASSWORD: &str = "secret";
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(20);
const STATEMENT_LIMIT: Duration = Duration::from_secs(120);
const INITDB_LIMIT: Duration = Duration::from_secs(120);
/// How many ports are tried for a new cluster, in case another program takes one first.
const PORTS: usize = 5;

/// The settings that differ from Postgres' own.
const SETTINGS: &str = "
wal_level = logical
max_replication_slots = 20
max_wal_senders = 20
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
shared_buffers = 32MB
max_wal_size = 512MB
";

/// The folder of the newest Postgres server programs on this machine that is new enough.
pub fn programs() -> Option<PathBuf> {
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let debian = debian.filter_map(|entry| {
        let version = entry.file_name().to_str()?.parse().ok()?;
        Some((version, entry.path().join("bin")))
    });
    let whole = |folder: &Path| {
        ["postgres", "initdb", "psql", "pg_isready"].iter().all(|name| folder.join(name).exists())
    };
    let new_enough = |(version, folder): &(u32, PathBuf)| *version >= OLDEST && whole(folder);
    debian.chain(on_path()).filter(new_enough).max().map(|(_, folder)| folder)
}

/// The server that `PATH` finds, as on systems that are not Debian.
fn on_path() -> Option<(u32, PathBuf)> {
    let folders = std::env::var_os("PATH")?;
    let folder = std::env::split_paths(&folders).find(|folder| folder.join("initdb").exists())?;
    let version =
        process::output(Command::new(folder.join("postgres")).arg("--version"), STATEMENT_LIMIT).ok()?;
    Some((major_version(&version)?, folder))
}

/// `postgres (PostgreSQL) 15.18 (Debian …)` → 15.
fn major_version(text: &str) -> Option<u32> {
    let number = text.split_whitespace().nth(2)?;
    number.split(|digit: char| !digit.is_ascii_digit()).next()?.parse().ok()
}

#[derive(Clone, Copy, Debug)]
pub enum Access {
    /// By name alone.
    Trust,
    /// With a password, as in production.
    Passwords,
}

/// A running cluster. Dropping it stops the server at once and removes the folder, unless it was kept.
#[derive(Debug)]
pub struct Cluster {
    name: String,
    folder: TempDir,
    port: u16,
    programs: PathBuf,
    /// The user that Postgres runs as, if that is not ourselves.
    account: Option<User>,
    options: String,
    server: Mutex<Option<Background>>,
    kept: bool,
}

impl Cluster {
    /// Makes a cluster and starts its server; `options` go to the server, e.g. `-c wal_level=replica`.
    pub fn create(name: &str, access: Access, options: &str) -> Result<Cluster> {
        let programs = programs().with_context(|| {
            format!(
                "no Postgres server of version {OLDEST} or newer is here; `apt-get install postgresql` installs one"
            )
        })?;
        let folder = tempfile::Builder::new().prefix(&format!("{FOLDER_PREFIX}{name}-")).tempdir()?;
        let mut cluster = Cluster {
            name: name.to_owned(),
            folder,
            port: 0,
            programs,
            account: account()?,
            options: options.to_owned(),
            server: Mutex::new(None),
            kept: false,
        };
        cluster.initialise(access)?;
        let mut started = Ok(());
        for _ in 0..PORTS {
            cluster.port = free_port()?;
            started = cluster.run();
            if started.is_ok() {
                break;
            }
        }
        started.map(|()| cluster)
    }

    /// Makes a cluster with passwords and one database, which belongs to a role of the application.
    pub fn of_application(name: &str, database: &str, role: &str, options: &str) -> Result<Cluster> {
        let cluster = Cluster::create(name, Access::Passwords, options)?;
        cluster.psql("postgres", &format!("CREATE ROLE \"{role}\" LOGIN PASSWORD '{PASSWORD}'"))?;
        cluster.psql("postgres", &format!("CREATE DATABASE \"{database}\" OWNER \"{role}\""))?;
        cluster.psql(database, &format!("ALTER SCHEMA public OWNER TO \"{role}\""))?;
        Ok(cluster)
    }

    fn initialise(&self, access: Access) -> Result<()> {
        let password = self.folder().join("password");
        fs::write(&password, PASSWORD)?;
        if let Some(account) = &self.account {
            for path in [self.folder(), &password] {
                chown(path, Some(account.uid.as_raw()), Some(account.gid.as_raw()))?;
            }
        }
        let access = match access {
            Access::Trust => "trust",
            Access::Passwords => "scram-sha-256",
        };
        let mut initdb = self.program("initdb");
        initdb.args(["--auth-local=trust", "--auth-host", access, "--encoding=UTF8", "--locale=C.UTF-8"]);
        initdb.args(["--no-sync", "--username", SUPERUSER, "--pwfile"]).arg(&password);
        process::output(initdb.arg("-D").arg(self.data()), INITDB_LIMIT)?;
        let settings = self.data().join("postgresql.conf");
        let written = fs::read_to_string(&settings).context("initdb left no postgresql.conf")?;
        Ok(fs::write(&settings, written + SETTINGS)?)
    }

    /// Starts the server after [`Cluster::stop`] or [`Cluster::kill`], and waits until it answers.
    pub fn run(&self) -> Result<()> {
        let end = Instant::now() + START_LIMIT;
        loop {
            match self.try_start(end) {
                // Processes of a server that was just killed hold its shared memory for a moment longer.
                Err(error)
                    if Instant::now() < end
                        && ["shared memory", "lock file"]
                            .iter()
                            .any(|sign| error.to_string().contains(sign)) =>
                {
                    interrupt::sleep(Duration::from_millis(200))?;
                }
                other => return other,
            }
        }
    }

    fn try_start(&self, end: Instant) -> Result<()> {
        let mut command = self.program("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        command.args(self.options.split_whitespace());
        // Each try has its own log, so that no line of the last try counts.
        let log = self.log();
        let _ = fs::remove_file(&log);
        let mut server = Background::start(&format!("Postgres `{}`", self.name), &mut command, &log)?;
        let left = end.saturating_duration_since(Instant::now());
        let what = format!("the start of Postgres `{}`", self.name);
        interrupt::await_until(&what, left, Duration::from_millis(50), || {
            server.must_run()?;
            let mut ready = self.program("pg_isready");
            ready.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
            Ok(process::answer(&mut ready, STATEMENT_LIMIT)?.0.success().then_some(()))
        })?;
        *self.server() = Some(server);
        Ok(())
    }

    /// Stops the server in good order, open connections or not.
    pub fn stop(&self) -> Result<()> {
        self.end(Signal::SIGINT)
    }

    fn end(&self, signal: Signal) -> Result<()> {
        self.server().take().map_or(Ok(()), |mut server| server.stop(signal, STOP_LIMIT))
    }

    /// Fails, with the end of its log, if the server has ended by itself.
    pub fn must_run(&self) -> Result<()> {
        self.server().as_mut().map_or(Ok(()), Background::must_run)
    }

    /// Kills the server and its backends with -9, as a power cut would. What it has written reaches the disk all the same.
    pub fn kill(&self) {
        // A backend is a group of its own. It would still answer for a moment after the server is gone.
        let backends = self.stop_forking();
        if let Some(mut server) = self.server().take() {
            server.kill();
        }
        for pid in backends {
            let _ = kill(pid, Signal::SIGKILL);
        }
        std::thread::sleep(BACKENDS_END);
    }

    /// Stops all its processes where they are: connections stay, and nobody answers.
    pub fn freeze(&self) {
        for pid in self.stop_forking() {
            let _ = kill(pid, Signal::SIGSTOP);
        }
    }

    /// Stops one of its processes where it is, by its number.
    pub fn freeze_one(&self, pid: i32) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGSTOP);
    }

    /// Lets it go on after [`Cluster::freeze`].
    pub fn thaw(&self) {
        let Some(pid) = self.pid() else { return };
        for pid in process::children(pid).into_iter().chain([pid]) {
            let _ = kill(pid, Signal::SIGCONT);
        }
    }

    /// Stops the server itself, so that no backend is missing in the list that it gives.
    fn stop_forking(&self) -> Vec<Pid> {
        let Some(pid) = self.pid() else { return Vec::new() };
        let _ = kill(pid, Signal::SIGSTOP);
        process::children(pid)
    }

    fn pid(&self) -> Option<Pid> {
        self.server().as_ref().map(|server| Pid::from_raw(server.pid()))
    }

    /// Runs SQL as the superuser; gives the rows as text, columns separated by `|`.
    pub fn psql(&self, database: &str, sql: &str) -> Result<String> {
        let mut psql = self.program("psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d"]);
        psql.args([&self.url(SUPERUSER, database), "-c", sql]);
        Ok(process::output(&mut psql, STATEMENT_LIMIT)?.trim_end().to_owned())
    }

    /// The URL of a database for a role.
    pub fn url(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}:{PASSWORD}@127.0.0.1:{}/{database}", self.port)
    }

    /// The URL of a database for the superuser.
    pub fn admin_url(&self, database: &str) -> String {
        self.url(SUPERUSER, database)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves the folder behind when the cluster goes.
    pub fn keep(&mut self) {
        self.kept = true;
        self.folder.disable_cleanup(true);
    }

    /// What the server has said since it was started last.
    pub fn log(&self) -> PathBuf {
        self.folder().join("server.log")
    }

    fn data(&self) -> PathBuf {
        self.folder().join("data")
    }

    fn server(&self) -> MutexGuard<'_, Option<Background>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        // Our own working folder may be closed to the user `postgres`.
        command.current_dir(std::env::temp_dir()).env("LC_ALL", "C");
        if let Some(account) = &self.account {
            command.gid(account.gid.as_raw()).uid(account.uid.as_raw());
        }
        command
    }
}

/// For tests: what fails here fails the test.
impl Cluster {
    pub fn start() -> Cluster {
        Cluster::start_with("")
    }

    /// Starts one with more options for the server.
    pub fn start_with(options: &str) -> Cluster {
        loud(Cluster::create("test", Access::Trust, options))
    }

    /// Starts it again on the same port after [`Cluster::kill`].
    pub fn restart(&self) {
        loud(self.run());
    }

    /// Starts it again after [`Cluster::kill`] with other options than before.
    pub fn restart_with(&mut self, options: &str) {
        options.clone_into(&mut self.options);
        self.restart();
    }

    /// Keeps a copy of its disk for [`Cluster::set_back`]. The server goes down and comes back for that.
    pub fn save(&self) {
        loud(self.end(Signal::SIGQUIT));
        let mut copy = Command::new("cp");
        loud(process::output(copy.arg("-a").arg(self.data()).arg(self.saved()), STATEMENT_LIMIT));
        self.restart();
    }

    /// Puts the disk back as it was at [`Cluster::save`]: the same server on the same timeline, as it was then.
    pub fn set_back(&self) {
        loud(self.end(Signal::SIGQUIT));
        loud(fs::remove_dir_all(self.data()).map_err(Into::into));
        loud(fs::rename(self.saved(), self.data()).map_err(Into::into));
        self.restart();
    }

    fn saved(&self) -> PathBuf {
        self.folder().join("saved")
    }

    /// Makes a database and gives the superuser's URL of it.
    pub fn database(&self, name: &str) -> String {
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        self.admin_url(name)
    }

    /// Runs SQL as the superuser; gives the rows as text, columns separated by `|`.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        loud(self.psql(database, sql))
    }
}

fn loud<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error:#}"))
}

fn account() -> Result<Option<User>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let missing =
        "root may not run Postgres, and there is no user `postgres`: install the package postgresql";
    Ok(Some(User::from_name("postgres")?.ok_or_else(|| anyhow!(missing))?))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A folder that is thrown away needs no checkpoint.
        let _ = self.end(if self.kept { Signal::SIGINT } else { Signal::SIGQUIT });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_server_prints_them() {
        assert_eq!(major_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(major_version("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_version("postgres"), None);
    }

    #[test]
    fn committed_rows_survive_a_kill_and_the_folder_goes_in_the_end() {
        let cluster = Cluster::create("lab-test", Access::Passwords, "").unwrap();
        let folder = cluster.folder().to_owned();
        cluster.database("shop");
        cluster.sql("shop", "CREATE TABLE t (x int); INSERT INTO t SELECT generate_series(1, 1000)");
        assert_eq!(cluster.sql("shop", "SHOW wal_level"), "logical");
        assert_eq!(cluster.sql("shop", "SHOW fsync"), "on");
        cluster.kill();
        cluster.run().unwrap();
        assert_eq!(cluster.sql("shop", "SELECT count(*) FROM t"), "1000");
        cluster.freeze();
        let mut asked = cluster.program("psql");
        asked.args([&cluster.admin_url("shop"), "-c", "SELECT 1"]);
        assert!(process::answer(&mut asked, Duration::from_secs(1)).is_err(), "a frozen server answers");
        cluster.thaw();
        assert_eq!(cluster.sql("shop", "SELECT count(*) FROM t"), "1000");
        cluster.stop().unwrap();
        cluster.run().unwrap();
        let error = cluster.psql("shop", "SELECT nonsense").unwrap_err().to_string();
        assert!(error.contains("nonsense"), "{error}");
        drop(cluster);
        assert!(!folder.exists());
    }
}
