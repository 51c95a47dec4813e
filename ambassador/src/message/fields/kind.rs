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
    /// X-Request-Id.
    RequestId,
}

impl Kind {
    pub(super) fn bit(self) -> u32 {
        1 << self as u32
    }

    /// Whether it goes on and means nothing on the way but to the log.
    pub(crate) fn is_end_to_end(self) -> bool {
        matches!(self, Self::EndToEnd | Self::RequestId)
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
                | Self::RequestId
        )
    }
}

/// What this proxy knows of a name.
#[inline(always)]
pub(crate) fn kind_of(name: &[u8]) -> Kind {
    match name.len() {
        2 if is(name, b"te") => Kind::Te,
        2 if is(name, b"b3") => Kind::B3,
        4 if is(name, b"host") => Kind::Host,
        7 if is(name, b"upgrade") => Kind::Upgrade,
        7 if is(name, b"baggage") => Kind::Baggage,
        10 if is(name, b"connection") => Kind::Connection,
        10 if is(name, b"tracestate") => Kind::TraceContext,
        10 if is(name, b"x-b3-flags") => Kind::B3,
        11 if is(name, b"traceparent") => Kind::TraceContext,
        11 if is(name, b"x-b3-spanid") => Kind::B3,
        12 if is(name, b"x-b3-traceid") || is(name, b"x-b3-sampled") => Kind::B3,
        10 if is(name, b"keep-alive") => Kind::KeepAlive,
        12 if is(name, b"x-request-id") => Kind::RequestId,
        12 if is(name, b"grpc-timeout") => Kind::CallerTimeout,
        13 if is(name, b"authorization") => Kind::Credentials,
        14 if is(name, b"http2-settings") => Kind::HopByHop,
        14 if is(name, b"content-length") => Kind::ContentLength,
        15 if is(name, b"x-upstream-host") => Kind::ForProxy,
        16 if is(name, b"proxy-connection") => Kind::HopByHop,
        16 if is(name, b"www-authenticate") => Kind::Challenge,
        17 if is(name, b"x-b3-parentspanid") => Kind::B3,
        17 if is(name, b"transfer-encoding") => Kind::TransferEncoding,
        17 if is(name, b"x-ambassador-hops") => Kind::Hops,
        18 if is(name, b"proxy-authenticate") => Kind::ProxyChallenge,
        19 if is(name, b"proxy-authorization") => Kind::ProxyCredentials,
        30 if is(name, b"x-envoy-expected-rq-timeout-ms") => Kind::CallerTimeout,
        _ => Kind::EndToEnd,
    }
}

/// Whether nobody reads or writes the field of this name between a program and its
/// upstream.
pub(crate) fn is_between_ends(name: &[u8]) -> bool {
    matches!(kind_of(name), Kind::EndToEnd | Kind::Credentials)
}

/// Whether a name is this one, which is in lower case. Every field of every head
/// comes by here: eight bytes are compared at once, the last eight once more.
#[inline(always)]
fn is<const LENGTH: usize>(name: &[u8], known: &[u8; LENGTH]) -> bool {
    if LENGTH < 8 || name.len() != LENGTH {
        return name.eq_ignore_ascii_case(known);
    }
    let word = |bytes: &[u8], at: usize| match bytes[at..].first_chunk() {
        Some(word) => u64::from_le_bytes(*word),
        None => 0,
    };
    let is_same = |at| {
        let (word, known) = (word(name, at), word(known, at));
        // Of what stands in a name, letters alone have the bit above that of the
        // case.
        let case = (known & 0x4040_4040_4040_4040) >> 1;
        (word ^ known) & !case == 0
    };
    (0..LENGTH / 8).all(|at| is_same(8 * at)) && is_same(LENGTH - 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_known_in_any_case_and_no_other() {
        for known in [&b"te"[..], b"x-b3-traceid", b"content-length"] {
            assert_ne!(kind_of(known), Kind::EndToEnd);
            assert_eq!(kind_of(&known.to_ascii_uppercase()), kind_of(known));
            for at in 0..known.len() {
                for byte in 0..=u8::MAX {
                    let mut name = known.to_vec();
                    name[at] = byte;
                    let is_it = name.eq_ignore_ascii_case(known);
                    assert_eq!(kind_of(&name) == kind_of(known), is_it, "{name:?}");
                }
            }
        }
    }
}
