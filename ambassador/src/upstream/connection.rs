//! An open connection to an endpoint, and what it may be used for.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::addr::EndpointAddr;
use crate::clock::{self, Instant};
use crate::message::challenge::Challenger;
use crate::ring;
use crate::transport::Transport;
use crate::upstream::key::PoolKey;
use crate::upstream::permits::Permit;

/// Longer than any that an upstream means: 49 days.
const NO_LIMIT: u32 = u32::MAX;

/// An open connection to an endpoint, in use by one request or tunnel, or idle.
pub struct Connection {
    /// The socket.
    pub(crate) stream: Transport,
    key: PoolKey,
    /// The id of its upstream.
    upstream: u32,
    /// How it was used before.
    pub past: ConnectionUse,
    /// How long the upstream keeps it open while idle, in milliseconds.
    idle_limit_ms: u32,
    /// Whether something may be on its way over it.
    pub(super) traffic: Traffic,
    /// Whether it is authenticated for one caller.
    pub tie: ConnectionAuth,
    pub(super) permit: Permit,
    lifetime: Lifetime,
    /// The slot of its key in the index of holders.
    pub(super) slot: u8,
    /// Lives as long as the first answer is awaited, where that is watched.
    pub(super) unanswered: Cell<Option<Rc<()>>>,
}

/// The state of a connection without its socket, which moves to another shard
/// with it.
pub(crate) struct ConnectionState {
    key: PoolKey,
    upstream: u32,
    past: ConnectionUse,
    idle_limit_ms: u32,
    permit: Permit,
    lifetime: Lifetime,
}

/// How long a connection may live and stand idle.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lifetime {
    born: Instant,
    /// How long from then on the certificate is valid that it was opened with.
    valid_for: Duration,
    /// By how many 2,560ths its limits are shorter than those of the upstream.
    spread: u8,
}

/// Whether bytes may be on their way over a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Traffic {
    /// It may: for the next user it would be an answer that nobody has asked for.
    UnderWay,
    /// All has come.
    Over,
}

/// How a connection was used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionUse {
    /// It was dialled for its present user.
    Dialled,
    /// It was dialled ahead, and has stood idle.
    Waited,
    /// An exchange was completed on it.
    Used,
}

/// Whether a connection is authenticated for one caller: the upstream would take
/// requests of others over it for that caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ConnectionAuth {
    /// It is not.
    #[default]
    Free,
    /// A response has offered to authenticate the connection.
    Offered(Challenger),
    /// The caller has sent credentials for it.
    Begun(Challenger),
}

impl Connection {
    /// A new connection.
    pub(super) fn new(stream: Transport, key: PoolKey, upstream: u32, permit: Permit) -> Box<Self> {
        Box::new(Self {
            stream,
            key,
            upstream,
            past: ConnectionUse::Dialled,
            idle_limit_ms: NO_LIMIT,
            traffic: Traffic::UnderWay,
            tie: ConnectionAuth::Free,
            permit,
            lifetime: Lifetime::new(),
            slot: key.slot(),
            unanswered: Cell::new(None),
        })
    }

    /// Splits it into socket and state. A connection tied to one caller is never
    /// handed over.
    pub(super) fn pack(self) -> (Transport, ConnectionState) {
        debug_assert_eq!(self.tie, ConnectionAuth::Free);
        let state = ConnectionState {
            key: self.key,
            upstream: self.upstream,
            past: self.past,
            idle_limit_ms: self.idle_limit_ms,
            permit: self.permit,
            lifetime: self.lifetime,
        };
        (self.stream, state)
    }

    /// Puts socket and state together again, on another shard.
    pub(super) fn unpack(stream: Transport, state: ConnectionState) -> Box<Self> {
        let mut connection = Self::new(stream, state.key, state.upstream, state.permit);
        (connection.past, connection.idle_limit_ms) = (state.past, state.idle_limit_ms);
        connection.lifetime = state.lifetime;
        connection
    }

