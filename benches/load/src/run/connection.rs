//! One connection of the generator: what it is at, and its system calls.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::answer::{Afterwards, Answer, Progress};
use super::errors::ErrorKind;
use super::open_loop::Moment;
use super::session::Session;
use crate::sockets;

/// What a connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// There is none.
    Closed,
    /// Being established.
    Connecting {
        /// When connect() was called.
        since: Moment,
        /// When the request was due that it is opened for, if it is for one.
        due: Option<Moment>,
    },
    /// Established, without a request.
    Idle,
    /// A request is on its way, or its answer.
    Asking {
        /// When the request was due.
        due: Moment,
    },
}

/// A connection, or the place for one.
pub struct Connection {
    socket: Option<OwnedFd>,
    /// What encrypts, if anything does.
    session: Option<Box<Session>>,
    work: Work,
    /// Bytes of the request that the kernel, or the session, has taken.
    sent: usize,
    answer: Answer,
}

impl Connection {
    /// None yet; answers are checked by `answer`.
    pub fn new(answer: Answer) -> Self {
        Self {
            socket: None,
            session: None,
            work: Work::Closed,
            sent: 0,
            answer,
        }
    }

    /// What it is at.
    pub fn work(&self) -> Work {
        self.work
    }

    /// Takes `socket`, whose connect() was called at `since`.
    pub fn connecting(
        &mut self,
        socket: OwnedFd,
        session: Option<Session>,
        since: Moment,
        due: Option<Moment>,
    ) {
        self.socket = Some(socket);
        self.session = session.map(Box::new);
        self.work = Work::Connecting { since, due };
    }

    /// What became of the connect, which has ended.
    pub fn connect_result(&mut self) -> Result<(), Errno> {
        let socket = self.socket.as_ref().ok_or(Errno::NOTCONN)?;
        sockets::connect_result(socket)?;
        self.work = Work::Idle;
        Ok(())
    }

    /// Begins to ask, with `request`, what was due at `due`.
    pub fn ask(&mut self, due: Moment, request: &[u8]) -> Result<(), ErrorKind> {
        self.work = Work::Asking { due };
        self.sent = 0;
        self.answer.expect();
        self.send(request)
    }

    /// Sends what the kernel takes of the rest of `request`.
    pub fn send(&mut self, request: &[u8]) -> Result<(), ErrorKind> {
        let socket = self.socket.as_ref().ok_or(ErrorKind::Broken)?;
        if let Some(session) = &mut self.session {
            if self.sent < request.len() {
                session.queue(request).map_err(|_| ErrorKind::Broken)?;
                self.sent = request.len();
            }
            return session.flush(socket).map_err(|_| ErrorKind::Broken);
        }
        while self.sent < request.len() {
            match send(socket, &request[self.sent..], SendFlags::NOSIGNAL) {
                Ok(sent) => self.sent += sent,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return Err(ErrorKind::Broken),
            }
        }
        Ok(())
    }

    /// Receives what there is, into `buffer` and no further, up to the end of
    /// the answer; `ended` where epoll said that nothing comes after it.
    pub fn receive(&mut self, buffer: &mut [u8], ended: bool) -> Result<Progress, ErrorKind> {
        loop {
            let received = match self.receive_some(buffer) {
                Ok(0) => return Err(ErrorKind::Closed),
                Ok(received) => received,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Ok(Progress::Partial),
                Err(_) => return Err(ErrorKind::Broken),
            };
            match self.answer.feed(&buffer[..received])? {
                Progress::Whole(_) if ended => return Ok(Progress::Whole(Afterwards::Closing)),
                Progress::Whole(afterwards) => return Ok(Progress::Whole(afterwards)),
                // What comes after a short read makes an event of its own.
                Progress::Partial
                    if received < buffer.len() && !ended && self.session.is_none() =>
                {
                    return Ok(Progress::Partial);
                }
                Progress::Partial => {}
            }
        }
    }

    /// Whether the peer has sent something though nothing was asked, closed,
    /// or done nothing, which leaves the connection usable.
    pub fn check_idle(&mut self) -> Result<Afterwards, ErrorKind> {
        match self.receive_some(&mut [0]) {
            Err(Errno::AGAIN | Errno::INTR) => Ok(Afterwards::Reusable),
            // A peer may close what is idle, one way or the other.
            Ok(0) | Err(_) => Ok(Afterwards::Closing),
            Ok(_) => Err(ErrorKind::Surplus),
        }
    }

    /// The request that is on its way has its answer.
    pub fn answered(&mut self) {
        self.work = Work::Idle;
    }

    /// Closes it.
    pub fn close(&mut self) {
        self.socket = None;
        self.session = None;
        self.work = Work::Closed;
    }

    fn receive_some(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        let socket = self.socket.as_ref().ok_or(Errno::NOTCONN)?;
        match &mut self.session {
            Some(session) => session.receive(socket, buffer),
            None => recv(socket, buffer, RecvFlags::empty()).map(|(received, _)| received),
        }
    }
}

/// How long a place for a connection rests after a failure. Without a pause, a
/// refused connect would make the generator spin.
pub const REST: Duration = Duration::from_millis(10);
