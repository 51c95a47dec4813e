//! A client that sends exactly the bytes it is told and reads strictly.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection};

use crate::session::Session;

/// No answer of a test takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// One connection.
pub struct Client {
    stream: TcpStream,
    session: Option<Session>,
    unread: Vec<u8>,
    pub(crate) carried: Carried,
    /// Each byte goes on its own.
    pub(crate) trickles: bool,
}

/// How much has gone and come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Carried {
    /// By the client.
    pub sent: u64,
    /// By the server.
    pub received: u64,
}

/// An answer, fields in the order and case of the wire.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// All of the head, as it came.
    pub head: String,
    /// Names and values.
    pub fields: Vec<(String, String)>,
    /// The content, framing removed.
    pub body: Vec<u8>,
    /// Trailer fields.
    pub trailers: Vec<(String, String)>,
}

impl Response {
    /// The first value of a field, by any case of its name.
    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self
            .fields
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The content as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The word that says why the proxy answered itself.
    pub fn reason(&self) -> &str {
        self.field("x-ambassador-reason").unwrap_or("")
    }
}

impl Client {
    /// Connects; panics when that fails.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Client {
        Client::over(TcpStream::connect(address).expect("something listens there"))
    }

    /// Connects if it can.
    pub fn try_connect(address: SocketAddr) -> Option<Client> {
        TcpStream::connect_timeout(&address, Duration::from_secs(2))
            .ok()
            .map(Client::over)
    }

    /// Speaks over a connected stream.
    pub fn over(stream: TcpStream) -> Client {
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a valid duration");
        stream
            .set_write_timeout(Some(PATIENCE))
            .expect("a valid duration");
        stream.set_nodelay(true).expect("a TCP socket");
        Client {
            stream,
            session: None,
            unread: Vec::new(),
            carried: Carried::default(),
            trickles: false,
        }
    }

    /// Agrees upon a TLS session with the server of this name, through which all goes
    /// from then on.
    ///
    /// # Errors
    /// Where none comes about.
    pub fn secure(&mut self, config: Arc<ClientConfig>, name: &str) -> io::Result<()> {
        let name = name.to_owned().try_into().map_err(io::Error::other)?;
        let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        self.session = Some(Session::agree(connection, &mut self.stream)?);
        Ok(())
    }

    /// The TLS session, where there is one.
    pub fn session(&mut self) -> Option<&mut Session> {
        self.session.as_mut()
    }

    /// Says that no more will be sent, within TLS too.
    pub fn close_write(&mut self) {
        if let Some(session) = &mut self.session {
            let finished = session.finish(&mut self.stream);
            finished.expect("the peer takes what is sent");
        }
        self.finish();
    }

    /// The stream itself.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the peer takes what is sent");
    }

    /// Sends, and says if the peer went away.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let bytes = bytes.as_ref();
        self.carried.sent += bytes.len() as u64;
        let at_once = if self.trickles { 1 } else { bytes.len().max(1) };
        bytes
            .chunks(at_once)
            .try_for_each(|part| match &mut self.session {
                Some(session) => session.write(&mut self.stream, part),
                None => self.stream.write_all(part),
            })
    }

    /// No more will be sent. A peer that has reset the connection already is no
    /// error here: what is read next shows it.
    pub fn finish(&self) {
        match self.stream.shutdown(Shutdown::Write) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => panic!("{error}"),
            _ => {}
        }
    }

    /// Sends a GET for `web` and gives its answer.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> Response {
        self.send(get(path));
        self.response("GET")
    }

    /// The next answer to a request with `method`, interim ones included.
    #[track_caller]
    pub fn response(&mut self, method: &str) -> Response {
        match self.read_response(method) {
            Ok(Some(response)) => response,
            Ok(None) => panic!("closed without an answer"),
            Err(error) => panic!("no answer: {error}"),
        }
    }

    /// The next answer, or `None` when the connection ended instead.
    pub fn try_response(&mut self, method: &str) -> Option<Response> {
        self.read_response(method).ok().flatten()
    }

    /// Exactly `count` bytes.
    #[track_caller]
    pub fn exactly(&mut self, count: usize) -> Vec<u8> {
        let bytes = self.at_most(count).expect("bytes come");
        assert_eq!(bytes.len(), count, "it ended before");
        bytes
    }

    /// The next `count` bytes, fewer where the peer ended before; an error if it was
    /// by a reset.
    pub fn at_most(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.unread.len() < count && self.fill()? > 0 {}
        let count = count.min(self.unread.len());
        Ok(self.unread.drain(..count).collect())
    }

    /// Whether the peer ended the connection, in whatever way, with nothing more said.
    pub fn is_ended(&mut self) -> bool {
        self.unread.is_empty() && !matches!(self.fill(), Ok(1..)) && !self.timed_out()
    }

    /// Everything until the peer's FIN; an error if it was a reset.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.fill()? > 0 {}
        Ok(std::mem::take(&mut self.unread))
    }

    /// Whether bytes have come, or the end; does not wait.
    pub fn has_unread(&self) -> bool {
        let set = |on| self.stream.set_nonblocking(on).expect("it is a socket");
        set(true);
        let peeked = self.stream.peek(&mut [0]);
        set(false);
        let nothing = matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        !self.unread.is_empty() || !nothing
    }

    fn timed_out(&mut self) -> bool {
        // A second look at an ended connection answers at once.
        let mut byte = [0];
        self.stream
            .set_read_timeout(Some(Duration::from_millis(100)))
            .expect("valid");
        let result = self.stream.peek(&mut byte);
        self.stream.set_read_timeout(Some(PATIENCE)).expect("valid");
        matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 64 * 1024];
        let count = match &mut self.session {
            Some(session) => session.read(&mut self.stream, &mut buffer)?,
            None => self.stream.read(&mut buffer)?,
        };
        self.unread.extend_from_slice(&buffer[..count]);
        self.carried.received += count as u64;
        Ok(count)
    }

    fn line(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..end + 2).collect();
                return Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()));
            }
            if self.fill()? == 0 {
                if self.unread.is_empty() {
                    return Ok(None);
                }
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn fields(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    fn bytes(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.unread.len() < count {
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.unread.drain(..count).collect())
    }

    /// The head of the next answer; what follows it is read as [`Client::content`].
    #[track_caller]
    pub fn head(&mut self) -> Response {
        let head = self.read_head().expect("a whole head");
        head.expect("closed without an answer")
    }

    /// The next bytes of the content of `response`; none at its end.
    pub fn content(&mut self, response: &Response) -> io::Result<Vec<u8>> {
        if response.field("transfer-encoding").is_some() {
            return Ok(self.chunk()?.unwrap_or_default());
        }
        if self.unread.is_empty() {
            self.fill()?;
        }
        Ok(std::mem::take(&mut self.unread))
    }

    /// The next chunk; `None`: the last one was there.
    fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = self.line()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let size = line.split(';').next().unwrap_or(&line).trim();
        let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
        if size == 0 {
            return Ok(None);
        }
        let chunk = self.bytes(size)?;
        match &*self.bytes(2)? {
            b"\r\n" => Ok(Some(chunk)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn read_head(&mut self) -> io::Result<Option<Response>> {
        let Some(status_line) = self.line()? else {
            return Ok(None);
        };
        let status = status_line
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok());
        let status: u16 = status.ok_or_else(|| io::Error::other(status_line.clone()))?;
        let fields = self.fields()?;
        let head = fields.iter().fold(status_line, |head, (name, value)| {
            format!("{head}\r\n{name}: {value}")
        });
        Ok(Some(Response {
            status,
            head,
            fields,
            body: Vec::new(),
            trailers: Vec::new(),
        }))
    }

    fn read_response(&mut self, method: &str) -> io::Result<Option<Response>> {
        let Some(mut response) = self.read_head()? else {
            return Ok(None);
        };
        let status = response.status;
        let tunnel = method == "CONNECT" && (200..300).contains(&status);
        if method == "HEAD" || status < 200 || status == 204 || status == 304 || tunnel {
            return Ok(Some(response));
        }
        if let Some(length) = response.field("content-length") {
            let length = length.parse().map_err(io::Error::other)?;
            response.body = self.bytes(length)?;
        } else if response.field("transfer-encoding").is_some() {
            while let Some(chunk) = self.chunk()? {
                response.body.extend(chunk);
            }
            response.trailers = self.fields()?;
        } else {
            response.body = self.rest()?;
        }
        Ok(Some(response))
    }
}

/// A GET for the upstream `web` of an explicit listener.
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: client.test\r\nX-Upstream-Host: web\r\n\r\n")
}
