//! Addresses of the plan: upstreams, database URLs, and where we listen ourselves.
//!
//! Nothing is resolved or connected to.

use super::reading;
use crate::code::Code;
use crate::plan::tree::{Node, Scalar, Spot, Value};
use crate::plan::written::{Notes, literal_passwords};
use crate::plan::{DatabaseUrl, Upstream};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// More addresses of one side than this are not a plan's business but a load balancer's.
const UPSTREAMS_MAX: usize = 64;
const POSTGRES_PORT: u16 = 5432;

pub(super) struct Database {
    pub url: DatabaseUrl,
    /// Host, port and database: equal for two URLs of one database.
    pub identity: String,
    pub spot: Spot,
}

pub(super) struct Listener {
    /// Which, as the plan names it, e.g. `proxy.listen`.
    pub key: &'static str,
    pub address: SocketAddr,
    pub spot: Spot,
}

/// One URL or a list of them.
pub(super) fn upstreams(node: &Node, notes: &mut Notes<'_>) -> Vec<Upstream> {
    let nodes: Vec<&Node> = match &node.value {
        Value::List(items) => items.iter().collect(),
        _ => vec![node],
    };
    if nodes.is_empty() || nodes.len() > UPSTREAMS_MAX {
        let message = format!("there are {} upstreams; 1 to {UPSTREAMS_MAX} can be used", nodes.len());
        notes.error(node.owner, Code::PlanBadValue, message, "write `upstream: http://127.0.0.1:4000`");
    }
    let mut found: Vec<Upstream> = Vec::new();
    for node in nodes {
        let Some(scalar) = reading::scalar(node, "an upstream", notes) else { continue };
        let Some(meant) = scalar.meant.as_deref() else { continue };
        match upstream(meant) {
            Ok(upstream) if found.contains(&upstream) => {
                let message = format!("`{}` is listed twice", shown_url(scalar));
                notes.warning(node.spot, Code::PlanUpstreamTwice, message, "name each address once");
            }
            Ok(upstream) => found.push(upstream),
            Err(why) => {
                let message = format!("`{}` is not an upstream: {why}", shown_url(scalar));
                let hint = "write `http://host:port` or `https://host:port`, without user, path or query";
                notes.error(node.spot, Code::PlanBadUpstream, message, hint);
            }
        }
    }
    found
}

/// A URL of the file for a message, its password left out.
fn shown_url(scalar: &Scalar) -> String {
    let mut shown = reading::shown(&scalar.written);
    for password in literal_passwords(&scalar.written) {
        shown = shown.replace(password, "•••");
    }
    shown
}

fn upstream(url: &str) -> Result<Upstream, &'static str> {
    let (scheme, rest) = url.split_once("://").ok_or("it has no `http://`")?;
    let tls = match scheme {
        "http" => false,
        "https" => true,
        _ => return Err("it is neither http nor https"),
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['?', '#']) {
        return Err("it has a query or fragment");
    }
    if authority.contains('/') {
        return Err("it has a path; the client's path is sent unchanged");
    }
    if authority.contains('@') {
        return Err("it has a user");
    }
    let (host, port) = host_and_port(authority)?;
    Ok(Upstream { tls, host, port: port.unwrap_or(if tls { 443 } else { 80 }) })
}

/// `host`, `host:port`, `[v6]` or `[v6]:port` (RFC 3986, 3.2.2).
fn host_and_port(authority: &str) -> Result<(String, Option<u16>), &'static str> {
    let (host, port) = match authority.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (host, Some(rest.strip_prefix(':').ok_or("its address is malformed")?)),
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let v6 = authority.starts_with('[');
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') || (v6 && c == ':');
    if host.is_empty() || !host.chars().all(fits) || (v6 && host.parse::<std::net::Ipv6Addr>().is_err()) {
        return Err("it has no host that can be connected to");
    }
    let port = match port {
        None => None,
        Some(port) => Some(
            port.parse().ok().filter(|port| *port != 0).ok_or("its port is not a number from 1 to 65535")?,
        ),
    };
    Ok((host.to_owned(), port))
}

/// A `postgres://` URL. A password written into the file is a warning, and masked wherever the file is shown.
pub(super) fn database(node: &Node, notes: &mut Notes<'_>) -> Option<Database> {
    let scalar = reading::scalar(node, "a database", notes)?;
    let passwords = literal_passwords(&scalar.written);
    if !passwords.is_empty() {
        let message = "the plan contains a password";
        let hint = "set it in the environment and write `${DATABASE_URL}`, or `postgres://user:${PASSWORD}@host/database`";
        notes.warning(node.spot, Code::PlanLiteralPassword, message, hint);
        passwords.into_iter().for_each(|password| notes.keep_secret(password));
    }
    let meant = scalar.meant.as_deref()?;
    match database_identity(meant) {
        Ok(identity) => Some(Database { url: DatabaseUrl::new(meant.to_owned()), identity, spot: node.spot }),
        Err(why) => {
            // The value is not repeated: wherever it is malformed, its password may stand anywhere.
            let subject = if scalar.written == meant { "this" } else { "the value in the environment" };
            let message = format!("{subject} is not a database URL: {why}");
            notes.error(
                node.spot,
                Code::PlanBadDatabase,
                message,
                "write `postgres://user:${PASSWORD}@host:5432/database`",
            );
            None
        }
    }
}