    /// How long the upstream keeps it open while idle; `None`: unknown.
    pub(super) fn idle_limit(&self) -> Option<Duration> {
        let limit = Duration::from_millis(self.idle_limit_ms.into());
        (self.idle_limit_ms != NO_LIMIT).then_some(limit)
    }

    /// Sets how long the upstream keeps it open while idle.
    #[inline]
    pub fn set_idle_limit(&mut self, limit: Option<Duration>) {
        let ms = |limit: Duration| u32::try_from(limit.as_millis()).unwrap_or(NO_LIMIT);
        self.idle_limit_ms = limit.map_or(NO_LIMIT, ms);
    }

    /// The limit less this connection's random share of up to a tenth, so that
    /// connections opened together do not close together.
    pub(super) fn share_of(&self, limit: Duration) -> Duration {
        self.lifetime.share_of(limit)
    }

    /// The certificate that it was opened with ends after `left`.
    pub(super) fn ends_in(&mut self, left: Duration) {
        self.lifetime.ends_in(left);
    }

    /// Whether the certificate that it was opened with, and that was valid then, has come
    /// to its end.
    pub fn has_ended(&self) -> bool {
        self.lifetime.has_ended()
    }

    /// From when on it is not used again, as its certificate is about to end; `None`: there
    /// is none.
    #[inline(always)]
    pub(super) fn usable_until(&self) -> Option<Instant> {
        self.lifetime.usable_until()
    }

    /// Whether it is too old to be used again.
    #[inline(always)]
    pub(super) fn is_old(&self, max_lifetime: Duration, now: Instant) -> bool {
        self.lifetime.is_old(max_lifetime, now)
    }

    /// Its pool key.
    #[inline]
    pub fn key(&self) -> PoolKey {
        self.key
    }

    /// Its endpoint.
    #[inline]
    pub fn endpoint(&self) -> EndpointAddr {
        self.key.endpoint
    }

    /// The id of its upstream.
    pub fn upstream(&self) -> u32 {
        self.upstream
    }

    /// Whether it has this key and is usable.
    pub fn serves(&self, key: PoolKey) -> bool {
        self.key == key && !self.stream.is_closed_or_busy()
    }
}

impl Lifetime {
    /// That of a connection that is opened now.
    pub(super) fn new() -> Self {
        Self {
            born: ring::now(),
            valid_for: Duration::MAX,
            spread: clock::random_u64() as u8,
        }
    }

    /// The certificate that it was opened with ends after `left`.
    pub(super) fn ends_in(&mut self, left: Duration) {
        self.valid_for = left;
    }

    /// Whether that certificate, which was valid then, has come to its end.
    pub(crate) fn has_ended(&self) -> bool {
        let age = clock::now().saturating_duration_since(self.born);
        age >= self.valid_for && self.valid_for > Duration::ZERO
    }

    /// From when on the connection is not used again, as its certificate is about to end;
    /// `None`: there is none.
    #[inline(always)]
    fn usable_until(&self) -> Option<Instant> {
        let limited = self.valid_for != Duration::MAX;
        limited.then(|| self.born + self.share_of(usable(self.valid_for)))
    }

    /// The limit less this connection's random share of up to a tenth, so that
    /// connections opened together do not close together.
    pub(super) fn share_of(&self, limit: Duration) -> Duration {
        share(limit, self.spread)
    }

    /// Whether the connection is too old to be used again.
    #[inline(always)]
    pub(super) fn is_old(&self, max_lifetime: Duration, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.born);
        // Most are far from it, and need no division to tell.
        age >= max_lifetime.min(self.valid_for) / 2
            && age >= self.share_of(max_lifetime.min(usable(self.valid_for)))
    }
}

/// How much of the time for which a certificate is valid its connections are used.
fn usable(valid_for: Duration) -> Duration {
    const AHEAD_MAX: Duration = Duration::from_secs(60);
    valid_for - (valid_for / 10).min(AHEAD_MAX)
}

