//! A gRPC server and a client that do exactly what a test says, without generated code.

use std::future::{pending, poll_fn};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use h2::client::ResponseFuture;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream, client, server};
use hyper::body::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

/// No call of a test takes longer.
const LIMIT: Duration = Duration::from_secs(20);

/// A call as its server has it.
#[derive(Clone, Debug)]
pub struct Received {
    /// `/package.Service/Method`.
    pub path: String,
    /// The head.
    pub fields: HeaderMap,
    /// When its head came.
    pub at: Instant,
    /// Bytes of its messages, framing included; `None`: it did not end.
    pub bytes: Option<usize>,
    /// When its caller gave it up; `None`: it did not.
    pub given_up: Option<Instant>,
}

/// What a server does with a call once all of it has come.
#[derive(Clone, Debug)]
pub enum Script {
    /// Ends it with this code before anything else, and these fields beside.
    Refuse(u8, Vec<(&'static str, &'static str)>),
    /// The same without reading its messages.
    RefuseUnread(u8),
    /// The same as `Refuse`, with a head of its own in front of the trailers.
    HeadThenRefuse(u8),
    /// Sends a message of so many bytes, then ends it with this code.
    Answer(usize, u8),
    /// Sends this message, then ends it with this code.
    Say(&'static [u8], u8),
    /// Sends messages that come in, and ends well with the last.
    Echo,
    /// Answers as a proxy does that knows nothing of calls.
    Status(u16),
    /// Resets its stream with this code, before or after a head and a message.
    Reset(h2::Reason),
    /// The same after a head and a message.
    ResetAmid(h2::Reason),
    /// Sends a message and nothing else, until it is given up.
    Silence,
    /// Does nothing, until it is given up.
    Hang,
}

type Handler = dyn Fn(usize, &str) -> Script + Send + Sync;

struct Shared {
    handler: Box<Handler>,
    calls: Mutex<Vec<Received>>,
}

/// A server until it is dropped.
pub struct GrpcServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What came of a call.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The status of HTTP; 0: there was no answer.
    pub status: u16,
    /// The head.
    pub head: HeaderMap,
    /// The trailers; of a call that ended with its head, that.
    pub trailers: HeaderMap,
    /// Whether nothing followed the head.
    pub is_trailers_only: bool,
    /// Bytes of messages, framing included.
    pub bytes: usize,
    /// The stream or its connection failed.
    pub error: Option<h2::Error>,
    /// When it was given up; `None`: it was not.
    pub given_up: Option<Instant>,
}

/// A call as it is made.
pub struct GrpcCall {
    address: SocketAddr,
    path: String,
    fields: Vec<(String, String)>,
    content_type: String,
    message: usize,
    messages: usize,
    together: usize,
    patience: Option<(Box<dyn Fn() -> bool>, Leaving)>,
}

/// How a caller gives its call up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// It resets its stream, and stays.
    Stream,
    /// It closes its connection.
    Connection,
}

impl Shared {
    fn begin(&self, path: &str, fields: &HeaderMap) -> usize {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.push(Received {
            path: path.to_owned(),
            fields: fields.clone(),
            at: Instant::now(),
            bytes: None,
            given_up: None,
        });
        calls.len() - 1
    }

    fn change(&self, number: usize, change: impl FnOnce(&mut Received)) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut calls[number]);
    }
}

impl GrpcServer {
    /// Does with each call what `handler` says of its number, from 0, and its path.
    pub fn start(handler: impl Fn(usize, &str) -> Script + Send + Sync + 'static) -> GrpcServer {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("there are ports left");
        listener.set_nonblocking(true).expect("it is a socket");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            calls: Mutex::default(),
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let served = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            runtime().block_on(async {
                let listener = TcpListener::from_std(listener).expect("the runtime runs");
                let serve = async {
                    while let Ok((stream, _)) = listener.accept().await {
                        tokio::spawn(serve(stream, Arc::clone(&served)));
                    }
                };
                tokio::select! {
                    () = serve => {}
                    _ = stopped => {}
                }
            });
        });
        GrpcServer {
            address,
            shared,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Does the same with every call.
    pub fn always(script: Script) -> GrpcServer {
        GrpcServer::start(move |_, _| script.clone())
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The calls so far.
    pub fn calls(&self) -> Vec<Received> {
        self.watch().calls()
    }

    /// The same for whoever outlives it.
    pub fn watch(&self) -> Watch {
        Watch(Arc::clone(&self.shared))
    }
}

/// Sees what a server receives.
pub struct Watch(Arc<Shared>);

impl Watch {
    /// The calls so far.
    pub fn calls(&self) -> Vec<Received> {
        let calls = self.0.calls.lock();
        calls.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Received {
    /// Whether all its messages have come.
    pub fn is_whole(&self) -> bool {
        self.bytes.is_some()
    }
}

impl Drop for GrpcServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn runtime() -> Runtime {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.expect("there are descriptors left")
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let Ok(mut connection) = server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, response))) = connection.accept().await {
        tokio::spawn(one(request, response, Arc::clone(&shared)));
    }
}

