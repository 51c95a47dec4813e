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

impl Pools {
    /// A new connection, TLS session included, within the time that there is.
    pub(super) async fn dial(
        &self,
        shared: &Arc<Shared>,
        permit: Permit,
        opening: Opening,
        to: DialTarget<'_>,
    ) -> Result<Dialled, CheckoutError> {
        let key = to.key;
        let until = ring::now() + opening.within;
        let stream = self
            .dialer
            .dial(key.namespace, key.endpoint, opening.within)
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
        let encrypted = Box::pin(encrypt(shared, stream, to));
        let encrypted = timer::timeout_at(until, encrypted).await;
        let encrypted = encrypted.unwrap_or_else(|_| {
            shared.handshakes.failed(TlsOutcome::Timeout);
            Err(DialError::Timeout)
        });
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
        Ok(Dialled::Exclusive(connection))
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

/// Agrees upon a TLS session with what is in force for an upstream by now.
async fn encrypt(
    shared: &Shared,
    stream: Transport,
    to: DialTarget<'_>,
) -> Result<Encrypted, DialError> {
    // A reload may have taken it away.
    let gone = || DialError::Connect(std::io::ErrorKind::ConnectionAborted.into());
    let client = shared.tls.load_full().ok_or_else(gone)?;
    let name = client.fixed_name().or(to.server_name).cloned();
    let name = name.unwrap_or_else(|| to.key.endpoint.0.ip().to_canonical().into());
    let encrypted = match client.in_force() {
        Some(in_force) => {
            let config = Arc::clone(in_force.config(to.key.protocol.offer()));
            let encrypted = stream.encrypt(config, name).await;
            encrypted.map(|stream| (stream, in_force.not_after))
        }
        None => Err(HandshakeError::no_identity()),
    };
    match encrypted {
        Ok((stream, not_after)) => {
            if let Some(summary) = stream.tls() {
                shared.handshakes.completed(&summary);
            }
            let now = Duration::from_millis(clock::unix_ms());
            let left = |end| Duration::from_secs(end).saturating_sub(now);
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
    }
}
