//! The upstream: answers with as many bytes as it is asked for.

mod connection;
mod request;

use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use slab::Slab;

use self::connection::{After, Connection};
use crate::failure::Failure;
use crate::poller::{EVENTS, EventFlags, Poller};
use crate::protocol::Protocol;
use crate::{process, sockets};

/// Bodies are pieces of one buffer of this many bytes: long enough for few
/// calls per body, short enough to stay in a core's cache.
const BODY_BYTES: usize = 256 << 10;

/// The token of the listener.
const LISTENER: usize = usize::MAX;

/// What the upstream does.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens; port 0 for any.
    pub listen: SocketAddr,
    /// What it speaks.
    pub protocol: Protocol,
    /// The CPU to stay on.
    pub cpu: Option<usize>,
}

/// Serves until a signal ends the process; says `ready ADDRESS` on standard
/// output as soon as connections are accepted.
pub fn serve(settings: &Settings) -> Result<(), Failure> {
    if let Some(cpu) = settings.cpu {
        process::pin(cpu).map_err(Failure::system("pinning to a CPU"))?;
    }
    process::raise_open_files().map_err(Failure::system("raising the limit of open files"))?;
    let listener = sockets::listen(settings.listen).map_err(Failure::system("listening"))?;
    let address = sockets::local_address(&listener).map_err(Failure::system("listening"))?;
    let mut upstream =
        Upstream::new(listener, settings.protocol).map_err(Failure::system("setting epoll up"))?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "ready {address}")
        .and_then(|()| stdout.flush())
        .map_err(Failure::system("saying ready"))?;
    upstream.serve().map_err(Failure::system("serving"))
}

struct Upstream {
    poller: Poller,
    listener: OwnedFd,
    protocol: Protocol,
    connections: Slab<Connection>,
    body: Vec<u8>,
}

impl Upstream {
    fn new(listener: OwnedFd, protocol: Protocol) -> Result<Self, Errno> {
        let poller = Poller::new()?;
        poller.watch_listener(&listener, LISTENER)?;
        Ok(Self {
            poller,
            listener,
            protocol,
            connections: Slab::new(),
            body: vec![b'x'; BODY_BYTES],
        })
    }

    fn serve(&mut self) -> Result<(), Errno> {
        let mut ready = Vec::with_capacity(EVENTS);
        loop {
            self.poller.wait(&mut ready, None)?;
            for event in &ready {
                match event.data.u64() as usize {
                    LISTENER => self.accept()?,
                    token => self.advance(token, event.flags),
                }
            }
        }
    }

    /// Accepts all that wait.
    fn accept(&mut self) -> Result<(), Errno> {
        loop {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match accept_with(&self.listener, flags) {
                Ok(socket) => {
                    let entry = self.connections.vacant_entry();
                    self.poller.watch(&socket, entry.key())?;
                    entry.insert(Connection::new(socket, self.protocol));
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn advance(&mut self, token: usize, flags: EventFlags) {
        let Some(connection) = self.connections.get_mut(token) else {
            return;
        };
        connection.note(flags);
        if connection.advance(&self.body) == After::Close {
            self.connections.remove(token);
        }
    }
}
