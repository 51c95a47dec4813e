//! The closed sets of words that metrics carry as labels and the log as values.

/// Declares an enum whose variants index an array of counters and have a word. What
/// a variant's doc comment says stands in docs/observability.md, too. All variants of
/// one that indexes nothing are listed for tests alone.
macro_rules! labels {
    ($(#[$doc:meta])* $vis:vis $name:ident $(, #[$listed:meta])? { $($(#[doc = $meaning:literal])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        $vis enum $name { $($(#[doc = $meaning])* $variant),* }

        impl $name {
            /// Every variant, in the order of its counters.
            $(#[$listed])?
            $vis const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The word in metrics and logs.
            $vis fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }

            /// What it means.
            #[cfg(test)]
            pub(in crate::telemetry) fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($meaning),*)),* }
            }
        }
    };
}

mod grpc_status;

pub(crate) use grpc_status::GrpcStatus;

labels! {
    /// The method of a request, as metrics have it. The log has it as it was sent.
    pub MethodLabel {
        /// The method.
        Get = "GET",
        /// The method.
        Head = "HEAD",
        /// The method.
        Post = "POST",
        /// The method.
        Put = "PUT",
        /// The method.
        Delete = "DELETE",
        /// The method.
        Connect = "CONNECT",
        /// The method.
        Options = "OPTIONS",
        /// The method.
        Trace = "TRACE",
        /// The method.
        Patch = "PATCH",
        /// Any other method.
        Other = "OTHER",
    }
}

labels! {
    /// Why a request was not answered by its upstream alone.
    pub ReasonLabel {
        /// There was nothing to dial.
        NoEndpoint = "no-endpoint",
        /// The dial was refused or led nowhere.
        ConnectFailed = "connect-failed",
        /// No connection came about in time.
        ConnectTimeout = "connect-timeout",
        /// The upstream ended the connection before its answer was whole.
        UpstreamReset = "upstream-reset",
        /// What the upstream sent is not HTTP.
        ProtocolError = "protocol-error",
        /// No TLS session came about with the upstream; `detail` has the cause.
        TlsFailed = "tls-failed",
        /// The time of the request was over.
        RequestTimeout = "request-timeout",
        /// The time of a try was over.
        TryTimeout = "try-timeout",
        /// The circuit was open.
        CircuitOpen = "circuit-open",
        /// The budget of further tries was spent.
        RetryBudget = "retry-budget",
        /// The rate limit was reached.
        RateLimited = "rate-limited",
        /// A limit of this proxy or machine was reached.
        Overloaded = "overloaded",
        /// No upstream may take it.
        NoRoute = "no-route",
        /// It came back to this proxy.
        Loop = "loop",
        /// It was malformed.
        BadRequest = "bad-request",
        /// Its head was too large.
        HeadersTooLarge = "headers-too-large",
        /// There was no valid credential for the upstream.
        AuthUnavailable = "auth-unavailable",
        /// A fault was injected.
        FaultInjected = "fault-injected",
        /// The caller left before its end.
        ClientGone = "client-gone",
        /// The deadline of the drain cut it.
        Drained = "drained",
    }
}

labels! {
    /// Why a try was made after the first: `ambassador_retries_total`.
    pub RetryCause {
        /// No connection came about.
        ConnectFailure = "connect-failure",
        /// The connection ended before a whole response head; a reused one that was
        /// dead, too.
        Reset = "reset",
        /// The try took longer than `per_try` or `first_byte`.
        TryTimeout = "try-timeout",
        /// The response was malformed.
        ProtocolError = "protocol-error",
        /// The response had this status.
        Status429 = "429",
        /// The response had this status.
        Status500 = "500",
        /// The response had this status.
        Status502 = "502",
        /// The response had this status.
        Status503 = "503",
        /// The response had this status.
        Status504 = "504",
        /// The response had another status that `retry.on` names.
        OtherStatus = "status",
        /// The call ended with this status, and nothing before it.
        Unavailable = "unavailable",
        /// The call ended with this status, and nothing before it.
        ResourceExhausted = "resource-exhausted",
        /// The call ended with another status that `retry.on` names, and nothing
        /// before it.
        OtherCode = "grpc-status",
        /// The upstream refused the credential (401, or what AWS says of keys), and there was a fresh one.
        Credential = "credential",
        /// Made beside a try whose endpoint had been silent since it connected.
        Silence = "silence",
        /// Made beside a try that had no response yet (`hedge`).
        Hedge = "hedge",
    }
}

