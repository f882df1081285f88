//! A proxy that runs in this process, its settings, and its access log.

use super::browser::ask;
use super::{SECRET, free_address, wait_until};
use link::Link;
use migrations::plan::{ProxySettings, Secret};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

pub struct Running {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub log: Arc<Mutex<Vec<u8>>>,
    settings: ProxySettings,
    stopper: proxy::Stopper,
    thread: Option<JoinHandle<Result<(), proxy::ProxyError>>>,
}

#[derive(Clone)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Settings as a plan with these lines under `proxy:` gives them.
pub fn settings(lines: &str) -> ProxySettings {
    let (listen, admin) = (free_address(), free_address());
    let plan = format!(
        "version: 1\nname: shop\nmonolith: {{ upstream: 'http://127.0.0.1:4000' }}\nservices:\n  orders: {{ upstream: 'http://127.0.0.1:4001' }}\nproxy:\n  listen: {listen}\n  admin: {admin}\n  override_secret: ${{SECRET}}\n{lines}slices:\n  orders:\n    service: orders\n    routes:\n      list: GET /orders\n"
    );
    let env = |name: &str| (name == "SECRET").then(|| SECRET.to_owned());
    match migrations::plan::check("strangler.yaml", &plan, &env) {
        Ok((plan, _)) => plan.proxy,
        Err(findings) => panic!("{findings:#?}"),
    }
}

impl Running {
    pub fn start(settings: ProxySettings, controller: &str, state: &std::path::Path) -> Self {
        let link = Link {
            controller: controller.to_owned(),
            token: Secret::new("token".to_owned()),
            state_dir: state.to_path_buf(),
        };
        let (address, admin) = (settings.listen.parse().unwrap(), settings.admin.parse().unwrap());
        let (stopper, shutdown) = proxy::Shutdown::by_hand();
        let page = Page(Arc::default());
        let log = page.0.clone();
        let run = settings.clone();
        let thread = std::thread::spawn(move || proxy::run_logging_to(&run, link, shutdown, Box::new(page)));
        let running = Self { address, admin, log, settings, stopper, thread: Some(thread) };
        running
            .until("it listens", || TcpStream::connect(address).is_ok() && TcpStream::connect(admin).is_ok());
        running
    }

    /// Another proxy with the same addresses.
    pub fn again(&self, controller: &str, state: &std::path::Path) -> Self {
        Self::start(self.settings.clone(), controller, state)
    }

    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    pub fn is_ready(&self) -> bool {
        ask(self.admin, "GET", "/readyz", &[], b"").status == 200
    }

    pub fn metric(&self, line: &str) -> f64 {
        let text = ask(self.admin, "GET", "/metrics", &[], b"").text();
        let value = text.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok());
        value.unwrap_or(0.0)
    }

    /// The access log so far.
    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&self.log.lock().unwrap()).into_owned()
    }

    pub fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        wait_until(what, is_so);
    }

    pub fn stop(&self) {
        self.stopper.stop();
    }

    pub fn end(&mut self) {
        self.stopper.stop_at_once();
        self.join();
    }

    pub fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stopper.stop_at_once();
    }
}
