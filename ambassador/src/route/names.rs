//! Claims by host name: exact ones and `*.suffix`.

use foldhash::HashMap;

use super::ports::Ports;

/// Finds the upstream that claims a name. Exact names win over wildcards,
/// longer suffixes over shorter ones.
#[derive(Debug, Default)]
pub(super) struct NameClaims {
    exact: HashMap<Box<str>, Ports>,
    /// Keyed with the leading dot.
    suffixes: HashMap<Box<str>, Ports>,
}

impl NameClaims {
    pub(super) fn insert_exact(&mut self, host: &str, port: Option<u16>, upstream: usize) {
        let ports = self.exact.entry(without_root(host).into()).or_default();
        ports.insert(port, upstream);
    }

    pub(super) fn insert_suffix(&mut self, suffix: &str, port: Option<u16>, upstream: usize) {
        let ports = self
            .suffixes
            .entry(without_root(suffix).into())
            .or_default();
        ports.insert(port, upstream);
    }

    /// `host` is in lower case.
    #[inline(always)]
    pub(super) fn find(&self, host: &str, port: u16) -> Option<usize> {
        let host = without_root(host);
        let exact = self.exact.get(host).and_then(|ports| ports.find(port));
        exact.or_else(|| suffixes(host).find_map(|suffix| self.suffixes.get(suffix)?.find(port)))
    }
}

/// `api.example.` names the same host as `api.example`.
pub(super) fn without_root(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

/// Every suffix of `host` that starts with a dot and has something before it,
/// the longest first.
pub(super) fn suffixes(host: &str) -> impl Iterator<Item = &str> {
    host.match_indices('.')
        .filter(|(at, _)| *at > 0)
        .map(move |(at, _)| &host[at..])
}
