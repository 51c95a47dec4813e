//! A connection to an endpoint that carries no requests: the upstream leg of a
//! relay.

use crate::addr::EndpointAddr;
use crate::combinators::{First, first};
use crate::message::Reason;
use crate::proxy::caller::Caller;
use crate::proxy::caller_end::CallerEnd;
use crate::proxy::failure::Detail;
use crate::proxy::generation::Target;
use crate::proxy::pick::{self, Criteria};
use crate::proxy::reach::reach;
use crate::proxy::tries::Tries;
use crate::ring::{self, Chunk};
use crate::telemetry::{Journal, TcpOutcome, TlsOutcome};
use crate::upstream::balancer::Pick;
use crate::upstream::key;
use crate::upstream::pool::{Lease, Leased};

/// The way on: a connection to an endpoint, which is busy with it for as long as
/// this lives. Boxed, as an idle connection pays for what it could hold.
pub(super) struct Leg {
    /// The connection.
    pub connection: Lease,
    /// What the server said first.
    pub said: Option<Chunk>,
    _pick: Pick,
}

/// Why a connection is not relayed, and where it would have gone.
pub(super) struct RelayFailure {
    /// How that is counted.
    pub outcome: TcpOutcome,
    /// The endpoint, where there was one to try.
    pub endpoint: Option<EndpointAddr>,
    /// Why no TLS session came about, where it was that.
    pub tls: Option<TlsOutcome>,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Opaque bytes: that it came about is all that can be known of how well the
    /// upstream is.
    Relay,
    /// Bytes that the client encrypts itself.
    RelayTls,
    /// To see who speaks: a request may follow, which tells more.
    Guess,
}

impl Purpose {
    /// Whether it is known that the connection is relayed.
    pub(super) fn is_relay(self) -> bool {
        self != Self::Guess
    }
}

impl RelayFailure {
    /// It is not dialled.
    pub(super) const CIRCUIT_OPEN: Self = Self::nowhere(TcpOutcome::CircuitOpen);

    /// There is nowhere to dial.
    const NO_ENDPOINT: Self = Self::nowhere(TcpOutcome::ConnectFailed);

    /// No endpoint was tried.
    pub(super) const fn nowhere(outcome: TcpOutcome) -> Self {
        Self {
            outcome,
            endpoint: None,
            tls: None,
        }
    }
}

/// Whether anything else is a bad request, by whatever claim it came here.
pub(super) fn speaks_http_only(target: &Target) -> bool {
    target.upstream.protocol.is_http()
}

/// A new connection to one of the endpoints.
pub(super) async fn dial(
    caller: &CallerEnd<'_>,
    target: &Target,
    purpose: Purpose,
) -> Result<Box<Leg>, RelayFailure> {
    let (context, origin) = (caller.context, caller.origin);
    let health = pick::health_for(&context.pools, target, origin.namespace);
    let criteria = Criteria {
        namespace: origin.namespace,
        original: origin.original,
        key: pick::source_key(target, origin.peer),
        ..Criteria::default()
    };
    let journal = Journal::default();
    let mut tries = Tries::new(context, target, &health, criteria, &journal);
    let mut one = tries.begin().map_err(|reason| match reason {
        Reason::CircuitOpen => RelayFailure::CIRCUIT_OPEN,
        _ => RelayFailure::NO_ENDPOINT,
    })?;
    if purpose.is_relay() {
        context.pools.count_request(&target.shared, ring::now());
    }
    let server = match purpose {
        Purpose::RelayTls => None,
        Purpose::Relay | Purpose::Guess => target.server(None),
    };
    let for_whom = Caller {
        namespace: origin.namespace,
        peer: caller.member.peer(),
        server: server.as_ref(),
        protocol: key::Protocol::Http1,
    };
    let reached = {
        let reached = reach(&mut tries, &mut one, for_whom, |_| {});
        first(reached, caller.end.reset()).await
    };
    match reached {
        First::Left(Ok(Leased::Own(connection))) => {
            if purpose.is_relay() {
                one.is_relayed();
            }
            Ok(Box::new(Leg {
                connection,
                said: None,
                _pick: one.into_pick(),
            }))
        }
        First::Left(Err(unanswered)) => Err(RelayFailure {
            outcome: outcome_of(unanswered.reason),
            endpoint: Some(one.endpoint()),
            tls: match unanswered.detail {
                Some(Detail::Tls(outcome)) => Some(outcome),
                Some(Detail::Malformed(_)) | None => None,
            },
        }),
        // Bytes of another protocol have no place on a connection that is shared.
        First::Left(Ok(Leased::Shared(_))) => Err(RelayFailure::nowhere(TcpOutcome::ConnectFailed)),
        First::Right(()) => Err(RelayFailure::nowhere(TcpOutcome::ClientReset)),
    }
}

fn outcome_of(reason: Reason) -> TcpOutcome {
    match reason {
        Reason::Overloaded => TcpOutcome::Overloaded,
        Reason::ConnectTimeout => TcpOutcome::ConnectTimeout,
        Reason::Loop => TcpOutcome::Loop,
        _ => TcpOutcome::ConnectFailed,
    }
}
