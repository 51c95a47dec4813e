//! Upstreams and routes as the configuration defines them, checked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::addr::{Authority, EndpointAddr};
use crate::credential::settings::Auth;
use crate::message::trace;
use crate::policy::balance::{Key, LoadBalancing};
use crate::policy::{
    breaker, concurrency, fault, health_check, hedge, limits, outlier, rate_limit, retry,
};
use crate::route::tls::Tls;

/// Everything the table is built from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    /// Every upstream, in the order of the file.
    pub upstreams: Vec<Arc<Upstream>>,
    /// Routes in the order of the file; the first match wins.
    pub routes: Vec<Route>,
    /// What happens to a destination that no upstream claims.
    pub unmatched: Unmatched,
    /// The policies of an adopted upstream: the `defaults` of the file without
    /// caps and without a request timeout.
    pub adopted: Policies,
}

/// A destination as the user names it, with its policies.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// The name in the file; metrics and logs carry it.
    pub name: Arc<str>,
    /// What means this upstream.
    pub claims: Vec<Claim>,
    /// Where its requests go.
    pub endpoints: Endpoints,
    /// What is spoken to it.
    pub protocol: Protocol,
    /// How its connections are encrypted; `None`: they are in clear.
    pub tls: Option<Arc<Tls>>,
    /// Who its requests show that they come from; `None`: as the programs say.
    pub auth: Option<Arc<Auth>>,
    /// The secrets that stand in for placeholders in its requests.
    pub placeholders: Vec<Arc<Auth>>,
    /// What captured connects to it do while the proxy cannot serve them, as the file
    /// says.
    pub on_failure: Option<OnFailure>,
    /// How its requests are treated.
    pub policies: Policies,
}

/// How the requests of an upstream, or of a route to it, are treated.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Policies {
    /// Limits of connections and requests.
    pub pool: limits::Pool,
    /// What its HTTP/2 connections may carry, and when they are asked for a sign of
    /// life.
    pub http2: limits::Http2,
    /// How long things may take.
    pub timeouts: limits::Timeouts,
    /// Whether and when a request is tried again.
    pub retry: retry::Retry,
    /// When the circuit of the upstream opens.
    pub circuit_breaker: breaker::Settings,
    /// How many requests it gets in a second; `None`: as many as come.
    pub rate_limit: Option<rate_limit::Settings>,
    /// Which of its endpoints a request goes to.
    pub load_balancing: LoadBalancing,
    /// Where its callers are: endpoints of this zone come first. Endpoints are
    /// the upstream's, and so is this; a route does not change it.
    pub zone: Option<Arc<str>>,
    /// Which of its endpoints get no requests for a while.
    pub outlier: outlier::Settings,
    /// How its endpoints are asked whether they are fit for requests.
    pub health_check: health_check::Settings,
    /// When a second try is made beside a slow one.
    pub hedge: hedge::Settings,
    /// An adaptive limit of requests in flight, beside that of the pool.
    pub concurrency: concurrency::Settings,
    /// Changes to request headers.
    pub headers: HeaderRules,
    /// How many proxies a request may have come through.
    pub hops: limits::Hops,
    /// Faults injected on purpose; `None`: none.
    pub fault: Option<Box<fault::Settings>>,
    /// How traces are carried on; `None`: what comes of one passes as it is.
    pub tracing: Option<trace::Settings>,
    /// Headers that the proxy adds to requests.
    pub added_headers: AddedHeaders,
}

/// Headers that the proxy adds to requests, besides those of the header rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AddedHeaders {
    /// `x-request-id`, the number of proxies passed, and what is left of the
    /// caller's time.
    #[default]
    Standard,
    /// None: `exec --observe`.
    None,
}

/// What bounds a step where nothing is to: the program itself gives up before.
const UNBOUNDED: Duration = Duration::from_secs(24 * 60 * 60);

/// One entry of `hosts`. A name wins over an address, an exact name over a
/// wildcard, the longer suffix or prefix over the shorter, with a port over
/// without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// An exact host name, lower case.
    Name {
        /// The name.
        host: String,
        /// Only at this port.
        port: Option<u16>,
    },
    /// `*.suffix`: any name with at least one label before the suffix;
    /// `suffix` is stored with its leading dot.
    Wildcard {
        /// `.suffix`, lower case.
        suffix: String,
        /// Only at this port.
        port: Option<u16>,
    },
    /// An address or CIDR; matches the original destination and an authority
    /// that is an address.
    Net {
        /// The network; an address is one of full length.
        net: IpNet,
        /// Only at this port.
        port: Option<u16>,
    },
}