labels! {
    /// How one try of a request ended: `ambassador_upstream_attempts_total`.
    pub AttemptOutcome {
        /// A final response head arrived, whatever its status.
        Response = "response",
        /// No connection came about.
        ConnectFailed = "connect-failed",
        /// The dial took longer than `timeouts.connect`.
        ConnectTimeout = "connect-timeout",
        /// It was connected, and no TLS session came about.
        TlsFailed = "tls-failed",
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
        /// Its head or trailers are larger than the upstream takes, and were not sent.
        HeadersTooLarge = "headers-too-large",
        /// The credential of the upstream expired before the request was sent.
        AuthUnavailable = "auth-unavailable",
        /// The client went away first.
        Cancelled = "cancelled",
    }
}

labels! {
    /// How a TLS handshake ended: `ambassador_tls_handshakes_total`, and the log's
    /// `detail` where it failed.
    pub(crate) TlsOutcome {
        /// A session was agreed upon.
        Completed = "completed",
        /// The peer's certificate, or one above it, has expired.
        Expired = "certificate-expired",
        /// The peer's certificate, or one above it, is not valid yet.
        NotYetValid = "certificate-not-yet-valid",
        /// The peer's certificate is for another name or id.
        WrongName = "wrong-name",
        /// The client's id is none of `clients`.
        NotAllowed = "not-allowed",
        /// No certificate of the trusted ones has signed that of the peer.
        UnknownCa = "unknown-ca",
        /// The peer's certificate was revoked.
        Revoked = "revoked",
        /// No valid list says whether the peer's certificate was revoked.
        UnknownRevocation = "unknown-revocation-status",
        /// The peer's certificate is unfit in another way.
        BadCertificate = "bad-certificate",
        /// The peer showed no certificate.
        NoCertificate = "no-certificate",
        /// No application protocol (ALPN) is known to both.
        NoProtocol = "no-common-protocol",
        /// No version of TLS is allowed by both.
        NoVersion = "no-common-version",
        /// No cipher suite, group or signature scheme is known to both.
        NothingInCommon = "nothing-in-common",
        /// The peer did not accept our certificate, or something else of ours.
        Refused = "refused-by-peer",
        /// The proxy's own `identity` was not there.
        NoIdentity = "no-identity",
        /// The connection ended amid the handshake.
        Closed = "closed",
        /// It took too long.
        Timeout = "timeout",
        /// What the peer sent is not TLS, or not as TLS is to be.
        Malformed = "malformed",
    }
}

labels! {
    /// The version of TLS: the log's `tls_version`.
    pub TlsVersion {
        /// RFC 5246.
        Tls12 = "1.2",
        /// RFC 8446.
        Tls13 = "1.3",
    }
}

labels! {
    /// The group of a key exchange: the log's `tls_group`.
    pub TlsGroup {
        /// X25519 together with ML-KEM, which a quantum computer does not break.
        X25519MlKem768 = "X25519MLKEM768",
        /// X25519.
        X25519 = "X25519",
        /// P-256.
        Secp256r1 = "secp256r1",
        /// P-384.
        Secp384r1 = "secp384r1",
        /// Another one.
        Other = "other",
        /// A resumed session needed none.
        None = "none",
    }
}

labels! {
    /// A cipher suite, by its name in the registry of IANA: the log's `tls_cipher`.
    pub TlsCipher {
        /// TLS 1.3.
        Aes128 = "TLS_AES_128_GCM_SHA256",
        /// TLS 1.3.
        Aes256 = "TLS_AES_256_GCM_SHA384",
        /// TLS 1.3.
        ChaCha20 = "TLS_CHACHA20_POLY1305_SHA256",
        /// TLS 1.2.
        EcdsaAes128 = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        /// TLS 1.2.
        EcdsaAes256 = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        /// TLS 1.2.
        EcdsaChaCha20 = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        /// TLS 1.2.
        RsaAes128 = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        /// TLS 1.2.
        RsaAes256 = "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        /// TLS 1.2.
        RsaChaCha20 = "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        /// Another one.
        Other = "other",
    }
}

