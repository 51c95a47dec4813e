//! What connections to an upstream offer to speak (ALPN, RFC 7301).

use std::sync::Arc;

use rustls::client::ClientConfig;

use crate::route::tls::Alpn;

const HTTP1: &[u8] = b"http/1.1";

/// RFC 9113 section 3.2.
const HTTP2: &[u8] = b"h2";

/// The application protocols of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    /// HTTP/1.1. A server that chooses nothing speaks it as well.
    Http1,
    /// HTTP/2: a server that does not choose it is no server of it.
    Http2,
    /// What the server prefers; HTTP/1.1 where it chooses nothing.
    Either,
}

/// One configuration for each offer. They differ in that alone, and share what is
/// verified and the sessions that can be resumed.
#[derive(Debug)]
pub(super) struct Configs {
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    either: Arc<ClientConfig>,
}

impl Configs {
    /// With [`Alpn::Off`] nothing is offered by any.
    pub(super) fn new(config: ClientConfig, alpn: Alpn) -> Self {
        let offering = |names: &[&[u8]]| {
            let mut config = config.clone();
            if alpn == Alpn::Auto {
                config.alpn_protocols = names.iter().map(|name| name.to_vec()).collect();
            }
            Arc::new(config)
        };
        Self {
            http1: offering(&[HTTP1]),
            http2: offering(&[HTTP2]),
            either: offering(&[HTTP2, HTTP1]),
        }
    }

    pub(super) fn of(&self, offer: Offer) -> &Arc<ClientConfig> {
        match offer {
            Offer::Http1 => &self.http1,
            Offer::Http2 => &self.http2,
            Offer::Either => &self.either,
        }
    }
}

/// Whether HTTP/2 was chosen.
pub(super) fn is_http2(chosen: Option<&[u8]>) -> bool {
    chosen == Some(HTTP2)
}

/// Whether nothing but HTTP/2 is offered.
pub(super) fn needs_http2(config: &ClientConfig) -> bool {
    config.alpn_protocols == [HTTP2]
}
