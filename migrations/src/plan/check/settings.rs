//! The parts of the plan that say how strangler itself runs: log, proxy, controller, bridge, limits, acceptances.

use super::address::{self, Listener, loopback};
use super::reading::{self, Fields};
use super::tls::tls;
use super::{kafka, publish};
use crate::code::Code;
use crate::names::PlanName;
use crate::plan::tree::Node;
use crate::plan::written::{Notes, is_variable};
use crate::plan::{
    Acceptance, BridgeSettings, Consistency, ControllerSettings, HoldBounds, Limits, LogChoice,
    ProxySettings, Reuse, Secret,
};
use std::collections::BTreeSet;
use std::net::SocketAddr;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// What the embedded log may take of the disk by default.
const EMBEDDED_BYTES: u64 = 8 * GIB;
const TIMEOUTS_MS: std::ops::RangeInclusive<u64> = 1..=3_600_000;
/// A head takes memory before anything is known of the request. Browsers send a few KiB, cookies included.
const HEAD_BYTES: std::ops::RangeInclusive<u64> = 4096..=MIB;
/// Bridges report twice a second, so a copy always counts as a little old.
const STALENESS_MS: std::ops::RangeInclusive<u64> = 2_000..=3_600_000;
/// A shorter override secret could be guessed.
const OVERRIDE_SECRET_LEN_MIN: usize = 8;

pub(super) struct Settings {
    /// None where it could not be read.
    pub log: Option<LogChoice>,
    pub outbox: Vec<publish::Outbox>,
    pub proxy: ProxySettings,
    pub controller: ControllerSettings,
    pub bridge: BridgeSettings,
    pub limits: Limits,
    pub accept: BTreeSet<Acceptance>,
}

impl Settings {
    pub(super) fn read(
        plan: &Fields<'_>,
        name: Option<&PlanName>,
        listeners: &mut Vec<Listener>,
        notes: &mut Notes<'_>,
    ) -> Self {
        let mut outbox = Vec::new();
        let log = match plan.get("log") {
            Some(node) => log(node, name, &mut outbox, notes),
            None => Some(LogChoice::Embedded { bytes_max: EMBEDDED_BYTES }),
        };
        let proxy = proxy(plan, listeners, notes);
        let controller = ControllerSettings {
            listen: only_listen(plan, "controller", "controller.listen", 7401, listeners, notes),
        };
        let bridge =
            BridgeSettings { listen: only_listen(plan, "bridge", "bridge.listen", 7402, listeners, notes) };
        let accept = reading::items(plan.get("accept"), "accept", notes);
        let accept = accept.into_iter().filter_map(|node| {
            reading::choice(
                node,
                "a danger that can be accepted",
                &[("async-failover", Acceptance::AsyncFailover)],
                notes,
            )
        });
        Self {
            log,
            outbox,
            proxy,
            controller,
            bridge,
            accept: accept.collect(),
            limits: limits(plan.get("limits"), notes),
        }
    }
}

fn log(
    node: &Node,
    name: Option<&PlanName>,
    outbox: &mut Vec<publish::Outbox>,
    notes: &mut Notes<'_>,
) -> Option<LogChoice> {
    let fields = Fields::open(node, "log", &["embedded", "kafka"], notes)?;
    let (embedded, kafka) = (fields.get("embedded"), fields.get("kafka"));
    if let (Some(_), Some(second)) = (embedded, kafka) {
        let message = "a plan has one log, and this one has two";
        notes.error(second.owner, Code::PlanTwoLogs, message, "keep `embedded` or `kafka`");
        return None;
    }
    if let Some(node) = kafka {
        return kafka::log(node, name, outbox, notes);
    }
    let bytes_max = match embedded {
        Some(node) => {
            reading::log_max(&Fields::open(node, "log.embedded", &["max"], notes)?, EMBEDDED_BYTES, notes)
        }
        None => Some(EMBEDDED_BYTES),
    };
    bytes_max.map(|bytes_max| LogChoice::Embedded { bytes_max })
}