labels! {
    /// How a relayed TCP connection or a tunnel ended: `ambassador_tcp_connections_total`.
    pub TcpOutcome {
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
        /// The TLS hello of the client was longer than 64 KiB, or did not end within
        /// `timeouts.head`; the client was reset.
        BadRequest = "bad-request",
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
    pub FaultKind {
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
    pub RelayProtocol {
        /// Opaque bytes.
        Tcp = "tcp",
        /// TLS that is passed through, told by its first bytes.
        Tls = "tls",
    }
}

labels! {
    /// Which way bytes went: `ambassador_bytes_total`.
    pub Direction {
        /// From the application to the upstream.
        Sent = "sent",
        /// From the upstream to the application.
        Received = "received",
    }
}

labels! {
    /// Why a connection was ended that others had to make do without:
    /// `ambassador_shed_connections_total`.
    pub ShedCause {
        /// It held an upstream's connection and did not move, while others waited for
        /// one.
        Share = "share",
        /// `memory_limit` was reached, and it held the most without moving.
        Memory = "memory",
    }
}

labels! {
    /// What there was too much of on a connection of HTTP/2, which was ended for it:
    /// `ambassador_http2_floods_total`.
    pub FloodCause {
        /// PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA, frames of unknown kinds,
        /// frames on closed streams, streams above the limit.
        ControlFrames = "control-frames",
        /// Streams that the peer reset before their response was whole.
        PeerResets = "peer-resets",
        /// Streams that the proxy had to reset for what the peer did.
        StreamErrors = "stream-errors",
        /// CONTINUATION frames of one head.
        Continuations = "continuations",
        /// Bytes of a head, four times the limit.
        HeaderList = "header-list",
        /// Parameters in one SETTINGS frame.
        Settings = "settings",
    }
}

labels! {
    /// Who sent it: `ambassador_http2_floods_total`.
    pub FloodPeer {
        /// A caller.
        Caller = "caller",
        /// An endpoint of an upstream.
        Upstream = "upstream",
    }
}

labels! {
    /// Why an accepted connection was reset at once: `ambassador_dropped_accepts_total`.
    pub DroppedAccept {
        /// Its local address is no published token of this workload.
        UnknownToken = "unknown-token",
        /// Its peer is neither loopback nor an address of the namespace.
        ForeignPeer = "foreign-peer",
        /// The original destination could not be read (`mode: iptables`).
        NoOriginalDst = "no-original-destination",
        /// All descriptors are in use but those kept back for dials and the admin side.
        Descriptors = "descriptors",
        /// `max_connections` of its listener, or of all, is reached.
        MaxConnections = "max-connections",
        /// `memory_limit` is reached, and nobody is left who could be ended.
        Memory = "memory",
    }
}

labels! {
    /// What a connection to an upstream is: `ambassador_pool_connections`.
    pub(crate) PoolState {
        /// Connections that are open, idle ones included.
        Open = "open",
        /// Connections of those that no request uses.
        Idle = "idle",
        /// Requests that wait for a connection.
        Pending = "pending",
    }
}

labels! {
    /// What a circuit breaker has become: `ambassador_breaker_transitions_total`.
    pub(crate) BreakerState {
        /// The upstream gets no requests.
        Open = "open",
        /// A probe finds out whether it works again.
        HalfOpen = "half-open",
        /// It gets requests.
        Closed = "closed",
    }
}

labels! {
    /// How a credential was fetched: `ambassador_credential_refreshes_total`.
    pub(crate) CredentialOutcome {
        /// Another one than before came, or the first.
        Refreshed = "refreshed",
        /// The same as before came.
        Unchanged = "unchanged",
        /// None came; the one before is used as long as it is valid.
        Failed = "failed",
    }
}

labels! {
    /// What a check of an endpoint found: `ambassador_health_checks_total`.
    pub(crate) HealthCheckResult {
        /// The endpoint says that it serves.
        Serving = "serving",
        /// It has no health service (`UNIMPLEMENTED`), and counts as healthy.
        Unimplemented = "unimplemented",
        /// It says that it does not serve, or knows no such service.
        NotServing = "not-serving",
        /// There was no connection, no TLS session, or no answer that is one.
        Failed = "failed",
        /// `health_check.timeout` passed.
        Timeout = "timeout",
    }
}

labels! {
    /// What memory is: `ambassador_memory_bytes`.
    pub(crate) MemoryKind, #[cfg(test)] {
        /// What is resident, and what the kernel has buffered for connections that
        /// do not move.
        Held = "held",
        /// What of it is held for connections; where there is a limit.
        Connections = "connections",
        /// The limit, where there is one.
        Limit = "limit",
    }
}

labels! {
    /// What carries the I/O: `ambassador_build_info`.
    pub(crate) BackendLabel, #[cfg(test)] {
        /// The shards use io_uring.
        IoUring = "io_uring",
        /// The shards use epoll.
        Epoll = "epoll",
    }
}

labels! {
    /// What a request is spoken in, as the access log calls it.
    pub RequestProtocol, #[cfg(test)] {
        /// HTTP/1.
        Http1 = "http1",
        /// HTTP/2.
        Http2 = "http2",
    }
}

#[cfg(test)]
pub(in crate::telemetry) mod tests;
