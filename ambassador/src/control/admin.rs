//! The admin API over HTTP.

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::credentials::PublicKeys;
use super::figures::{self, Collected, Figures};
use super::listen::{Listener, Stream};
use super::readiness::{CANARY_WITHIN, Phase};
use super::reading::Reader;
use super::rounds::Rounds;
use super::{Event, State, raise, upstreams};
use crate::policy::breaker::Force;
use crate::printable::{self, Lines};
use crate::telemetry::{Format, Names, render};
use crate::workload::{named, small_file};

use places::{Limited, Place, Places};

mod failures;
mod permission;
mod places;

/// A connection that sends no request for this long is closed.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// The largest request head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// A connection that is older ends with the answer under way.
const LIFE: Duration = Duration::from_secs(10 * 60);
/// What that answer may take.
const LAST_WITHIN: Duration = Duration::from_secs(30);
/// Waited before accepting again after an error, which is a lack of descriptors
/// or memory: trying at once would spin.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Which part of the API a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Surface {
    /// Everything; changes need the token, over a unix socket nothing does.
    Whole,
    /// Everything, to who is elsewhere: all but health, public keys and metrics, which
    /// have an address for everyone, needs the token.
    Guarded,
    /// /livez, /readyz, /jwks.json and /metrics.
    Metrics,
}

pub(super) struct Server {
    state: Arc<State>,
    figures: Figures,
    /// Of asking all shards.
    collecting: Rounds<Arc<Collected>>,
    /// Of trying whether capture works.
    trying: Rounds<Result<(), String>>,
    /// Those of the tokens that this proxy signs.
    public_keys: Arc<PublicKeys>,
    token_file: Option<PathBuf>,
    /// Of that file.
    reader: Reader,
    /// Held by the one canary that runs.
    canary: Arc<Mutex<()>>,
}

type Reply = Response<Full<Bytes>>;

impl Server {
    pub(super) fn new(
        state: Arc<State>,
        token_file: Option<PathBuf>,
        public_keys: Arc<PublicKeys>,
    ) -> Arc<Self> {
        Arc::new(Self {
            public_keys,
            figures: Figures::new(state.shards.len()),
            state,
            collecting: Rounds::default(),
            trying: Rounds::default(),
            token_file,
            reader: Reader::default(),
            canary: Arc::default(),
        })
    }

