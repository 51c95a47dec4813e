//! The route decision of a request: its upstream, and the changes to its head.

use std::rc::Rc;

use smallvec::SmallVec;

use crate::addr::{Authority, AuthorityText, EndpointAddr, OriginalDst};
use crate::clock;
use crate::credential::Credential;
use crate::message;
use crate::message::fields::Kind;
use crate::message::trace;
use crate::message::{
    BadMessage, CallerTimeout, CredentialField, Hops, Method, RequestHead, RequestRewrite,
    TraceContext, Version, X_HOPS, X_REQUEST_ID,
};
use crate::proxy::client_certificate::{
    ClientCertificate, Forwarded, X_FORWARDED_CLIENT_CERT, reads_as_forwarded,
};
use crate::proxy::context::Context;
use crate::proxy::deadlines::Deadlines;
use crate::proxy::generation::Target;
use crate::proxy::request_facts::RequestFacts;
use crate::proxy::signing;
use crate::ring::{self, Chunk};
use crate::route::settings::{AddedHeaders, Endpoints, HeaderRules, Policies, Protocol};
use crate::route::{HostHeader, RequestKey, Resolution, Tunnelled};
use crate::upstream::key;
use crate::upstream::server::Server;

/// Fields that a request may get on its way: those of its trace, its id, how many
/// proxies it has come through, two that say how long its caller waits, and what its
/// caller has shown.
const ADDED_MAX: usize = trace::FIELDS_MAX + 5;

/// Where a connection was going, before its requests say more.
pub(crate) struct Destination<'a> {
    /// The address, of a captured one.
    pub original: Option<OriginalDst>,
    /// The tunnel that it is, since a CONNECT.
    pub tunnel: Option<&'a Tunnelled>,
}

/// A route decision: the upstream of a request, and the changes to its head.
pub(crate) struct RouteDecision {
    /// The upstream.
    pub target: Target,
    host: Host,
    strip_path: usize,
    /// `None`: what comes of one passes as it is, and none is started.
    trace: Option<TraceContext>,
    /// Proxies that it has come through; `None`: they are not counted.
    hops: Option<Hops>,
    /// Whom its connection is to lead to; `None`: it is in clear.
    server: Option<Box<Server>>,
}

enum Host {
    Keep,
    Endpoint,
    Set(Box<[u8]>),
}

impl Host {
    fn of(header: HostHeader<'_>) -> Self {
        match header {
            HostHeader::Keep => Self::Keep,
            HostHeader::Set(host) => Self::Set(host.into()),
            HostHeader::Endpoint => Self::Endpoint,
        }
    }

    /// The server that goes by it.
    #[cold]
    fn server(&self, target: &Target, asked_for: Option<&Authority>) -> Option<Box<Server>> {
        let set;
        let authority = match self {
            Self::Keep => asked_for,
            Self::Endpoint => None,
            Self::Set(host) => {
                set = Authority::parse(host).ok();
                set.as_ref()
            }
        };
        target.server(authority.map(Authority::host)).map(Box::new)
    }
}

/// The request id that a request carries from here on.
pub(crate) struct Identity {
    /// `None`: the request has one already.
    made_id: Option<[u8; 36]>,
}

/// A request as it was received. Each try encodes it anew, for its own endpoint.
pub(crate) struct Incoming<'a> {
    /// Its head, parsed.
    pub request: &'a RequestHead,
    /// Its head.
    pub head: Chunk,
    /// What identifies it from here on.
    pub identity: Identity,
    /// Where a captured connection was going.
    pub original: Option<OriginalDst>,
    /// What its client has shown; `None`: it came in clear.
    pub certificate: Option<Rc<ClientCertificate>>,
    /// Whom it is addressed to.
    pub addressed_to: Addressee,
    /// Whom its `Proxy-Authorization` is for.
    pub presented_to: Addressee,
}

