//! The policies of upstreams and routes as they are written: one mapping for
//! each group.

use crate::config::read::{Named, Spanned, object};
use crate::config::values::{
    ByteRateOrOff, Count, CountOrOff, Flag, HedgeAfter, Moment, Percent, Rate, RatioOrOff,
    RetryCause, Size, StatusRange, Text, Time, TimeLimit, choice,
};
use crate::policy::{balance, rate_limit};

object! {
    /// Limits of the connections and requests of one upstream.
    Pool {
        /// Open connections at most.
        #[schemars(extend("default" = 100))]
        max_connections: Count,
        /// Requests that may wait for a connection; one more is `overloaded`. Callers
        /// (captured cgroups, client addresses) have turns, and where it is full it
        /// is the newest request of the caller with the most that is turned away.
        #[schemars(extend("default" = 50))]
        max_pending: Count,
        /// Requests in flight at most, waiting ones included; one more is `overloaded`.
        #[schemars(extend("default" = 1024))]
        max_requests: Count,
        /// Idle connections kept for reuse.
        #[schemars(extend("default" = 32))]
        max_idle: Count,
        /// Idle connections kept open without traffic. Needs `endpoints` or `dns`.
        #[schemars(extend("default" = 0))]
        min_idle: Count,
        /// An idle connection is closed after this, less up to a tenth of its own;
        /// sooner where the upstream's `Keep-Alive: timeout=` says so.
        #[schemars(extend("default" = "60s"))]
        idle_timeout: Time,
        /// A connection is not reused after this age, less up to a tenth of its own.
        #[schemars(extend("default" = "10m"))]
        max_lifetime: Time,
    }
}

object! {
    /// How long things may take.
    Timeouts {
        /// From the dial to an established connection.
        #[schemars(extend("default" = "5s"))]
        connect: Time,
        /// From a request's last byte to the first of its response. A try that
        /// takes longer is a `try-timeout`.
        #[schemars(extend("default" = "none"))]
        first_byte: TimeLimit,
        /// One try, from the search for a connection to the final response
        /// head. One that takes longer is a `try-timeout`.
        #[schemars(extend("default" = "none"))]
        per_try: TimeLimit,
        /// From the whole request to the final response head, all tries and
        /// the waits between them included. Not for tunnels. A request may ask
        /// for less by `grpc-timeout` or `x-envoy-expected-rq-timeout-ms`,
        /// counted from its head on.
        #[schemars(extend("default" = "10s"))]
        request: TimeLimit,
        /// Without a byte in either direction, for connections that carry
        /// requests, and their bodies.
        #[schemars(extend("default" = "5m"))]
        idle: Time,
        /// The same for what is relayed: TCP, upgrades and CONNECT. Also how long
        /// a captured connection may stay on which neither side speaks.
        #[schemars(extend("default" = "1h"))]
        tunnel: Time,
        /// From the first byte of a request's head to its end; a head that takes
        /// longer is answered with status 408 (`bad-request`), and the connection
        /// closed. Also for the first message of a TLS client. Most heads come
        /// before their upstream is known, and go by `defaults`; that of an upstream
        /// holds for captured connections to the addresses that it claims, and for
        /// the heads of its responses: one that takes longer is a `try-timeout`.
        #[schemars(extend("default" = "10s"))]
        head: Time,
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
        #[schemars(extend("default" = "off"))]
        min_rate: ByteRateOrOff,
    }
}

object! {
    /// Whether and when a request is tried again.
    Retry {
        /// Tries at most, from 1 to 100, the first included. 1: none is repeated.
        #[schemars(extend("default" = 3))]
        attempts: Count,
        /// What a request is tried again for: connections that cannot be
        /// established (`connect-failure`) or end before a whole response head
        /// (`reset`), and statuses. A `try-timeout` always is a cause.
        #[schemars(extend("default" = ["connect-failure", "reset", 429, 503]))]
        on: Vec<Spanned<RetryCause>>,
        /// With several endpoints, another one that is well is asked for what
        /// this one gets wrong, of requests that may reach an upstream twice:
        /// for a status of `circuit_breaker.failure_statuses` in the next try,
        /// and for GET, HEAD, OPTIONS and TRACE beside a try without a response
        /// after half of `timeouts.request`.
        #[schemars(extend("default" = "on"))]
        elsewhere: Switch,
        /// Methods whose requests may reach an upstream twice.
        #[schemars(extend("default" = ["GET", "HEAD", "OPTIONS", "TRACE", "DELETE", "QUERY"]))]
        methods: Vec<Spanned<Text>>,
        /// Requests with this field may reach an upstream twice as well.
        #[schemars(extend("default" = "idempotency-key"))]
        idempotency_header: Text,
        /// The wait before a try is random, from nothing to twice this before
        /// the second; the upper end doubles with each further try.
        #[schemars(extend("default" = "100ms"))]
        base: Time,
        /// No wait is longer.
        #[schemars(extend("default" = "30s"))]
        cap: Time,
        /// How many requests may be tried again.
        budget: Budget,
        /// A body up to this size (bytes where it has no unit, at most 16MiB)
        /// is kept for another try; a larger one is streamed and its request
        /// not tried again.
        #[schemars(extend("default" = "64KiB"))]
        body_limit: Size,
        /// Whether `Retry-After` in a response raises the wait, up to `cap`.
        #[schemars(extend("default" = true))]
        honor_retry_after: Flag,
    }
}

