//! Keeps the identity of this process as the Workload API of an agent gives it.
//!
//! A call is kept open, over which the agent sends whatever is new. A message that
//! does not hold up is discarded as a whole, and what was there before is kept as
//! long as it is valid. Only the agent takes an identity away before that, by
//! answering PermissionDenied.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::super::grpc::{self, Code, GrpcError};
use super::backoff::Backoff;
use super::message::{MessageError, X509SvidRequest, X509SvidResponse};
use super::question;
use crate::clock;
use crate::credential::workload_endpoint::Endpoint;
use crate::tls::x509_context::X509Context;

/// A call that went on for so long has shown that the agent works.
const STEADY_AFTER: Duration = Duration::from_secs(10);
/// An agent that knows no such call, or wants it otherwise, is not asked again
/// soon: it would answer the same until it is replaced.
const HOPELESS_WAIT: Duration = Duration::from_secs(5 * 60);
/// Wall time may be set, so a wait for a point of it is made of shorter ones.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How long what has ended stands for the agent to be heard: where this process stood
/// still over the end, its successor may have come and not be read yet.
const HEARD_WITHIN: Duration = Duration::from_millis(100);
/// How often the log says that the agent is of no use.
const WARN_EVERY: Duration = Duration::from_secs(30);

const FETCH_X509_SVID: &str = "/SpiffeWorkloadAPI/FetchX509SVID";

/// Where the newest identity stands; `None`: there is none.
pub(crate) type Publish = watch::Sender<Option<Arc<X509Context>>>;

/// A client that keeps one identity.
#[derive(Debug)]
pub(crate) struct WorkloadApi {
    endpoint: Endpoint,
    publish: Publish,
    patience: Patience,
}

/// How long an agent is waited for.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// Until the first message has come: an agent answers at once.
    first_within: Duration,
    /// Between two pieces of one message.
    piece_within: Duration,
    /// The shortest time for which a call without a message is left alone.
    silence_min: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first_within: Duration::from_secs(10),
            piece_within: Duration::from_secs(10),
            silence_min: Duration::from_secs(10),
        }
    }
}

/// Why a call ended.
#[derive(Debug)]
pub(crate) enum CallError {
    /// Nobody is there, or this user may not connect.
    Connect(io::Error),
    /// There was no message in time.
    Slow,
    /// The call itself.
    Grpc(GrpcError),
    /// A message that cannot be used.
    Message(MessageError),
    /// The agent ended the call without an error.
    Ended,
    /// The certificate comes to its end and the agent was silent.
    Silent,
}

impl WorkloadApi {
    /// A client that has asked for nothing yet.
    pub(crate) fn new(endpoint: Endpoint, publish: Publish) -> Self {
        Self {
            endpoint,
            publish,
            patience: Patience::default(),
        }
    }

    /// Publishes what the agent sends, until it is dropped.
    pub(crate) async fn keep(self) {
        tokio::select! {
            () = self.follow() => {}
            () = self.withdraw_expired() => {}
        }
    }

    /// Calls again and again.
    async fn follow(&self) {
        let mut backoff = Backoff::default();
        let mut fingerprint = None;
        let mut next_warning = None;
        loop {
            let begun = Instant::now();
            let error = match self.call(&mut fingerprint).await {
                Err(error) => error,
                Ok(()) => CallError::Ended,
            };
            if begun.elapsed() >= STEADY_AFTER {
                backoff.reset();
            }
            if error.is(Code::PERMISSION_DENIED) && self.publish.send_replace(None).is_some() {
                fingerprint = None;
                tracing::warn!(endpoint = %self.endpoint, "the agent has taken the identity away");
            }
            let now = clock::now();
            if next_warning.is_none_or(|at| at <= now) {
                tracing::warn!(endpoint = %self.endpoint, %error, "no identity from the Workload API");
                next_warning = Some(now + WARN_EVERY);
            }
            sleep(match error.is_hopeless() {
                true => HOPELESS_WAIT,
                false => backoff.next(clock::random_u64()),
            })
            .await;
        }
    }

