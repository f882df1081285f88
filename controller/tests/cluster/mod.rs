//! A private Postgres cluster for a test: made in a folder of its own, reached by loopback,
//! stopped when the test ends. Fails clearly where Postgres' programs are missing.

#![allow(dead_code, reason = "each test program uses only a part of it")]

use migrations::plan::Plan;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

/// A running server.
pub struct Cluster {
    folder: TempDir,
    port: u16,
    programs: PathBuf,
}

impl Cluster {
    /// Makes and starts one with these settings besides the plain ones.
    pub fn start(settings: &[&str]) -> Cluster {
        let programs = programs();
        let folder = tempfile::Builder::new().prefix("strangler-pg").tempdir().unwrap();
        run(Command::new("chmod").arg("0777").arg(folder.path()));
        let cluster = Cluster { port: free_port(), folder, programs };
        let data = cluster.data();
        cluster.program("initdb", &["-D", &data, "-U", "postgres", "-A", "trust", "--no-sync"]);
        cluster.set(settings);
        cluster.control("start");
        cluster
    }

    /// Starts it again with other settings.
    pub fn restart(&self, settings: &[&str]) {
        self.control("stop");
        self.set(settings);
        self.control("start");
    }

    /// Starts it after [`Cluster::stop`].
    pub fn restart_after_stop(&self) {
        self.control("start");
    }

    /// Stops it.
    pub fn stop(&self) {
        self.control("stop");
    }

    /// Its URL for a user and a database.
    pub fn url(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}:p%40ss@127.0.0.1:{}/{database}", self.port)
    }

    /// A connection.
    pub async fn client(&self, user: &str, database: &str) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.url(user, database), NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Runs statements as superuser.
    pub async fn run(&self, database: &str, sql: &str) {
        self.client("postgres", database)
            .await
            .batch_execute(sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// The single text that a question as superuser brings.
    pub async fn ask(&self, database: &str, sql: &str) -> String {
        self.client("postgres", database).await.query_one(sql, &[]).await.unwrap().get(0)
    }

    fn data(&self) -> String {
        self.folder.path().join("data").display().to_string()
    }

    fn set(&self, settings: &[&str]) {
        let mut text = format!(
            "port = {}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\nfsync = off\nmax_connections = 40\n",
            self.port
        );
        settings.iter().for_each(|setting| text.push_str(&format!("{setting}\n")));
        let file = self.folder.path().join("extra.conf");
        std::fs::write(&file, text).unwrap();
        run(Command::new("chmod").arg("0644").arg(&file));
    }

    fn control(&self, verb: &str) {
        let data = self.data();
        let log = self.folder.path().join("server.log").display().to_string();
        let include = self.folder.path().join("extra.conf");
        let auto = format!("{data}/extra.conf");
        if verb == "start" {
            // The file is ours, the folder is the server's: copied by the server's own user.
            run(self.as_server("cp").arg(&include).arg(&auto));
            let add = format!(
                "grep -q extra.conf {data}/postgresql.conf || echo \"include 'extra.conf'\" >> {data}/postgresql.conf"
            );
            run(self.as_server("sh").arg("-c").arg(add));
            self.program("pg_ctl", &["-D", &data, "-l", &log, "-w", "start"]);
        } else {
            self.program("pg_ctl", &["-D", &data, "-m", "immediate", "-w", verb]);
        }
    }

    fn program(&self, name: &str, arguments: &[&str]) {
        let path = self.programs.join(name).display().to_string();
        run(self.as_server(&path).args(arguments));
    }

    /// Servers refuse to run as root.
    fn as_server(&self, program: &str) -> Command {
        let is_root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
        if !is_root {
            return Command::new(program);
        }
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--", program]);
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let path = self.programs.join("pg_ctl").display().to_string();
        let mut command = self.as_server(&path);
        command
            .args(["-D", &self.data(), "-m", "immediate", "stop"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let _ = command.status();
        // What the server's user made only that user, or root, can remove.
        let _ = self.as_server("rm").arg("-rf").arg(self.data()).status();
    }
}

/// A plan from its text.
pub fn plan(text: &str) -> Plan {
    match migrations::plan::check("plan.yaml", text, &|_| None) {
        Ok((plan, _)) => plan,
        Err(findings) => panic!("{findings:#?}"),
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn programs() -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|folders| folders.flatten().map(|folder| folder.path().join("bin")).collect())
        .unwrap_or_default();
    found.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    let has_initdb = |folder: &PathBuf| folder.join("initdb").exists();
    found.into_iter().rfind(has_initdb).unwrap_or_else(|| {
        panic!("these tests need Postgres' initdb and pg_ctl: install the package `postgresql` (found neither in /usr/lib/postgresql nor in PATH)")
    })
}

fn run(command: &mut Command) {
    command.current_dir(Path::new("/"));
    let done = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(done.as_ref().is_ok_and(|status| status.success()), "{command:?}: {done:?}");
}
