//! A server and a client of tonic without generated code: messages are octets.

use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use prost::bytes::{Buf, BufMut};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};
use tonic::body::Body;
use tonic::client;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::tokio_stream::{self, StreamExt};
use tonic::codegen::{BoxFuture, BoxStream, Bytes, Context, Poll, Service, http};
use tonic::server::{
    self, ClientStreamingService, ServerStreamingService, StreamingService, UnaryService,
};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

/// Of a message.
const LARGEST: usize = 16 << 20;

/// Messages as they are.
#[derive(Clone, Copy)]
pub struct Octets;

impl Codec for Octets {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Octets;
    type Decoder = Octets;

    fn encoder(&mut self) -> Octets {
        Octets
    }

    fn decoder(&mut self) -> Octets {
        Octets
    }
}

impl Encoder for Octets {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(message);
        Ok(())
    }
}

impl Decoder for Octets {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// A client that calls `web.test`, and the runtime that its connection lives in.
#[track_caller]
pub fn client(address: SocketAddr) -> (Runtime, client::Grpc<Channel>) {
    let runtime = runtime();
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a valid address");
    let endpoint = endpoint.origin(http::Uri::from_static("http://web.test"));
    let channel = runtime.block_on(endpoint.connect());
    let client = client::Grpc::new(channel.expect("something listens"));
    (runtime, client.max_decoding_message_size(LARGEST))
}

fn runtime() -> Runtime {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.expect("there are descriptors left")
}

/// A server until it is dropped.
pub struct Peer {
    pub address: SocketAddr,
    calls: Calls,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    #[track_caller]
    pub fn start() -> Peer {
        let runtime = runtime();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("there are ports left");
        let address = listener.local_addr().expect("it is bound");
        let calls = Calls::default();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = calls.clone();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async move {
                let incoming = tonic::transport::server::TcpIncoming::from(listener);
                let serving = Server::builder().serve_with_incoming(served, incoming);
                tokio::select! {
                    ended = serving => ended.expect("it goes on until it is stopped"),
                    _ = stopped => {}
                }
            });
        });
        Peer {
            address,
            calls,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// How many calls have ended that do not end by themselves.
    pub fn ended(&self) -> usize {
        self.calls.ended.load(Ordering::SeqCst)
    }

    /// How many of them were begun.
    pub fn begun(&self) -> usize {
        self.calls.begun.load(Ordering::SeqCst)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the server does with a call of `method`.
#[derive(Clone, Default)]
struct Calls {
    method: String,
    begun: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
}

/// A call that does not end by itself.
struct Open(Arc<AtomicUsize>);

impl Calls {
    fn open(&self) -> Open {
        self.begun.fetch_add(1, Ordering::SeqCst);
        Open(Arc::clone(&self.ended))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Service<http::Request<Body>> for Calls {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let mut calls = self.clone();
        Box::pin(async move {
            let method = request.uri().path().trim_start_matches("/test.Peer/");
            method.clone_into(&mut calls.method);
            let mut server = server::Grpc::new(Octets).max_decoding_message_size(LARGEST);
            Ok(match &*calls.method {
                "Count" | "Endless" => server.server_streaming(calls, request).await,
                "Total" => server.client_streaming(calls, request).await,
                "Both" => server.streaming(calls, request).await,
                _ => server.unary(calls, request).await,
            })
        })
    }
}

impl UnaryService<Bytes> for Calls {
    type Response = Bytes;
    type Future = BoxFuture<Response<Bytes>, Status>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let calls = self.clone();
        Box::pin(async move {
            match &*calls.method {
                "Silent" => {
                    let _open = calls.open();
                    pending().await
                }
                "Fail" => {
                    let mut status = Status::not_found("as asked: 100 %");
                    let yes = tonic::metadata::MetadataValue::from_static("yes");
                    status.metadata_mut().insert("x-trailing", yes);
                    Err(status)
                }
                _ => {
                    let given = request.metadata().get("x-mine").cloned();
                    let mut response = Response::new(request.into_inner());
                    if let Some(given) = given {
                        response.metadata_mut().insert("x-initial", given);
                    }
                    Ok(response)
                }
            }
        })
    }
}

impl ServerStreamingService<Bytes> for Calls {
    type Response = Bytes;
    type ResponseStream = BoxStream<Bytes>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let calls = self.clone();
        Box::pin(async move {
            if calls.method == "Count" {
                let count = String::from_utf8_lossy(request.get_ref()).parse();
                let count: u32 = count.map_err(|_| Status::invalid_argument("no number"))?;
                let messages = (0..count).map(|number| Ok(Bytes::from(number.to_string())));
                return Ok(Response::new(Box::pin(tokio_stream::iter(messages)) as _));
            }
            let (sender, messages) = mpsc::channel(1);
            tokio::spawn(async move {
                let _open = calls.open();
                while sender.send(Ok(Bytes::from_static(b"more"))).await.is_ok() {}
            });
            Ok(Response::new(Box::pin(ReceiverStream::new(messages)) as _))
        })
    }
}

impl ClientStreamingService<Bytes> for Calls {
    type Response = Bytes;
    type Future = BoxFuture<Response<Bytes>, Status>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        Box::pin(async move {
            let (mut messages, mut total) = (request.into_inner(), 0);
            while let Some(message) = messages.message().await? {
                total += message.len();
            }
            Ok(Response::new(Bytes::from(total.to_string())))
        })
    }
}

impl StreamingService<Bytes> for Calls {
    type Response = Bytes;
    type ResponseStream = BoxStream<Bytes>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        Box::pin(async move {
            let upper = |message: Bytes| Bytes::from(message.to_ascii_uppercase());
            let answers = request.into_inner().map(move |message| message.map(upper));
            Ok(Response::new(Box::pin(answers) as _))
        })
    }
}
