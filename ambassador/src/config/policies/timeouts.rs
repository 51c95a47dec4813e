//! `timeouts`: how long steps may take.

use crate::config::setting::settings;
use crate::config::values::{ByteRate, OrNone, OrOff, Period};
use crate::policy::limits;

settings! {
    /// Time limits.
    Timeouts for limits::Timeouts as timeouts {
        /// From the dial to an established connection, or the wait for a free
        /// one.
        connect: Period = timeouts.connect,
        /// From a request's last byte to the first byte of its response. A longer
        /// try is a `try-timeout`.
        first_byte: OrNone<Period> [of_requests] = timeouts.first_byte,
        /// One try, from the search for a connection to the final response head.
        /// A longer one is a `try-timeout`.
        per_try: OrNone<Period> [of_requests] = timeouts.per_try,
        /// From the whole request to the final response head, with all tries and
        /// the waits between them. Not for tunnels. A request may ask for less
        /// with `grpc-timeout` or `x-envoy-expected-rq-timeout-ms`, counted from
        /// its head on.
        request: OrNone<Period> [of_requests] = timeouts.request,
        /// Silence in both directions, on connections that carry requests, and in
        /// bodies.
        idle: Period = timeouts.idle,
        /// Silence in both directions of relayed bytes: TCP, upgrades and
        /// CONNECT. It also limits how long a captured connection may stay open
        /// on which neither side speaks.
        tunnel: Period = timeouts.tunnel,
        /// From the first byte of a head to its end. A slower request head is
        /// answered 408 (`bad-request`), and the connection closed. A slower
        /// response head is a `try-timeout`. It applies to the first message of a
        /// TLS client too. Most request heads arrive before their upstream is
        /// known and use the value of `defaults`; the value of an upstream
        /// applies to captured connections to its addresses and to the heads of
        /// its responses.
        head: Period
            [of_requests, not_in_routes("is over before there is a request to route")]
            = timeouts.head,
        /// How fast the bytes of a body must move, both ways, as `1KiB` or
        /// `1KiB/s`: 1024 bytes per second. The rate is measured over 10 s (half
        /// of `idle` if that is shorter) in which one side was waited for, and
        /// counts for that side alone. A caller that sends more slowly is
        /// answered 408 (`bad-request`); one that reads more slowly is reset
        /// (`client-gone`); an upstream that reads or sends more slowly has
        /// failed. A reader gets at least the time that 64 KiB take, because
        /// kernels free buffers in steps. Use `off`, also on a route, where a
        /// body pauses by nature: server-sent events, long polling, gRPC streams.
        /// Upgrades, CONNECT and relayed TCP have no such limit.
        min_rate: OrOff<ByteRate> [of_requests] = timeouts.min_rate,
    }
}
