//! HTTP/1 forwarding on tokio-uring 0.5, kept so that the choice of a runtime
//! of our own stays a measured one.
//!
//! Connections are kept alive on both sides and the upstream's are pooled, but
//! of a head only the length of its body is read. Bodies have a
//! `Content-Length` or there is none: chunks, upgrades and answers to HEAD are
//! beyond it. A request is passed on whole before its response is read.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use ambassador_baselines::{Start, start};
use memchr::memmem;
use tokio_uring::buf::BoundedBuf;
use tokio_uring::net::{TcpListener, TcpStream};

/// Bytes of a connection's receive buffer.
const BUFFER_BYTES: usize = 16 * 1024;

/// A longer head ends its connection.
const HEAD_BYTES_MAX: usize = 64 * 1024;

fn main() -> io::Result<()> {
    let start = start()?;
    tokio_uring::start(accept(start))
}

async fn accept(start: Start) -> io::Result<()> {
    let listener = TcpListener::from_std(start.listener);
    let pool = Rc::new(Pool {
        to: start.to,
        idle: RefCell::default(),
    });
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let pool = Rc::clone(&pool);
        tokio_uring::spawn(async move {
            // A connection that fails is closed by its drop.
            let _ = serve(Peer::new(stream), &pool).await;
        });
    }
}

async fn serve(mut client: Peer, pool: &Pool) -> io::Result<()> {
    while let Some(request) = client.next_message().await? {
        let mut upstream = pool.take().await?;
        client.pass(request, &mut upstream).await?;
        let response = upstream.next_message().await?;
        let response = response.ok_or(io::ErrorKind::UnexpectedEof)?;
        upstream.pass(response, &mut client).await?;
        pool.idle.borrow_mut().push(upstream);
    }
    Ok(())
}

/// Connections to the upstream that no request is using.
struct Pool {
    to: SocketAddr,
    idle: RefCell<Vec<Peer>>,
}

impl Pool {
    /// The newest idle connection, or a new one.
    async fn take(&self) -> io::Result<Peer> {
        let idle = self.idle.borrow_mut().pop();
        if let Some(peer) = idle {
            return Ok(peer);
        }
        let stream = TcpStream::connect(self.to).await?;
        stream.set_nodelay(true)?;
        Ok(Peer::new(stream))
    }
}

/// A connection and what was received on it but not passed on.
struct Peer {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Peer {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            received: Vec::with_capacity(BUFFER_BYTES),
        }
    }

    /// Bytes of the next message, head and body together, once its head is
    /// here; `None`: the peer has ended before it began.
    async fn next_message(&mut self) -> io::Result<Option<usize>> {
        loop {
            if let Some(length) = message_length(&self.received)? {
                return Ok(Some(length));
            }
            if self.received.len() >= HEAD_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            match (self.receive().await?, self.received.is_empty()) {
                (0, true) => return Ok(None),
                (0, false) => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => {}
            }
        }
    }

    /// Sends the next `left` bytes on, as they come.
    async fn pass(&mut self, mut left: usize, to: &mut Self) -> io::Result<()> {
        loop {
            let length = left.min(self.received.len());
            let bytes = std::mem::take(&mut self.received).slice(..length);
            let (sent, bytes) = to.stream.write_all(bytes).await;
            self.received = bytes.into_inner();
            sent?;
            self.received.drain(..length);
            left -= length;
            if left == 0 {
                return Ok(());
            }
            if self.receive().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Appends what arrives next; 0: the peer has ended.
    async fn receive(&mut self) -> io::Result<usize> {
        let mut bytes = std::mem::take(&mut self.received);
        if bytes.len() == bytes.capacity() {
            bytes.reserve(BUFFER_BYTES);
        }
        let filled = bytes.len();
        let (received, bytes) = self.stream.read(bytes.slice(filled..)).await;
        self.received = bytes.into_inner();
        received
    }
}

/// The length of the message at the front of `bytes`; `None`: its head is not
/// whole.
fn message_length(bytes: &[u8]) -> io::Result<Option<usize>> {
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    Ok(Some(end + 4 + body_length(&bytes[..end])?))
}

fn body_length(head: &[u8]) -> io::Result<usize> {
    const NAME: &[u8] = b"content-length:";
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    for line in head.split(|byte| *byte == b'\n') {
        if line.len() > NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME) {
            let digits = str::from_utf8(&line[NAME.len()..]).map_err(|_| bad())?;
            return digits.trim().parse().map_err(|_| bad());
        }
    }
    Ok(0)
}
