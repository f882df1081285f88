//! Which certificate a client is shown, by the host that it names (RFC 6066, 3). Pure.

use super::certificate::Certificate;
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::sync::Arc;

#[derive(Debug, Default)]
pub(super) struct Choice {
    /// In the plan's order.
    all: Vec<Arc<CertifiedKey>>,
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
}

impl Choice {
    pub(super) fn of<'c>(certificates: impl Iterator<Item = &'c Certificate>) -> Self {
        let mut choice = Choice::default();
        for Certificate { key, names, .. } in certificates {
            choice.all.push(key.clone());
            for name in names {
                choice.by_name.entry(name.clone()).or_default().push(key.clone());
            }
        }
        choice
    }

    /// The first certificate of the host that fits the client, or the first of all. A host may have several, with keys of
    /// different kinds.
    pub(super) fn choose(
        &self,
        host: Option<&str>,
        fits: impl Fn(&CertifiedKey) -> bool,
    ) -> Option<Arc<CertifiedKey>> {
        let named = host.and_then(|host| self.of_host(&host.to_ascii_lowercase()));
        let candidates = named.unwrap_or(&self.all);
        candidates.iter().find(|key| fits(key)).or(candidates.first()).cloned()
    }

    /// A `*` stands for the first label alone (RFC 9525, 6.3).
    fn of_host(&self, host: &str) -> Option<&Vec<Arc<CertifiedKey>>> {
        let wild = || self.by_name.get(&format!("*.{}", host.split_once('.')?.1));
        self.by_name.get(host).or_else(wild)
    }
}
