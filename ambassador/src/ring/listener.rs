//! Listening sockets as tasks see them.

use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::task::Poll;
use std::time::Duration;

use rustix::net::sockopt;

use super::keep_alive::{self, Liveness};
use super::stream::{Stream, suit};
use super::table::{End, Key, Role};
use super::waiting::keep;
use super::{sockets, timer};
use crate::clock;

/// How long a listener rests when the process or the system is out of
/// descriptors or memory.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    pub(super) key: Key,
    _not_send: std::marker::PhantomData<*const ()>,
}

impl Listener {
    /// Accepts on a bound, listening socket.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        // Accepted sockets inherit it. A unix socket has no such option.
        let _ = sockopt::set_tcp_nodelay(&socket, true);
        suit(&socket)?;
        let key = super::with(|core| core.driver.add(socket, Role::Listener))?;
        Ok(Self {
            key,
            _not_send: std::marker::PhantomData,
        })
    }

    /// The next connection. Out of descriptors it rests and goes on; cancelling
    /// it loses nothing.
    ///
    /// # Errors
    /// When the listener itself is broken.
    pub async fn accept(&self) -> io::Result<Stream> {
        static TOLD: clock::OncePerSecond = clock::OncePerSecond::new();
        loop {
            let accepted = poll_fn(|context| {
                super::with(|core| {
                    if let Some(fd) = core.driver.take_accepted(self.key) {
                        return Poll::Ready(Ok(fd));
                    }
                    let mut socket = core.driver.socket(self.key);
                    if let Some(End::Error(error)) = socket.end.take() {
                        return Poll::Ready(Err(error));
                    }
                    keep(&mut socket.reader, context.waker());
                    Poll::Pending
                })
            })
            .await;
            match accepted {
                Ok(fd) => match Stream::new(fd, Role::Connected) {
                    Ok(stream) => return Ok(stream),
                    Err(error) if TOLD.is_due() => {
                        tracing::warn!(%error, "an accepted connection is dropped");
                    }
                    Err(_) => {}
                },
                Err(error @ (libc::EBADF | libc::EINVAL | libc::ENOTSOCK)) => {
                    return Err(io::Error::from_raw_os_error(error));
                }
                // Out of descriptors or memory, or a network error that was
                // the connection's (accept(2)).
                Err(error) => {
                    let _again = AcceptAgain(self.key);
                    if TOLD.is_due() {
                        let error = io::Error::from_raw_os_error(error);
                        tracing::warn!(%error, "cannot accept: resting");
                    }
                    timer::sleep(ACCEPT_REST).await;
                }
            }
        }
    }
}

impl Listener {
    /// Has the sockets that it will accept ask silent peers for a sign of life.
    /// Unix sockets have nobody to ask.
    pub fn keep_alive(&self, silence: Option<Duration>) {
        super::with(|core| {
            let socket = &core.driver.socket(self.key).fd;
            let _ = keep_alive::set(socket, silence, Liveness::Answers);
        });
    }

    /// Lets nobody join the queue any more; who is in it is still accepted.
    pub fn turn_away(&self) -> io::Result<()> {
        super::with(|core| sockets::turn_away(&core.driver.socket(self.key).fd))
    }
}

/// Starts accepting again when the rest is over, or was given up.
struct AcceptAgain(Key);

impl Drop for AcceptAgain {
    fn drop(&mut self) {
        super::try_with(|core| core.driver.read_again(self.0));
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        super::try_with(|core| core.driver.close(self.key));
    }
}