fn proxy(plan: &Fields<'_>, listeners: &mut Vec<Listener>, notes: &mut Notes<'_>) -> ProxySettings {
    let keys = [
        "listen",
        "tls",
        "admin",
        "override_secret",
        "trust_forwarded",
        "health_path",
        "health_host",
        "connect_timeout",
        "read_timeout",
        "drain",
        "max_body",
        "max_head",
        "max_connections",
        "reuse",
        "hold",
        "consistency",
        "ambiguous_paths",
    ];
    let fields = plan.get("proxy").and_then(|node| Fields::open(node, "proxy", &keys, notes));
    let get = |key: &str| fields.as_ref().and_then(|fields| fields.get(key));
    let owner = fields.as_ref().map_or(plan.owner, |fields| fields.owner);
    let listen = address::listen(get("listen"), "proxy.listen", loopback(8080), owner, listeners, notes);
    let tls = get("tls").and_then(|node| tls(node, listeners, notes));
    let admin = address::listen(get("admin"), "proxy.admin", loopback(8081), owner, listeners, notes);
    let mut timeout = |key, default| {
        let read = get(key).and_then(|node| reading::milliseconds(node, "a timeout", TIMEOUTS_MS, notes));
        read.unwrap_or(default)
    };
    let (connect_timeout_ms, read_timeout_ms) =
        (timeout("connect_timeout", 2_000), timeout("read_timeout", 30_000));
    let drain_ms = timeout("drain", 30_000);
    ProxySettings {
        listen,
        tls,
        admin,
        override_secret: get("override_secret").and_then(|node| override_secret(node, notes)),
        trust_forwarded: get("trust_forwarded")
            .and_then(|node| reading::boolean(node, "a choice of `trust_forwarded`", notes))
            .unwrap_or(false),
        health_path: get("health_path").and_then(|node| health_path(node, notes)),
        health_host: get("health_host").and_then(|node| health_host(node, get("health_path"), notes)),
        connect_timeout_ms,
        read_timeout_ms,
        drain_ms,
        body_bytes_max: get("max_body")
            .and_then(|node| reading::bytes(node, "a size of a body", 1..=1024 * GIB, notes)),
        head_bytes_max: get("max_head")
            .and_then(|node| reading::bytes(node, "a size of a head", HEAD_BYTES, notes))
            .unwrap_or(64 << 10),
        connections_max: get("max_connections")
            .and_then(|node| reading::integer(node, "a number of connections", 1..=1_000_000, notes)),
        reuse: get("reuse")
            .and_then(|node| {
                let words = [Reuse::Own, Reuse::Shared].map(|one| (one.word(), one));
                reading::choice(node, "a reuse of connections", &words, notes)
            })
            .unwrap_or(Reuse::Own),
        hold: hold(get("hold"), notes),
        consistency: get("consistency").and_then(|node| consistency(node, notes)),
        takes_ambiguous_paths: get("ambiguous_paths")
            .and_then(|node| {
                let words = [("refuse", false), ("pass", true)];
                reading::choice(node, "a choice of `ambiguous_paths`", &words, notes)
            })
            .unwrap_or(false),
    }
}

fn hold(node: Option<&Node>, notes: &mut Notes<'_>) -> HoldBounds {
    let keys = ["max_writes", "max_bytes", "max_wait"];
    let fields = node.and_then(|node| Fields::open(node, "proxy.hold", &keys, notes));
    let get = |key: &str| fields.as_ref().and_then(|fields| fields.get(key));
    let writes = get("max_writes");
    let writes = writes.and_then(|n| reading::integer(n, "a number of held writes", 0..=1_000_000, notes));
    let bytes = get("max_bytes");
    let bytes = bytes.and_then(|n| reading::bytes(n, "a size of held writes", MIB..=16 * GIB, notes));
    let wait = get("max_wait");
    let wait = wait.and_then(|n| reading::milliseconds(n, "a time that a write waits", TIMEOUTS_MS, notes));
    let bounds = HoldBounds::default();
    HoldBounds {
        writes_max: writes.unwrap_or(bounds.writes_max),
        bytes_max: bytes.unwrap_or(bounds.bytes_max),
        wait_ms_max: wait.unwrap_or(bounds.wait_ms_max),
    }
}

fn consistency(node: &Node, notes: &mut Notes<'_>) -> Option<Consistency> {
    let words = [Consistency::Session, Consistency::Strong].map(|one| (one.word(), one));
    reading::choice(node, "a consistency", &words, notes)
}

