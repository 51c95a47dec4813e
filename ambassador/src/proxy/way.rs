//! Which upstream a request goes to, and how its head changes on the way.

use crate::addr::{Authority, EndpointAddr, OriginalDst};
use crate::clock;
use crate::http::{self, BadMessage, RequestHead, RequestRewrite, TraceParent};
use crate::policy::retry::Retry;
use crate::proxy::context::Context;
use crate::proxy::generation::Target;
use crate::ring::Chunk;
use crate::route::settings::Endpoints;
use crate::route::{HostHeader, RequestKey, Resolution};
use crate::upstream::pool::Pools;

/// The header by which a program names an upstream on an explicit listener.
const X_UPSTREAM_HOST: &str = "x-upstream-host";

/// Where a request goes and what that changes in its head.
pub struct Way {
    /// The upstream.
    pub target: Target,
    host: Host,
    strip_path: usize,
}

enum Host {
    Keep,
    Endpoint,
    Set(Box<[u8]>),
}

/// The request id and the trace context that a request carries from here on.
pub struct Identity {
    /// `None`: the request has one already.
    made_id: Option<[u8; 36]>,
    traceparent: [u8; TraceParent::LEN],
    /// The trace begins here: a `tracestate` belongs to one that could not be
    /// read (W3C Trace Context section 4.3).
    new_trace: bool,
}

/// The way of a request; `None`: no upstream may take it. `buffer` is where the
/// host is put that the request names.
pub fn find(
    context: &Context,
    original: Option<OriginalDst>,
    request: &RequestHead,
    head: &[u8],
    buffer: &mut String,
) -> Result<Option<Way>, BadMessage> {
    let authority = request.authority(head, std::mem::take(buffer))?;
    // A captured CONNECT is spoken to a proxy: its authority names what that
    // proxy is to reach, not where this connection was going.
    let authority = authority.filter(|_| original.is_none() || !request.is_connect());
    let generation = context.generation();
    let resolution = generation.table.resolve_request(&RequestKey {
        original,
        authority: authority.as_ref(),
        x_upstream_host: request.field(head, X_UPSTREAM_HOST),
        path: request.path(head),
        method: request.method_bytes(head),
    });
    let plain = |target| Way {
        target,
        host: Host::Keep,
        strip_path: 0,
    };
    let way = match resolution {
        Resolution::Upstream(matched) => Some(Way {
            target: generation.matched(&matched),
            host: match matched.host {
                HostHeader::Keep => Host::Keep,
                HostHeader::Set(host) => Host::Set(host.into()),
                HostHeader::Endpoint => Host::Endpoint,
            },
            strip_path: matched.strip_path,
        }),
        Resolution::Adopt(key) => Some(plain(context.adopt(&generation, key))),
        Resolution::Unmatched(_) => Some(plain(generation.unmatched())),
        Resolution::NoRoute => None,
    };
    *buffer = authority.map(Authority::into_host).unwrap_or_default();
    Ok(way)
}

/// The endpoint whose turn it is. `None` where a name has not been resolved,
/// and where the original destination is meant and there is none.
pub fn endpoint(
    pools: &Pools,
    target: &Target,
    original: Option<OriginalDst>,
) -> Option<EndpointAddr> {
    match target.upstream.endpoints {
        Endpoints::Original => original.map(|OriginalDst(address)| EndpointAddr(address)),
        Endpoints::Static(_) | Endpoints::Dns { .. } => {
            pools.pick(&target.shared, target.pool_policies())
        }
    }
}

/// Whether bytes of this request may reach the upstream twice: its method is
/// one of those, or its sender says so with an idempotency key.
pub fn may_be_sent_twice(retry: &Retry, request: &RequestHead, head: &[u8]) -> bool {
    let method = request.method_bytes(head);
    retry.methods.contains(request.method(), method)
        || request.field(head, &retry.idempotency_header).is_some()
}

impl Identity {
    /// Keeps the request's own id and continues its trace, or starts both.
    pub fn of(request: &RequestHead, head: &[u8]) -> Self {
        let has_id = request.field(head, "x-request-id").is_some();
        let trace = request
            .field(head, "traceparent")
            .and_then(TraceParent::parse);
        let new_trace = trace.is_none();
        let trace = match trace {
            Some(trace) => trace.child(clock::random_u64()),
            None => TraceParent::start(clock::random_u128(), clock::random_u64()),
        };
        Self {
            new_trace,
            made_id: (!has_id).then(|| http::request_id(clock::unix_ms(), clock::random_u128())),
            traceparent: trace.encode(),
        }
    }

    /// The id, wherever it came from.
    pub fn request_id<'a>(&'a self, request: &RequestHead, head: &'a [u8]) -> &'a [u8] {
        match &self.made_id {
            Some(id) => id,
            None => request.field(head, "x-request-id").unwrap_or_default(),
        }
    }
}

impl Way {
    /// The head as the upstream gets it.
    pub fn encode(
        &self,
        request: &RequestHead,
        head: &[u8],
        endpoint: EndpointAddr,
        identity: &Identity,
        original: Option<OriginalDst>,
    ) -> Chunk {
        let explicit = original.is_none();
        let made_host;
        let host = match &self.host {
            // HTTP/1.0 may come without one, and goes on as HTTP/1.1.
            Host::Keep if request.is_http10() && request.field(head, "host").is_none() => {
                made_host = original.map(|original| original.to_string());
                made_host.as_ref().map(|host| host.as_bytes())
            }
            Host::Keep => None,
            Host::Set(host) => Some(&**host),
            Host::Endpoint => {
                made_host = Some(endpoint.to_string());
                made_host.as_ref().map(|host| host.as_bytes())
            }
        };
        let rules = &self.target.upstream.policies.headers;
        let mut add: [(&str, &[u8]); 2] = [("traceparent", &identity.traceparent); 2];
        let mut added = 1;
        if let Some(id) = &identity.made_id {
            add[1] = ("x-request-id", id);
            added = 2;
        }
        let rewrite = RequestRewrite {
            strip_path: self.strip_path,
            host,
            keep_absolute: !explicit && self.target.upstream.endpoints == Endpoints::Original,
            set: &rules.set,
            remove: &rules.remove,
            also_remove: identity.new_trace.then_some("tracestate"),
            add: &add[..added],
            addressed_here: explicit,
        };
        Chunk::written(head.len() + 192, |out| {
            http::write_request(out, head, request, &rewrite);
        })
    }
}
