//! What a shard counts while it serves, and how it is shown.
//!
//! Each shard owns one [`Telemetry`]: plain integers behind `Cell`s, no atomics,
//! no locks, no allocation once an upstream has been seen. A request is one
//! [`RequestRecord`] and a relayed connection one `RelayRecord`, written by
//! drop guards, so that cancelled work counts too.
//! The admin side never reads the cells; it asks a shard for a [`Snapshot`],
//! which the shard copies between two turns of its loop, and merges those.
//!
//! Labels are names from the configuration, numbered once by the [`Registry`],
//! and closed sets of words; never paths, never peers.

pub(crate) mod access_log;
mod call;
mod cells;
mod exposition;
mod floods;
mod gauges;
mod guard;
mod histogram;
mod journal;
mod labels;
mod places;
mod process;
pub(crate) mod reasons;
mod record;
mod registry;
mod tls;

pub(crate) use call::{Call, CallQuery, Failures, Names};
pub(crate) use cells::{Cells, Snapshot, UpstreamCells};
pub(crate) use exposition::{CaptureSlots, Extras, Format, render};
pub(crate) use floods::FloodCounts;
pub(crate) use gauges::{BreakerGauge, PoolGauge};
pub use guard::Telemetry;
pub(crate) use guard::{RelayGuard, RequestGuard};
pub use histogram::Histogram;
pub(crate) use journal::{Decision, Journal, Rule, Step, TryStep};
pub use labels::MethodLabel;
pub(crate) use labels::{
    AttemptOutcome, BackendLabel, CredentialOutcome, Direction, DroppedAccept, FaultKind,
    FloodCause, FloodPeer, GrpcStatus, HealthCheckResult, MemoryKind, ReasonLabel, RelayProtocol,
    RequestProtocol, RetryCause, ShedCause, TcpOutcome, TlsCipher, TlsGroup, TlsOutcome,
    TlsVersion,
};
pub use record::Passage;
pub(crate) use record::{Description, RequestRecord};
pub(crate) use registry::UpstreamIndex;
pub use registry::{ListenerIndex, Registry};
pub(crate) use tls::{HandshakeCount, Handshakes, Resumption, TlsSummary, handshakes_have_ended};
