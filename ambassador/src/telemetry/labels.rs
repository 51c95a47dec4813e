//! The closed sets of words that metrics carry as labels and the log as values.

/// Declares an enum whose variants index an array of counters and have a word.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant),* }

        impl $name {
            /// Every variant, in the order of its counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The word in metrics and logs.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }
    };
}

/// The reason of a request whose caller left before its end.
pub const CLIENT_GONE: &str = "client-gone";

/// The reason of a request that the drain deadline cut.
pub(super) const DRAINED: &str = "drained";

labels! {
    /// How one try of a request ended: `ambassador_upstream_attempts_total`.
    AttemptOutcome {
        /// A final response head arrived, whatever its status.
        Response = "response",
        /// No connection came about.
        ConnectFailed = "connect-failed",
        /// The dial took longer than `timeouts.connect`.
        ConnectTimeout = "connect-timeout",
        /// The connection ended before a whole response head.
        Reset = "upstream-reset",
        /// What arrived is not HTTP.
        ProtocolError = "protocol-error",
        /// Nothing moved for `timeouts.idle`.
        IdleTimeout = "idle-timeout",
        /// `timeouts.per_try` or `timeouts.first_byte` passed, or `timeouts.head`
        /// amid a response head.
        TryTimeout = "try-timeout",
        /// `timeouts.request` passed.
        RequestTimeout = "request-timeout",
        /// Less of a body moved than `timeouts.min_rate` asks for.
        TooSlow = "too-slow",
        /// This machine lacked descriptors, ports or memory.
        Overloaded = "overloaded",
        /// The client went away first.
        Cancelled = "cancelled",
    }
}

labels! {
    /// How a relayed TCP connection or a tunnel ended: `ambassador_tcp_connections_total`.
    TcpOutcome {
        /// Both directions ended with a FIN.
        Closed = "closed",
        /// The dial failed; the client was reset.
        ConnectFailed = "connect-failed",
        /// The dial took longer than `timeouts.connect`; the client was reset.
        ConnectTimeout = "connect-timeout",
        /// The client reset the connection.
        ClientReset = "client-reset",
        /// The upstream reset the connection.
        UpstreamReset = "upstream-reset",
        /// Nothing moved for `timeouts.idle`.
        IdleTimeout = "idle-timeout",
        /// The circuit breaker is open; the client was reset.
        CircuitOpen = "circuit-open",
        /// No upstream may take it; the client was reset.
        NoRoute = "no-route",
        /// It would have dialled the proxy itself; the client was reset.
        Loop = "loop",
        /// The caps of the upstream are used up; the client was reset.
        Overloaded = "overloaded",
        /// The drain deadline cut it.
        Drained = "drained",
        /// A fault was injected: the client was reset.
        FaultInjected = "fault-injected",
    }
}

labels! {
    /// What was injected into a request or connection on purpose:
    /// `ambassador_faults_injected_total`.
    FaultKind {
        /// It had to wait first.
        Delay = "delay",
        /// It was answered in the upstream's stead.
        Abort = "abort",
        /// Its connection was reset.
        Reset = "reset",
    }
}

labels! {
    /// What a relayed connection carries, as the access log calls it.
    RelayProtocol {
        /// Opaque bytes.
        Tcp = "tcp",
        /// TLS that is passed through, told by its first bytes.
        Tls = "tls",
    }
}

labels! {
    /// Which way bytes went: `ambassador_bytes_total`.
    Direction {
        /// From the application to the upstream.
        Sent = "sent",
        /// From the upstream to the application.
        Received = "received",
    }
}

labels! {
    /// Why a connection was ended that others had to make do without:
    /// `ambassador_shed_connections_total`.
    ShedCause {
        /// It held an upstream's connection, and did not move, while others waited.
        Share = "share",
        /// `memory_limit` was reached, and it held the most without moving.
        Memory = "memory",
    }
}

labels! {
    /// Why an accepted connection was reset at once: `ambassador_dropped_accepts_total`.
    DroppedAccept {
        /// Its local address is no published token of this workload.
        UnknownToken = "unknown-token",
        /// Its peer is neither loopback nor an address of the namespace.
        ForeignPeer = "foreign-peer",
        /// The original destination could not be read (`mode: iptables`).
        NoOriginalDst = "no-original-destination",
        /// The process has no descriptors left.
        Descriptors = "descriptors",
        /// `max_connections` of its listener, or of all, is reached.
        MaxConnections = "max-connections",
        /// `memory_limit` is reached, and nobody is left who could be ended.
        Memory = "memory",
        /// The proxy is draining.
        Draining = "draining",
    }
}
