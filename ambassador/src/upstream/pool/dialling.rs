//! Opens the connections of a pool, encrypted where their key asks for it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;

use super::{CheckoutError, Pools};
use crate::clock;
use crate::http2::LocalSettings;
use crate::multiplex::Multiplexed;
use crate::ring::{self, Liveness, timer};
use crate::telemetry::TlsOutcome;
use crate::tls::HandshakeError;
use crate::transport::Transport;
use crate::upstream::connection::{Connection, Lifetime};
use crate::upstream::dial::DialError;
use crate::upstream::key::{Identity, PoolKey, Protocol};
use crate::upstream::limits::Opening;
use crate::upstream::multiplexed::MultiplexedConnection;
use crate::upstream::permits::Permit;
use crate::upstream::server;
use crate::upstream::shared::Shared;

/// Where a dial leads.
#[derive(Debug, Clone, Copy)]
pub(super) struct DialTarget<'a> {
    pub(super) key: PoolKey,
    /// As that of a [`Checkout`](super::Checkout).
    pub(super) server_name: Option<&'a ServerName<'static>>,
}

/// A new connection.
pub(super) enum Dialled {
    /// One exchange at a time goes over it.
    Exclusive(Box<Connection>),
    /// Many go over it.
    Multiplexed(Rc<MultiplexedConnection>),
}

/// A connection that was encrypted.
struct Encrypted {
    stream: Transport,
    /// As whom, by what was in force then.
    identity: Identity,
    /// How long the client certificate is valid; `None`: there is none.
    left: Option<Duration>,
}

/// What has become of the certificates that a handshake began with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Certificates {
    /// None that was valid has come to its end.
    AsBefore,
    /// One has, ours or that of the server: with its successor another handshake may go
    /// well.
    Ended,
}

impl Pools {
    /// A new connection, TLS session included, within the time that there is. A handshake
    /// in which a certificate has come to its end is made again.
    pub(super) async fn dial(
        &self,
        shared: &Arc<Shared>,
        permit: Permit,
        opening: Opening,
        to: DialTarget<'_>,
    ) -> Result<Dialled, CheckoutError> {
        let key = to.key;
        let until = ring::now() + opening.within;
        loop {
            let within = until.saturating_duration_since(ring::now());
            let stream = self
                .dialer
                .dial(key.namespace, key.endpoint, within)
                .await
                .map_err(CheckoutError::Dial)?;
            stream.keep_alive(opening.keep_alive, Liveness::Progress);
            if key.identity == Identity::ANONYMOUS {
                return Ok(match key.protocol {
                    Protocol::Http2 => share(shared, stream, key, None, permit),
                    Protocol::Http1 | Protocol::Negotiated => {
                        Dialled::Exclusive(Connection::new(stream, key, shared.id, permit))
                    }
                });
            }
            // Rare, and large.
            let encrypted = Box::pin(encrypt(shared, stream, to, opening.within / 2));
            let encrypted = timer::timeout_at(until, encrypted).await;
            let (encrypted, certificates) = encrypted.unwrap_or_else(|_| {
                shared.handshakes.failed(TlsOutcome::Timeout);
                (Err(DialError::Timeout), Certificates::AsBefore)
            });
            // Not for ever: a certificate that ends within each of them takes its time.
            if certificates == Certificates::Ended {
                continue;
            }
            let Encrypted {
                stream,
                identity,
                left,
            } = encrypted.map_err(CheckoutError::Dial)?;
            let key = PoolKey { identity, ..key };
            // Where nothing is offered, it is known before.
            if stream.is_http2() || key.protocol == Protocol::Http2 {
                return Ok(share(shared, stream, key, left, permit));
            }
            let mut connection = Connection::new(stream, key, shared.id, permit);
            if let Some(left) = left {
                connection.ends_in(left);
            }
            return Ok(Dialled::Exclusive(connection));
        }
    }
}

/// Speaks HTTP/2 over a new connection. `left`: how long its client certificate is valid.
fn share(
    shared: &Arc<Shared>,
    stream: Transport,
    key: PoolKey,
    left: Option<Duration>,
    permit: Permit,
) -> Dialled {
    let limits = shared.limits.http2();
    let settings = LocalSettings {
        window: limits.window,
        connection_window: limits.connection_window,
        ..LocalSettings::default()
    };
    let multiplexed = Multiplexed::client(stream, settings);
    let mut lifetime = Lifetime::new();
    if let Some(left) = left {
        lifetime.ends_in(left);
    }
    let shared = Arc::clone(shared);
    let connection = MultiplexedConnection::new(multiplexed, shared, key, lifetime, permit);
    Dialled::Multiplexed(connection)
}

/// Agrees upon a TLS session with what is in force for an upstream by now. A client
/// certificate that is valid is waited for within a time.
async fn encrypt(
    shared: &Shared,
    stream: Transport,
    to: DialTarget<'_>,
    valid_within: Duration,
) -> (Result<Encrypted, DialError>, Certificates) {
    let Some(client) = shared.tls.load_full() else {
        // A reload has taken it away.
        let gone = DialError::Connect(std::io::ErrorKind::ConnectionAborted.into());
        return (Err(gone), Certificates::AsBefore);
    };
    let name = client.fixed_name().or(to.server_name).cloned();
    let name = name.unwrap_or_else(|| to.key.endpoint.0.ip().to_canonical().into());
    let in_force = client.lasting(valid_within).await;
    let not_after = in_force.as_ref().and_then(|it| it.not_after);
    let begun = clock::unix_ms();
    let encrypted = match in_force {
        Some(in_force) => {
            let config = Arc::clone(in_force.config(to.key.protocol.offer()));
            stream.encrypt(config, name).await
        }
        None => Err(HandshakeError::no_identity()),
    };
    let now = clock::unix_ms();
    let of_server = encrypted.as_ref().err().and_then(|error| error.expired);
    let ended =
        |end: Option<u64>| end.is_some_and(|end| (begun / 1_000..now / 1_000).contains(&end));
    let certificates = match ended(not_after) || ended(of_server) {
        true => Certificates::Ended,
        false => Certificates::AsBefore,
    };
    let encrypted = match encrypted {
        Ok(stream) => {
            if let Some(summary) = stream.tls() {
                shared.handshakes.completed(&summary);
            }
            let now = Duration::from_millis(now);
            // It is valid through all of its last second.
            let left = |end: u64| Duration::from_secs(end.saturating_add(1)).saturating_sub(now);
            Ok(Encrypted {
                stream,
                identity: server::identity(&client, to.server_name),
                left: not_after.map(left),
            })
        }
        Err(error) => {
            static TOLD: clock::OncePerSecond = clock::OncePerSecond::new();
            if TOLD.is_due() {
                let endpoint = to.key.endpoint;
                tracing::warn!(%endpoint, error = %error.source, "a TLS handshake has failed");
            }
            shared.handshakes.failed(error.outcome);
            Err(DialError::Tls(error))
        }
    };
    (encrypted, certificates)
}
