//! Upstream servers: what one does on a connection is a closure of the test.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection};

use crate::os;
use crate::session::Session;

/// No peer of a test keeps a server waiting longer, except in a tunnel.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// GET, POST...
    pub method: String,
    /// The target as it was sent.
    pub target: String,
    /// All of the head, with its line ends.
    pub head: String,
    /// Names and values, in order and case of the wire.
    pub fields: Vec<(String, String)>,
    /// The content, framing removed.
    pub body: Vec<u8>,
    /// Trailer fields.
    pub trailers: Vec<(String, String)>,
}

impl Request {
    /// The first value of a field, by any case of its name.
    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self
            .fields
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Whom it is addressed to.
    pub fn authority(&self) -> Option<&str> {
        self.field("host")
    }

    /// The first value of a trailer field, by any case of its name.
    pub fn trailer(&self, name: &str) -> Option<&str> {
        let mut trailers = self.trailers.iter();
        let found = trailers.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// One accepted connection.
pub struct Connection {
    stream: TcpStream,
    session: Option<Session>,
    unread: Vec<u8>,
    shared: Arc<Shared>,
    /// Counts from 1.
    pub number: usize,
}

#[derive(Default)]
struct Shared {
    connections: AtomicUsize,
    open: AtomicUsize,
    requests: Mutex<Vec<Request>>,
    stopped: AtomicBool,
}

/// What adds to the requests that a server tells of.
#[derive(Clone)]
pub(crate) struct Recorder(Arc<Shared>);

/// A listening server; it stops listening when dropped.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<std::thread::JoinHandle<()>>,
    wake: Option<SocketAddr>,
}

impl Server {
    /// Listens on a loopback port of its own; `serve` runs once per
    /// connection, on its own thread. An error ends only its connection.
    pub fn start(
        serve: impl Fn(&mut Connection) -> io::Result<()> + Send + Sync + 'static,
    ) -> Server {
        Server::over(
            TcpListener::bind("127.0.0.1:0").expect("a port is left"),
            serve,
        )
    }