/// What a head depends on beside the request.
#[derive(Clone, Copy)]
pub(crate) struct TryFacts<'a> {
    /// Where the try goes.
    pub endpoint: EndpointAddr,
    /// Until when it may wait.
    pub deadlines: &'a Deadlines<'a>,
    /// What it shows, where the upstream has `auth`.
    pub credential: Option<&'a Credential>,
}

impl Incoming<'_> {
    /// What stands in for what it says of its client's certificate, empty: nothing does;
    /// `None`: it passes.
    fn forwarded_certificate(&self) -> Option<&[u8]> {
        match &self.certificate.as_ref()?.forwarded {
            Forwarded::Kept => None,
            Forwarded::Removed => Some(b""),
            Forwarded::Replaced(element) => Some(element.as_bytes()),
        }
    }

    /// Whether it may say nothing of its client's certificate itself.
    pub(crate) fn forwards_certificate(&self) -> bool {
        self.forwarded_certificate().is_some()
    }

    /// What is removed where it may not, beside what the rules say: under whatever name it
    /// can be taken for that.
    fn removed_beside(&self, rules: &HeaderRules) -> Option<Vec<String>> {
        self.forwarded_certificate()?;
        let names = self.request.fields().iter();
        let names = names.map(|field| field.name(&self.head));
        let alike = names.filter(|name| reads_as_forwarded(name));
        let alike = alike.map(|name| String::from_utf8_lossy(name).into_owned());
        Some(alike.chain(rules.remove.iter().cloned()).collect())
    }

    /// Whether its client may wait for an interim response before it sends the
    /// body (RFC 9110 section 10.1.1).
    pub(crate) fn expects_continue(&self) -> bool {
        let expected = self.request.fields().value(&self.head, "expect");
        expected.is_some_and(|expected| expected.eq_ignore_ascii_case(b"100-continue"))
    }
}

/// The addressee of a part of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Addressee {
    /// This proxy.
    Proxy,
    /// The upstream: it has asked for it on this client's connection.
    Upstream,
}

/// Decides where a request goes; `None`: no upstream matches. `buffer` receives
/// the host that the request names.
pub(crate) fn find(
    context: &Context,
    destination: Destination<'_>,
    request: &RequestHead,
    head: &[u8],
    asked_for: &mut Option<Authority>,
) -> Result<Option<RouteDecision>, BadMessage> {
    let Destination { original, tunnel } = destination;
    *asked_for = request.authority(head, asked_for.take())?;
    // A captured CONNECT is spoken to a proxy: its authority names what that
    // proxy is to reach, not where this connection was going.
    let authority = asked_for
        .as_ref()
        .filter(|_| !request.is_connect() || original.is_none() && tunnel.is_none());
    let generation = context.generation();
    let resolution = generation.table.resolve_request(&RequestKey {
        original,
        tunnel,
        authority,
        x_upstream_host: request.fields().first(head, Kind::ForProxy),
        path: request.path(head),
        method: request.method_bytes(head),
    });
    let (mut host, mut strip_path) = (Host::Keep, 0);
    let target = match resolution {
        Resolution::Upstream(matched) => {
            (host, strip_path) = (Host::of(matched.host), matched.strip_path);
            generation.matched(&matched)
        }
        Resolution::Adopt(key) => context.adopt(&generation, key),
        Resolution::Unmatched(_) => generation.unmatched(),
        Resolution::NoRoute => return Ok(None),
    };
    let policies = &target.upstream.policies;
    let trace = |tracing| TraceContext::of(request, head, tracing, clock::random_u128());
    let server = match target.upstream.tls {
        None => None,
        Some(_) => host.server(&target, asked_for.as_ref()),
    };
    Ok(Some(RouteDecision {
        host,
        strip_path,
        trace: policies.tracing.as_ref().and_then(trace),
        hops: policies.hops.max.map(|_| Hops::of(request, head)),
        server,
        target,
    }))
}

