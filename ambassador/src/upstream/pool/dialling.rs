//! Opens the connections of a pool, encrypted where their key asks for it.

use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;

use super::{CheckoutError, Pools};
use crate::clock;
use crate::ring::{self, Liveness, timer};
use crate::telemetry::TlsOutcome;
use crate::tls::HandshakeError;
use crate::transport::Transport;
use crate::upstream::connection::Connection;
use crate::upstream::dial::DialError;
use crate::upstream::key::{Identity, PoolKey};
use crate::upstream::limits::Opening;
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
        shared: &Shared,
        permit: Permit,
        opening: Opening,
        to: DialTarget<'_>,
    ) -> Result<Box<Connection>, CheckoutError> {
        let key = to.key;
        let until = ring::now() + opening.within;
        let stream = self
            .dialer
            .dial(key.namespace, key.endpoint, opening.within)
            .await
            .map_err(CheckoutError::Dial)?;
        stream.keep_alive(opening.keep_alive, Liveness::Progress);
        if key.identity == Identity::ANONYMOUS {
            return Ok(Connection::new(stream, key, shared.id, permit));
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
        let mut connection = Connection::new(stream, key, shared.id, permit);
        if let Some(left) = left {
            connection.ends_in(left);
        }
        Ok(connection)
    }
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
            let encrypted = stream.encrypt(Arc::clone(&in_force.config), name).await;
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
