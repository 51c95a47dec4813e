//! The table itself: built once per configuration, read by every shard.

use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};
use ipnet::IpNet;

use super::names::NameClaims;
use super::nets::NetClaims;
use super::requests::{RouteIndex, Subject};
use super::settings::{Claim, Endpoints, OnFailure, Settings, Unmatched, Upstream};
use crate::addr::{Authority, OriginalDst};

/// The port of an authority without one, where there is no original
/// destination to ask (RFC 9110 section 4.2.1).
const HTTP_PORT: u16 = 80;

/// Finds the upstream of a connection or request.
#[derive(Debug)]
pub struct Table {
    settings: Settings,
    /// What `Host` becomes, for each upstream that has a name.
    host_headers: Vec<Option<Box<str>>>,
    by_name: HashMap<Arc<str>, usize>,
    names: NameClaims,
    nets: NetClaims,
    routes: RouteIndex,
}

/// What a request says about where it wants to go.
#[derive(Debug, Clone, Copy)]
pub struct RequestKey<'a> {
    /// Where the connection was going before it was captured; `None` on an
    /// explicit listener.
    pub original: Option<OriginalDst>,
    /// The tunnel that it comes through, on an explicit listener.
    pub tunnel: Option<&'a Tunnelled>,
    /// The authority of the target, else of `Host`.
    pub authority: Option<&'a Authority>,
    /// The value of `X-Upstream-Host`; looked at on explicit listeners only.
    pub x_upstream_host: Option<&'a [u8]>,
    /// The path of the target; a query may follow it.
    pub path: &'a [u8],
    /// The method as it was sent.
    pub method: &'a [u8],
}

/// What a CONNECT on an explicit listener has asked for: what comes through its
/// tunnel goes where a captured connection to that authority would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnelled {
    /// The authority, which has a port.
    pub authority: Authority,
    /// The name of the upstream that it means.
    pub upstream: Arc<str>,
}

/// Where a connection or request goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Resolution<'a> {
    /// To an upstream of the file.
    Upstream(Matched<'a>),
    /// To where it was going, as an upstream of its own.
    Adopt(AdoptKey<'a>),
    /// To where it was going, unclaimed.
    Unmatched(OriginalDst),
    /// Nowhere: `no-route`, or a refused connection.
    NoRoute,
}

/// An upstream that was found, and what that changes in the request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Matched<'a> {
    /// The upstream.
    pub upstream: &'a Arc<Upstream>,
    /// Its place in [`Settings::upstreams`].
    pub index: usize,
    /// What led to it.
    pub via: MatchSource,
    /// Bytes to take off the front of the path. Where the rest then does not
    /// start with a slash, one is put before it.
    pub strip_path: usize,
    /// What becomes of `Host`.
    pub host: HostHeader<'a>,
}

/// What led to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatchSource {
    /// The route with this place in [`Settings::routes`].
    Route(usize),
    /// `X-Upstream-Host`.
    XUpstreamHost,
    /// The authority of the request, or the server name of a TLS hello.
    Authority,
    /// The original destination.
    Address,
    /// `/<upstream>/` at the front of the path.
    PathPrefix,
}

/// What becomes of the `Host` of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostHeader<'a> {
    /// It stays as it is.
    Keep,
    /// It becomes this.
    Set(&'a [u8]),
    /// It becomes the address of the endpoint: the upstream has no name.
    Endpoint,
}

/// What makes an adopted upstream one of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdoptKey<'a> {
    /// The authority of the request.
    Authority(&'a Authority),
    /// The original destination, where there is no authority.
    Address(OriginalDst),
}

/// What the upstreams claim, as far as the kernel can know it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    /// Claimed networks.
    pub nets: Vec<Claimed<IpNet>>,
    /// Exact names, whose current addresses are claimed as well.
    pub names: Vec<Claimed<String>>,
    /// Whether a connection to any address could turn out to be claimed once
    /// its first bytes are read: by a name, a wildcard or a route.
    pub any_names: bool,
}

