//! The policies: what `defaults`, an upstream and a route can say. Each group of
//! keys has a file.

mod circuit_breaker;
mod concurrency;
mod failure_statuses;
mod fault;
mod headers;
mod health_check;
mod hedge;
mod http2;
mod layers;
mod load_balancing;
mod outlier;
mod pool;
mod rate_limit;
mod retry;
mod retry_causes;
mod timeouts;
mod tls;

use schemars::Schema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value as Json};

use super::findings::Findings;
use super::read::{Either, KeyValue};
use super::restrictions::Section;
use super::setting::{View, grouped, settings};
use super::values::{Count, KeepAlive, Off, OnOff, OrOff, Propagation, Zone, choice};
use crate::route::settings as route;

use circuit_breaker::CircuitBreaker;
use concurrency::Concurrency;
use fault::Fault;
use headers::Headers;
use health_check::HealthCheck;
use hedge::Hedge;
use http2::Http2;
use load_balancing::{Hashing, LoadBalancing};
use outlier::Outlier;
use pool::Pool;
use rate_limit::RateLimit;
use retry::Retry;
use timeouts::Timeouts;
use tls::Tls;

pub(super) use fault::{DELAY_SECONDS_MAX, STATUS_MAX, STATUS_MIN};
pub(super) use layers::{Layers, Written};
pub(super) use retry::ATTEMPTS_MAX;
pub(super) use tls::MinVersion;

settings! {
    /// Policies for all upstreams.
    Policies for Written as all {
        /// The protocol.
        protocol: Protocol [not_in_routes("is for a whole upstream")] = all.protocol,
        /// How connections to an upstream are encrypted: `on`, `off`, or what is to
        /// differ from `on`. What a client encrypts itself passes as it is.
        tls: Either<OnOff, Tls>
            [not_in_routes("is for a whole upstream: its routes share the connections")]
            = all.tls,
        /// Limits of the connections and requests of one upstream, over all threads.
        pool: Pool
            [not_in_routes("is for a whole upstream: its routes share the connections")]
            = all.settings.pool,
        /// Connections that speak HTTP/2. The values of `defaults` also apply to
        /// accepted connections, but for `ping`.
        http2: Http2
            [of_requests, not_in_routes("is for a whole upstream: its routes share the connections")]
            = all.settings.http2,
        /// Time limits.
        timeouts: Timeouts = all.settings.timeouts,
        /// Silence after which TCP probes the server, in whole seconds up to 9h.
        /// A connection fails when the server does not answer for five times as
        /// long, or takes none of a request. A relayed connection may wait for a
        /// server that pauses and answers probes. The value of `defaults` also
        /// applies to accepted connections, for probes only.
        tcp_keepalive: OrOff<KeepAlive>
            [not_in_routes("is for a whole upstream: its routes share the connections")]
            = all.settings.timeouts.keep_alive,
        /// Whether and when a request is tried again.
        retry: Retry = all.settings.retry,
        /// When the circuit of an upstream opens, so that its requests fail at
        /// once. There is one circuit for each upstream, over all threads.
        circuit_breaker: CircuitBreaker = all.circuit_breaker,
        /// Requests per second to an upstream, over all threads.
        rate_limit: Either<Off, RateLimit> [of_requests] = all.rate_limit,
        /// How the endpoint of a request is chosen. `round_robin`: each in turn.
        /// `least_request`: of two random ones, the one with fewer requests.
        /// `peak_ewma`: of two random ones, the one expected to answer sooner, by
        /// its latency and its requests; failures, `429` and `Retry-After` count
        /// as slow. `random`: a random one. All of them respect weights, and
        /// avoid endpoints that earlier tries of the request used.
        load_balancing: Either<LoadBalancing, Hashing> [of_endpoints] = all.settings.load_balancing,
        /// The zone of the callers. Endpoints of this zone are used as long as
        /// one of them is not ejected.
        zone: Zone [of_endpoints, not_in_routes("is for a whole upstream")] = all.settings.zone,
        /// When an endpoint is ejected, so that it gets no requests for a while.
        /// The routes of an upstream share its ejections.
        outlier: Outlier [of_endpoints] = all.settings.outlier,
        /// How endpoints are asked whether they are fit for requests.
        health_check: HealthCheck
            [of_endpoints, not_in_routes("is for a whole upstream: its routes share the endpoints")]
            = all.settings.health_check,
        /// When a second try is made beside a slow one. Only for requests whose
        /// method is GET, HEAD, OPTIONS or TRACE and in `retry.methods`. Their
        /// interim responses are dropped.
        hedge: Hedge [of_requests] = all.settings.hedge,
        /// An adaptive limit of the requests in flight to an upstream, found from
        /// its latency, over all threads.
        concurrency: Concurrency
            [of_requests, not_in_routes("is for a whole upstream")]
            = all.settings.concurrency,
        /// Changes to request headers, in addition to inherited ones.
        headers: Headers = all.settings.headers,
        /// How many ambassadors a request may have passed. One more answers 508
        /// `loop`, which ends a circle of them. They count themselves in the
        /// header `x-ambassador-hops`. `off`: nothing is counted, and the header
        /// passes unchanged.
        max_hops: OrOff<Count<1>>
            [of_requests, not_in_routes("is for a whole upstream")]
            = all.settings.hops.max,
        /// Faults injected on purpose, into requests and connections of upstreams.
        fault: Either<Off, Fault> = all.fault,
        /// The headers that carry traces. Default: as in `telemetry.tracing`,
        /// which must be set.
        propagate: Propagation
            [of_requests, not_in_routes("is for a whole upstream")]
            = all.settings.tracing,
    }
}

