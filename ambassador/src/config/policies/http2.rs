//! `http2`: what connections of HTTP/2 may carry.

use crate::config::read::Place;
use crate::config::setting::{Layer, settings};
use crate::config::values::{Count, OrOff, Period, Size, size};
use crate::policy::limits;

/// The windows that a connection begins with hold one byte less (RFC 9113 section
/// 6.9.2).
const WINDOW_MIN: u64 = 64 * 1024;

/// RFC 9113 section 6.9.1.
const WINDOW_MAX: u64 = (1 << 31) - 1;

const PING_SECONDS_MIN: u64 = 1;
const PING_SECONDS_MAX: u64 = 24 * 3600;

settings! {
    /// Connections that speak HTTP/2.
    Http2 for limits::Http2 as http2, checked by body_within_connection {
        /// Silence of a server that requests wait for, after which it is asked
        /// with a PING whether it is still there, from 1s to 1d. Its connection
        /// has failed when nothing comes for as long again.
        ping: OrOff<Period<PING_SECONDS_MAX, PING_SECONDS_MIN>> = http2.ping,
        /// Requests on one connection at once. The server may allow fewer. Further
        /// ones need another connection.
        max_streams: Count<1> = http2.max_streams,
        /// How many bytes of one body the peer may send before they are read, from
        /// 64KiB to 2147483647B. What waits there counts as memory of the proxy.
        window: Size<WINDOW_MAX, WINDOW_MIN> = http2.window,
        /// The same for all bodies of a connection together; at least `window`.
        connection_window: Size<WINDOW_MAX, WINDOW_MIN> = http2.connection_window,
    }
}

/// Said where it was written: the layer may set only one of the two.
fn body_within_connection(
    written: &Http2,
    _: &Place,
    http2: &mut limits::Http2,
    layer: &mut Layer<'_>,
) {
    let (body, connection) = (http2.window, http2.connection_window);
    if body <= connection {
        return;
    }
    let [body, connection] = [body, connection].map(|window| size(window.into()));
    let what = format!("window {body} is over connection_window {connection}");
    match (written.window.as_ref(), written.connection_window.as_ref()) {
        (Some(at), _) | (None, Some(at)) => layer.findings.mistake_at(at, what),
        (None, None) => {}
    }
}
