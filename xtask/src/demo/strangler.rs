//! The tool on show: its plan in a folder, its commands on screen, and its end.
//!
//! It is used by its command line, as a user uses it. Only `.strangler/run/*.json` is read, for the `pid` that a
//! `kill -9` needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use lab::{free_port, interrupt, process};

use super::shop::Shop;
use super::{built, patient_file};
use crate::terminal;

const PLAN: &str = "strangler.yaml";
/// The variable with the proxy's address in the plan.
const PROXY_LISTEN: &str = "PROXY_LISTEN";
/// Far more than any command of the story takes, its own waiting included.
const SHOW_LIMIT: Duration = Duration::from_secs(300);
const ASK_LIMIT: Duration = Duration::from_secs(30);
/// A part that died is started again within moments.
const NOTE_LIMIT: Duration = Duration::from_secs(10);
const DOWN_LIMIT: Duration = Duration::from_secs(20);

/// The tool, with its plan and its environment.
pub struct Strangler {
    folder: PathBuf,
    environment: Vec<(&'static str, String)>,
    admin_urls: [String; 2],
    /// Where the proxy listens, `host:port`.
    pub proxy: String,
    pub ports: Ports,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Tried {
    pub exit: i32,
    pub documents: Vec<Value>,
}

impl Tried {
    /// What a command shows. A failure comes after it. Null if there was nothing.
    pub fn first(&self) -> &Value {
        self.documents.first().unwrap_or(&Value::Null)
    }

    /// The last document: what a command that moves writes prints, or a failure. Null if there was none.
    pub fn last(&self) -> &Value {
        self.documents.last().unwrap_or(&Value::Null)
    }
}

impl Strangler {
    /// Puts the shop's plan into `folder`, with the log and the free ports of this run.
    pub fn unpack(folder: &Path, shop: &Shop, listen: &str, kafka: Option<&str>) -> Result<Strangler> {
        fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        let (monolith, orders) = shop.strangler_urls();
        let environment = vec![
            ("MONOLITH_URL", shop.monolith_url.clone()),
            ("ORDERS_URL", shop.orders_url.clone()),
            (PROXY_LISTEN, listen.to_owned()),
            ("MONOLITH_DATABASE_URL", monolith),
            ("ORDERS_DATABASE_URL", orders),
        ];
        let (monolith, orders) = shop.admin_urls();
        let admin_urls = [format!("monolith={monolith}"), format!("orders={orders}")];
        let ports = Ports { admin: free_port()?, controller: free_port()?, bridge: free_port()? };
        let strangler =
            Strangler { folder: folder.to_owned(), environment, admin_urls, proxy: listen.to_owned(), ports };
        // A demo that was killed may have left parts running, and a state for databases that are gone.
        strangler.down();
        let state = folder.join(".strangler");
        if state.exists() {
            fs::remove_dir_all(&state).with_context(|| format!("{} cannot be removed", state.display()))?;
        }
        let plan = adapted(&patient_file(PLAN)?, kafka, &strangler.ports);
        fs::write(folder.join(PLAN), plan)?;
        Ok(strangler)
    }

    /// The same plan for another proxy on this machine: in a folder of its own, with ports of its own.
    pub fn beside(&self, folder: &Path) -> Result<Strangler> {
        fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        let ports = Ports { admin: free_port()?, ..self.ports };
        let proxy = format!("127.0.0.1:{}", free_port()?);
        let plan = fs::read_to_string(self.folder.join(PLAN)).context("the plan is gone")?;
        let admin = |ports: Ports| format!("127.0.0.1:{}", ports.admin);
        fs::write(folder.join(PLAN), plan.replace(&admin(self.ports), &admin(ports)))?;
        let mut environment = self.environment.clone();
        environment.retain(|(name, _)| *name != PROXY_LISTEN);
        environment.push((PROXY_LISTEN, proxy.clone()));
        let (folder, admin_urls) = (folder.to_owned(), self.admin_urls.clone());
        Ok(Strangler { folder, environment, admin_urls, proxy, ports })
    }

    /// Sets a variable of the environment of all its commands.
    pub fn set(&mut self, name: &'static str, value: &str) {
        self.environment.push((name, value.to_owned()));
    }

    /// Shows a command as a person would type it, with its real output. Anything but exit code 0 is an error.
    pub fn show(&self, line: &str) -> Result<()> {
        self.show_all(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// `line` with the superuser's URLs of both databases, as a DBA runs `install` and `uninstall`.
    pub fn show_as_admin(&self, line: &str) -> Result<()> {
        let [monolith, orders] = &self.admin_urls;
        let mut arguments: Vec<&str> = line.split_whitespace().collect();
        arguments.extend(["--admin-url", monolith, "--admin-url", orders]);
        self.show_all(&arguments)
    }

    fn show_all(&self, arguments: &[&str]) -> Result<()> {
        let mut command = self.command(arguments);
        terminal::command(&process::shown(&command));
        process::succeed_within(&mut command, SHOW_LIMIT)
    }

    /// What a command answers. A failure comes as a document of its own: `status` answers, and fails if something is wrong.
    pub fn ask(&self, line: &str) -> Result<Value> {
        let tried = self.tried(line, ASK_LIMIT)?;
        let failures = usize::from(tried.exit != 0);
        let mut documents = tried.documents;
        anyhow::ensure!(documents.len() > failures, "`strangler {line}` failed: {documents:?}");
        Ok(documents.swap_remove(0))
    }

    /// Runs a command to its end, however it ends. Fails only if it takes longer than `limit`.
    pub fn tried(&self, line: &str, limit: Duration) -> Result<Tried> {
        let (status, out, err) = process::answer(&mut self.in_json(line), limit)?;
        let lines = out.lines().chain(err.lines());
        let documents = lines.filter_map(|line| serde_json::from_str(line).ok()).filter(Value::is_object);
        Ok(Tried { exit: status.code().unwrap_or(-1), documents: documents.collect() })
    }

    /// The process id of a running part (`bridge`, `proxy`, `controller`). Waits for a part that is being restarted.
    pub fn pid(&self, part: &str) -> Result<i32> {
        let path = self.folder.join(".strangler").join("run").join(format!("{part}.json"));
        interrupt::await_until(
            &format!("a pid in {}", path.display()),
            NOTE_LIMIT,
            interrupt::LOOK_EVERY,
            || {
                let note = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
                Ok(note.as_ref().and_then(pid_in))
            },
        )
    }

    /// Whether `up` keeps it running.
    pub fn is_up(&self) -> bool {
        self.folder.join(".strangler").join("run").join("up.json").exists()
    }

    pub fn await_proxy(&self, limit: Duration) -> Result<()> {
        interrupt::await_until("an answer of the proxy", limit, Duration::from_millis(100), || {
            let answer = super::probe::send(&self.proxy, "GET", "/orders", None);
            Ok(answer.is_ok_and(|answer| answer.status == 200).then_some(()))
        })
    }

    /// The ends of the daemons' logs, by name.
    pub fn log_ends(&self) -> Vec<(String, String)> {
        let entries =
            fs::read_dir(self.folder.join(".strangler").join("log")).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        let named = paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "log"));
        named.map(|path| (path.display().to_string(), process::end_of(path))).collect()
    }

    /// What a person types in another terminal to use the same `strangler`.
    pub fn for_another_terminal(&self) -> String {
        let exports = self.environment.iter().map(|(name, value)| format!("export {name}={value}"));
        let mut lines = vec![format!("cd {}", self.folder.display())];
        lines.extend(exports);
        lines.push(format!("alias strangler={}", built("strangler").display()));
        lines.join("\n")
    }

    fn in_json(&self, line: &str) -> Command {
        let mut command = self.command(&line.split_whitespace().collect::<Vec<_>>());
        command.args(["--output", "json"]);
        command
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(built("strangler"));
        command.args(arguments).current_dir(&self.folder);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Ends the running parts. The guard kills the ones that do not end.
    fn down(&self) {
        if self.folder.join(".strangler").join("run").exists() {
            let _ = process::finish(&mut self.command(&["down"]), DOWN_LIMIT);
        }
    }
}

impl Drop for Strangler {
    fn drop(&mut self) {
        self.down();
    }
}

/// The `pid` of a note, or of the `process` in it.
fn pid_in(note: &Value) -> Option<i32> {
    let pid = note.get("pid").or_else(|| note.pointer("/process/pid"))?;
    pid.as_i64()?.try_into().ok().filter(|pid| *pid > 1)
}

/// Ports that a plan may leave at their defaults, which another program on this machine may use.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// The proxy's for its metrics and health.
    pub admin: u16,
    pub controller: u16,
    pub bridge: u16,
}

/// The shop's plan for this run: free ports, and the broker if there is one.
fn adapted(plan: &str, kafka: Option<&str>, ports: &Ports) -> String {
    let mut lines: Vec<String> = plan.lines().map(str::to_owned).collect();
    for line in &mut lines {
        if line.starts_with("proxy: {") {
            *line = format!(
                "proxy: {{ listen: \"${{PROXY_LISTEN}}\", admin: \"127.0.0.1:{}\", consistency: \"${{CONSISTENCY:-session}}\" }}",
                ports.admin
            );
        }
    }
    lines.push(format!("controller: {{ listen: \"127.0.0.1:{}\" }}", ports.controller));
    lines.push(format!("bridge: {{ listen: \"127.0.0.1:{}\" }}", ports.bridge));
    if let Some(brokers) = kafka {
        lines.push(format!("log: {{ kafka: {{ brokers: \"{brokers}\", topic_prefix: shop }} }}"));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_gets_its_ports_and_its_broker() {
        let ports = Ports { admin: 1, controller: 2, bridge: 3 };
        let plan = adapted(&patient_file(PLAN).unwrap(), Some("127.0.0.1:9"), &ports);
        assert!(plan.contains("proxy: { listen: \"${PROXY_LISTEN}\", admin: \"127.0.0.1:1\", "), "{plan}");
        assert!(plan.contains("log: { kafka: { brokers: \"127.0.0.1:9\", topic_prefix: shop } }"));
        assert!(!adapted("version: 1", None, &ports).contains("kafka"));
    }

    #[test]
    fn a_pid_is_found_where_notes_keep_it() {
        assert_eq!(pid_in(&serde_json::json!({ "pid": 7 })), Some(7));
        assert_eq!(pid_in(&serde_json::json!({ "process": { "pid": 8 }, "address": "x" })), Some(8));
        for wrong in
            [serde_json::json!({ "pid": 1 }), serde_json::json!({ "pid": -5 }), serde_json::json!([7])]
        {
            assert_eq!(pid_in(&wrong), None);
        }
    }
}