choice! {
    /// The protocol of an upstream.
    Protocol: route::Protocol {
        /// HTTP if the client's first line has a version of it, else opaque bytes.
        Auto = "auto" => route::Protocol::Auto,
        /// HTTP/1.1; anything else is a `bad-request`.
        Http1 = "http1" => route::Protocol::Http1,
        /// HTTP/2, in clear without asking whether the server knows it. Callers may
        /// speak HTTP/1.1; what is not HTTP is a `bad-request`.
        Http2 = "http2" => route::Protocol::Http2,
        /// HTTP/2 whose requests are gRPC calls: policies go by the code with which
        /// a call ends.
        Grpc = "grpc" => route::Protocol::Grpc,
        /// Opaque bytes.
        Tcp = "tcp" => route::Protocol::Tcp,
    }
}

/// The policies of an upstream, or of a route as it sees one, as the file would write
/// them: a mapping for each group, secrets masked.
pub(super) fn shown(upstream: &route::Upstream, section: Section) -> Map<String, Json> {
    let written = Written::of(
        upstream.protocol,
        upstream.tls.as_deref(),
        &upstream.policies,
    );
    let mut shown = grouped(written.shown(View {
        protocol: upstream.protocol,
        section,
        ..View::WHOLE
    }));
    let rules = &upstream.policies.headers;
    if *rules != route::HeaderRules::default() {
        shown.insert("headers".into(), headers::shown(rules));
    }
    shown
}

/// The policies of an upstream but its protocol, as the file would write them; secrets
/// masked.
pub(crate) fn policies_of(upstream: &route::Upstream) -> Map<String, Json> {
    let mut shown = shown(upstream, Section::Upstream);
    shown.shift_remove("protocol");
    shown
}

/// Where they stand beside other keys.
impl Policies {
    pub(super) fn keys_in(section: Section) -> impl Iterator<Item = &'static str> {
        let keys = Self::KEYS.iter();
        let keys = keys.filter(move |(_, restrictions)| restrictions.allows(section));
        keys.map(|(key, _)| *key)
    }

    pub(super) fn read_in(
        &mut self,
        section: Section,
        at: KeyValue<'_>,
        findings: &mut Findings,
    ) -> bool {
        match Self::restrictions(&at.key.text).not_in_routes {
            Some(why) if section == Section::Route => {
                findings.mistake(&at.place.key(&at.key.text, at.key.line), why);
                true
            }
            _ => self.read_key(at, findings),
        }
    }

    /// Adds them to the schema of what holds them: each by the first sentence that
    /// `defaults` has of it.
    pub(super) fn describe_in(section: Section, schema: &mut Schema) {
        let settings =
            SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
        let own = settings.into_generator().into_root_schema_for::<Self>();
        let properties = schema.get_mut("properties").and_then(Json::as_object_mut);
        let (Some(properties), Some(own)) = (properties, own.get("properties")) else {
            return;
        };
        let default = match section {
            Section::Upstream => "as in `defaults`",
            Section::Route => "as in its upstream",
        };
        for key in Self::keys_in(section) {
            let Json::Object(mut policy) = own[key].clone() else {
                continue;
            };
            policy.shift_remove("default");
            let text = policy["description"].as_str().unwrap_or_default();
            let sentence = text.split(['.', ':']).next().unwrap_or_default();
            let text = format!("{}. Default: {default}.", sentence.replace('\n', " "));
            policy.insert("description".to_owned(), text.into());
            properties.insert(key.to_owned(), policy.into());
        }
    }
}
