//! `timeouts`: how long steps may take.

use crate::config::setting::settings;
use crate::config::values::{ByteRate, OrNone, OrOff, Period};
use crate::policy::limits;

settings! {
    /// How long things may take.
    Timeouts for limits::Timeouts as timeouts {
        /// From the dial to an established connection.
        connect: Period = timeouts.connect,
        /// From a request's last byte to the first of its response. A try that
        /// takes longer is a `try-timeout`.
        first_byte: OrNone<Period> [of_requests] = timeouts.first_byte,
        /// One try, from the search for a connection to the final response
        /// head. One that takes longer is a `try-timeout`.
        per_try: OrNone<Period> [of_requests] = timeouts.per_try,
        /// From the whole request to the final response head, all tries and
        /// the waits between them included. Not for tunnels. A request may ask
        /// for less by `grpc-timeout` or `x-envoy-expected-rq-timeout-ms`,
        /// counted from its head on.
        request: OrNone<Period> [of_requests] = timeouts.request,
        /// Without a byte in either direction, for connections that carry
        /// requests, and their bodies.
        idle: Period = timeouts.idle,
        /// The same for what is relayed: TCP, upgrades and CONNECT. Also how long
        /// a captured connection may stay on which neither side speaks.
        tunnel: Period = timeouts.tunnel,
        /// From the first byte of a request's head to its end; a head that takes
        /// longer is answered with status 408 (`bad-request`), and the connection
        /// closed. Also for the first message of a TLS client. Most heads come
        /// before their upstream is known, and go by `defaults`; that of an upstream
        /// holds for captured connections to the addresses that it claims, and for
        /// the heads of its responses: one that takes longer is a `try-timeout`.
        head: Period
            [of_requests, not_in_routes("is over before there is a request to route")]
            = timeouts.head,
        /// How fast the bytes of a body have to move at least, both ways, as
        /// `1KiB` or `1KiB/s`: 1024 bytes in a second. It is looked at over 10 s
        /// (half of `idle` where that is shorter) in which one side was waited for,
        /// and counts for this side alone: a caller that sends its body more slowly
        /// is answered with status 408 (`bad-request`), one that reads its
        /// response more slowly is reset (`client-gone`), an upstream that takes
        /// or sends a body more slowly has failed. Who reads is given the time
        /// that 64 KiB take, where that is longer: kernels make room in steps.
        /// `off`, also for a route, where a body may pause by its nature:
        /// server-sent events, long polling, streams of gRPC. Upgrades, CONNECT
        /// and relayed TCP have no such limit.
        min_rate: OrOff<ByteRate> [of_requests] = timeouts.min_rate,
    }
}
