//! Agreeing upon a session. It takes some 100 us of computing in a few pieces; a
//! shard takes one piece a turn of its loop, so that requests of others go on
//! between them.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;

use rustls::client::ClientConfig;
use rustls::pki_types::ServerName;
use rustls::server::ServerConfig;
use rustls::{CertificateError, ClientConnection, Connection, Error, ServerConnection};

use super::alpn;
use super::outcome::{outcome_of, refusal};
use super::session::{Agreement, Progress, Session, open, take_ciphertext};
use crate::ring::{self, Chunk, Stream};
use crate::telemetry::TlsOutcome;

/// What a peer may send until a session is agreed upon. Chains of certificates of
/// some KiB are common, and 64 KiB is the most that a message may have.
const BYTES_MAX: usize = 128 * 1024;

/// Why no session was agreed upon.
#[derive(Debug)]
pub(crate) struct HandshakeError {
    /// The kind of failure.
    pub outcome: TlsOutcome,
    /// What was said about it.
    pub source: io::Error,
    /// The last second in which the certificate of the peer was valid, since 1970, where
    /// it has ended.
    pub expired: Option<u64>,
}

impl Session {
    /// Agrees upon a session with the server `name` at the other end.
    pub(crate) async fn connect(
        stream: &Stream,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, HandshakeError> {
        turn().await;
        let needs_http2 = alpn::needs_http2(&config);
        let connection = ClientConnection::new(config, name).map_err(HandshakeError::of)?;
        let session = agree(stream, connection.into()).await?;
        // A server that does not know ALPN chooses nothing, and goes on.
        match needs_http2 && !session.is_http2() {
            false => Ok(session),
            true => Err(HandshakeError::of(Error::NoApplicationProtocol)),
        }
    }

    /// Agrees upon a session with the client at the other end.
    pub(crate) async fn accept(
        stream: &Stream,
        config: Arc<ServerConfig>,
    ) -> Result<Self, HandshakeError> {
        let connection = ServerConnection::new(config).map_err(HandshakeError::of)?;
        let session = agree(stream, connection.into()).await?;
        // A session that is taken up again is not verified again.
        match session.peer_has_expired() {
            false => Ok(session),
            true => Err(HandshakeError::of(Error::InvalidCertificate(
                CertificateError::Expired,
            ))),
        }
    }
}

async fn agree(stream: &Stream, mut connection: Connection) -> Result<Session, HandshakeError> {
    let (mut received, mut plain) = (0, None);
    loop {
        if connection.wants_write() {
            let bytes = take_ciphertext(&mut connection, 0);
            stream
                .send(bytes.into())
                .await
                .map_err(|error| HandshakeError::cut(error.source))?;
        }
        if !connection.is_handshaking() {
            return Ok(Session::after_handshake(
                stream,
                Agreement::new(connection),
                plain,
            ));
        }
        // No received bytes are held while others have their turn.
        stream.readable().await;
        turn().await;
        let chunk = match stream.recv().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return Err(HandshakeError::cut(io::ErrorKind::UnexpectedEof.into())),
            Err(error) => return Err(HandshakeError::cut(error)),
        };
        received += chunk.len();
        if received > BYTES_MAX {
            let error = format!("the peer's part has more than {BYTES_MAX} bytes");
            return Err(HandshakeError {
                outcome: TlsOutcome::Malformed,
                source: io::Error::new(io::ErrorKind::InvalidData, error),
                expired: None,
            });
        }
        if let Err(error) = feed(&mut connection, &chunk, &mut plain) {
            // What is wrong, for the peer's log.
            let alert = take_ciphertext(&mut connection, 0);
            stream.send_last(&alert);
            return Err(error);
        }
    }
}

fn feed(
    connection: &mut Connection,
    chunk: &Chunk,
    plain: &mut Option<Chunk>,
) -> Result<(), HandshakeError> {
    match open(connection, chunk, plain) {
        Ok(Progress::More) => Ok(()),
        Ok(Progress::Closed) => Err(HandshakeError::cut(io::ErrorKind::UnexpectedEof.into())),
        Err(error) => {
            let is_agreed = connection.negotiated_cipher_suite().is_some();
            let refused = match &error {
                Error::AlertReceived(alert) if is_agreed => refusal(*alert),
                _ => None,
            };
            let failed = HandshakeError::of(error);
            Err(HandshakeError {
                outcome: refused.unwrap_or(failed.outcome),
                ..failed
            })
        }
    }
}

/// Waits until this task may compute: one does in each turn of the loop.
async fn turn() {
    thread_local! {
        static TAKEN: Cell<u64> = const { Cell::new(0) };
    }
    poll_fn(|context| {
        let turn = ring::turns();
        if TAKEN.replace(turn) != turn {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl HandshakeError {
    /// The connection ended before.
    fn cut(source: io::Error) -> Self {
        Self {
            outcome: TlsOutcome::Closed,
            source,
            expired: None,
        }
    }

    fn of(error: Error) -> Self {
        let outcome = outcome_of(&error);
        let expired = match &error {
            Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => {
                Some(not_after.as_secs())
            }
            _ => None,
        };
        let invalid = io::ErrorKind::InvalidData;
        let source = match error {
            // What it says itself says more.
            Error::InvalidCertificate(CertificateError::Other(error)) => {
                io::Error::new(invalid, error.0)
            }
            error => io::Error::new(invalid, error),
        };
        Self {
            outcome,
            source,
            expired,
        }
    }

    /// Who we are is not known, and has to be.
    pub(crate) fn no_identity() -> Self {
        Self {
            outcome: TlsOutcome::NoIdentity,
            source: io::Error::other("the identity of the proxy is not there"),
            expired: None,
        }
    }
}
