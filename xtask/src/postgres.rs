//! Private Postgres clusters: made in a folder of their own, on a free port, gone afterwards.
//!
//! They are set up as a careful production server would be where durability counts (fsync stays on: the demo kills
//! things) and small elsewhere. Postgres refuses to run as root, so root runs it as the user `postgres`. What the
//! databases hold is not known here.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::process::{self, Background};
use crate::{guard, interrupt, port};

/// The oldest Postgres whose logical replication is asked for: 14 sends binary values and streams big transactions.
pub const OLDEST: u32 = 14;
/// Name and password of the superuser; the cluster listens on loopback only and lives for minutes.
const SUPERUSER: (&str, &str) = ("postgres", "private-superuser");
const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(20);
const STATEMENT_LIMIT: Duration = Duration::from_secs(60);
const INITDB_LIMIT: Duration = Duration::from_secs(120);

/// The settings that differ from Postgres' own.
const SETTINGS: &str = "\
wal_level = logical
max_replication_slots = 20
max_wal_senders = 20
max_connections = 100
listen_addresses = '127.0.0.1'
shared_buffers = 32MB
max_wal_size = 512MB
max_slot_wal_keep_size = 4GB
fsync = on
synchronous_commit = on
logging_collector = off
";

/// The folder of the newest Postgres server programs on this machine that is new enough.
pub fn programs() -> Option<PathBuf> {
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = debian
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    found.extend(on_path());
    found.retain(|(version, folder)| {
        *version >= OLDEST
            && ["postgres", "initdb", "psql", "pg_isready"].iter().all(|name| folder.join(name).exists())
    });
    found.into_iter().max().map(|(_, folder)| folder)
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

/// The user and group that servers run as, if that is not ourselves.
#[derive(Clone, Copy, Debug)]
struct Account {
    user: u32,
    group: u32,
}

impl Account {
    /// `None` for an ordinary user, `postgres` for root.
    fn for_servers() -> Result<Option<Account>> {
        if id(&["-u"])? != 0 {
            return Ok(None);
        }
        let missing =
            "root may not run Postgres, and there is no user `postgres`: install the package postgresql";
        let user = id(&["-u", "postgres"]).context(missing)?;
        Ok(Some(Account { user, group: id(&["-g", "postgres"]).context(missing)? }))
    }

    fn applied(account: Option<Account>, command: &mut Command) -> &mut Command {
        if let Some(account) = account {
            command.gid(account.group).uid(account.user);
        }
        command
    }
}

fn id(arguments: &[&str]) -> Result<u32> {
    let text = process::output(Command::new("id").args(arguments), Duration::from_secs(10))?;
    text.trim().parse().with_context(|| format!("`id` said {text:?}"))
}

/// One private cluster. Dropping it stops the server at once and removes the folder, unless it was kept.
#[derive(Debug)]
pub struct Cluster {
    name: String,
    folder: PathBuf,
    port: u16,
    programs: PathBuf,
    account: Option<Account>,
    server: Option<Background>,
    kept: bool,
}

impl Cluster {
    /// Makes a cluster and starts its server.
    ///
    /// # Errors
    /// When Postgres is missing, or with the words of `initdb` or of the server's log.
    pub fn create(name: &str) -> Result<Cluster> {
        let programs = programs().with_context(|| {
            format!("no Postgres server of version {OLDEST} or newer is here: `cargo xtask prerequisites` installs it")
        })?;
        let port = port::free()?;
        let folder_name = format!("{}{name}-{}-{port}", guard::FOLDER_PREFIX, std::process::id());
        let folder = std::env::temp_dir().join(folder_name);
        fs::create_dir(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        guard::folder(&folder);
        let account = Account::for_servers()?;
        let name = name.to_owned();
        let mut cluster = Cluster { name, folder, port, programs, account, server: None, kept: false };
        cluster.initialise()?;
        cluster.start()?;
        Ok(cluster)
    }

    fn initialise(&self) -> Result<()> {
        fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o700))?;
        let password = self.folder.join("password");
        fs::write(&password, SUPERUSER.1)?;
        if let Some(account) = self.account {
            for path in [&self.folder, &password] {
                chown(path, Some(account.user), Some(account.group))?;
            }
        }
        let mut initdb = self.program("initdb");
        initdb.args(["--auth-local=trust", "--auth-host=scram-sha-256", "--encoding=UTF8", "--locale=C"]);
        initdb.args(["--username", SUPERUSER.0, "--pwfile"]).arg(&password).arg("-D").arg(self.data());
        process::output(&mut initdb, INITDB_LIMIT)?;
        let settings = self.data().join("postgresql.conf");
        let written = fs::read_to_string(&settings).context("initdb left no postgresql.conf")?;
        let ours = format!(
            "\n{SETTINGS}port = {}\nunix_socket_directories = '{}'\n",
            self.port,
            self.folder.display()
        );
        fs::write(&settings, written + &ours)?;
        Ok(())
    }

    /// Starts the server and waits until it answers. After [`Cluster::kill`] this recovers from the log of changes.
    ///
    /// # Errors
    /// With the end of the server's log.
    pub fn start(&mut self) -> Result<()> {
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

    fn try_start(&mut self, end: Instant) -> Result<()> {
        let mut command = self.program("postgres");
        command.arg("-D").arg(self.data());
        // Each try has its own log, so that an old refusal is not taken for a new one.
        let log = self.log();
        let _ = fs::remove_file(&log);
        let mut server = Background::start(&format!("Postgres `{}`", self.name), &mut command, &log)?;
        let left = end.saturating_duration_since(Instant::now());
        let what = format!("the start of Postgres `{}`", self.name);
        let port = self.port.to_string();
        let started = interrupt::await_until(&what, left, Duration::from_millis(50), || {
            server.must_run()?;
            let mut ready = self.program("pg_isready");
            ready.args(["-q", "-h", "127.0.0.1", "-p", &port]);
            Ok(process::answer(&mut ready, STATEMENT_LIMIT)?.0.success().then_some(()))
        });
        started?;
        self.server = Some(server);
        Ok(())
    }

    /// Stops the server in good order, open connections or not.
    ///
    /// # Errors
    /// When it cannot be awaited.
    pub fn stop(&mut self) -> Result<()> {
        match self.server.take() {
            Some(mut server) => server.stop(Signal::SIGINT, STOP_LIMIT),
            None => Ok(()),
        }
    }

    /// Kills the server with -9, as a power cut would.
    #[cfg(test)]
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill();
        }
    }

    /// Makes an empty database.
    ///
    /// # Errors
    /// With the server's words.
    pub fn create_database(&self, name: &str) -> Result<()> {
        self.psql("postgres", &format!("CREATE DATABASE \"{name}\"")).map(drop)
    }

    /// Runs SQL as the superuser; gives the rows as text, columns separated by `|`.
    ///
    /// # Errors
    /// With the server's words.
    pub fn psql(&self, database: &str, sql: &str) -> Result<String> {
        let mut psql = self.program("psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", SUPERUSER.0]);
        psql.args(["-p", &self.port.to_string(), "-d", database, "-c", sql]).env("PGPASSWORD", SUPERUSER.1);
        Ok(process::output(&mut psql, STATEMENT_LIMIT)?.trim_end().to_owned())
    }

    /// The URL of a database for a role.
    pub fn url(&self, role: &str, password: &str, database: &str) -> String {
        format!("postgres://{role}:{password}@127.0.0.1:{}/{database}", self.port)
    }

    /// The URL of a database for the superuser.
    pub fn admin_url(&self, database: &str) -> String {
        self.url(SUPERUSER.0, SUPERUSER.1, database)
    }

    /// The folder with data, socket and log.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Leaves the folder behind when the cluster goes.
    pub fn keep(&mut self) {
        self.kept = true;
        guard::keep(&self.folder);
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        // Our own working folder may be closed to the user `postgres`.
        command.current_dir(std::env::temp_dir()).env("LC_ALL", "C");
        Account::applied(self.account, &mut command);
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.kept {
            let _ = self.stop();
            return;
        }
        if let Some(mut server) = self.server.take() {
            // A folder that is thrown away needs no checkpoint.
            let _ = server.stop(Signal::SIGQUIT, STOP_LIMIT);
        }
        guard::remove(&self.folder);
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
        let mut cluster = Cluster::create("xtask-test").unwrap();
        let folder = cluster.folder().to_owned();
        cluster.create_database("shop").unwrap();
        cluster
            .psql("shop", "CREATE TABLE t (x int); INSERT INTO t SELECT generate_series(1, 1000)")
            .unwrap();
        assert_eq!(cluster.psql("shop", "SHOW wal_level").unwrap(), "logical");
        assert_eq!(cluster.psql("shop", "SHOW fsync").unwrap(), "on");
        cluster.kill();
        cluster.start().unwrap();
        assert_eq!(cluster.psql("shop", "SELECT count(*) FROM t").unwrap(), "1000");
        cluster.stop().unwrap();
        cluster.start().unwrap();
        let error = cluster.psql("shop", "SELECT nonsense").unwrap_err().to_string();
        assert!(error.contains("nonsense"), "{error}");
        drop(cluster);
        assert!(!folder.exists());
    }
}
