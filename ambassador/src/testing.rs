//! What this repository's own tests, benchmarks and fuzz targets reach of the
//! library. It is no interface: an item is here because one of them names it,
//! and leaves with the last that does. Its paths are those of the crate.
//!
//! `tests/model` compiles some policies from their source, and names items in
//! them that nothing else does; those are here too.

/// See `addr.rs`.
pub mod addr {
    pub use crate::addr::{Authority, EndpointAddr, OriginalDst, Peer};
}

/// See `app.rs`.
pub mod app {
    pub use crate::app::as_part_of_a_proxy;
}

/// See `capture.rs`.
pub mod capture {
    pub use crate::capture::{
        Accepted, AttachReport, Capture, CaptureError, Circuit, CircuitNumber, LOADER_COMMAND,
        Options, Pinned, Workload, all_pinned, built_with_capture, is_loader_request, loader_main,
        programs_at, token_prefix, unroute,
    };

    /// See `capture/settings.rs`.
    pub mod settings {
        pub use crate::capture::settings::{
            Claim, Claims, OnFailure, Quic, Scope, Settings, Target,
        };
    }
}

/// See `clock.rs`.
pub mod clock {
    pub use crate::clock::{Instant, now};
}

/// See `config.rs`.
pub mod config {
    pub use crate::config::{explain, from_env, load_str};
}

/// See `control.rs`.
pub mod control {
    /// See `control/credentials.rs`.
    pub mod credentials {
        pub use crate::control::credentials::lifetimes;
    }

    /// See `control/spiffe.rs`.
    pub mod spiffe {
        pub use crate::control::spiffe::{identities, identity_in};
    }

    /// See `control/name_files.rs`.
    pub mod name_files {
        pub use crate::control::name_files::{Fallback, ResolvConf, addresses};
    }
}

/// See `credential.rs`.
pub mod credential {
    pub use crate::credential::{Secret, settings};

    /// See `credential/aws_profile.rs`.
    pub mod aws_profile {
        pub use crate::credential::aws_profile::{ProfileError, keys};
    }

    /// See `credential/placeholder.rs`.
    pub mod placeholder {
        pub use crate::credential::placeholder::{FieldText, PREFIX};
    }

    /// See `credential/server_url.rs`.
    pub mod server_url {
        pub use crate::credential::server_url::{Scheme, ServerUrl, UrlError};
    }

    /// See `credential/signed_body.rs`.
    pub mod signed_body {
        pub use crate::credential::signed_body::{ChunkTrailer, SignedBody};
    }

    /// See `credential/sigv4.rs`.
    pub mod sigv4 {
        pub use crate::credential::sigv4::{
            AwsKeys, ChunkSignatures, Scope, SignatureFields, SignedParts, Signer,
        };
    }
}

/// See `http1.rs`.
pub mod http1 {
    pub use crate::http1::{
        BodyReader, ResponseRewrite, parse_request, parse_response, write_request, write_response,
    };
}

/// See `http2.rs`.
pub mod http2 {
    pub use crate::http2::{
        Connection, ConnectionError, Decoder, Encoder, ErrorCode, Event, FieldBlock, Indexing,
        LocalSettings, Role, Section, StreamId, read_request, read_response, read_trailers,
    };
}

/// See `message.rs`.
pub mod message {
    pub use crate::message::{
        CallerTimeout, CredentialField, Framing, Length, Limits, Method, Reason, RequestHead,
        RequestRewrite, ResponseHead, TraceContext, TraceParent, request_id,
    };

    /// See `message/challenge.rs`.
    pub mod challenge {
        pub use crate::message::challenge::{offered, presented};
    }

    /// See `message/keep_alive.rs`.
    pub mod keep_alive {
        pub use crate::message::keep_alive::KeepAlive;
    }

    /// See `message/trace.rs`.
    pub mod trace {
        pub use crate::message::trace::{Formats, Settings};
    }
}

/// See `policy.rs`.
pub mod policy {
    /// See `policy/balance.rs`.
    pub mod balance {
        pub use crate::policy::balance::{
            Candidates, Key, Listed, LoadBalancing, PeakEwma, Rotation, Zones, least_request,
        };
    }

    /// See `policy/breaker.rs`.
    pub mod breaker {
        pub use crate::policy::breaker::{
            Breaker, FAILURES_MAX, Force, Observer, Ratio, RefusalPeriod, Settings, State,
            Transitions, Trial, Trip,
        };
    }

    /// See `policy/budget.rs`.
    pub mod budget {
        pub use crate::policy::budget::{Budget, REMEMBERED, Settings, Spent};
    }