/// Whether bytes of this request may reach the upstream twice: its method is
/// one of those, or its sender says so with an idempotency key that goes on.
#[inline(always)]
pub(crate) fn may_be_sent_twice(policies: &Policies, request: &RequestHead, head: &[u8]) -> bool {
    let (retry, rules) = (&policies.retry, &policies.headers);
    let key = || {
        let name = &retry.idempotency_header;
        rules.outgoing(name, request.field(head, name))
    };
    let method = request.method_bytes(head);
    retry.methods.contains(request.method(), method) || key().is_some()
}

impl Identity {
    /// Keeps the id that a request has, or that the header rules of its upstream
    /// set, or makes one.
    pub(crate) fn of(request: &RequestHead, head: &[u8], route: Option<&RouteDecision>) -> Self {
        let has_id = Self::known(request, head, route).is_some();
        Self {
            made_id: (!has_id).then(|| message::request_id(clock::unix_ms(), clock::random_u128())),
        }
    }

    /// The id, wherever it came from.
    pub(crate) fn request_id<'a>(
        &'a self,
        request: &RequestHead,
        head: &'a [u8],
        route: Option<&'a RouteDecision>,
    ) -> &'a [u8] {
        match &self.made_id {
            Some(id) => id,
            None => Self::known(request, head, route).unwrap_or_default(),
        }
    }

    #[inline(always)]
    fn known<'a>(
        request: &RequestHead,
        head: &'a [u8],
        route: Option<&'a RouteDecision>,
    ) -> Option<&'a [u8]> {
        let sent = request.fields().first(head, Kind::RequestId);
        let rules = route.map(|route| &route.target.upstream.policies.headers);
        // One that the rules remove is known by it here all the same.
        rules.map_or(sent, |rules| rules.outgoing(X_REQUEST_ID, sent).or(sent))
    }
}

impl RouteDecision {
    /// Whether the request has passed more proxies than `max_hops`.
    pub(crate) fn is_circle(&self) -> bool {
        let max = self.target.upstream.policies.hops.max;
        matches!((self.hops, max), (Some(Hops(hops)), Some(max)) if hops > max)
    }

    /// How long the caller waits, as its request says. Where the header rules
    /// name a field that says it, the rules decide what goes on of that.
    #[inline(always)]
    pub(crate) fn caller_timeout(&self, incoming: &Incoming<'_>) -> CallerTimeout {
        let Incoming { request, head, .. } = incoming;
        let policies = &self.target.upstream.policies;
        let is_said = request.fields().has(Kind::CallerTimeout);
        if !is_said || policies.added_headers == AddedHeaders::None {
            return CallerTimeout::default();
        }
        let rules = &policies.headers;
        CallerTimeout::of(request, head).passed_by(|name| !rules.names(name))
    }

