//! Admin listeners: TCP or a unix socket that only its owner may open.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::addr::BindAddr;
use crate::workload::unix_socket::listen_privately;

/// A listener that is bound and not yet served; it needs no runtime.
#[derive(Debug)]
pub(super) struct Bound {
    address: BindAddr,
    socket: BoundSocket,
}

#[derive(Debug)]
enum BoundSocket {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener, SocketFile),
}

/// A listener that is served; a unix socket's file goes when it is dropped.
pub(super) struct Listener {
    address: BindAddr,
    socket: Socket,
}

enum Socket {
    Tcp(TcpListener),
    Unix(
        UnixListener,
        #[expect(dead_code, reason = "held to be dropped")] SocketFile,
    ),
}

/// A connection to or from an admin listener.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

#[derive(Debug)]
struct SocketFile(PathBuf);

impl Bound {
    pub(super) fn bind(address: &BindAddr) -> io::Result<Self> {
        Ok(match address {
            BindAddr::Tcp(address) => {
                let listener = std::net::TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Self {
                    address: BindAddr::Tcp(listener.local_addr()?),
                    socket: BoundSocket::Tcp(listener),
                }
            }
            BindAddr::Unix(path) => {
                let listener = listen_privately(path)?;
                listener.set_nonblocking(true)?;
                let file = SocketFile(path.clone());
                Self {
                    address: BindAddr::Unix(path.clone()),
                    socket: BoundSocket::Unix(listener, file),
                }
            }
        })
    }

    /// Must run inside the runtime.
    pub(super) fn serve(self) -> io::Result<Listener> {
        Ok(Listener {
            address: self.address,
            socket: match self.socket {
                BoundSocket::Tcp(listener) => Socket::Tcp(TcpListener::from_std(listener)?),
                BoundSocket::Unix(listener, file) => {
                    Socket::Unix(UnixListener::from_std(listener)?, file)
                }
            },
        })
    }
}

impl Listener {
    pub(super) fn address(&self) -> &BindAddr {
        &self.address
    }

    pub(super) async fn accept(&self) -> io::Result<Stream> {
        match &self.socket {
            Socket::Tcp(listener) => listener.accept().await.map(|(s, _)| Stream::Tcp(s)),
            Socket::Unix(listener, _) => listener.accept().await.map(|(s, _)| Stream::Unix(s)),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Gone already when it was moved or the directory was removed.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Stream {
    pub(super) async fn connect(address: &BindAddr) -> io::Result<Self> {
        Ok(match address {
            BindAddr::Tcp(address) => Self::Tcp(TcpStream::connect(address).await?),
            BindAddr::Unix(path) => Self::Unix(UnixStream::connect(path).await?),
        })
    }
}

macro_rules! either {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream.get_mut() {
            Stream::Tcp($inner) => {
                let $inner = Pin::new($inner);
                $call
            }
            Stream::Unix($inner) => {
                let $inner = Pin::new($inner);
                $call
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, inner => inner.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self, inner => inner.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, inner => inner.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, inner => inner.poll_shutdown(cx))
    }
}
