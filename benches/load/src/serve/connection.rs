//! One connection of the upstream.

use std::io::IoSlice;
use std::os::fd::OwnedFd;

use rustix::io::{Errno, writev};

use super::request::{self, Refused, Request};
use crate::poller::{ENDED, EventFlags};
use crate::protocol::Protocol;

/// Room for received bytes; several pipelined requests fit.
const RECEIVE_BYTES: usize = 4096;

/// What to do with a connection after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Wait for its next event.
    Keep,
    /// Drop it.
    Close,
}

/// A client's connection: requests are answered one after the other, each when
/// the one before it is sent.
pub struct Connection {
    socket: OwnedFd,
    protocol: Protocol,
    /// Received, and not yet answered.
    received: Vec<u8>,
    /// Whether the kernel may have more to give.
    readable: bool,
    /// Whether the client sends nothing more: read up to the end, then.
    ended: bool,
    /// The head of the last answer, for the next that needs the same.
    head: Head,
    sending: Option<Sending>,
}

/// A prepared head.
#[derive(Default)]
struct Head {
    bytes: Vec<u8>,
    /// The size that it says, and whether it says that the connection ends.
    says: Option<(u64, bool)>,
}

/// What is left to send of an answer, in bytes.
struct Sending {
    head: usize,
    body: u64,
    close: bool,
}

impl Connection {
    /// A new connection.
    pub fn new(socket: OwnedFd, protocol: Protocol) -> Self {
        Self {
            socket,
            protocol,
            received: Vec::with_capacity(RECEIVE_BYTES),
            readable: false,
            ended: false,
            head: Head::default(),
            sending: None,
        }
    }

    /// Notes what epoll says.
    pub fn note(&mut self, flags: EventFlags) {
        self.ended |= flags.intersects(ENDED);
        self.readable |= self.ended || flags.contains(EventFlags::IN);
    }

    /// Reads, answers and sends for as long as the kernel takes part; bodies
    /// are pieces of `body`.
    pub fn advance(&mut self, body: &[u8]) -> After {
        loop {
            if self.sending.is_some() {
                match self.send(body) {
                    Ok(After::Keep) => {}
                    Ok(After::Close) => return After::Close,
                    Err(Errno::AGAIN) => return After::Keep,
                    Err(_) => return After::Close,
                }
            }
            match request::parse(self.protocol, &self.received) {
                Ok(Some(request)) => self.answer(&request),
                Ok(None) if self.readable => match self.receive() {
                    Ok(0) => return After::Close,
                    Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(_) => return After::Close,
                },
                Ok(None) => return After::Keep,
                Err(Refused) => self.refuse(),
            }
        }
    }

    fn receive(&mut self) -> Result<usize, Errno> {
        self.received.reserve(RECEIVE_BYTES);
        let room = self.received.capacity() - self.received.len();
        let got = rustix::io::read(
            &self.socket,
            rustix::buffer::spare_capacity(&mut self.received),
        );
        // What comes after a short read makes an event of its own, an end that
        // epoll has told of excepted.
        self.readable = match got {
            Ok(got) => got == room || self.ended,
            Err(error) => error == Errno::INTR,
        };
        got
    }

    fn answer(&mut self, request: &Request) {
        self.received.drain(..request.length);
        let head = match self.protocol {
            Protocol::Tcp => 0,
            Protocol::Http => self.head.prepare(request),
        };
        self.sending = Some(Sending {
            head,
            body: request.size,
            close: request.close,
        });
    }

    fn refuse(&mut self) {
        self.received.clear();
        let head = match self.protocol {
            Protocol::Tcp => 0,
            Protocol::Http => self.head.refuse(),
        };
        self.sending = Some(Sending {
            head,
            body: 0,
            close: true,
        });
    }

    /// Sends all that is left, or fails with `AGAIN`.
    fn send(&mut self, body: &[u8]) -> Result<After, Errno> {
        while let Some(sending) = &mut self.sending {
            let head = &self.head.bytes[self.head.bytes.len() - sending.head..];
            let piece = body.len().min(sending.body as usize);
            let sent = match (head.len() + piece, sending.close) {
                (0, true) => return Ok(After::Close),
                (0, false) => {
                    self.sending = None;
                    break;
                }
                _ => writev(
                    &self.socket,
                    &[IoSlice::new(head), IoSlice::new(&body[..piece])],
                ),
            };
            match sent {
                Ok(sent) => {
                    let of_head = sent.min(sending.head);
                    sending.head -= of_head;
                    sending.body -= (sent - of_head) as u64;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(After::Keep)
    }
}

impl Head {
    /// Makes it the head of the answer to `request`; gives its length.
    fn prepare(&mut self, request: &Request) -> usize {
        let says = Some((request.size, request.close));
        if self.says != says {
            // Unannounced, the end would cross the next request.
            let close = match request.close {
                true => "connection: close\r\n",
                false => "",
            };
            let size = request.size;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n{close}\r\n");
            self.bytes = head.into_bytes();
            self.says = says;
        }
        self.bytes.len()
    }

    /// Makes it the head of a refusal; gives its length.
    fn refuse(&mut self) -> usize {
        self.bytes =
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec();
        self.says = None;
        self.bytes.len()
    }
}
