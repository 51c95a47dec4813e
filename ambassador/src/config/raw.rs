//! The file as it is written. The documentation comments here are the
//! reference that users read, in the JSON Schema and in
//! `docs/configuration.md`.

use super::found::Found;
use super::policies::{InRoute, InUpstream, Policies};
use super::read::{Either, Named, Place, Read, Spanned, object};
use super::values::{
    AbsolutePath, Address, Bind, Cidr, Count, CountOrNone, DnsName, Host, MemoryLimit, Methods,
    PathPrefix, Percent, Port, Propagation, RouteHost, Text, Time, User, Workers, Zone, choice,
};
use super::yaml::Node;
use crate::capture::settings as capture;
use crate::config::checked;
use crate::policy::balance::WEIGHT_MAX;
use crate::ring;
use crate::route::settings as route;

/// The whole file.
pub(super) fn document(root: &Node, found: &mut Found) -> Option<File> {
    File::read(root, &Place::default(), found)
}

object! {
    /// The configuration of an ambassador.
    File {
        /// Data-plane threads. `auto` is one for each CPU that the process may
        /// use, the quota of its cgroup respected. A change needs a restart.
        #[schemars(extend("default" = "auto"))]
        workers: Workers,
        /// Whether an idle thread looks for work before it sleeps. A change
        /// needs a restart.
        #[schemars(extend("default" = "never"))]
        spin: Spin,
        /// What the proxy runs as once it has started as root: a user in
        /// /etc/passwd with its group, or `uid:gid`. `auto` is `ambassador`,
        /// where there is such a user, else a number that no other process has.
        /// Started by another user, `auto` stays that one. A change needs a
        /// restart.
        #[schemars(extend("default" = "auto"))]
        user: User,
        /// The admin API. A change needs a restart.
        admin: Admin,
        /// Connections of applications at most, on all listeners and captured
        /// together. One more is reset and counted. `none`: as many as the limit of
        /// open files leaves room for.
        #[schemars(extend("default" = "none"))]
        max_connections: CountOrNone,
        /// Memory of the process at most: what is resident, and what the kernel
        /// has buffered for connections that do not move. From there on the
        /// connections are ended that hold the most without moving, and new ones
        /// are reset where there are none. `auto`: 80 % of the limit of its cgroup,
        /// or of one that this is in; none where there is no limit.
        #[schemars(extend("default" = "auto"))]
        memory_limit: MemoryLimit,
        /// How long work in flight may take to finish after SIGTERM or
        /// `drain`; what is left then is cut off.
        #[schemars(extend("default" = "30s"))]
        drain_timeout: Time,
        /// How long to go on serving after SIGTERM before the drain starts;
        /// ends early once the captured cgroups are empty.
        #[schemars(extend("default" = "0s"))]
        drain_delay: Time,
        /// Interception of connect(). Without it only the listeners are served.
        capture: Capture,
        /// Explicit listeners, for programs that call localhost.
        listeners: Vec<Spanned<Listener>>,
        /// What every upstream has where it does not say its own.
        defaults: Policies,
        /// Destinations by name. A name has letters, digits, `.`, `_` and `-`;
        /// metrics, logs and the path prefix `/<name>/` use it.
        upstreams: Named<Upstream>,
        /// Requests sent to an upstream by what they ask for. The first that
        /// matches wins, and wins over the `hosts` of the upstreams.
        routes: Vec<Spanned<Route>>,
        /// What is reported about the work done.
        telemetry: Telemetry,
    }
}

object! {
    /// The admin API.
    Admin {
        /// Where it listens: an address and port, or `unix:/path` (made with
        /// mode 0600). Off loopback only together with `token_file`, which is
        /// needed then for all but health and metrics.
        #[schemars(extend("default" = "127.0.0.1:15000"))]
        listen: Bind,
        /// A second address that serves `/livez`, `/readyz` and `/metrics` only,
        /// for kubelet and Prometheus. Absent: none.
        metrics_listen: Bind,
        /// A file with the token that requests which change something must
        /// carry as `Authorization: Bearer`. Absent: those need the unix socket.
        token_file: AbsolutePath,
    }
}

