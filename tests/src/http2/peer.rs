//! One end of a connection: sends what a test says, and gives every frame that comes.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::hpack::Decoder;
use super::{Frame, PREFACE, kind};
use crate::client::Client;
use crate::server::Connection;

/// No answer to a frame takes longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What octets go through.
pub trait Wire {
    /// The next octets, fewer where the peer ended before.
    fn take(&mut self, count: usize) -> io::Result<Vec<u8>>;
    /// Sends octets.
    fn put(&mut self, bytes: &[u8]) -> io::Result<()>;
}

impl Wire for Client {
    fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        self.at_most(count)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.try_send(bytes)
    }
}

impl Wire for &mut Connection {
    fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        self.at_most(count)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write(bytes)
    }
}

/// One end of a connection.
pub struct Peer<W> {
    wire: W,
    decoder: Decoder,
    /// The field block that is under way.
    block: Vec<u8>,
    /// The fields of the newest one.
    fields: Vec<(String, String)>,
}

impl Peer<Client> {
    /// A client that has connected and said nothing.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Peer<Client> {
        let client = Client::connect(address);
        let patience = client.stream().set_read_timeout(Some(PATIENCE));
        patience.expect("a valid duration");
        Peer::over(client)
    }

    /// A client that has these settings, and whose settings the server knows. It has no
    /// part of the server's.
    ///
    /// # Errors
    /// Where the server does not answer as a server does.
    pub fn greet(&mut self, settings: &[(u16, u32)]) -> io::Result<Frame> {
        self.put(PREFACE)?;
        self.send(&Frame::settings(settings))?;
        self.agree()
    }

    /// Waits for the settings of the other end, acknowledges them, and waits for the
    /// acknowledgement of its own.
    fn agree(&mut self) -> io::Result<Frame> {
        let mut theirs = None;
        let mut is_known = false;
        while theirs.is_none() || !is_known {
            let frame = self.frame()?;
            match (frame.kind, frame.has(super::flag::ACK)) {
                (kind::SETTINGS, true) => is_known = true,
                (kind::SETTINGS, false) => {
                    self.send(&Frame::settings(&[]).ack())?;
                    theirs = Some(frame);
                }
                (kind::WINDOW_UPDATE, _) => {}
                _ => return Err(io::Error::other(format!("no preface: {frame:?}"))),
            }
        }
        theirs.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

impl<'a> Peer<&'a mut Connection> {
    /// A server that has these settings. Its client may have begun with requests, and
    /// what it has for settings is acknowledged by whoever reads on.
    ///
    /// # Errors
    /// Where the client does not begin as a client does.
    pub fn welcome(connection: &'a mut Connection, settings: &[(u16, u32)]) -> io::Result<Self> {
        let mut peer = Peer::over(connection);
        if peer.wire.take(PREFACE.len())? != PREFACE {
            return Err(io::Error::other("no preface of HTTP/2"));
        }
        peer.send(&Frame::settings(settings))?;
        Ok(peer)
    }
}

impl<W: Wire> Peer<W> {
    /// Over a connection that nothing was said on.
    pub fn over(wire: W) -> Peer<W> {
        Peer {
            wire,
            decoder: Decoder::default(),
            block: Vec::new(),
            fields: Vec::new(),
        }
    }

    /// What the octets go through.
    pub fn wire(&mut self) -> &mut W {
        &mut self.wire
    }

    /// Sends a frame.
    pub fn send(&mut self, frame: &Frame) -> io::Result<()> {
        self.put(&frame.bytes())
    }

    /// Sends octets.
    pub fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.put(bytes)
    }

    /// The next frame; `None`: the other end has closed the connection.
    pub fn receive(&mut self) -> io::Result<Option<Frame>> {
        let head = self.wire.take(9)?;
        if head.is_empty() {
            return Ok(None);
        }
        let [a, b, c, kind, flags, stream @ ..] = &head[..] else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let stream: [u8; 4] = stream.try_into().map_err(io::Error::other)?;
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let payload = self.wire.take(length)?;
        if payload.len() < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let frame = Frame::new(*kind, *flags, u32::from_be_bytes(stream), payload);
        if matches!(frame.kind, kind::HEADERS | kind::CONTINUATION) {
            self.block.extend(frame.content());
            if frame.has(super::flag::END_HEADERS) {
                self.fields = self.decoder.decode(&std::mem::take(&mut self.block))?;
                if let Some(wrong) = super::malformed(&self.fields) {
                    eprintln!("a malformed field section: {wrong}");
                    return Err(io::Error::other(wrong));
                }
            }
        }
        Ok(Some(frame))
    }

    /// The next frame; HEADERS whose block goes on in CONTINUATIONs come with all of it.
    pub(crate) fn receive_whole(&mut self) -> io::Result<Option<Frame>> {
        let mut received = self.receive()?;
        while let Some(frame) = &mut received
            && frame.kind == kind::HEADERS
            && !frame.has(super::flag::END_HEADERS)
        {
            frame.flags |= self.frame()?.flags & super::flag::END_HEADERS;
        }
        Ok(received)
    }

    /// The next frame, which has to come.
    pub fn frame(&mut self) -> io::Result<Frame> {
        self.receive()?
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// The fields of the newest field block.
    pub fn fields(&self) -> &[(String, String)] {
        &self.fields
    }

    /// The names in it that no hop may put into a table.
    pub fn never(&self) -> &[String] {
        self.decoder.never()
    }

    /// The value of one of them, or nothing.
    pub fn field(&self, name: &str) -> &str {
        let found = self.fields.iter().find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value)
    }

    /// Waits for a whole field block, past all that is none.
    pub fn headers(&mut self) -> io::Result<Frame> {
        loop {
            let frame = self.frame()?;
            let is_block = matches!(frame.kind, kind::HEADERS | kind::CONTINUATION);
            if is_block && frame.has(super::flag::END_HEADERS) {
                return Ok(frame);
            }
        }
    }
}