fn share(limit: Duration, spread: u8) -> Duration {
    limit - limit / 2_560 * u32::from(spread)
}

impl ConnectionUse {
    /// Whether an exchange was completed on it.
    pub fn is_reused(self) -> bool {
        self == Self::Used
    }

    /// Whether it was idle, and so may have ended unnoticed.
    pub fn has_stood_idle(self) -> bool {
        self != Self::Dialled
    }
}

impl ConnectionAuth {
    /// After a request that carries credentials.
    pub fn presented(self, to: Option<Challenger>) -> Self {
        to.map_or(self, Self::Begun)
    }

    /// After a response with an offer.
    pub fn offered(self, by: Option<Challenger>) -> Self {
        match (self, by) {
            (Self::Begun(_), _) | (_, None) => self,
            (Self::Free | Self::Offered(_), Some(by)) => Self::Offered(by),
        }
    }

    /// Whether the caller has begun to authenticate: no other connection can
    /// stand in.
    pub fn has_begun(self) -> bool {
        matches!(self, Self::Begun(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_past_tells_who_had_it_and_whether_it_stood_idle() {
        for (past, is_reused, has_stood_idle) in [
            (ConnectionUse::Dialled, false, false),
            (ConnectionUse::Waited, false, true),
            (ConnectionUse::Used, true, true),
        ] {
            assert_eq!(past.is_reused(), is_reused, "{past:?}");
            assert_eq!(past.has_stood_idle(), has_stood_idle, "{past:?}");
        }
    }

    #[test]
    fn a_caller_that_has_begun_to_authenticate_keeps_its_connection() {
        let (server, proxy) = (Challenger::Server, Challenger::Proxy);
        for (tie, to, presented, offered) in [
            (
                ConnectionAuth::Free,
                None,
                ConnectionAuth::Free,
                ConnectionAuth::Free,
            ),
            (
                ConnectionAuth::Free,
                Some(proxy),
                ConnectionAuth::Begun(proxy),
                ConnectionAuth::Offered(proxy),
            ),
            (
                ConnectionAuth::Offered(server),
                None,
                ConnectionAuth::Offered(server),
                ConnectionAuth::Offered(server),
            ),
            (
                ConnectionAuth::Offered(server),
                Some(proxy),
                ConnectionAuth::Begun(proxy),
                ConnectionAuth::Offered(proxy),
            ),
            (
                ConnectionAuth::Begun(server),
                None,
                ConnectionAuth::Begun(server),
                ConnectionAuth::Begun(server),
            ),
            (
                ConnectionAuth::Begun(server),
                Some(proxy),
                ConnectionAuth::Begun(proxy),
                ConnectionAuth::Begun(server),
            ),
        ] {
            assert_eq!(tie.presented(to), presented, "{tie:?} {to:?}");
            assert_eq!(tie.offered(to), offered, "{tie:?} {to:?}");
            assert_eq!(tie.has_begun(), matches!(tie, ConnectionAuth::Begun(_)));
        }
    }

    #[test]
    fn a_connection_is_given_up_a_tenth_or_a_minute_before_its_certificate_ends() {
        for (valid_for_s, usable_s) in [(0, 0), (10, 9), (600, 540), (6_000, 5_940)] {
            let [valid_for, expected] = [valid_for_s, usable_s].map(Duration::from_secs);
            assert_eq!(usable(valid_for), expected);
        }
    }

    #[test]
    fn limits_are_spread_over_a_tenth_and_fixed_at_birth() {
        let minute = Duration::from_secs(60);
        let shares: Vec<Duration> = (0..=u8::MAX).map(|spread| share(minute, spread)).collect();
        assert_eq!(shares[0], minute);
        assert!(shares.is_sorted_by(|one, next| one > next));
        assert!(shares[255] > minute * 9 / 10);
        assert_eq!(share(Duration::MAX, 0), Duration::MAX);
    }
}
