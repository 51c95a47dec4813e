//! One check of an endpoint: a call of `grpc.health.v1.Health/Check` ("GRPC Health
//! Checking Protocol"), over a connection of its own, so that the check shows that the
//! endpoint accepts connections as well.

use std::fmt;
use std::io;
use std::sync::Arc;

use prost::Message;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::super::grpc::{self, Answer, Code, Connection, GrpcError, Question};
use crate::addr::EndpointAddr;
use crate::policy::outlier::Fitness;
use crate::route::settings::{Claim, Endpoints, Upstream};
use crate::telemetry::HealthCheckResult;
use crate::tls::{Client, Offer};

/// A message with one number has two bytes; fields that are yet unknown fit too.
const ANSWER_BYTES_MAX: usize = 1 << 10;

/// The longest that a field of eight digits can say.
const TIMEOUT_MS_MAX: u128 = 99_999_999;

/// A check to be made.
pub(super) struct Check {
    pub upstream: Arc<Upstream>,
    pub address: EndpointAddr,
    /// `None`: in clear.
    pub client: Option<Arc<Client>>,
}

/// What a check finds.
#[derive(Debug)]
pub(super) enum Finding {
    /// It serves.
    Serving,
    /// It has no health service. A client of gRPC takes such a server for healthy.
    Unimplemented,
    /// It is not fit for requests.
    Failed(Ailment),
}

/// Why an endpoint is not fit for requests.
#[derive(Debug)]
pub(super) enum Ailment {
    /// No connection to it.
    Connect(io::Error),
    /// No TLS session with it.
    Tls(io::Error),
    /// It does not choose HTTP/2 (ALPN).
    NoHttp2,
    /// Connections to it need the identity of the proxy, which is not there.
    NoIdentity,
    /// No answer, or one that is none.
    Grpc(GrpcError),
    /// An answer that is not one `HealthCheckResponse`.
    Malformed,
    /// It says this `ServingStatus`.
    Status(i32),
    /// It took too long.
    Timeout,
}

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    /// Empty: the server as a whole.
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Of `HealthCheckResponse.ServingStatus`.
const SERVING: i32 = 1;

impl Finding {
    pub(super) fn fitness(&self) -> Fitness {
        match self {
            Self::Serving | Self::Unimplemented => Fitness::Healthy,
            Self::Failed(_) => Fitness::Unhealthy,
        }
    }

    pub(super) fn result(&self) -> HealthCheckResult {
        match self {
            Self::Serving => HealthCheckResult::Serving,
            Self::Unimplemented => HealthCheckResult::Unimplemented,
            Self::Failed(ailment) => ailment.result(),
        }
    }

    fn of(answered: Result<(), Ailment>) -> Self {
        match answered {
            Ok(()) => Self::Serving,
            Err(Ailment::Grpc(GrpcError::Status { code, .. })) if code == Code::UNIMPLEMENTED => {
                Self::Unimplemented
            }
            Err(ailment) => Self::Failed(ailment),
        }
    }
}

impl Check {
    /// Makes it, within its time.
    pub(super) async fn make(self) -> Finding {
        let within = self.upstream.policies.health_check.timeout;
        let answered = timeout(within, self.ask()).await;
        let (answered, answer) = match answered.unwrap_or(Err(Ailment::Timeout)) {
            Ok(answer) => (Ok(()), Some(answer)),
            Err(ailment) => (Err(ailment), None),
        };
        if let Some(answer) = answer {
            // An end that takes longer is cut.
            let _closed = timeout(within, answer.close()).await;
        }
        Finding::of(answered)
    }

