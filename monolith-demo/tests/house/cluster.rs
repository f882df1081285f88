//! A private Postgres cluster on a free port, gone when dropped.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A running cluster.
pub struct Cluster {
    bin: PathBuf,
    dir: TempDir,
    port: u16,
}

impl Cluster {
    /// Makes and starts one. Panics with what to do if Postgres is missing: these tests are never skipped.
    pub fn start() -> Self {
        let bin = find_binaries();
        let dir = tempfile::Builder::new().prefix("shop-test-").tempdir().unwrap();
        if is_root() {
            // Postgres refuses to run as root, so its folder belongs to its own user.
            succeed(Command::new("chown").arg("postgres").arg(dir.path()));
        }
        let data = dir.path().join("data");
        let mut initdb = as_owner(&bin.join("initdb"));
        initdb
            .args(["-A", "trust", "-U", "shop", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "-D"])
            .arg(&data);
        succeed(&mut initdb);
        for _ in 0..5 {
            let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let options = format!("-p {port} -h 127.0.0.1 -k '' -c fsync=off");
            let mut start = as_owner(&bin.join("pg_ctl"));
            start.arg("-D").arg(&data).arg("-l").arg(dir.path().join("log"));
            start.args(["-w", "-t", "30", "-o", &options, "start"]);
            // Its output would be inherited by the server and never end, so it goes to the log alone.
            start.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            // The port may have been taken in between; then another one is tried.
            if start.status().unwrap().success() {
                return Self { bin, dir, port };
            }
        }
        panic!("Postgres did not start: {:?}", std::fs::read_to_string(dir.path().join("log")));
    }

    /// Makes a database and gives its URL.
    pub fn database(&self, name: &str) -> String {
        let mut create = Command::new(self.bin.join("createdb"));
        create.args(["-h", "127.0.0.1", "-U", "shop", "-p", &self.port.to_string(), name]);
        succeed(&mut create);
        format!("postgres://shop@127.0.0.1:{}/{name}", self.port)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut stop = as_owner(&self.bin.join("pg_ctl"));
        stop.arg("-D").arg(self.dir.path().join("data")).args(["-m", "immediate", "-w", "stop"]);
        // Nothing more can be done in a drop than to try.
        let _ = stop.output();
    }
}

fn find_binaries() -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .collect();
    found.sort_by_key(|bin| {
        let version =
            bin.parent().and_then(Path::file_name).and_then(|name| name.to_str()?.parse::<u32>().ok());
        std::cmp::Reverse(version)
    });
    found.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    found.into_iter().find(|bin| bin.join("initdb").exists() && bin.join("pg_ctl").exists()).expect(
        "no Postgres here: install it, as with `apt-get install postgresql`; these tests are never skipped",
    )
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().unwrap();
    output.stdout.trim_ascii() == b"0"
}

fn as_owner(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(program).current_dir("/");
    command
}

fn succeed(command: &mut Command) {
    let Output { status, stderr, .. } =
        command.output().unwrap_or_else(|error| panic!("{command:?} did not start: {error}"));
    assert!(status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&stderr));
}