    /// How the head changes for a try: for `write` to write it so.
    pub(crate) fn rewrite<R>(
        &self,
        incoming: &Incoming<'_>,
        facts: TryFacts<'_>,
        write: impl FnOnce(&RequestRewrite<'_>) -> R,
    ) -> R {
        let Incoming {
            request,
            head,
            identity,
            original,
            addressed_to,
            presented_to,
            ..
        } = incoming;
        let addressed_here = *addressed_to == Addressee::Proxy;
        let mut made = AuthorityText::new();
        let host = self.host(incoming, facts.endpoint, &mut made);
        let policies = &self.target.upstream.policies;
        let rules = &policies.headers;
        let trace = self.trace.as_ref();
        let trace = trace.map(|trace| trace.fields(request, head, clock::random_u64()));
        let hops = self
            .hops
            .filter(|_| !rules.names(X_HOPS))
            .map(Hops::and_this);
        let timeout = self.caller_timeout(incoming);
        let left = || facts.deadlines.left_for_caller(ring::now());
        let limits = timeout.limit().map(|_| timeout.fields(left()));
        let mut add: SmallVec<[(&str, &[u8]); ADDED_MAX]> = SmallVec::new();
        for (name, value) in trace.iter().flat_map(|trace| trace.iter()) {
            if !rules.names(name) {
                add.push((name, value));
            }
        }
        if let Some(id) = &identity.made_id
            && policies.added_headers == AddedHeaders::Standard
            && !rules.names(X_REQUEST_ID)
        {
            add.push((X_REQUEST_ID, id));
        }
        if let Some(hops) = &hops {
            add.push((X_HOPS, hops.bytes()));
        }
        if let Some(forwarded) = incoming.forwarded_certificate() {
            add.push((X_FORWARDED_CLIENT_CERT, forwarded));
        }
        for (name, value) in limits.iter().flatten().flatten() {
            add.push((name, value));
        }
        let signed = signing::rules_of(facts.credential, rules);
        let rules = signed.as_ref().unwrap_or(rules);
        let removed = incoming.removed_beside(rules);
        write(&RequestRewrite {
            strip_path: self.strip_path,
            host,
            keep_absolute: original.is_some()
                && self.target.upstream.endpoints == Endpoints::Original,
            set: &rules.set,
            remove: removed.as_deref().unwrap_or(&rules.remove),
            trace: policies.trace_formats(),
            add: &add,
            credential: facts.credential.and_then(credential_field),
            addressed_here,
            presented_here: addressed_here && *presented_to == Addressee::Proxy,
        })
    }

    /// What is spoken to its upstream. Where that is open, TLS tells; in clear it is what
    /// a captured caller speaks, who knows whom it has called. A switch of protocols is
    /// what HTTP/1.1 is sure to have.
    #[inline(always)]
    pub(crate) fn protocol(&self, incoming: &Incoming<'_>, facts: RequestFacts) -> key::Protocol {
        let is_in_clear = self.server.is_none();
        let speaks_http2 = facts.version == Version::Http2;
        match self.target.upstream.protocol {
            Protocol::Http1 | Protocol::Tcp => key::Protocol::Http1,
            Protocol::Http2 | Protocol::Grpc => key::Protocol::Http2,
            Protocol::Auto if is_in_clear && !speaks_http2 => key::Protocol::Http1,
            Protocol::Auto if !is_in_clear && facts.upgrade => key::Protocol::Http1,
            Protocol::Auto if facts.method == Method::Connect && !speaks_http2 => {
                key::Protocol::Http1
            }
            Protocol::Auto if !is_in_clear => key::Protocol::Negotiated,
            Protocol::Auto if incoming.original.is_some() => key::Protocol::Http2,
            Protocol::Auto => key::Protocol::Http1,
        }
    }

    /// Whom its connection is to lead to; `None`: it is in clear.
    pub(crate) fn server(&self) -> Option<&Server> {
        self.server.as_deref()
    }

    /// As whom its connection is opened.
    #[inline]
    pub(crate) fn identity(&self) -> key::Identity {
        let server = self.server.as_ref();
        server.map_or(key::Identity::ANONYMOUS, |server| server.identity)
    }

    /// The host that is named to `endpoint`; `None`: the one that came.
    /// `made` has room for one that is written for this.
    fn host<'h>(
        &'h self,
        incoming: &Incoming<'_>,
        endpoint: EndpointAddr,
        made: &'h mut AuthorityText,
    ) -> Option<&'h [u8]> {
        let Incoming { request, head, .. } = incoming;
        match &self.host {
            // HTTP/1.0 may come without one, and goes on as HTTP/1.1.
            Host::Keep if request.is_http10() && request.field(head, "host").is_none() => {
                let original = incoming.original.as_ref()?;
                *made = AuthorityText::from_slice(original.to_string().as_bytes());
                Some(made)
            }
            Host::Keep => None,
            Host::Set(host) => Some(host),
            Host::Endpoint => {
                *made = endpoint.authority();
                Some(made)
            }
        }
    }
}

/// The field that a credential stands in.
fn credential_field(credential: &Credential) -> Option<CredentialField<'_>> {
    match credential {
        Credential::Header { name, value } => Some(CredentialField {
            name,
            value: value.expose(),
        }),
        // Made of the head when it is written.
        Credential::Signatures(_) => None,
        // Put into the head that was written.
        Credential::Substitute(_) => None,
    }
}
