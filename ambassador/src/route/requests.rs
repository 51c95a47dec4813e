//! The routes of the file: the first that matches a request wins.

use std::net::IpAddr;

use foldhash::HashMap;

use super::names::{suffixes, without_root};
use super::paths::Paths;
use super::ports::earlier;
use super::settings::{HostMatch, Route};
use crate::addr::Authority;

/// Routes by the host they ask for, and those of one host by path, method and
/// port: a request is looked up by what it has instead of tried on every route.
/// Of the routes found the first of the file wins.
#[derive(Debug, Default)]
pub(super) struct RouteIndex {
    names: HashMap<Box<str>, Paths>,
    addresses: HashMap<IpAddr, Paths>,
    /// Keyed with the leading dot.
    suffixes: HashMap<Box<str>, Paths>,
    any_host: Paths,
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
            let matches = &route.matches;
            let (paths, port) = index.of_host(matches.host.as_ref());
            let prefix = matches.path_prefix.as_deref();
            paths.insert(prefix, &matches.methods, port, number);
        }
        index
    }

    /// Where routes with this host stand, and the port that they ask for.
    fn of_host(&mut self, host: Option<&HostMatch>) -> (&mut Paths, Option<u16>) {
        match host {
            None => (&mut self.any_host, None),
            Some(HostMatch::Wildcard { suffix, port }) => {
                let suffix = without_root(suffix).into();
                (self.suffixes.entry(suffix).or_default(), *port)
            }
            Some(HostMatch::Exact(authority)) => {
                let paths = match authority.ip() {
                    Some(ip) => self.addresses.entry(ip.to_canonical()).or_default(),
                    None => {
                        let name = without_root(authority.host()).into();
                        self.names.entry(name).or_default()
                    }
                };
                (paths, authority.port())
            }
        }
    }

    /// The number of the first route that matches.
    pub(super) fn find(&self, subject: &Subject<'_>) -> Option<usize> {
        let port = subject.authority.and_then(Authority::port);
        let port = port.unwrap_or(subject.default_port);
        let find = |paths: &Paths| paths.find(subject.path, subject.method, port);
        let mut first = find(&self.any_host);
        let Some(authority) = subject.authority else {
            return first;
        };
        let mut consider = |paths: Option<&Paths>| {
            first = earlier(first, paths.and_then(find));
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
        first
    }
}