    /// Accepts for ever.
    pub(super) async fn serve(self: Arc<Self>, listener: Listener, surface: Surface) {
        let places = Arc::<Places>::default();
        loop {
            let stream = match listener.accept().await {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an admin connection");
                    tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
                    continue;
                }
            };
            let place = places.take();
            let number = place.number();
            let server = Arc::clone(&self);
            let task = tokio::spawn(async move {
                server.connection(stream, surface, Arc::new(place)).await;
            });
            places.is_held_by(number, task.abort_handle());
            // Who was accepted is answered before others take its place.
            tokio::task::yield_now().await;
        }
    }

    async fn connection(&self, stream: Stream, surface: Surface, place: Arc<Place>) {
        let over_unix = matches!(stream, Stream::Unix(_));
        let service = service_fn(async |request| {
            place.begins();
            let reply = self.answer(request, surface, over_unix).await;
            let bytes = reply.body().size_hint().exact().unwrap_or(0);
            place.answers(bytes as usize);
            Ok::<_, Infallible>(reply)
        });
        let stream = Limited::new(stream, Arc::clone(&place));
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        let mut served = pin!(served);
        let ended = match timeout(LIFE, served.as_mut()).await {
            Ok(ended) => ended,
            Err(_) => {
                served.as_mut().graceful_shutdown();
                timeout(LAST_WITHIN, served).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "an admin connection ended early");
        }
    }

    async fn answer(&self, request: Request<Incoming>, surface: Surface, over_unix: bool) -> Reply {
        let path = request.uri().path();
        let allowed = match (path, surface) {
            ("/livez" | "/readyz" | "/metrics" | "/jwks.json", _) => Method::GET,
            ("/upstreams" | "/config" | "/failures", Surface::Whole | Surface::Guarded) => {
                Method::GET
            }
            ("/drain", Surface::Whole | Surface::Guarded) => Method::POST,
            (path, Surface::Whole | Surface::Guarded) if breaker(path).is_some() => Method::POST,
            _ => return text(StatusCode::NOT_FOUND, "not found"),
        };
        let is_head = request.method() == Method::HEAD && allowed == Method::GET;
        if request.method() != allowed && !is_head {
            let mut reply = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed");
            let allowed = HeaderValue::from_str(allowed.as_str());
            reply
                .headers_mut()
                .extend(allowed.ok().map(|allowed| (ALLOW, allowed)));
            return reply;
        }
        let permitted = match (path, surface) {
            // Who verifies a token has the public keys, and nothing else of this proxy.
            ("/livez" | "/readyz" | "/jwks.json", _) | (_, Surface::Metrics) => Ok(()),
            ("/metrics", _) => permission::check_site(&request, over_unix),
            (_, Surface::Whole) if allowed == Method::GET => {
                permission::check_site(&request, over_unix)
            }
            _ => permission::check(&request, over_unix, self.token()).await,
        };
        if let Err(refusal) = permitted {
            return text(refusal.status(), &refusal.to_string());
        }
        match path {
            "/livez" => text(StatusCode::OK, "ok"),
            "/readyz" => match self.is_ready().await {
                Ok(()) => text(StatusCode::OK, &self.state.readiness.text()),
                Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, &why),
            },
            "/jwks.json" => json_body(StatusCode::OK, &self.public_keys.document()),
            "/metrics" => self.metrics(&request).await,
            "/upstreams" => {
                let collected = self.figures().await;
                let known = (self.state.upstreams)();
                json_body(
                    StatusCode::OK,
                    &upstreams::document(&known, &collected.sum, &self.state.registry),
                )
            }
            "/failures" => self.failures(request.uri().query()).await,
            "/config" => json_body(StatusCode::OK, &(self.state.config)()),
            path => self.change(path),
        }
    }

    /// Read at every use, so that it may be rotated.
    fn token(&self) -> Option<impl Future<Output = io::Result<Vec<u8>>>> {
        let file = self.token_file.clone()?;
        let read = move || named::read(&file, small_file::BYTES_MAX);
        Some(self.reader.read(read))
    }

    /// What only some may ask for.
    fn change(&self, path: &str) -> Reply {
        let Some((upstream, force)) = breaker(path) else {
            tracing::info!("drain requested through the admin API");
            self.state.deadline.arm();
            raise(&self.state.events, Event::Drain);
            return json_body(StatusCode::ACCEPTED, &json!({ "draining": true }));
        };
        if !(self.state.force_breaker)(upstream, force) {
            return text(StatusCode::NOT_FOUND, "no such upstream");
        }
        tracing::info!(
            upstream,
            ?force,
            "circuit breaker set through the admin API"
        );
        let word = path.rsplit('/').next();
        json_body(
            StatusCode::OK,
            &json!({ "upstream": upstream, "breaker": word }),
        )
    }

    async fn metrics(&self, request: &Request<Incoming>) -> Reply {
        let accept = request.headers().get(ACCEPT);
        let accept = accept.and_then(|value| value.to_str().ok()).unwrap_or("");
        let format = Format::accepted(accept);
        let collected = self.figures().await;
        let body = render(
            format,
            &collected.sum,
            collected.staleness,
            &self.state.registry,
            &(self.state.extras)(),
        );
        reply(StatusCode::OK, format.content_type(), body)
    }

    async fn failures(&self, query: Option<&str>) -> Reply {
        let query = match failures::query(query.unwrap_or("")) {
            Ok(query) => query,
            Err(error) => return text(StatusCode::BAD_REQUEST, &error),
        };
        let calls = figures::failures(&self.state.shards, &query).await;
        let (names, origin) = (Names::of(&self.state.registry), &self.state.origin);
        json_body(StatusCode::OK, &failures::document(&calls, &names, origin))
    }

    async fn figures(&self) -> Arc<Collected> {
        let collect = async || Arc::new(self.figures.collect(&self.state.shards).await);
        self.collecting.join(collect).await
    }

    /// Ready: the listeners accept, every shard's loop turns, and a connect()
    /// really is captured.
    async fn is_ready(&self) -> Result<(), String> {
        match self.state.readiness.phase() {
            Phase::Starting => return Err("starting: listeners do not accept yet".into()),
            Phase::Draining => return Err("draining".into()),
            Phase::Serving => {}
        }
        if let Some(shard) = self.figures().await.silent.first() {
            return Err(format!("shard {shard} does not answer"));
        }
        if let Some(obstacle) = (self.state.obstacle)() {
            return Err(obstacle);
        }
        if !self.state.readiness.has_canary() {
            return Ok(());
        }
        self.trying.join(async || self.try_canary().await).await
    }

    async fn try_canary(&self) -> Result<(), String> {
        let running = async {
            // Held until the canary ends, however late: those that hang do not
            // pile up behind each other.
            let alone = Arc::clone(&self.canary).lock_owned().await;
            let readiness = Arc::clone(&self.state.readiness);
            tokio::task::spawn_blocking(move || {
                let outcome = readiness.try_canary();
                drop(alone);
                outcome
            })
            .await
        };
        match timeout(CANARY_WITHIN, running).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(why))) => Err(format!("capture does not work: {why}")),
            Ok(Err(_)) => Err("capture does not work: the canary panicked".into()),
            Err(_) => Err("capture does not work: the canary got no answer in 1 s".into()),
        }
    }
}

/// `/upstreams/NAME/breaker/{open,close,auto}`: whose breaker, and how it is to
/// be.
fn breaker(path: &str) -> Option<(&str, Force)> {
    let (upstream, word) = path.strip_prefix("/upstreams/")?.split_once("/breaker/")?;
    let force = match word {
        "open" => Force::Open,
        "close" => Force::Closed,
        "auto" => Force::Auto,
        _ => return None,
    };
    Some((upstream, force))
}

fn text(status: StatusCode, body: &str) -> Reply {
    reply(
        status,
        "text/plain; charset=utf-8",
        format!("{}\n", Lines(body)),
    )
}

fn json_body(status: StatusCode, body: &serde_json::Value) -> Reply {
    let body = printable::json(&format!("{body:#}\n"));
    reply(status, "application/json", body)
}

fn reply(status: StatusCode, content_type: &'static str, body: String) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(body)));
    *reply.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    reply.headers_mut().insert(CONTENT_TYPE, content_type);
    reply
}
