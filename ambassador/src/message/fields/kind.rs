//! What the name of a field means to this proxy.

/// Names with a meaning on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Passed on.
    EndToEnd,
    /// Decide framing or routing.
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    Upgrade,
    Te,
    /// X-Upstream-Host: for the proxy that the client has addressed.
    ForProxy,
    /// Authorization.
    Credentials,
    /// Proxy-Authorization: for the proxy that asks for it.
    ProxyCredentials,
    /// WWW-Authenticate.
    Challenge,
    /// Proxy-Authenticate.
    ProxyChallenge,
    /// For one hop only (RFC 9110 section 7.6.1): Proxy-Connection,
    /// HTTP2-Settings.
    HopByHop,
    /// Keep-Alive: for one hop too.
    KeepAlive,
    /// Any that `Connection` names: for one hop, and of no meaning on the way.
    Named,
    /// X-Ambassador-Hops: between proxies of this kind.
    Hops,
    /// Grpc-Timeout and X-Envoy-Expected-Rq-Timeout-Ms.
    CallerTimeout,
    /// Traceparent and Tracestate.
    TraceContext,
    /// B3, and those that begin with X-B3-.
    B3,
    /// Baggage.
    Baggage,
}

impl Kind {
    pub(super) fn bit(self) -> u32 {
        1 << self as u32
    }

    pub(crate) fn is_framing(self) -> bool {
        matches!(self, Self::ContentLength | Self::TransferEncoding)
    }

    /// Whether `Connection` may make it one for this hop. Fields that decide
    /// framing and routing cannot be named away.
    pub(super) fn may_be_named(self) -> bool {
        matches!(
            self,
            Self::EndToEnd
                | Self::HopByHop
                | Self::KeepAlive
                | Self::CallerTimeout
                | Self::Credentials
                | Self::Challenge
                | Self::ProxyChallenge
                | Self::TraceContext
                | Self::B3
                | Self::Baggage
        )
    }
}

/// What this proxy knows of a name.
pub(crate) fn kind_of(name: &[u8]) -> Kind {
    let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
    match name.len() {
        2 if is(b"te") => Kind::Te,
        2 if is(b"b3") => Kind::B3,
        4 if is(b"host") => Kind::Host,
        7 if is(b"upgrade") => Kind::Upgrade,
        7 if is(b"baggage") => Kind::Baggage,
        10 if is(b"connection") => Kind::Connection,
        10 if is(b"tracestate") => Kind::TraceContext,
        10 if is(b"x-b3-flags") => Kind::B3,
        11 if is(b"traceparent") => Kind::TraceContext,
        11 if is(b"x-b3-spanid") => Kind::B3,
        12 if is(b"x-b3-traceid") || is(b"x-b3-sampled") => Kind::B3,
        10 if is(b"keep-alive") => Kind::KeepAlive,
        12 if is(b"grpc-timeout") => Kind::CallerTimeout,
        13 if is(b"authorization") => Kind::Credentials,
        14 if is(b"http2-settings") => Kind::HopByHop,
        14 if is(b"content-length") => Kind::ContentLength,
        15 if is(b"x-upstream-host") => Kind::ForProxy,
        16 if is(b"proxy-connection") => Kind::HopByHop,
        16 if is(b"www-authenticate") => Kind::Challenge,
        17 if is(b"x-b3-parentspanid") => Kind::B3,
        17 if is(b"transfer-encoding") => Kind::TransferEncoding,
        17 if is(b"x-ambassador-hops") => Kind::Hops,
        18 if is(b"proxy-authenticate") => Kind::ProxyChallenge,
        19 if is(b"proxy-authorization") => Kind::ProxyCredentials,
        30 if is(b"x-envoy-expected-rq-timeout-ms") => Kind::CallerTimeout,
        _ => Kind::EndToEnd,
    }
}