fn database_identity(url: &str) -> Result<String, &'static str> {
    let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
    let rest = rest.ok_or("it does not begin with `postgres://`")?;
    if url.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("it contains blanks or control characters");
    }
    let bare = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, database) = bare.split_once('/').ok_or("it names no database")?;
    let Some((user_info, hosts)) = authority.rsplit_once('@') else {
        let stray = database.contains('@');
        return Err(if stray { "its password contains `/`; write %2F for it" } else { "it names no user" });
    };
    let user = user_info.split(':').next().unwrap_or_default();
    if user.is_empty() {
        return Err("it names no user");
    }
    if database.is_empty() || database.contains('/') {
        return Err("it names no database");
    }
    if [user_info, hosts, database].iter().any(|part| !percents_fit(part)) {
        return Err("a `%` of it is not followed by two hexadecimal digits; write %25 for `%` itself");
    }
    let mut places = Vec::new();
    for host in hosts.split(',') {
        let (name, port) = match host.rsplit_once(':').filter(|_| !host.ends_with(']')) {
            Some((name, port)) => {
                (name, port.parse().map_err(|_| "its port is not a number from 1 to 65535")?)
            }
            None => (host, POSTGRES_PORT),
        };
        if name.is_empty() || port == 0 {
            return Err("it names no host");
        }
        let name = name.to_ascii_lowercase();
        let name = if matches!(name.as_str(), "localhost" | "[::1]") { "127.0.0.1".to_owned() } else { name };
        places.push(format!("{name}:{port}"));
    }
    Ok(format!("{}/{database}", places.join(",")))
}

fn percents_fit(text: &str) -> bool {
    let bytes = text.as_bytes();
    let hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    bytes.iter().enumerate().all(|(at, byte)| *byte != b'%' || (hex(at + 1) && hex(at + 2)))
}

pub(super) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// An address to listen on, or the default.
pub(super) fn listen(
    node: Option<&Node>,
    key: &'static str,
    default: SocketAddr,
    owner: Spot,
    listeners: &mut Vec<Listener>,
    notes: &mut Notes<'_>,
) -> String {
    let mut address = default;
    if let Some(node) = node {
        let Some(scalar) = reading::scalar(node, key, notes) else { return default.to_string() };
        let Some(meant) = scalar.meant.as_deref() else { return default.to_string() };
        match meant.parse() {
            Ok(parsed) => address = parsed,
            Err(_) => {
                let message = format!("`{}` is not an address to listen on", reading::shown(&scalar.written));
                let hint =
                    format!("write address and port, e.g. `{default}`, or `0.0.0.0:{}`", default.port());
                notes.error(node.spot, Code::PlanBadListen, message, hint);
                return default.to_string();
            }
        }
    }
    listeners.push(Listener { key, address, spot: node.map_or(owner, |node| node.spot) });
    address.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_are_scheme_host_and_port() {
        let shown = |url: &str| upstream(url).map(|upstream| upstream.to_string());
        assert_eq!(shown("http://shop"), Ok("http://shop:80".into()));
        assert_eq!(shown("https://shop.example/"), Ok("https://shop.example:443".into()));
        assert_eq!(shown("http://[::1]:4000"), Ok("http://[::1]:4000".into()));
        for bad in [
            "shop:80",
            "ftp://a",
            "http://",
            "http://a:0",
            "http://a:x",
            "http://a:70000",
            "http://a/b",
            "http://a?b",
            "http://u@a",
            "http://a b",
            "http://[x]:1",
            "http://[::1]x",
        ] {
            assert!(upstream(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn one_database_is_recognised_under_two_urls() {
        let same = |a: &str, b: &str| database_identity(a).unwrap() == database_identity(b).unwrap();
        assert!(same("postgres://a:x@localhost/shop", "postgresql://b@127.0.0.1:5432/shop?sslmode=require"));
        assert!(!same("postgres://a@h/shop", "postgres://a@h:5433/shop"));
        for bad in [
            "mysql://u@h/d",
            "postgres://h/d",
            "postgres://u@h",
            "postgres://u@h/",
            "postgres://u@/d",
            "postgres://:p@h/d",
            "postgres://u:p/w@h/d",
            "postgres://u:p%w@h/d",
            "postgres://u@h:x/d",
            "postgres://u@h/d d",
            "",
        ] {
            assert!(database_identity(bad).is_err(), "{bad}");
        }
    }
}
