//! The routes of the file: the first that matches a request wins.

use std::collections::HashMap;
use std::net::IpAddr;

use super::names::{suffixes, without_root};
use super::settings::{HostMatch, Route};
use crate::addr::Authority;

/// Routes by the host they ask for, so that a request looks only at those
/// that can match it. Within one host they are tried in turn.
#[derive(Debug, Default)]
pub(super) struct RouteIndex {
    names: HashMap<Box<str>, Vec<usize>>,
    addresses: HashMap<IpAddr, Vec<usize>>,
    /// Keyed with the leading dot.
    suffixes: HashMap<Box<str>, Vec<usize>>,
    any_host: Vec<usize>,
}

/// What routes look at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) authority: Option<&'a Authority>,
    /// The port where the authority has none.
    pub(super) default_port: u16,
    pub(super) path: &'a [u8],
    pub(super) method: &'a [u8],
}

impl RouteIndex {
    pub(super) fn new(routes: &[Route]) -> Self {
        let mut index = Self::default();
        for (number, route) in routes.iter().enumerate() {
            let list = match &route.matches.host {
                None => &mut index.any_host,
                Some(HostMatch::Wildcard { suffix, .. }) => index
                    .suffixes
                    .entry(without_root(suffix).into())
                    .or_default(),
                Some(HostMatch::Exact(authority)) => match authority.ip() {
                    Some(ip) => index.addresses.entry(ip.to_canonical()).or_default(),
                    None => index
                        .names
                        .entry(without_root(authority.host()).into())
                        .or_default(),
                },
            };
            list.push(number);
        }
        index
    }

    /// The number of the first route that matches.
    pub(super) fn find(&self, routes: &[Route], subject: &Subject<'_>) -> Option<usize> {
        if routes.is_empty() {
            return None;
        }
        let mut best = first(&self.any_host, routes, subject, usize::MAX);
        let Some(authority) = subject.authority else {
            return best;
        };
        let mut consider = |list: Option<&Vec<usize>>| {
            if let Some(list) = list {
                best = first(list, routes, subject, best.unwrap_or(usize::MAX)).or(best);
            }
        };
        if !self.addresses.is_empty()
            && let Some(ip) = authority.ip()
        {
            consider(self.addresses.get(&ip.to_canonical()));
        }
        let host = without_root(authority.host());
        consider(self.names.get(host));
        if !self.suffixes.is_empty() {
            for suffix in suffixes(host) {
                consider(self.suffixes.get(suffix));
            }
        }
        best
    }
}

/// The first route of `list` before number `end` whose other conditions hold.
fn first(list: &[usize], routes: &[Route], subject: &Subject<'_>, end: usize) -> Option<usize> {
    list.iter()
        .copied()
        .take_while(|number| *number < end)
        .find(|number| holds(&routes[*number], subject))
}

/// Every condition but the host's name, which the index has settled.
fn holds(route: &Route, subject: &Subject<'_>) -> bool {
    let matches = &route.matches;
    let wanted_port = match &matches.host {
        None => None,
        Some(HostMatch::Exact(authority)) => authority.port(),
        Some(HostMatch::Wildcard { port, .. }) => *port,
    };
    let port = subject.authority.and_then(Authority::port);
    let port = port.unwrap_or(subject.default_port);
    wanted_port.is_none_or(|wanted| wanted == port)
        && (matches.methods.is_empty()
            || matches
                .methods
                .iter()
                .any(|m| m.as_bytes() == subject.method))
        && matches
            .path_prefix
            .as_ref()
            .is_none_or(|prefix| under(subject.path, prefix.as_bytes()))
}

/// Whether `path` is `prefix` or below it. A slash at the end of the prefix
/// means nothing; a query does not belong to the path.
fn under(path: &[u8], prefix: &[u8]) -> bool {
    let prefix = prefix.strip_suffix(b"/").unwrap_or(prefix);
    match path.strip_prefix(prefix) {
        Some(rest) => path.starts_with(b"/") && matches!(rest.first(), None | Some(b'/' | b'?')),
        None => false,
    }
}