object! {
    /// Interception of connect().
    Capture {
        /// The cgroups whose programs are captured: a directory in cgroup2,
        /// or that and a network namespace. `run --cgroup` adds to them.
        cgroups: Vec<Spanned<Either<AbsolutePath, Cgroup>>>,
        /// By which means. A change needs a restart.
        #[schemars(extend("default" = "ebpf"))]
        mode: Mode,
        /// What is in scope. Absent, or without `cidrs`: everything but loopback.
        include: Scope,
        /// What is out of scope: the kernel connects straight, always.
        exclude: Scope,
        /// What happens to a destination in scope that no upstream claims.
        #[schemars(extend("default" = "proxy"))]
        unmatched: Unmatched,
        /// What connects do while the proxy is dead, hung (for 1 s) or without a
        /// slot for the destination: a captured cgroup gets as many as it leaves
        /// others.
        #[schemars(extend("default" = "bypass"))]
        on_failure: OnFailure,
        /// What happens to QUIC, which is not captured.
        #[schemars(extend("default" = "leave"))]
        quic: Quic,
    }
}

object! {
    /// A cgroup whose programs live in another network namespace.
    #[schemars(extend("required" = ["path"]))]
    Cgroup {
        /// Its directory in cgroup2. Required.
        path: AbsolutePath,
        /// The network namespace, as `/proc/123/ns/net`. Absent: the proxy's own.
        netns: AbsolutePath,
    }
}

object! {
    /// A set of destinations.
    Scope {
        /// Ports. Under `include` absent or empty means all.
        ports: Vec<Spanned<Port>>,
        /// Addresses and CIDRs.
        cidrs: Vec<Spanned<Cidr>>,
    }
}

choice! {
    /// What an idle thread does.
    Spin: ring::Spin {
        /// It sleeps at once.
        Never = "never" => ring::Spin::Never,
        /// It looks for work for up to 100 us before it sleeps, as long as work
        /// has come within that time lately. For a CPU of its own: latency
        /// falls by what a wake-up costs, and the CPU is busy at middling load.
        Adaptive = "adaptive" => ring::Spin::Adaptive,
    }
}

choice! {
    /// The means of capture.
    Mode: capture::Mode {
        /// BPF programs at connect().
        Ebpf = "ebpf" => capture::Mode::Ebpf,
        /// REDIRECT rules: for comparison and for kernels without the hooks.
        Iptables = "iptables" => capture::Mode::Iptables,
    }
}

choice! {
    /// What happens to unclaimed destinations.
    Unmatched: route::Unmatched {
        /// Captured, relayed to where it was going, counted.
        Proxy = "proxy" => route::Unmatched::Proxy,
        /// Each authority or address becomes an upstream of its own with the
        /// defaults; 1,024 at most, the least recently used leaves.
        Adopt = "adopt" => route::Unmatched::Adopt,
        /// The kernel connects straight; only claimed destinations are captured.
        Passthrough = "passthrough" => route::Unmatched::Passthrough,
        /// The connect is refused, or its request answered `no-route`.
        Refuse = "refuse" => route::Unmatched::Refuse,
    }
}

choice! {
    /// What connects do while the proxy can't serve them.
    OnFailure: capture::OnFailure {
        /// The kernel connects straight.
        Bypass = "bypass" => capture::OnFailure::Bypass,
        /// The connect is refused.
        Refuse = "refuse" => capture::OnFailure::Refuse,
    }
}

choice! {
    /// What happens to UDP port 443.
    Quic: capture::Quic {
        /// It is left alone.
        Leave = "leave" => capture::Quic::Leave,
        /// It is refused, so that clients fall back to TCP.
        Refuse = "refuse" => capture::Quic::Refuse,
    }
}

object! {
    /// An explicit listener.
    #[schemars(extend("required" = ["name", "bind"]))]
    Listener {
        /// Its name in metrics and logs. Required.
        name: Text,
        /// Where it listens: an address and port, or `unix:/path`. Required.
        bind: Bind,
        /// What is spoken on it.
        #[schemars(extend("default" = "http"))]
        protocol: ListenerProtocol,
        /// Where its connections go. Required for `tcp`, not for `http`.
        upstream: Text,
        /// Its connections at most. One more is reset and counted.
        #[schemars(extend("default" = "none"))]
        max_connections: CountOrNone,
    }
}