/// Where the connections of an upstream go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoints {
    /// Addresses from the file, never empty.
    Static(Vec<Endpoint>),
    /// A name resolved on the control side; the port is required.
    Dns {
        /// The name to resolve.
        name: String,
        /// The port of every address it resolves to.
        port: u16,
    },
    /// The original destination of the connection itself.
    Original,
}

/// One instance of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it listens.
    pub address: EndpointAddr,
    /// How much of the traffic it gets, next to the others: from 1 to
    /// [`WEIGHT_MAX`](crate::policy::balance::WEIGHT_MAX).
    pub weight: u32,
    /// Where it is.
    pub zone: Option<Arc<str>>,
}

impl Settings {
    /// The same upstreams and routes, of which none has a policy.
    pub fn observed(&self) -> Self {
        let observed = |upstream: &Arc<Upstream>| {
            Arc::new(Upstream {
                auth: None,
                placeholders: Vec::new(),
                policies: upstream.policies.observed(),
                ..Upstream::clone(upstream)
            })
        };
        let routes = self.routes.iter().map(|route| Route {
            overridden: route.overridden.as_ref().map(observed),
            ..route.clone()
        });
        Self {
            upstreams: self.upstreams.iter().map(observed).collect(),
            routes: routes.collect(),
            unmatched: self.unmatched,
            adopted: self.adopted.observed(),
        }
    }

    /// Has every upstream inject these faults, and those that are adopted.
    pub fn inject(&mut self, fault: &fault::Settings) {
        let inject = |upstream: &mut Arc<Upstream>| {
            let of_connection = fault.of_connections();
            let fault = match upstream.protocol {
                Protocol::Tcp => of_connection.map(Box::new),
                Protocol::Auto | Protocol::Http1 | Protocol::Http2 | Protocol::Grpc => {
                    Some(Box::new(fault.clone()))
                }
            };
            Arc::make_mut(upstream).policies.fault = fault;
        };
        self.upstreams.iter_mut().for_each(inject);
        let routes = self.routes.iter_mut();
        routes
            .filter_map(|route| route.overridden.as_mut())
            .for_each(inject);
        self.adopted.fault = Some(Box::new(fault.clone()));
    }
}

impl Upstream {
    /// What captured connects to it do while the proxy cannot serve them; `None`: what
    /// others do. A program has no business there without the proxy's credentials.
    pub fn failure_policy(&self) -> Option<OnFailure> {
        let refuses = self.has_credentials().then_some(OnFailure::Refuse);
        self.on_failure.or(refuses)
    }

    /// Whether whoever reaches it through the proxy counts as somebody else than a
    /// program alone.
    pub(crate) fn has_credentials(&self) -> bool {
        let certificate = self.tls.as_ref().and_then(|tls| tls.cert.as_ref());
        self.has_secrets() || certificate.is_some()
    }

    /// Whether its requests get secrets that programs do not have.
    pub(crate) fn has_secrets(&self) -> bool {
        self.secrets().next().is_some()
    }

    /// Where those come from.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &Arc<Auth>> {
        self.auth.iter().chain(&self.placeholders)
    }
}

impl Policies {
    /// The headers of traces that do not pass as they are.
    pub(crate) fn trace_formats(&self) -> trace::Formats {
        let tracing = self.tracing.as_ref();
        tracing.map_or(trace::Formats::OFF, |tracing| tracing.formats)
    }

    /// For upstreams that are not in the file: nothing is refused that their
    /// callers would have done directly, and nothing dialled ahead.
    pub fn without_caps(&self) -> Self {
        let mut policies = self.clone();
        policies.pool.max_connections = None;
        policies.pool.max_requests = None;
        policies.pool.min_idle = 0;
        policies.timeouts.request = None;
        policies.rate_limit = None;
        policies.concurrency.adaptive = false;
        policies
    }

    /// For opaque bytes, which have no requests.
    pub(crate) fn of_connections(&self) -> Self {
        let mut policies = self.clone();
        let timeouts = &mut policies.timeouts;
        (timeouts.first_byte, timeouts.per_try, timeouts.request) = (None, None, None);
        timeouts.min_rate = None;
        policies.retry = policies.retry.of_connects();
        policies.rate_limit = None;
        policies.hedge = hedge::Settings::default();
        if let LoadBalancing::RingHash(Key::Header(_)) = policies.load_balancing {
            policies.load_balancing = LoadBalancing::default();
        }
        policies.concurrency.adaptive = false;
        policies.headers = HeaderRules::default();
        policies.hops.max = None;
        policies.tracing = None;
        let fault = policies.fault.take();
        policies.fault = fault.and_then(|fault| fault.of_connections().map(Box::new));
        policies
    }

