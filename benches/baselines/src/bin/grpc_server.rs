//! The gRPC server that `benches/grpc.sh` has behind the proxies: tokio and h2 on one
//! thread, in clear. `Unary` is answered with one message, `Stream` with a hundred, each
//! sent by itself. `Bytes` tells how many octets all connections have received and sent.

use std::cell::Cell;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use clap::Parser;
use h2::server::{self, SendResponse};
use h2::{RecvStream, SendStream};
use hyper::body::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local, yield_now};

/// A message of 13 octets behind its prefix.
const MESSAGE: &[u8] = b"\0\0\0\0\x0dhello, world\n";
const MESSAGES_OF_STREAM: usize = 100;

#[derive(Debug, Parser)]
struct Arguments {
    /// Where to listen; port 0 lets the kernel choose.
    #[arg(long)]
    listen: SocketAddr,
}

/// Octets over all connections.
#[derive(Default)]
struct Traffic {
    received: Cell<u64>,
    sent: Cell<u64>,
}

/// A connection whose octets are counted.
struct Counted {
    stream: TcpStream,
    traffic: Rc<Traffic>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(task, buffer);
        let count = buffer.filled().len() - before;
        let received = &self.traffic.received;
        received.set(received.get() + count as u64);
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(task, bytes);
        if let Poll::Ready(Ok(count)) = written {
            let sent = &self.traffic.sent;
            sent.set(sent.get() + count as u64);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(task)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    let listener = TcpListener::bind(arguments.listen).await?;
    let mut out = io::stdout();
    writeln!(out, "ready {}", listener.local_addr()?)?;
    out.flush()?;
    LocalSet::new().run_until(accept(listener)).await
}

async fn accept(listener: TcpListener) -> io::Result<()> {
    let traffic = Rc::new(Traffic::default());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let traffic = Rc::clone(&traffic);
        spawn_local(async move {
            // A connection that fails is closed by its drop.
            let _ = serve(Counted { stream, traffic }).await;
        });
    }
}

async fn serve(stream: Counted) -> Result<(), h2::Error> {
    let traffic = Rc::clone(&stream.traffic);
    let mut connection = server::handshake(stream).await?;
    while let Some(call) = connection.accept().await {
        let (request, response) = call?;
        let traffic = Rc::clone(&traffic);
        spawn_local(async move {
            // A call that fails ends by its drop.
            let _ = answer(request, response, &traffic).await;
        });
    }
    Ok(())
}

async fn answer(
    request: Request<RecvStream>,
    mut response: SendResponse<Bytes>,
    traffic: &Traffic,
) -> Result<(), h2::Error> {
    let (head, mut body) = request.into_parts();
    while let Some(piece) = body.data().await {
        let length = piece?.len();
        body.flow_control().release_capacity(length)?;
    }
    match head.uri.path() {
        "/bench.Calls/Unary" => {
            let mut stream = begin(&mut response, "application/grpc")?;
            stream.send_data(Bytes::from_static(MESSAGE), false)?;
            end(&mut stream)
        }
        "/bench.Calls/Stream" => {
            let mut stream = begin(&mut response, "application/grpc")?;
            for _ in 0..MESSAGES_OF_STREAM {
                stream.send_data(Bytes::from_static(MESSAGE), false)?;
                yield_now().await;
            }
            end(&mut stream)
        }
        _ => {
            let (received, sent) = (traffic.received.get(), traffic.sent.get());
            let mut stream = begin(&mut response, "text/plain")?;
            stream.send_data(Bytes::from(format!("{received} {sent}\n")), true)
        }
    }
}

fn begin(
    response: &mut SendResponse<Bytes>,
    content_type: &'static str,
) -> Result<SendStream<Bytes>, h2::Error> {
    let mut head = Response::new(());
    let value = HeaderValue::from_static(content_type);
    head.headers_mut().insert("content-type", value);
    response.send_response(head, false)
}

fn end(stream: &mut SendStream<Bytes>) -> Result<(), h2::Error> {
    let mut trailers = HeaderMap::new();
    let name = HeaderName::from_static("grpc-status");
    trailers.insert(name, HeaderValue::from_static("0"));
    stream.send_trailers(trailers)
}