choice! {
    /// What is spoken on a listener.
    ListenerProtocol: checked::ListenerProtocol {
        /// Requests, routed by `X-Upstream-Host`, by routes, by their
        /// authority, then by the path prefix `/<upstream>/`, which is removed.
        Http = "http" => checked::ListenerProtocol::Http,
        /// Opaque bytes for one upstream.
        Tcp = "tcp" => checked::ListenerProtocol::Tcp,
    }
}

object! {
    /// A destination.
    Upstream {
        /// What means this upstream: names and `*.suffix` match the authority
        /// of a request, addresses and CIDRs the destination of a connection
        /// (and an authority that is an address); a port is optional. Names
        /// win over addresses, exact names over wildcards, longer suffixes and
        /// prefixes over shorter ones, then with a port over without.
        hosts: Vec<Spanned<Host>>,
        /// Where its requests go. With neither `endpoints` nor `dns`
        /// they go to where the connection was going.
        endpoints: Vec<Spanned<Either<Address, Endpoint>>>,
        /// A name and port instead of `endpoints`, resolved again as its TTL
        /// says (1 s at least, 5 min at most).
        dns: DnsName,
        ..policies: InUpstream
    }
}

object! {
    /// One instance of an upstream.
    #[schemars(extend("required" = ["address"]))]
    Endpoint {
        /// Its IP address and port. Required.
        address: Address,
        /// How much of the traffic it gets, next to the others.
        #[schemars(extend("default" = 1))]
        weight: Count<1, WEIGHT_MAX>,
        /// Where it is.
        zone: Zone,
    }
}

object! {
    /// One route. Its policies are changed key by key.
    #[schemars(extend("required" = ["upstream"]))]
    Route {
        /// What a request must be; every part given must match. Absent: any.
        r#match: Match,
        /// Where it goes. Required.
        upstream: Text,
        ..policies: InRoute
    }
}

object! {
    /// The conditions of a route.
    Match {
        /// The authority of the request: a name, `*.suffix` or address; a port
        /// only matters where given.
        host: RouteHost,
        /// The path is this or below it; compared byte by byte.
        path_prefix: PathPrefix,
        /// One of these methods.
        methods: Methods,
    }
}

object! {
    /// What is reported.
    Telemetry {
        /// One line for each request and each relayed connection. Absent: none.
        access_log: AccessLog,
        /// The traces that requests are part of. Absent: what comes of one passes
        /// as it is, and none is started. Empty: on, with the defaults.
        tracing: Tracing,
    }
}

object! {
    /// What is done about traces. Each try of a request is a span of its own, whose
    /// id its upstream gets as the parent.
    Tracing {
        /// The share of traces to sample about which the caller has not decided:
        /// those that begin here, and those of B3 without a decision.
        #[schemars(extend("default" = "1%"))]
        sample: Percent,
        /// Which headers carry a trace on: `tracecontext` (`traceparent`,
        /// `tracestate`), `b3` (the single header, or the `x-b3-` ones where the
        /// caller has those), `baggage` (which passes, up to 180 members and 8 KiB);
        /// or `off`. Headers that are not named here pass as they are.
        #[schemars(extend("default" = ["tracecontext", "baggage"]))]
        propagate: Propagation,
    }
}

object! {
    /// The access log.
    AccessLog {
        /// `stdout`, `stderr` or the path of a file.
        #[schemars(extend("default" = "stdout"))]
        path: Text,
        /// How a line is written.
        #[schemars(extend("default" = "json"))]
        format: LogFormat,
        /// The share of requests that is logged.
        #[schemars(extend("default" = "100%"))]
        sample: Percent,
    }
}

choice! {
    /// How a log line is written.
    LogFormat: checked::LogFormat {
        /// One JSON object.
        Json = "json" => checked::LogFormat::Json,
    }
}