    /// See `policy/concurrency.rs`.
    pub mod concurrency {
        pub use crate::policy::concurrency::{Concurrency, Sample, Settings};
    }

    /// See `policy/limits.rs`.
    pub mod limits {
        pub use crate::policy::limits::{Pool, Timeouts};
    }

    /// See `policy/outlier.rs`.
    pub mod outlier {
        pub use crate::policy::outlier::{
            Detector, Fitness, Health, Outcome, Settings, Standing, State,
        };
    }

    /// See `policy/rate_limit.rs`.
    pub mod rate_limit {
        pub use crate::policy::rate_limit::{OnLimit, RateLimit, Settings, Turn};
    }

    /// See `policy/retry.rs`.
    pub mod retry {
        pub use crate::policy::retry::{Cause, Retry};
    }

    /// See `policy/retry_after.rs`.
    pub mod retry_after {
        pub use crate::policy::retry_after::parse;
    }
}

/// See `proxy.rs`.
pub mod proxy {
    /// See `proxy/client_certificate.rs`.
    pub mod client_certificate {
        pub use crate::proxy::client_certificate::element;
    }

    /// See `proxy/generation.rs`.
    pub mod generation {
        pub use crate::proxy::generation::Generation;
    }

    /// See `proxy/listening.rs`.
    pub mod listener {
        pub use crate::proxy::listener::Entry;
    }

    /// See `proxy/memory.rs`.
    pub mod memory {
        pub use crate::proxy::memory::{Limit, Memory};
    }

    /// See `proxy/room.rs`.
    pub mod room {
        pub use crate::proxy::room::Room;
    }
}

/// See `ring.rs`.
pub mod ring {
    pub use crate::ring::{
        Backend, Gather, Listener, Options, Spin, Stream, dial_socket, probe, run, spawn,
    };

    /// See `ring/timer.rs`.
    pub mod timer {
        pub use crate::ring::timer::{Sleep, sleep};
    }
}

/// See `route.rs`.
pub mod route {
    pub use crate::route::{RequestKey, Resolution, Table};

    /// See `route/settings.rs`.
    pub mod settings {
        pub use crate::route::settings::{
            Claim, Endpoint, Endpoints, HostMatch, Policies, Protocol, Route, RouteMatch, Settings,
            Unmatched, Upstream,
        };
    }
}

/// See `shard.rs`.
pub mod shard {
    pub use crate::proxy::context::Tokens;
    pub use crate::shard::{Callers, Plan, Shard, place, start};

    /// See `shard/accept.rs`.
    pub mod accept {
        pub use crate::shard::accept::ListenSocket;
    }
}

/// See `sniff.rs`.
pub mod sniff {
    pub use crate::sniff::{HelloReader, ServerName, Sniff, server_name, sniff};
}

/// See `telemetry.rs`.
pub mod telemetry {
    pub use crate::telemetry::{
        Histogram, ListenerIndex, MethodLabel, Passage, Registry, Telemetry,
    };
}

/// See `tls.rs`.
pub mod tls {
    /// See `tls/certificate.rs`.
    pub mod certificate {
        pub use crate::tls::certificate::{BadEncoding, CertificateFacts, KeyUsage, split};
    }

    /// See `tls/svid.rs`.
    pub mod svid {
        pub use crate::tls::svid::{SvidError, id_of};
    }
}

/// See `combinators.rs`.
pub mod combinators {
    pub use crate::combinators::both;
}

/// See `upstream.rs`.
pub mod upstream {
    /// See `upstream/balancer.rs`.
    pub mod balancer {
        pub use crate::upstream::balancer::{Balancer, Grade, Pick, PickInput, Probe};
    }

    /// See `upstream/dial.rs`.
    pub mod dial {
        pub use crate::upstream::dial::{Namespace, OwnAddresses};
    }

    /// See `upstream/endpoints.rs`.
    pub mod endpoints {
        pub use crate::upstream::endpoints::Published;
    }

    /// See `upstream/holders.rs`.
    pub mod holders {
        pub use crate::upstream::holders::Holders;
    }

    /// See `upstream/permits.rs`.
    pub mod permits {
        pub use crate::upstream::permits::{Acquisition, Permit, Permits, Requester, Turn, Wait};
    }
}

/// See `workload.rs`.
pub mod workload {
    pub use crate::workload::Helper;

    /// See `workload/helper.rs`.
    pub mod helper {
        pub use crate::workload::helper::{
            Duties, Errand, Registration, SUBCOMMAND, is_question, serve,
        };
    }
}
