//! A TLS session over a stream that blocks: what servers and clients of tests speak
//! through.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use rustls::{Connection, HandshakeKind, ServerConnection};

/// One end of a session.
pub struct Session(Connection);

impl Session {
    /// Agrees upon a session as the one who is called, or who calls.
    ///
    /// # Errors
    /// Where none comes about; the peer is told why.
    pub fn agree(connection: impl Into<Connection>, stream: &mut TcpStream) -> io::Result<Session> {
        let mut session = Session(connection.into());
        while session.0.is_handshaking() {
            session.flush(stream)?;
            if session.0.is_handshaking() {
                session.take(stream)?;
            }
        }
        session.flush(stream)?;
        Ok(session)
    }

    /// What was agreed upon.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.0
    }

    /// Whether it takes up one from before.
    pub fn is_resumed(&self) -> bool {
        self.0.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The name that the client has asked for.
    pub fn server_name(&self) -> Option<&str> {
        match &self.0 {
            Connection::Server(server) => ServerConnection::server_name(server),
            Connection::Client(_) => None,
        }
    }

    /// The next bytes; 0: the peer has said that it is done. An end without that is an
    /// error.
    pub fn read(&mut self, stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            self.flush(stream)?;
            self.take(stream)?;
        }
    }

    /// Sends bytes.
    pub fn write(&mut self, stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
        for part in bytes.chunks(16 * 1024) {
            self.0.writer().write_all(part)?;
            self.flush(stream)?;
        }
        Ok(())
    }

    /// Says that no more comes.
    pub fn finish(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        self.0.send_close_notify();
        self.flush(stream)
    }

    /// Sends what the session itself has to say.
    pub fn flush(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        while self.0.wants_write() {
            self.0.write_tls(stream)?;
        }
        Ok(())
    }

    fn take(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        let count = self.0.read_tls(stream)?;
        if count == 0 && self.0.is_handshaking() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Err(error) = self.0.process_new_packets() {
            let _ = self.flush(stream);
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(())
    }
}