/// What an upstream claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed<T> {
    /// The network or name.
    pub what: T,
    /// Only at this port.
    pub port: Option<u16>,
    /// The name of the upstream.
    pub upstream: Arc<str>,
    /// What connects do there while the proxy cannot serve them; `None`: what others
    /// do.
    pub on_failure: Option<OnFailure>,
}

impl Table {
    /// Builds the table. Of two upstreams with the same claim or name the
    /// first has it; the check of the configuration refuses such files.
    pub fn new(settings: Settings) -> Self {
        let mut by_name = HashMap::with_capacity(settings.upstreams.len());
        let mut names = NameClaims::default();
        let mut nets = NetClaims::default();
        for (index, upstream) in settings.upstreams.iter().enumerate() {
            by_name.entry(Arc::clone(&upstream.name)).or_insert(index);
            for claim in &upstream.claims {
                match claim {
                    Claim::Name { host, port } => names.insert_exact(host, *port, index),
                    Claim::Wildcard { suffix, port } => names.insert_suffix(suffix, *port, index),
                    Claim::Net { net, port } => nets.insert(*net, *port, index),
                }
            }
        }
        Self {
            host_headers: settings.upstreams.iter().map(|u| host_header(u)).collect(),
            routes: RouteIndex::new(&settings.routes),
            by_name,
            names,
            nets,
            settings,
        }
    }

    /// What the table was built from.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The upstream whose addresses and networks hold this destination.
    pub fn claim_address(&self, original: OriginalDst) -> Option<&Arc<Upstream>> {
        let index = self.nets.find(original.0.ip(), original.0.port())?;
        Some(&self.settings.upstreams[index])
    }

    /// The upstream that claims this name, or this address where the
    /// authority is one.
    #[cfg(test)]
    fn claim_authority(&self, authority: &Authority, default_port: u16) -> Option<&Arc<Upstream>> {
        let index = self.authority_index(authority, default_port)?;
        Some(&self.settings.upstreams[index])
    }

    /// Where a request goes.
    ///
    /// Captured: routes, then the name it asks for, then its original
    /// destination, then the address it asks for, then `unmatched`.
    ///
    /// Through a tunnel: the same, with what CONNECT asked for as destination.
    ///
    /// On an explicit listener: `X-Upstream-Host`, which alone decides where
    /// it is present; else routes, the authority, `/<upstream>/`.
    #[inline(always)]
    pub fn resolve_request<'a>(&'a self, request: &RequestKey<'a>) -> Resolution<'a> {
        match (request.original, request.tunnel, request.x_upstream_host) {
            (Some(original), _, _) => self.resolve_captured(request, original),
            (None, Some(tunnel), _) => self.resolve_tunnelled(request, tunnel),
            (None, None, Some(text)) => self.resolve_x_upstream_host(request, text),
            (None, None, None) => self.resolve_explicit(request),
        }
    }