async fn one(request: Request<RecvStream>, mut response: SendResponse<Bytes>, shared: Arc<Shared>) {
    let path = request.uri().path().to_owned();
    let number = shared.begin(&path, request.headers());
    let script = (shared.handler)(number, &path);
    let mut body = request.into_body();
    if !matches!(script, Script::Echo | Script::RefuseUnread(_)) {
        let Some(bytes) = read(&mut body).await else {
            return shared.change(number, |call| call.given_up = Some(Instant::now()));
        };
        shared.change(number, |call| call.bytes = Some(bytes));
    }
    let played = play(script, body, &mut response).await;
    if played == Played::GivenUp {
        shared.change(number, |call| call.given_up = Some(Instant::now()));
    }
}

/// How a script came to its end.
#[derive(PartialEq, Eq)]
enum Played {
    Whole,
    GivenUp,
}

/// Does what a script says. A send that fails shows that the caller is gone.
async fn play(script: Script, mut body: RecvStream, response: &mut SendResponse<Bytes>) -> Played {
    match script {
        Script::Refuse(code, fields) => {
            let mut head = head(200);
            head.headers_mut().extend(end(code, &fields));
            let _ = response.send_response(head, true);
        }
        Script::RefuseUnread(code) => {
            let mut head = head(200);
            head.headers_mut().extend(end(code, &[]));
            let _ = response.send_response(head, true);
        }
        Script::HeadThenRefuse(code) => {
            if let Ok(mut stream) = response.send_response(head(200), false) {
                let _ = stream.send_trailers(end(code, &[]));
            }
        }
        Script::Answer(length, code) => {
            if let Ok(mut stream) = response.send_response(head(200), false) {
                let _ = stream.send_data(message(length), false);
                let _ = stream.send_trailers(end(code, &[]));
            }
        }
        Script::Say(content, code) => {
            if let Ok(mut stream) = response.send_response(head(200), false) {
                let _ = stream.send_data(framed(content), false);
                let _ = stream.send_trailers(end(code, &[]));
            }
        }
        Script::Echo => {
            if let Ok(mut stream) = response.send_response(head(200), false) {
                while let Some(Ok(piece)) = body.data().await {
                    let _ = body.flow_control().release_capacity(piece.len());
                    let _ = stream.send_data(piece, false);
                }
                let _ = stream.send_trailers(end(0, &[]));
            }
        }
        Script::Status(status) => {
            let mut plain = head(status);
            let html = HeaderValue::from_static("text/html");
            plain.headers_mut().insert("content-type", html);
            if let Ok(mut stream) = response.send_response(plain, false) {
                let _ = stream.send_data(Bytes::from_static(b"a proxy says so"), true);
            }
        }
        Script::Reset(reason) => response.send_reset(reason),
        Script::ResetAmid(reason) => {
            if let Ok(mut stream) = response.send_response(head(200), false) {
                let _ = stream.send_data(message(10), false);
                // What was sent goes first.
                tokio::task::yield_now().await;
                stream.send_reset(reason);
            }
        }
        Script::Silence => {
            if let Ok(mut stream) = response.send_response(head(200), false) {
                let _ = stream.send_data(message(10), false);
                let _ = poll_fn(|task| stream.poll_reset(task)).await;
                return Played::GivenUp;
            }
        }
        Script::Hang => {
            let _ = poll_fn(|task| response.poll_reset(task)).await;
            return Played::GivenUp;
        }
    }
    Played::Whole
}

/// Reads all messages; says how many bytes they have. `None`: they do not end.
async fn read(body: &mut RecvStream) -> Option<usize> {
    let mut bytes = 0;
    while let Some(piece) = body.data().await {
        let piece = piece.ok()?;
        bytes += piece.len();
        let _ = body.flow_control().release_capacity(piece.len());
    }
    Some(bytes)
}

fn head(status: u16) -> Response<()> {
    let head = Response::builder().status(status);
    let head = head.header("content-type", "application/grpc");
    head.body(()).expect("it is a head")
}

/// The fields with which a call ends.
fn end(code: u8, fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut end = HeaderMap::new();
    end.insert("grpc-status", u16::from(code).into());
    for (name, value) in fields {
        let name = HeaderName::from_static(name);
        end.append(name, HeaderValue::from_static(value));
    }
    end
}

/// A message of so many bytes, which mean nothing.
fn message(length: usize) -> Bytes {
    framed(&vec![b'm'; length])
}

fn framed(content: &[u8]) -> Bytes {
    let length = u32::try_from(content.len()).expect("it is short");
    [&[0][..], &length.to_be_bytes(), content].concat().into()
}

impl GrpcCall {
    /// A call with a message of ten bytes.
    pub fn new(address: SocketAddr, path: &str) -> GrpcCall {
        GrpcCall {
            address,
            path: path.to_owned(),
            fields: Vec::new(),
            content_type: "application/grpc".to_owned(),
            message: 10,
            messages: 1,
            together: 1,
            patience: None,
        }
    }