    /// Asks; gives an answer that has come to its end and says that it serves.
    async fn ask(&self) -> Result<Answer, Ailment> {
        let settings = &self.upstream.policies.health_check;
        let timeout_ms = settings.timeout.as_millis().min(TIMEOUT_MS_MAX);
        let request = HealthCheckRequest {
            service: settings.grpc.clone().unwrap_or_default(),
        };
        let scheme = match self.client {
            None => "http",
            Some(_) => "https",
        };
        let connection = self.connect().await?;
        let question = Question {
            uri: format!(
                "{scheme}://{}/grpc.health.v1.Health/Check",
                authority(&self.upstream, self.address)
            ),
            fields: &[
                ("grpc-timeout", &format!("{timeout_ms}m")),
                (
                    "user-agent",
                    concat!("ambassador/", env!("CARGO_PKG_VERSION")),
                ),
            ],
            message_bytes_max: ANSWER_BYTES_MAX,
            piece_within: settings.timeout,
        };
        let mut answer = grpc::call(connection, question, &request).await?;
        let message = answer.next().await?.ok_or(Ailment::Malformed)?;
        let response = HealthCheckResponse::decode(message).map_err(|_| Ailment::Malformed)?;
        // What goes wrong after the message counts as well.
        if answer.next().await?.is_some() {
            return Err(Ailment::Malformed);
        }
        match response.status {
            SERVING => Ok(answer),
            status => Err(Ailment::Status(status)),
        }
    }

    async fn connect(&self) -> Result<Box<dyn Connection>, Ailment> {
        let stream = TcpStream::connect(self.address.0).await;
        let stream = stream.map_err(Ailment::Connect)?;
        let Some(client) = &self.client else {
            return Ok(Box::new(stream));
        };
        let context = client.in_force().ok_or(Ailment::NoIdentity)?;
        let name = client.fixed_name().or(client.default_name()).cloned();
        let name = name
            .unwrap_or_else(|| ServerName::IpAddress(self.address.0.ip().to_canonical().into()));
        let config = Arc::clone(context.config(Offer::Http2));
        let offers = config.alpn_protocols.first().cloned();
        let session = TlsConnector::from(config).connect(name, stream).await;
        let session = session.map_err(Ailment::Tls)?;
        // With `alpn: off` nothing is offered.
        match session.get_ref().1.alpn_protocol() == offers.as_deref() {
            true => Ok(Box::new(session)),
            false => Err(Ailment::NoHttp2),
        }
    }
}

/// Whom it is addressed to, as most requests are: a name of the upstream, where it has
/// one.
fn authority(upstream: &Upstream, address: EndpointAddr) -> String {
    let mut claimed = upstream.claims.iter().filter_map(|claim| match claim {
        Claim::Name { host, port } => Some((host, *port)),
        Claim::Wildcard { .. } | Claim::Net { .. } => None,
    });
    match (claimed.next(), &upstream.endpoints) {
        (Some((host, None)), _) => host.clone(),
        (Some((host, Some(port))), _) => format!("{host}:{port}"),
        (None, Endpoints::Dns { name, port }) => format!("{name}:{port}"),
        (None, Endpoints::Static(_) | Endpoints::Original) => address.to_string(),
    }
}

impl Ailment {
    fn result(&self) -> HealthCheckResult {
        match self {
            Self::Status(_) => HealthCheckResult::NotServing,
            // What a server says that does not know the service.
            Self::Grpc(GrpcError::Status { code, .. }) if *code == Code::NOT_FOUND => {
                HealthCheckResult::NotServing
            }
            Self::Connect(_)
            | Self::Tls(_)
            | Self::NoHttp2
            | Self::NoIdentity
            | Self::Grpc(_)
            | Self::Malformed => HealthCheckResult::Failed,
            Self::Timeout => HealthCheckResult::Timeout,
        }
    }
}

impl From<GrpcError> for Ailment {
    fn from(error: GrpcError) -> Self {
        Self::Grpc(error)
    }
}

impl fmt::Display for Ailment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "it takes no connection: {error}"),
            Self::Tls(error) => write!(f, "it gives no TLS session: {error}"),
            Self::NoHttp2 => f.write_str("it does not choose HTTP/2"),
            Self::NoIdentity => f.write_str("the identity of the proxy is not there"),
            Self::Grpc(error) => error.fmt(f),
            Self::Malformed => f.write_str("its answer is not one HealthCheckResponse"),
            Self::Status(0) => f.write_str("it says UNKNOWN"),
            Self::Status(2) => f.write_str("it says NOT_SERVING"),
            Self::Status(3) => f.write_str("it says SERVICE_UNKNOWN"),
            Self::Status(other) => write!(f, "it says status {other}"),
            Self::Timeout => f.write_str("it does not answer in time"),
        }
    }
}