object! {
    /// How many requests may be tried again; the larger of the two holds.
    Budget {
        /// Extra tries as a share of the requests of the last 10 s.
        #[schemars(extend("default" = "20%"))]
        ratio: Percent,
        /// Extra tries in a second that are always granted.
        #[schemars(extend("default" = 10))]
        min_per_second: Count,
    }
}

object! {
    /// When an upstream is left alone for a while.
    CircuitBreaker {
        /// This many failures within `window` open it, up to 10,000; `off`:
        /// none do. Written beside an inherited `consecutive`, it takes its place.
        #[schemars(extend("default" = 5))]
        failures: CountOrOff,
        /// The share of all that was counted which the failures have to be as
        /// well, within `window` or within its last tenth; `off`: their number is
        /// enough. Not together with `consecutive`; written beside an inherited
        /// one, it takes its place.
        #[schemars(extend("default" = "50%"))]
        ratio: RatioOrOff,
        /// How long a failure or success counts.
        #[schemars(extend("default" = "10s"))]
        window: Time,
        /// How long it is open before one request may probe, or up to a tenth
        /// longer, by chance.
        #[schemars(extend("default" = "30s"))]
        sleep: Time,
        /// This many failures without a success between them open it, instead
        /// of `failures` and `ratio` within `window`.
        #[schemars(extend("default" = "off"))]
        consecutive: CountOrOff,
        /// Statuses that are failures, as connect failures, resets and timeouts are.
        #[schemars(extend("default" = ["500-599"]))]
        failure_statuses: Vec<Spanned<StatusRange>>,
        /// Whether captured connects get ECONNREFUSED from the kernel while it is
        /// open. After `sleep` one goes through, then one more whenever
        /// `timeouts.connect` has passed and nothing was decided. `on` needs
        /// `capture.mode: ebpf` and, in `hosts`, an address, CIDR or whole name
        /// that shares no address with another upstream's; an address that names
        /// turn out to share is left alone, with a warning. The kernel goes by
        /// address alone: what would ask there for another upstream, by a
        /// wildcard or route, is refused as well. In `defaults` it is for the
        /// upstreams that can have it. Not for routes.
        #[schemars(extend("default" = "off"))]
        kernel_fail_fast: Switch,
    }
}

object! {
    /// How many requests are sent in a second, over all threads.
    RateLimit {
        /// The rate, from 0.001 to 1,000,000,000. Required, unless inherited.
        requests_per_second: Rate,
        /// Requests that may come at once. Default: those of one second, at least 1.
        burst: Count,
        /// What happens to a request over the limit.
        #[schemars(extend("default" = "reject"))]
        on_limit: OnLimit,
    }
}

choice! {
    /// What happens to a request over the limit.
    OnLimit: rate_limit::OnLimit {
        /// It is answered `rate-limited`.
        Reject = "reject" => rate_limit::OnLimit::Reject,
        /// It waits for its turn, as long as `timeouts.request` allows.
        Wait = "wait" => rate_limit::OnLimit::Wait,
    }
}

choice! {
    /// Which endpoint a request goes to.
    LoadBalancing: balance::LoadBalancing {
        /// In turn.
        RoundRobin = "round_robin" => balance::LoadBalancing::RoundRobin,
        /// Of two random ones, the one with fewer requests.
        LeastRequest = "least_request" => balance::LoadBalancing::LeastRequest,
        /// Of two random ones, the one that is expected to answer sooner.
        PeakEwma = "peak_ewma" => balance::LoadBalancing::PeakEwma,
        /// A random one.
        Random = "random" => balance::LoadBalancing::Random,
    }
}

object! {
    /// Requests that are alike go to the same endpoint.
    #[schemars(extend("required" = ["ring_hash"]))]
    Hashing {
        /// By consistent hashing of one of these. When endpoints come, go or
        /// are ejected, only requests move that they get or had.
        ring_hash: HashKey,
    }
}

