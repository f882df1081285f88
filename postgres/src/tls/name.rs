//! Whether a certificate is for a host, as libpq decides it (PostgreSQL manual, 34.19.1).

use openssl::nid::Nid;
use openssl::x509::X509Ref;
use std::net::IpAddr;

/// The names a certificate bears.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    hosts: Vec<String>,
    addresses: Vec<Vec<u8>>,
    common: Option<String>,
}

impl Names {
    pub(super) fn of(certificate: &X509Ref) -> Names {
        let alternatives = certificate.subject_alt_names();
        let alternatives = || alternatives.iter().flatten();
        let common = certificate.subject_name().entries_by_nid(Nid::COMMONNAME).next();
        Names {
            hosts: alternatives().filter_map(|name| name.dnsname().map(str::to_owned)).collect(),
            addresses: alternatives().filter_map(|name| name.ipaddress().map(<[u8]>::to_vec)).collect(),
            common: common.and_then(|entry| entry.data().to_string().ok()),
        }
    }

    /// An alternative name of the host's own kind rules out the common name. An address is also looked for among the
    /// alternative names that are texts.
    pub(super) fn cover(&self, host: &str) -> bool {
        let address = host.parse::<IpAddr>().ok();
        if self.hosts.iter().any(|pattern| matches(pattern, host)) {
            return true;
        }
        let own_kind = match address {
            Some(address) => {
                let octets = match address {
                    IpAddr::V4(v4) => v4.octets().to_vec(),
                    IpAddr::V6(v6) => v6.octets().to_vec(),
                };
                if self.addresses.contains(&octets) {
                    return true;
                }
                !self.addresses.is_empty()
            }
            None => !self.hosts.is_empty(),
        };
        !own_kind && self.common.as_deref().is_some_and(|pattern| matches(pattern, host))
    }

    pub(super) fn shown(&self) -> String {
        let address =
            |octets: &Vec<u8>| match (<[u8; 4]>::try_from(&octets[..]), <[u8; 16]>::try_from(&octets[..])) {
                (Ok(v4), _) => IpAddr::from(v4).to_string(),
                (_, Ok(v6)) => IpAddr::from(v6).to_string(),
                _ => "a malformed address".to_owned(),
            };
        let mut names: Vec<String> = self.hosts.clone();
        names.extend(self.addresses.iter().map(address));
        if names.is_empty() {
            names.extend(self.common.clone());
        }
        if names.is_empty() { "no host".to_owned() } else { names.join(", ") }
    }
}

/// A `*.` at the beginning stands for one label.
fn matches(pattern: &str, host: &str) -> bool {
    // The C library of a server that reads a name up to its zero must not read another name than we do.
    if pattern.contains('\0') {
        return false;
    }
    if pattern.eq_ignore_ascii_case(host) {
        return true;
    }
    let Some(rest) = pattern.strip_prefix('*').filter(|rest| rest.starts_with('.') && rest.len() > 1) else {
        return false;
    };
    host.split_once('.').is_some_and(|(label, _)| {
        !label.is_empty() && rest.eq_ignore_ascii_case(host.get(label.len()..).unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_covers_a_host_as_libpq_says() {
        let v4 = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap().octets().to_vec();
        let names = |hosts: &[&str], addresses: &[&str], common: Option<&str>| Names {
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            addresses: addresses.iter().map(|address| v4(address)).collect(),
            common: common.map(str::to_owned),
        };
        for (names, host, expected) in [
            (names(&["db.shop"], &[], None), "DB.shop", true),
            (names(&["*.shop"], &[], None), "db.shop", true),
            (names(&["*.shop"], &[], None), "a.db.shop", false),
            (names(&["*.shop"], &[], None), ".shop", false),
            (names(&["*.shop"], &[], None), "shop", false),
            (names(&["*"], &[], None), "shop", false),
            (names(&["d*.shop"], &[], None), "db.shop", false),
            (names(&["db.shop\0.evil"], &[], None), "db.shop", false),
            // The common name counts if no name of the host's kind is there.
            (names(&[], &[], Some("db.shop")), "db.shop", true),
            (names(&[], &["10.0.0.1"], Some("db.shop")), "db.shop", true),
            (names(&["other"], &[], Some("db.shop")), "db.shop", false),
            (names(&[], &["10.0.0.1"], None), "10.0.0.1", true),
            (names(&[], &["10.0.0.1"], Some("10.0.0.2")), "10.0.0.2", false),
            (names(&["10.0.0.1"], &[], None), "10.0.0.1", true),
            (names(&["other"], &[], Some("10.0.0.1")), "10.0.0.1", true),
            (names(&[], &[], None), "", false),
        ] {
            assert_eq!(names.cover(host), expected, "{names:?} {host}");
        }
    }
}