fn override_secret(node: &Node, notes: &mut Notes<'_>) -> Option<Secret> {
    let scalar = reading::scalar(node, "the override secret", notes)?;
    if !is_variable(&scalar.written) {
        notes.keep_secret(&scalar.written);
        let hint = "set it in the environment and write `override_secret: ${STRANGLER_OVERRIDE}`";
        notes.warning(node.spot, Code::PlanLiteralSecret, "the plan contains the override secret", hint);
    }
    let meant = scalar.meant.as_deref()?;
    let sendable = meant.bytes().all(|b| b.is_ascii_graphic());
    if meant.len() < OVERRIDE_SECRET_LEN_MIN || !sendable {
        let message = "the override secret is too short or cannot be sent in a header";
        let hint = format!("use at least {OVERRIDE_SECRET_LEN_MIN} letters, digits or signs, without blanks");
        notes.error(node.spot, Code::PlanBadSecret, message, hint);
        return None;
    }
    Some(Secret::new(meant.to_owned()))
}

fn health_path(node: &Node, notes: &mut Notes<'_>) -> Option<String> {
    let scalar = reading::scalar(node, "the health path", notes)?;
    let meant = scalar.meant.as_deref()?;
    if meant.starts_with('/')
        && meant.len() <= 1024
        && meant.bytes().all(|b| b.is_ascii_graphic() && b != b'#')
    {
        return Some(meant.to_owned());
    }
    let message = format!("`{}` is not a path", reading::shown(&scalar.written));
    notes.error(node.spot, Code::PlanBadValue, message, "write for example `health_path: /healthz`");
    None
}

/// The `Host` of a health check. Without a path nothing is asked, so nobody would get it.
fn health_host(node: &Node, path: Option<&Node>, notes: &mut Notes<'_>) -> Option<String> {
    let scalar = reading::scalar(node, "the health check's host", notes)?;
    let meant = scalar.meant.as_deref()?;
    let (host, port) = match meant.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (meant, None),
    };
    let is_literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match is_literal {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let is_sign = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
            !host.is_empty() && host.len() <= 253 && host.bytes().all(is_sign)
        }
    };
    if !is_host || port.is_some_and(|port| port.parse::<u16>().is_err()) {
        let message = format!("`{}` is not a host", reading::shown(&scalar.written));
        notes.error(node.spot, Code::PlanBadValue, message, "write for example `health_host: shop.example`");
        return None;
    }
    if path.is_none() {
        let message = "`health_host` without `health_path` has no effect";
        notes.error(
            node.spot,
            Code::PlanBadValue,
            message,
            "add for example `health_path: /healthz`, or remove it",
        );
        return None;
    }
    Some(meant.to_owned())
}

/// A part of the plan whose only key is `listen`; loopback by default, a warning elsewhere.
fn only_listen(
    plan: &Fields<'_>,
    part: &'static str,
    key: &'static str,
    port: u16,
    listeners: &mut Vec<Listener>,
    notes: &mut Notes<'_>,
) -> String {
    let fields = plan.get(part).and_then(|node| Fields::open(node, part, &["listen"], notes));
    let node = fields.as_ref().and_then(|fields| fields.get("listen"));
    let owner = fields.as_ref().map_or(plan.owner, |fields| fields.owner);
    let listen = address::listen(node, key, loopback(port), owner, listeners, notes);
    let open = listen.parse::<SocketAddr>().is_ok_and(|address| !address.ip().is_loopback());
    if let (true, Some(node)) = (open, node) {
        let message = format!("the {part} listens beyond this machine, and its token travels unencrypted");
        let hint = format!("write `127.0.0.1:{port}`, or put TLS of your own in front");
        notes.warning(node.spot, Code::PlanOpenListen, message, hint);
    }
    listen
}

fn limits(node: Option<&Node>, notes: &mut Notes<'_>) -> Limits {
    let keys = ["max_wal_kept", "max_row", "max_staleness"];
    let fields = node.and_then(|node| Fields::open(node, "limits", &keys, notes));
    let staleness = fields.as_ref().and_then(|fields| fields.get("max_staleness"));
    let staleness =
        staleness.and_then(|node| reading::milliseconds(node, "an age of a copy", STALENESS_MS, notes));
    let mut size = |key, what, bounds, default| {
        let node = fields.as_ref().and_then(|fields| fields.get(key));
        node.and_then(|node| reading::bytes(node, what, bounds, notes)).unwrap_or(default)
    };
    Limits {
        wal_kept_bytes_max: size("max_wal_kept", "a size of WAL to keep", MIB..=1024 * GIB, 16 * GIB),
        // Kafka counts a message's bytes in 32 bits, Postgres a field's in 30.
        row_bytes_max: size("max_row", "a size of a row", 1024..=GIB, 16 * MIB),
        staleness_ms_max: staleness.unwrap_or(60_000),
    }
}
