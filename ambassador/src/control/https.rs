//! Asks a server for something, over HTTPS: one request on a connection of its own.
//!
//! Requests and answers carry secrets. So the server's certificate is verified, plain
//! text goes to this machine alone, a redirect is an answer like another, no proxy is
//! asked, and no error shows what was sent or received.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::dns::{LookUpError, NameService};
use crate::credential::secret::Secret;
use crate::credential::server_url::{Scheme, ServerUrl, is_on_this_machine};

/// Reaches servers.
pub(super) struct HttpsClient {
    /// How names are looked up.
    pub names: Arc<NameService>,
    /// Trust, and the client certificate if there is one.
    pub tls: Arc<ClientConfig>,
    /// How long things may take and be.
    pub limits: Limits,
}

/// How long things may take and be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// From the look-up of the name to the end of the TLS handshake.
    pub connect: Duration,
    /// All of it.
    pub whole: Duration,
    /// The body of the answer.
    pub answer_bytes: usize,
}

/// What is asked.
pub(super) struct Question<'a> {
    /// Of whom.
    pub url: &'a ServerUrl,
    /// How.
    pub method: Method,
    /// Beside `Host` and `Content-Length`.
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// Zeroed when it was sent.
    pub body: Secret,
}

/// What the server said.
#[derive(Debug)]
pub(super) struct Answer {
    /// Whether it did what was asked.
    pub status: StatusCode,
    /// The head.
    pub fields: HeaderMap,
    /// Whole.
    pub body: Secret,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum ExchangeError {
    /// Its name has no address.
    Name(LookUpError),
    /// Its name leads to another machine, and plain text would be sent there.
    Elsewhere(SocketAddr),
    /// No connection to it, at the last of its addresses.
    Connect(SocketAddr, io::Error),
    /// No TLS session with it.
    Tls(io::Error),
    /// The connection broke, or what came is not HTTP.
    Http(hyper::Error),
    /// The answer is longer than [`Limits::answer_bytes`].
    Length,
    /// It took longer than [`Limits::whole`] or [`Limits::connect`].
    Timeout,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            whole: Duration::from_secs(9),
            answer_bytes: 256 << 10,
        }
    }
}

impl HttpsClient {
    /// Asks once.
    ///
    /// # Errors
    /// See [`ExchangeError`]. An answer with any status is none.
    pub(super) async fn ask(&self, question: Question<'_>) -> Result<Answer, ExchangeError> {
        let asking = async {
            let url = question.url;
            let connecting = timeout(self.limits.connect, self.connect(url));
            let stream = connecting.await.map_err(|_| ExchangeError::Timeout)??;
            self.exchange(stream, question).await
        };
        let answered = timeout(self.limits.whole, asking).await;
        answered.map_err(|_| ExchangeError::Timeout)?
    }

    async fn connect(&self, url: &ServerUrl) -> Result<Box<dyn Stream>, ExchangeError> {
        let stream = self.dial(url).await?;
        if url.scheme() == Scheme::Http {
            return Ok(Box::new(stream));
        }
        let invalid = |error| ExchangeError::Tls(io::Error::other(error));
        let name = ServerName::try_from(url.host().to_owned()).map_err(invalid)?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let session = connector.connect(name, stream).await;
        Ok(Box::new(session.map_err(ExchangeError::Tls)?))
    }

    /// Tries the addresses of the server one after the other, each for its share of the
    /// time.
    async fn dial(&self, url: &ServerUrl) -> Result<TcpStream, ExchangeError> {
        /// More do not fit into the time.
        const ADDRESSES_MAX: usize = 4;
        let addresses = self.names.addresses(url.host()).await;
        let mut addresses = addresses.map_err(ExchangeError::Name)?;
        addresses.truncate(ADDRESSES_MAX);
        let share = self.limits.connect / addresses.len().max(1) as u32;
        let mut failed = ExchangeError::Name(LookUpError::NoAddress);
        for address in addresses {
            let address = SocketAddr::new(address, url.port());
            if url.scheme() == Scheme::Http && !is_on_this_machine(address.ip()) {
                return Err(ExchangeError::Elsewhere(address));
            }
            let connecting = timeout(share, TcpStream::connect(address)).await;
            match connecting.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = ExchangeError::Connect(address, error),
            }
        }
        Err(failed)
    }

    async fn exchange(
        &self,
        stream: Box<dyn Stream>,
        question: Question<'_>,
    ) -> Result<Answer, ExchangeError> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(ExchangeError::Http)?;
        let answering = async {
            let response = sender.send_request(question.into_request()).await;
            let (head, body) = response.map_err(ExchangeError::Http)?.into_parts();
            let body = Limited::new(body, self.limits.answer_bytes).collect().await;
            Ok(Answer {
                status: head.status,
                fields: head.headers,
                body: Secret::from(body.map_err(broken)?.to_bytes().to_vec()),
            })
        };
        tokio::select! {
            biased;
            answer = answering => answer,
            // It ends with an error of its own only where the request has none.
            Err(error) = connection => Err(ExchangeError::Http(error)),
        }
    }
}

fn broken(error: Box<dyn std::error::Error + Send + Sync>) -> ExchangeError {
    match error.downcast::<hyper::Error>() {
        Ok(error) => ExchangeError::Http(*error),
        Err(error) => {
            debug_assert!(error.is::<LengthLimitError>());
            ExchangeError::Length
        }
    }
}

impl Question<'_> {
    fn into_request(self) -> hyper::Request<Full<Bytes>> {
        let host = HeaderValue::try_from(self.url.authority().to_string());
        let mut request = hyper::Request::new(Full::new(Bytes::from_owner(self.body)));
        *request.method_mut() = self.method;
        if let Ok(target) = self.url.target().parse() {
            *request.uri_mut() = target;
        }
        let fields = request.headers_mut();
        fields.extend(self.fields);
        if let Ok(host) = host {
            fields.insert(HOST, host);
        }
        request
    }
}

/// What carries the bytes.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(error) => write!(f, "has a name that cannot be resolved: {error}"),
            Self::Elsewhere(address) => {
                write!(
                    f,
                    "has a name that leads to {address}: plain http must not go there"
                )
            }
            Self::Connect(address, error) => {
                write!(f, "takes no connection at {address}: {error}")
            }
            Self::Tls(error) => write!(f, "gives no TLS session: {error}"),
            Self::Http(error) => write!(f, "breaks the exchange off: {error}"),
            Self::Length => f.write_str("gives an answer that is too long"),
            Self::Timeout => f.write_str("does not answer in time"),
        }
    }
}

impl std::error::Error for ExchangeError {}

#[cfg(test)]
pub(super) mod tests;