    /// One call, for as long as it goes on.
    async fn call(&self, fingerprint: &mut Option<[u8; 32]>) -> Result<(), CallError> {
        let first = async {
            let connection = self.endpoint.connect().await.map_err(CallError::Connect)?;
            let request = X509SvidRequest {};
            let question = question(FETCH_X509_SVID, self.patience.piece_within);
            let mut answer = grpc::call(connection, question, &request).await?;
            let message = answer.next().await?;
            Ok::<_, CallError>((answer, message))
        };
        let (mut answer, mut message) = timeout(self.patience.first_within, first)
            .await
            .map_err(|_| CallError::Slow)??;
        while let Some(frame) = message {
            let response = X509SvidResponse::read(frame)?;
            let silence_max = match self.take(&response, fingerprint) {
                // Its successor stands behind it where it has waited to be read.
                Err(CallError::Message(error)) if error.is_expiry() => {
                    tracing::warn!(endpoint = %self.endpoint, %error, "a message is passed over");
                    self.patience.silence_min
                }
                taken => taken?,
            };
            drop(response);
            let next = timeout(silence_max, answer.next()).await;
            message = next.map_err(|_| CallError::Silent)??;
        }
        Ok(())
    }

    /// Publishes what is new. Says for how long the agent may be silent: until a
    /// quarter of the time that the certificate has left.
    fn take(
        &self,
        response: &X509SvidResponse,
        fingerprint: &mut Option<[u8; 32]>,
    ) -> Result<Duration, CallError> {
        let now = clock::unix_ms() / 1_000;
        let identity = response.identity(now)?;
        let left = Duration::from_secs(identity.not_after - now);
        let new = response.fingerprint();
        if *fingerprint != Some(new) || self.publish.borrow().is_none() {
            let (id, left_s) = (&identity.id, left.as_secs());
            tracing::info!(%id, left_s, "new identity from the Workload API");
            *fingerprint = Some(new);
            self.publish.send_replace(Some(Arc::new(identity)));
        }
        Ok((left * 3 / 4).max(self.patience.silence_min))
    }

    /// Takes back what has come to its end.
    async fn withdraw_expired(&self) {
        let mut published = self.publish.subscribe();
        loop {
            let until = published
                .borrow_and_update()
                .as_ref()
                .map(|it| it.not_after);
            let left = until.map(|until| left_of(until, clock::unix_ms()));
            if left == Some(Duration::ZERO) {
                if timeout(HEARD_WITHIN, published.changed()).await.is_ok() {
                    continue;
                }
                self.publish.send_replace(None);
                tracing::error!(
                    endpoint = %self.endpoint,
                    "the identity has expired and the agent has given no other"
                );
                continue;
            }
            // Another one, or the time to look again. The sender is here.
            let _ = timeout(
                left.unwrap_or(LOOK_EVERY).min(LOOK_EVERY),
                published.changed(),
            )
            .await;
        }
    }
}

/// Of a certificate whose last second is `until`, in seconds since 1970.
fn left_of(until: u64, now_ms: u64) -> Duration {
    let end_ms = until.saturating_add(1).saturating_mul(1_000);
    Duration::from_millis(end_ms.saturating_sub(now_ms))
}

impl CallError {
    /// Whether the same call would be answered in the same way (SPIFFE Workload
    /// Endpoint, appendix A).
    fn is_hopeless(&self) -> bool {
        self.is(Code::INVALID_ARGUMENT) || self.is(Code::UNIMPLEMENTED)
    }

    fn is(&self, wanted: Code) -> bool {
        matches!(self, Self::Grpc(GrpcError::Status { code, .. }) if *code == wanted)
    }
}

impl From<GrpcError> for CallError {
    fn from(error: GrpcError) -> Self {
        Self::Grpc(error)
    }
}

impl From<MessageError> for CallError {
    fn from(error: MessageError) -> Self {
        Self::Message(error)
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "cannot connect: {error}"),
            Self::Slow => f.write_str("it did not answer in time"),
            Self::Grpc(error) => write!(f, "{error}"),
            Self::Message(error) => write!(f, "a message is discarded: {error}"),
            Self::Ended => f.write_str("the agent ended the call"),
            Self::Silent => f.write_str("the agent did not renew the identity"),
        }
    }
}

impl std::error::Error for CallError {}

#[cfg(test)]
mod tests;