    /// The same over a listener that the test made.
    pub fn over(
        listener: TcpListener,
        serve: impl Fn(&mut Connection) -> io::Result<()> + Send + Sync + 'static,
    ) -> Server {
        let address = listener.local_addr().expect("it listens");
        // Only loopback listeners of this namespace can be woken by a connect.
        let wake = address.ip().is_loopback().then_some(address);
        let shared = Arc::new(Shared::default());
        let serve = Arc::new(serve);
        let state = Arc::clone(&shared);
        let accepting = std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if state.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let number = state.connections.fetch_add(1, Ordering::SeqCst) + 1;
                state.open.fetch_add(1, Ordering::SeqCst);
                let (state, serve) = (Arc::clone(&state), Arc::clone(&serve));
                let _ = std::thread::Builder::new()
                    .stack_size(512 * 1024)
                    .spawn(move || {
                        let _ = stream.set_nodelay(true);
                        let _ = stream.set_read_timeout(Some(PATIENCE));
                        let shared = Arc::clone(&state);
                        let mut connection = Connection {
                            stream,
                            session: None,
                            unread: Vec::new(),
                            shared,
                            number,
                        };
                        let _ = serve(&mut connection);
                        drop(connection);
                        state.open.fetch_sub(1, Ordering::SeqCst);
                    });
            }
        });
        Server {
            address,
            shared,
            accepting: Some(accepting),
            wake,
        }
    }

    /// The same over TLS, once a session is agreed upon.
    pub fn secured(
        config: ServerConfig,
        serve: impl Fn(&mut Connection) -> io::Result<()> + Send + Sync + 'static,
    ) -> Server {
        let config = Arc::new(config);
        Server::start(move |connection| {
            connection.secure(Arc::clone(&config))?;
            serve(connection)?;
            connection.finish()
        })
    }

    /// Answers every request of every connection with what `respond` gives:
    /// the bytes of a whole response.
    pub fn http(respond: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Server {
        Server::start(move |connection| connection.serve_http(&respond))
    }

    /// 200 with the text `ok` to everything.
    pub fn ok() -> Server {
        Server::http(|_| text("ok"))
    }

    /// Sends back whatever comes, until FIN.
    pub fn echo() -> Server {
        Server::start(|connection| {
            let mut buffer = [0; 64 * 1024];
            loop {
                let count = connection.read(&mut buffer)?;
                if count == 0 {
                    return Ok(());
                }
                connection.write(&buffer[..count])?;
            }
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many of them are still served.
    pub fn open_connections(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// The requests that were read whole, oldest first.
    pub fn requests(&self) -> Vec<Request> {
        self.shared
            .requests
            .lock()
            .expect("no thread panics with it")
            .clone()
    }

    /// The newest request.
    #[track_caller]
    pub fn last_request(&self) -> Request {
        self.requests().pop().expect("a request arrived")
    }
}

impl Recorder {
    pub(crate) fn record(&self, request: &Request) {
        let requests = self.0.requests.lock();
        requests
            .expect("no thread panics with it")
            .push(request.clone());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        if let (Some(address), Some(accepting)) = (self.wake, self.accepting.take())
            && TcpStream::connect(address).is_ok()
        {
            let _ = accepting.join();
        }
    }
}

impl Connection {
    /// The next bytes, already buffered ones first; 0 is the peer's FIN.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.unread.is_empty() {
            return self.receive(buffer);
        }
        let count = buffer.len().min(self.unread.len());
        buffer[..count].copy_from_slice(&self.unread[..count]);
        self.unread.drain(..count);
        Ok(count)
    }

    /// The next `count` bytes, fewer where the peer ended before.
    pub fn at_most(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.unread.len() < count && self.fill()? > 0 {}
        let count = count.min(self.unread.len());
        Ok(self.unread.drain(..count).collect())
    }

    /// Sends bytes as they are.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        match &mut self.session {
            Some(session) => session.write(&mut self.stream, bytes.as_ref()),
            None => self.stream.write_all(bytes.as_ref()),
        }
    }

    /// No more will be sent.
    pub fn finish(&mut self) -> io::Result<()> {
        if let Some(session) = &mut self.session {
            session.finish(&mut self.stream)?;
        }
        self.stream.shutdown(Shutdown::Write)
    }

    /// Agrees upon a TLS session, through which all goes from then on.
    pub fn secure(&mut self, config: Arc<ServerConfig>) -> io::Result<()> {
        let connection = ServerConnection::new(config).map_err(io::Error::other)?;
        self.session = Some(Session::agree(connection, &mut self.stream)?);
        Ok(())
    }

    /// The TLS session, where there is one, and the stream that it goes over.
    pub fn session(&mut self) -> Option<(&mut Session, &mut TcpStream)> {
        let session = self.session.as_mut()?;
        Some((session, &mut self.stream))
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.session {
            Some(session) => session.read(&mut self.stream, buffer),
            None => self.stream.read(buffer),
        }
    }

    /// The address the peer called.
    pub fn local_address(&self) -> SocketAddr {
        self.stream.local_addr().expect("it is connected")
    }

    /// The stream itself.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Ends with a reset.
    pub fn reset(&self) -> io::Result<()> {
        os::reset_on_close(&self.stream)
    }

    /// Serves requests until the peer is done, or asks to close.
    pub fn serve_http(&mut self, respond: impl Fn(&Request) -> Vec<u8>) -> io::Result<()> {
        while let Some(request) = self.request()? {
            let response = respond(&request);
            self.write(&response)?;
            let head = String::from_utf8_lossy(&response[..response.len().min(512)]);
            let asked = request.field("connection").unwrap_or_default();
            if asked.eq_ignore_ascii_case("close")
                || head.to_ascii_lowercase().contains("connection: close")
            {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The next request, whole; `None` when the peer is done.
    pub fn request(&mut self) -> io::Result<Option<Request>> {
        let Some(mut request) = self.head()? else {
            return Ok(None);
        };
        self.body(&mut request)?;
        self.record(&request);
        Ok(Some(request))
    }

    /// Adds a request to those the server tells of.
    pub fn record(&self, request: &Request) {
        self.recorder().record(request);
    }

    /// What adds to them, from any thread.
    pub(crate) fn recorder(&self) -> Recorder {
        Recorder(Arc::clone(&self.shared))
    }

    /// The head of the next request; its body stays unread.
    pub fn head(&mut self) -> io::Result<Option<Request>> {
        let end = loop {
            if let Some(end) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if self.fill()? == 0 {
                return Ok(None);
            }
        };
        let head: Vec<u8> = self.unread.drain(..end).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.trim_end().split("\r\n");
        let mut words = lines.next().unwrap_or("").split(' ');
        let method = words.next().unwrap_or("").to_owned();
        let target = words.next().unwrap_or("").to_owned();
        let fields = lines.filter_map(field).collect();
        Ok(Some(Request {
            method,
            target,
            head,
            fields,
            body: Vec::new(),
            trailers: Vec::new(),
        }))
    }

    /// Reads the body that `request` announced.
    pub fn body(&mut self, request: &mut Request) -> io::Result<()> {
        if let Some(length) = request.field("content-length") {
            let length: usize = length.parse().map_err(io::Error::other)?;
            request.body = self.bytes(length)?;
        } else if request.field("transfer-encoding").is_some() {
            loop {
                let line = self.line()?;
                let size = line.split(';').next().unwrap_or(&line).trim();
                let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
                if size == 0 {
                    break;
                }
                request.body.extend(self.bytes(size)?);
                self.line()?;
            }
            loop {
                let line = self.line()?;
                if line.is_empty() {
                    break;
                }
                request.trailers.extend(field(&line));
            }
        }
        Ok(())
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
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

    fn fill(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 16 * 1024];
        let count = self.receive(&mut buffer)?;
        self.unread.extend_from_slice(&buffer[..count]);
        Ok(count)
    }
}

fn field(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    Some((name.to_owned(), value.trim().to_owned()))
}

/// The bytes of a 200 with a text body.
pub fn text(body: &str) -> Vec<u8> {
    response("200 OK", "", body)
}

/// The bytes of a response; `fields` are whole lines, each with its `\r\n`.
pub fn response(status: &str, fields: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{fields}\r\n{body}",
        body.len()
    )
    .into_bytes()
}