object! {
    /// What of a request is hashed: `header` or `source`.
    HashKey {
        /// The value of this field; a request without it goes to a random endpoint.
        header: Text,
        /// The address of the client.
        source: HashSource,
    }
}

choice! {
    /// What of the client is hashed.
    HashSource: balance::Key {
        /// Its IP address.
        Ip = "ip" => balance::Key::SourceIp,
    }
}

object! {
    /// Which endpoints get no requests for a while. What counts as a failure:
    /// no connection, a reset, a timeout, a status from 500 to 599.
    Outlier {
        /// So many failures without a success between them eject an endpoint.
        #[schemars(extend("default" = 5))]
        consecutive: CountOrOff,
        /// Whether an endpoint is ejected whose share of successes in an
        /// `interval` is more than 1.9 standard deviations below the mean. Only
        /// endpoints with 100 requests in it are compared, five at least.
        #[schemars(extend("default" = "off"))]
        success_rate: Switch,
        /// How often shares of successes are compared, and how long an endpoint
        /// has to do well until one of its ejections is forgotten.
        #[schemars(extend("default" = "10s"))]
        interval: Time,
        /// How long the first ejection lasts; each further one lasts longer by
        /// this, up to 5 min. One request is then sent there as a probe.
        #[schemars(extend("default" = "30s"))]
        base_ejection: Time,
        /// The share of endpoints that may be ejected at a time. One may be in
        /// any case, but never the last. Others that fail as often are avoided:
        /// they get requests where no other is left. Where fewer than half are not
        /// ejected, ejections are ignored.
        #[schemars(extend("default" = "10%"))]
        max_ejected: Percent,
    }
}

object! {
    /// When a second try is made beside a slow one. The first response is passed
    /// on, and the other try given up.
    Hedge {
        /// How slow: `p95` is more than 95 of 100 answers of the upstream took
        /// lately, as far as this thread has seen; or a time; or `off`.
        #[schemars(extend("default" = "off"))]
        after: HedgeAfter,
        /// Second tries as a share of the requests of the last 10 s, over all
        /// threads.
        #[schemars(extend("default" = "5%"))]
        budget: Percent,
    }
}

choice! {
    /// Whether something is done.
    Switch: bool {
        /// It is not.
        Off = "off" => false,
        /// It is.
        On = "on" => true,
    }
}

object! {
    /// A limit of the requests in flight that is found out from the latency.
    Concurrency {
        /// Whether there is one. A request over it is `overloaded`; one whose
        /// response head has come does not count.
        #[schemars(extend("default" = "off"))]
        adaptive: Adaptive,
        /// The limit is never lower, and starts here.
        #[schemars(extend("default" = 4))]
        min: Count,
        /// The limit is never higher; nor is it higher than `pool.max_requests`.
        #[schemars(extend("default" = 1024))]
        max: Count,
    }
}

choice! {
    /// Whether the limit of requests in flight adapts to the upstream.
    Adaptive: bool {
        /// It is `pool.max_requests` alone.
        Off = "off" => false,
        /// It falls when latency shows a queue, and rises while there is none.
        On = "on" => true,
    }
}

object! {
    /// Faults injected on purpose, so that what calls can be tested. They come after
    /// the limits and before the circuit breaker, are not tried again, and say
    /// nothing about the upstream. Connections that carry no requests are delayed and
    /// reset as well, where there is no `header`.
    Fault {
        /// Requests answered in the upstream's stead, with the reason
        /// `fault-injected`.
        abort: Abort,
        /// Requests that wait before they are served. One that would wait longer
        /// than `timeouts.request` is answered 504 then.
        delay: Delay,
        /// The share of requests whose caller's connection is reset.
        #[schemars(extend("default" = "0%"))]
        reset: Percent,
        /// Only requests with this field. Default: all.
        header: Text,
        /// Until then, as `2026-12-01T00:00:00Z`. Default: for ever.
        until: Moment,
    }
}

object! {
    /// Requests answered in the upstream's stead.
    Abort {
        /// What they are answered, from 400 to 599. Required, unless inherited.
        status: Count,
        /// The share of requests.
        #[schemars(extend("default" = "100%"))]
        share: Percent,
    }
}

object! {
    /// Requests that wait.
    Delay {
        /// How long, up to 5m. Required, unless inherited.
        r#for: Time,
        /// The share of requests.
        #[schemars(extend("default" = "100%"))]
        share: Percent,
    }
}

object! {
    /// Changes to request headers.
    Headers {
        /// Fields set on each request, in place of those of the same name.
        set: Named<Text>,
        /// Names of fields removed from each request.
        remove: Vec<Spanned<Text>>,
    }
}
