//! A connection of a client's own to an endpoint, for what is no request.

use crate::addr::EndpointAddr;
use crate::http::Reason;
use crate::proxy::client::Client;
use crate::proxy::generation::Target;
use crate::proxy::gone::reset;
use crate::proxy::judges::Judges;
use crate::proxy::reach::{Purpose, Reached, Unreached, reach};
use crate::proxy::way::{self, Aim};
use crate::ring::{self, Chunk};
use crate::route::settings::Protocol;
use crate::telemetry::TcpOutcome;
use crate::together::{First, first};
use crate::upstream::balancer::{Picked, Probe};
use crate::upstream::pool::Lease;

/// The way on: a connection to an endpoint, which is busy with it for as long as
/// this lives. Boxed, as an idle connection pays for what it could hold.
pub(super) struct Leg {
    /// The connection.
    pub connection: Lease,
    /// What the server said first.
    pub said: Option<Chunk>,
    _picked: Picked,
}

/// Why a connection is not relayed, and where it would have gone.
pub(super) struct GivenUp {
    /// How that is counted.
    pub outcome: TcpOutcome,
    /// The endpoint, where there was one to try.
    pub endpoint: Option<EndpointAddr>,
}

impl GivenUp {
    /// It is not dialled.
    pub(super) const CIRCUIT_OPEN: Self = Self {
        outcome: TcpOutcome::CircuitOpen,
        endpoint: None,
    };
}

/// Whether anything else is a bad request, by whatever claim it came here.
pub(super) fn speaks_http_only(target: &Target) -> bool {
    target.upstream.protocol == Protocol::Http1
}

/// A new connection to one of the endpoints.
pub(super) async fn dial(
    client: &Client,
    target: &Target,
    purpose: Purpose,
) -> Result<Box<Leg>, GivenUp> {
    let policies = &target.upstream.policies;
    let now = ring::now();
    let seen = way::seen_from(&client.context.pools, target, client.origin.namespace);
    let reputation = seen.reputation();
    let admitted = {
        let settings = &policies.circuit_breaker;
        let shard = client.context.shard;
        reputation.breaker.admit(settings, shard, now)
    };
    let Some(trial) = admitted else {
        return Err(GivenUp::CIRCUIT_OPEN);
    };
    let pools = &client.context.pools;
    let aim = Aim {
        namespace: client.origin.namespace,
        original: client.origin.original,
        key: way::source_key(target, client.origin.peer),
        tried: &[],
        probe: Probe::beside(&trial),
        bound: None,
    };
    let Some(picked) = way::pick(pools, target, aim) else {
        return Err(GivenUp {
            outcome: TcpOutcome::ConnectFailed,
            endpoint: None,
        });
    };
    if purpose == Purpose::Relay {
        pools.count_request(&target.shared, now);
    }
    let judges = Judges::new(picked, trial, reputation);
    let (context, peer) = (&client.context, client.member.peer());
    let reached = reach(context, target, peer, judges, (aim, purpose), |_| {});
    match first(reached, reset(&client.stream)).await {
        First::Left(Ok(Reached { connection, judges })) => Ok(Box::new(Leg {
            connection,
            said: None,
            _picked: judges.into_endpoint(),
        })),
        First::Left(Err(Unreached {
            unanswered,
            endpoint,
        })) => Err(GivenUp {
            outcome: outcome_of(unanswered.reason),
            endpoint: Some(endpoint),
        }),
        First::Right(()) => Err(GivenUp {
            outcome: TcpOutcome::ClientReset,
            endpoint: None,
        }),
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