    /// With a field in its head.
    pub fn field(mut self, name: &str, value: &str) -> GrpcCall {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With messages of another type.
    pub fn content_type(mut self, content_type: &str) -> GrpcCall {
        content_type.clone_into(&mut self.content_type);
        self
    }

    /// With a message of so many bytes.
    pub fn message(mut self, length: usize) -> GrpcCall {
        self.message = length;
        self
    }

    /// With so many of these messages, each in a frame of its own.
    pub fn messages(mut self, count: usize) -> GrpcCall {
        self.messages = count;
        self
    }

    /// With so many of them in a frame.
    pub fn together(mut self, count: usize) -> GrpcCall {
        self.together = count;
        self
    }

    /// Given up as soon as that is so.
    pub fn give_up(mut self, when: impl Fn() -> bool + 'static, leaving: Leaving) -> GrpcCall {
        self.patience = Some((Box::new(when), leaving));
        self
    }

    /// Makes it.
    #[track_caller]
    pub fn make(self) -> Outcome {
        let runtime = runtime();
        let made = runtime.block_on(async {
            let mut outcome = Outcome::default();
            let stream = TcpStream::connect(self.address).await;
            let stream = stream.expect("something listens");
            let _ = stream.set_nodelay(true);
            let (client, mut connection) = client::handshake(stream).await?;
            let mut ping = connection.ping_pong().expect("nobody else has it");
            tokio::spawn(connection);
            let run = self.run(client, &mut outcome);
            let run = tokio::time::timeout(LIMIT, run);
            let ended = tokio::select! {
                ended = run => Some(ended.expect("it is answered, or given up")),
                () = self.patience_ends() => None,
            };
            match ended {
                Some(ended) => outcome.error = ended.err(),
                None => {
                    outcome.given_up = Some(Instant::now());
                    if let Some((_, Leaving::Stream)) = self.patience {
                        // It follows the reset.
                        let _ = ping.ping(h2::Ping::opaque()).await;
                    }
                }
            }
            Ok::<_, h2::Error>(outcome)
        });
        // Its connection ends here, and its stream with it.
        drop(runtime);
        made.expect("the proxy speaks HTTP/2")
    }

    /// Waits until it is to be given up.
    async fn patience_ends(&self) {
        let Some((is_over, _)) = &self.patience else {
            return pending().await;
        };
        while !is_over() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn run(
        &self,
        client: client::SendRequest<Bytes>,
        outcome: &mut Outcome,
    ) -> Result<(), h2::Error> {
        let mut client = client.ready().await?;
        let mut request = Request::builder()
            .method("POST")
            .uri(format!("http://web.test{}", self.path))
            .header("content-type", &self.content_type)
            .header("te", "trailers");
        for (name, value) in &self.fields {
            request = request.header(name, value);
        }
        let request = request.body(()).expect("it is a head");
        let (response, stream) = client.send_request(request, false)?;
        // A response may come before all was taken.
        let sending = async {
            let _ = self.send(stream).await;
            pending::<()>().await;
        };
        tokio::select! {
            received = receive(response, outcome) => received,
            () = sending => Ok(()),
        }
    }

    /// Sends the messages as the windows allow.
    async fn send(&self, mut stream: SendStream<Bytes>) -> Result<(), h2::Error> {
        let whole = Bytes::from(message(self.message).repeat(self.together));
        for _ in 0..self.messages / self.together {
            let mut rest = whole.clone();
            while !rest.is_empty() {
                stream.reserve_capacity(rest.len());
                while stream.capacity() == 0 {
                    let Some(more) = poll_fn(|task| stream.poll_capacity(task)).await else {
                        return Ok(());
                    };
                    more?;
                }
                let piece = rest.split_to(stream.capacity().min(rest.len()));
                stream.send_data(piece, false)?;
            }
        }
        stream.send_data(Bytes::new(), true)
    }
}

async fn receive(response: ResponseFuture, outcome: &mut Outcome) -> Result<(), h2::Error> {
    let response = response.await?;
    outcome.status = response.status().as_u16();
    outcome.head = response.headers().clone();
    let mut body = response.into_body();
    outcome.is_trailers_only = body.is_end_stream();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        outcome.bytes += piece.len();
        let _ = body.flow_control().release_capacity(piece.len());
    }
    let trailers = body.trailers().await?;
    outcome.trailers = trailers.unwrap_or_else(|| outcome.head.clone());
    Ok(())
}

impl Outcome {
    /// With what it ended.
    pub fn code(&self) -> Option<u8> {
        self.end("grpc-status")?.parse().ok()
    }

    /// A field of its trailers.
    pub fn end(&self, name: &str) -> Option<&str> {
        self.trailers.get(name)?.to_str().ok()
    }

    /// Why the proxy made it.
    pub fn reason(&self) -> &str {
        self.end("x-ambassador-reason").unwrap_or_default()
    }
}