    /// For destinations that no upstream claims, which are only passed on.
    pub fn passing_on(&self) -> Self {
        let mut policies = self.without_caps();
        policies.retry = retry::Retry::never();
        policies.hedge = hedge::Settings::default();
        policies.circuit_breaker.trip = breaker::Trip::Never;
        policies.fault = None;
        policies
    }

    /// For what is only to be looked at: no policy, and requests as they come.
    pub fn observed(&self) -> Self {
        let mut policies = self.passing_on();
        policies.timeouts = limits::Timeouts {
            connect: UNBOUNDED,
            first_byte: None,
            per_try: None,
            request: None,
            idle: UNBOUNDED,
            tunnel: UNBOUNDED,
            ..policies.timeouts
        };
        policies.outlier.consecutive = None;
        policies.outlier.success_rate = false;
        policies.headers = HeaderRules::default();
        policies.tracing = None;
        policies.hops.max = None;
        policies.added_headers = AddedHeaders::None;
        policies
    }
}

impl From<EndpointAddr> for Endpoint {
    fn from(address: EndpointAddr) -> Self {
        Self {
            address,
            weight: 1,
            zone: None,
        }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        EndpointAddr(address).into()
    }
}

/// What is spoken to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// HTTP where the client's first bytes are HTTP, opaque otherwise.
    #[default]
    Auto,
    /// HTTP/1.1; anything else is `bad-request`.
    Http1,
    /// HTTP/2, whichever version its callers speak; anything else is `bad-request`.
    Http2,
    /// The same, of calls that end with a grpc-status.
    Grpc,
    /// Opaque bytes, never parsed.
    Tcp,
}

impl Protocol {
    /// Whether it carries requests and nothing else.
    pub(crate) fn is_http(self) -> bool {
        match self {
            Self::Http1 | Self::Http2 | Self::Grpc => true,
            Self::Auto | Self::Tcp => false,
        }
    }
}

/// Request headers set and removed on the way to an upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderRules {
    /// Name and value; replaces every field of that name.
    pub set: Vec<(String, String)>,
    /// Names removed, compared without case.
    pub remove: Vec<String>,
}

impl HeaderRules {
    /// Whether they set or remove the field of this name.
    pub fn names(&self, name: &str) -> bool {
        let set = self.set.iter().map(|(name, _)| name);
        set.chain(&self.remove)
            .any(|ruled| ruled.eq_ignore_ascii_case(name))
    }

    /// What goes on of the field of this name, of which the request has `sent`.
    pub fn outgoing<'a>(&'a self, name: &str, sent: Option<&'a [u8]>) -> Option<&'a [u8]> {
        let is_it = |ruled: &str| ruled.eq_ignore_ascii_case(name);
        if let Some((_, value)) = self.set.iter().find(|(set, _)| is_it(set)) {
            return Some(value.as_bytes());
        }
        sent.filter(|_| !self.remove.iter().any(|removed| is_it(removed)))
    }
}

/// One entry of `routes`.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// What a request must be; every part given must match.
    pub matches: RouteMatch,
    /// Index into [`Settings::upstreams`].
    pub upstream: usize,
    /// The upstream with the policies that the route overrides; `None`: none.
    pub overridden: Option<Arc<Upstream>>,
}

/// The conditions of a route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteMatch {
    /// The request's authority; a port only matters where given.
    pub host: Option<HostMatch>,
    /// The path starts with this, at a segment boundary.
    pub path_prefix: Option<String>,
    /// One of these methods; empty: any.
    pub methods: Vec<String>,
}

/// The host condition of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostMatch {
    /// Exactly this name or address.
    Exact(Authority),
    /// `*.suffix`, stored with its leading dot.
    Wildcard {
        /// `.suffix`, lower case.
        suffix: String,
        /// Only at this port.
        port: Option<u16>,
    },
}

/// What a connect does that should be captured and cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// It goes straight.
    #[default]
    Bypass,
    /// It gets ECONNREFUSED.
    Refuse,
}

/// `capture.unmatched`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unmatched {
    /// Captured, relayed to where it was going, counted as `unmatched`.
    #[default]
    Proxy,
    /// Each authority or address becomes an upstream of its own.
    Adopt,
    /// The kernel connects straight.
    Passthrough,
    /// The connect is refused, or the request answered `no-route`.
    Refuse,
}
