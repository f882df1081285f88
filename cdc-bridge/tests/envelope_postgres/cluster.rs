//! A private Postgres cluster on a socket of its own, gone when dropped.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// A running cluster with `wal_level=logical`.
pub struct Cluster {
    bin: PathBuf,
    dir: TempDir,
}

impl Cluster {
    /// Makes and starts one. Panics if Postgres is missing: these tests are never skipped.
    pub fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("envelope-test-").tempdir().unwrap();
        let cluster = Self { bin: binaries(), dir };
        let data = cluster.data();
        if is_root() {
            // Postgres refuses to run as root, so its folder belongs to its own user.
            assert!(
                Command::new("chown").arg("postgres").arg(cluster.dir.path()).status().unwrap().success()
            );
        }
        let mut initdb = cluster.command("initdb");
        initdb
            .args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync", "-D"])
            .arg(&data);
        assert!(initdb.stdout(Stdio::null()).status().unwrap().success());
        let options =
            format!("-k {} -c listen_addresses='' -c wal_level=logical -c fsync=off", cluster.host());
        let mut start = cluster.command("pg_ctl");
        start
            .arg("-D")
            .arg(&data)
            .arg("-l")
            .arg(cluster.dir.path().join("log"))
            .args(["-w", "-o", &options, "start"]);
        // The server would inherit its output and keep it open, so that goes to the log alone.
        assert!(start.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
        cluster
    }

    /// The folder of its socket.
    pub fn host(&self) -> String {
        self.dir.path().display().to_string()
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        let program = self.bin.join(program);
        if !is_root() {
            return Command::new(program);
        }
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program).current_dir("/");
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Nothing more can be done in a drop than to try.
        let _ = self
            .command("pg_ctl")
            .arg("-D")
            .arg(self.data())
            .args(["-m", "immediate", "-w", "stop"])
            .output();
    }
}

fn binaries() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = versions.map(|entry| entry.path().join("bin")).collect();
    found.sort();
    found.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let has_server = |bin: &PathBuf| Path::exists(&bin.join("initdb"));
    found.into_iter().rfind(has_server).expect("no Postgres here: install it; these tests are never skipped")
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().unwrap().stdout.trim_ascii() == b"0"
}