    /// Where a tunnel leads that carries no request: opaque bytes, or TLS with
    /// this server name.
    pub fn resolve_tunnel(&self, tunnel: &Tunnelled, server_name: Option<&str>) -> Resolution<'_> {
        let port = tunnel.port();
        let by_name = server_name.and_then(|name| self.names.find(name, port));
        match by_name.or_else(|| self.by_name.get(&tunnel.upstream).copied()) {
            Some(index) => self.matched(index, MatchSource::Authority),
            None => Resolution::NoRoute,
        }
    }

    /// Where a captured connection goes that carries no request: opaque
    /// bytes, or TLS with this server name.
    pub fn resolve_connection<'a>(
        &'a self,
        original: OriginalDst,
        server_name: Option<&'a Authority>,
    ) -> Resolution<'a> {
        let (ip, port) = (original.0.ip(), original.0.port());
        let claimed = |name: &Authority| self.names.find(name.host(), port);
        if let Some(index) = server_name.and_then(claimed) {
            return self.matched(index, MatchSource::Authority);
        }
        match self.nets.find(ip, port) {
            Some(index) => self.matched(index, MatchSource::Address),
            None => {
                let by_address = AdoptKey::Address(original);
                self.unclaimed(
                    original,
                    server_name.map_or(by_address, AdoptKey::Authority),
                )
            }
        }
    }

    /// What the kernel side is to know.
    pub fn claims(&self) -> Claims {
        let mut claims = Claims {
            any_names: !self.settings.routes.is_empty(),
            ..Claims::default()
        };
        for upstream in &self.settings.upstreams {
            for claim in &upstream.claims {
                claims.add(claim, upstream);
            }
        }
        claims
    }

    fn resolve_captured<'a>(
        &'a self,
        request: &RequestKey<'a>,
        original: OriginalDst,
    ) -> Resolution<'a> {
        let (ip, port) = (original.0.ip(), original.0.port());
        if let Some(route) = self.route(request, request.authority, port) {
            return self.matched(
                self.settings.routes[route].upstream,
                MatchSource::Route(route),
            );
        }
        if let Some(authority) = request.authority
            && let Some(index) = self.name_index(authority, port)
        {
            return self.matched(index, MatchSource::Authority);
        }
        if let Some(index) = self.nets.find(ip, port) {
            return self.matched(index, MatchSource::Address);
        }
        let Some(authority) = request.authority else {
            return self.unclaimed(original, AdoptKey::Address(original));
        };
        match self.authority_index(authority, port) {
            Some(index) => self.matched(index, MatchSource::Authority),
            None => self.unclaimed(original, AdoptKey::Authority(authority)),
        }
    }

    fn resolve_tunnelled<'a>(
        &'a self,
        request: &RequestKey<'a>,
        tunnel: &Tunnelled,
    ) -> Resolution<'a> {
        let port = tunnel.port();
        if let Some(route) = self.route(request, request.authority, port) {
            return self.matched(
                self.settings.routes[route].upstream,
                MatchSource::Route(route),
            );
        }
        let authority = request.authority;
        let by_name = authority.and_then(|authority| self.name_index(authority, port));
        match by_name.or_else(|| self.by_name.get(&tunnel.upstream).copied()) {
            Some(index) => self.matched(index, MatchSource::Authority),
            // A reload has taken it away.
            None => Resolution::NoRoute,
        }
    }

    fn resolve_x_upstream_host<'a>(
        &'a self,
        request: &RequestKey<'a>,
        text: &'a [u8],
    ) -> Resolution<'a> {
        let name = str::from_utf8(text).ok();
        if let Some(&index) = name.and_then(|name| self.by_name.get(name)) {
            return self.redirected(index, MatchSource::XUpstreamHost, 0);
        }
        let Ok(authority) = Authority::parse(text) else {
            return Resolution::NoRoute;
        };
        let route = self.route(request, Some(&authority), HTTP_PORT);
        let index = match route {
            Some(route) => Some(self.settings.routes[route].upstream),
            None => self.authority_index(&authority, HTTP_PORT),
        };
        match index {
            Some(index) => Resolution::Upstream(Matched {
                upstream: &self.settings.upstreams[index],
                index,
                via: route.map_or(MatchSource::XUpstreamHost, MatchSource::Route),
                strip_path: 0,
                host: HostHeader::Set(text),
            }),
            None => Resolution::NoRoute,
        }
    }

    #[inline(always)]
    fn resolve_explicit<'a>(&'a self, request: &RequestKey<'a>) -> Resolution<'a> {
        if let Some(route) = self.route(request, request.authority, HTTP_PORT) {
            let via = MatchSource::Route(route);
            let route = &self.settings.routes[route];
            return match route.matches.host {
                Some(_) => self.matched(route.upstream, via),
                None => self.redirected(route.upstream, via, 0),
            };
        }
        if let Some(authority) = request.authority
            && let Some(index) = self.authority_index(authority, HTTP_PORT)
        {
            return self.matched(index, MatchSource::Authority);
        }
        let name = first_segment(request.path);
        match name.and_then(|name| Some((self.by_name.get(name)?, name.len() + 1))) {
            Some((index, strip)) => self.redirected(*index, MatchSource::PathPrefix, strip),
            None => Resolution::NoRoute,
        }
    }

    #[inline(always)]
    fn route(
        &self,
        request: &RequestKey<'_>,
        authority: Option<&Authority>,
        default_port: u16,
    ) -> Option<usize> {
        if self.settings.routes.is_empty() {
            return None;
        }
        let subject = Subject {
            authority,
            default_port,
            path: request.path,
            method: request.method,
        };
        self.routes.find(&subject)
    }

    fn name_index(&self, authority: &Authority, default_port: u16) -> Option<usize> {
        let port = authority.port().unwrap_or(default_port);
        self.names.find(authority.host(), port)
    }

    #[inline(always)]
    fn authority_index(&self, authority: &Authority, default_port: u16) -> Option<usize> {
        let port = authority.port().unwrap_or(default_port);
        let by_name = self.names.find(authority.host(), port);
        by_name.or_else(|| self.nets.find(authority.ip()?, port))
    }

    fn matched(&self, index: usize, via: MatchSource) -> Resolution<'_> {
        Resolution::Upstream(Matched {
            upstream: &self.settings.upstreams[index],
            index,
            via,
            strip_path: 0,
            host: HostHeader::Keep,
        })
    }

    /// A request that did not ask for the upstream by its own authority.
    fn redirected(&self, index: usize, via: MatchSource, strip_path: usize) -> Resolution<'_> {
        let host = self.host_headers[index].as_ref();
        Resolution::Upstream(Matched {
            upstream: &self.settings.upstreams[index],
            index,
            via,
            strip_path,
            host: host.map_or(HostHeader::Endpoint, |h| HostHeader::Set(h.as_bytes())),
        })
    }

    fn unclaimed<'a>(&self, original: OriginalDst, adopt: AdoptKey<'a>) -> Resolution<'a> {
        match self.settings.unmatched {
            // Under passthrough the kernel lets unclaimed connections go, but
            // one address can serve claimed and unclaimed names.
            Unmatched::Proxy | Unmatched::Passthrough => Resolution::Unmatched(original),
            Unmatched::Adopt => Resolution::Adopt(adopt),
            Unmatched::Refuse => Resolution::NoRoute,
        }
    }
}

impl Tunnelled {
    fn port(&self) -> u16 {
        self.authority.port().unwrap_or(HTTP_PORT)
    }
}

impl Claims {
    fn add(&mut self, claim: &Claim, upstream: &Upstream) {
        let on_failure = upstream.failure_policy();
        let upstream = Arc::clone(&upstream.name);
        match claim {
            Claim::Net { net, port } => self.nets.push(Claimed {
                what: *net,
                port: *port,
                upstream,
                on_failure,
            }),
            Claim::Wildcard { .. } => self.any_names = true,
            Claim::Name { host, port } => {
                self.any_names = true;
                self.names.push(Claimed {
                    what: host.clone(),
                    port: *port,
                    upstream,
                    on_failure,
                });
            }
        }
    }
}

/// What stands between the first slash of a path and the next, or its end.
fn first_segment(path: &[u8]) -> Option<&str> {
    let rest = path.strip_prefix(b"/")?;
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?'));
    str::from_utf8(&rest[..end.unwrap_or(rest.len())]).ok()
}

/// The authority of an upstream: its first exact name, else the name that is
/// resolved for it.
fn host_header(upstream: &Upstream) -> Option<Box<str>> {
    let claimed = upstream.claims.iter().find_map(|claim| match claim {
        Claim::Name { host, port } => Some((host, *port)),
        Claim::Wildcard { .. } | Claim::Net { .. } => None,
    });
    let (host, port) = match (claimed, &upstream.endpoints) {
        (Some(claimed), _) => claimed,
        (None, Endpoints::Dns { name, port }) => (name, Some(*port)),
        (None, Endpoints::Static(_) | Endpoints::Original) => return None,
    };
    let port = port.filter(|port| *port != HTTP_PORT);
    let authority = Authority::new(host, port).ok()?;
    Some(authority.to_string().into())
}

#[cfg(test)]
mod tests;
