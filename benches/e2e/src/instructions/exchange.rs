//! The exchanges that are counted: what the proxy is told, what the upstream
//! answers, what the client sends.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use ambassador_tests::{Session, ports};

use super::certificates::Certificates;
use super::http2;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exchange {
    /// A GET with a small response.
    Get,
    /// The same with three endpoints to choose from.
    GetOfThree,
    /// A POST of a kilobyte.
    Post,
    /// 64 bytes there and 64 back, over a relayed connection.
    Relay,
    /// The GET, with mutual TLS 1.3 to the upstream.
    GetToTls,
    /// A connection of a client, with a full handshake of TLS 1.3 and a GET.
    ClientHandshake,
    /// A GET with a full handshake of mutual TLS 1.3 to the upstream.
    UpstreamHandshake,
    /// A GET over HTTP/2, both from the client and to the upstream.
    GetOverHttp2,
    /// A GET over HTTP/1.1, that goes on over HTTP/2.
    GetToHttp2,
}

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const LAST_RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
const BODY: usize = 1024;
const RELAYED: usize = 64;

/// A client or an upstream that waits longer has failed.
const SILENCE: Duration = Duration::from_secs(30);

impl Exchange {
    /// Each.
    pub const ALL: [Self; 9] = [
        Self::Get,
        Self::GetOfThree,
        Self::Post,
        Self::Relay,
        Self::GetToTls,
        Self::ClientHandshake,
        Self::UpstreamHandshake,
        Self::GetOverHttp2,
        Self::GetToHttp2,
    ];

    /// As it is kept.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::GetOfThree => "get_of_three_endpoints",
            Self::Post => "post_of_1_kib",
            Self::Relay => "relayed_64_bytes",
            Self::GetToTls => "get_to_mutual_tls",
            Self::ClientHandshake => "handshake_of_a_client",
            Self::UpstreamHandshake => "handshake_to_an_upstream",
            Self::GetOverHttp2 => "get_over_http2",
            Self::GetToHttp2 => "get_from_http1_to_http2",
        }
    }

    /// How far its figure may be off before it has changed. Signatures differ in
    /// length, and so do the integers that their making takes.
    pub fn tolerance(self) -> f64 {
        match self.has_handshakes() {
            true => 0.01,
            false => 0.005,
        }
    }

    /// Exchanges of a shorter run, which warms everything up, and of a longer one.
    pub fn lengths(self) -> (u64, u64) {
        match self.has_handshakes() {
            true => (30, 130),
            false => (500, 2_500),
        }
    }

    fn has_handshakes(self) -> bool {
        matches!(self, Self::ClientHandshake | Self::UpstreamHandshake)
    }

    fn has_http2_upstream(self) -> bool {
        matches!(self, Self::GetOverHttp2 | Self::GetToHttp2)
    }

    fn has_tls_upstream(self) -> bool {
        matches!(self, Self::GetToTls | Self::UpstreamHandshake)
    }

    fn endpoints(self) -> usize {
        match self {
            Self::GetOfThree => 3,
            _ => 1,
        }
    }

    fn request(self) -> Vec<u8> {
        let head = |method: &str, more: &str| {
            format!("{method} / HTTP/1.1\r\nHost: web.test\r\n{more}\r\n").into_bytes()
        };
        match self {
            Self::Post => {
                let mut request = head("POST", &format!("Content-Length: {BODY}\r\n"));
                request.resize(request.len() + BODY, b'b');
                request
            }
            Self::Relay => vec![b'r'; RELAYED],
            _ => head("GET", ""),
        }
    }

    fn response(self) -> Vec<u8> {
        match self {
            Self::Relay => vec![b'a'; RELAYED],
            Self::UpstreamHandshake => LAST_RESPONSE.to_vec(),
            _ => RESPONSE.to_vec(),
        }
    }

    /// Starts the upstream's endpoints, each on a thread that ends with this
    /// process.
    pub fn serve(self, certificates: &Certificates) -> io::Result<Vec<SocketAddr>> {
        (0..self.endpoints())
            .map(|_| {
                let listener = TcpListener::bind(("127.0.0.1", ports::free()))?;
                let address = listener.local_addr()?;
                let certificates = certificates.clone();
                thread::spawn(move || {
                    for stream in listener.incoming().flatten() {
                        let certificates = certificates.clone();
                        thread::spawn(move || self.answer(stream, &certificates));
                    }
                });
                Ok(address)
            })
            .collect()
    }

    /// Answers whatever comes, once it is a whole request. The proxy adds
    /// fields to a head, and sends a body right behind it.
    fn answer(self, mut stream: TcpStream, certificates: &Certificates) -> io::Result<()> {
        stream.set_nodelay(true)?;
        if self.has_http2_upstream() {
            return http2::answer(stream);
        }
        let mut session = match self.has_tls_upstream() {
            true => Some(Session::agree(certificates.server()?, &mut stream)?),
            false => None,
        };
        let response = self.response();
        let mut received = Vec::new();
        let mut part = [0; 16 * 1024];
        loop {
            match read(&mut stream, &mut session, &mut part)? {
                0 => return Ok(()),
                length => received.extend_from_slice(&part[..length]),
            }
            if self.is_whole(&received) {
                received.clear();
                write(&mut stream, &mut session, &response)?;
                if self == Self::UpstreamHandshake {
                    return Ok(());
                }
            }
        }
    }

    fn is_whole(self, received: &[u8]) -> bool {
        let head = received.windows(4).position(|four| four == b"\r\n\r\n");
        match self {
            Self::Relay => received.len() >= RELAYED,
            Self::Post => head.is_some_and(|head| received.len() >= head + 4 + BODY),
            _ => head.is_some(),
        }
    }

    /// What the proxy is to do.
    pub fn config(self, listen: u16, admin: u16, endpoints: &[SocketAddr]) -> String {
        let endpoints: Vec<String> = endpoints.iter().map(|at| format!("\"{at}\"")).collect();
        let how = match self {
            Self::Relay => "protocol: tcp, upstream: web",
            Self::ClientHandshake => "protocol: http, tls: { cert: server.pem, key: server.key }",
            _ => "protocol: http",
        };
        let how_on = match self.has_tls_upstream() {
            true => ", tls: { ca: ca.pem, cert: client.pem, key: client.key }",
            false if self.has_http2_upstream() => ", protocol: http2",
            false => "",
        };
        format!(
            "workers: 1\n\
             admin: {{ listen: \"127.0.0.1:{admin}\" }}\n\
             listeners: [{{ name: counted, bind: \"127.0.0.1:{listen}\", {how} }}]\n\
             upstreams: {{ web: {{ hosts: [web.test], endpoints: [{}], load_balancing: round_robin{how_on} }} }}\n",
            endpoints.join(", ")
        )
    }

    /// So many, one after the other, over one connection.
    pub fn repeat(self, listen: u16, times: u64, certificates: &Certificates) -> io::Result<()> {
        match self {
            Self::ClientHandshake => {
                (0..times).try_for_each(|_| self.repeat_over(listen, 1, certificates))
            }
            Self::GetOverHttp2 => http2::repeat(([127, 0, 0, 1], listen).into(), times),
            _ => self.repeat_over(listen, times, certificates),
        }
    }

    /// So many over one connection.
    fn repeat_over(self, listen: u16, times: u64, certificates: &Certificates) -> io::Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", listen))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        let mut session = match self {
            Self::ClientHandshake => Some(Session::agree(certificates.client()?, &mut stream)?),
            _ => None,
        };
        let request = self.request();
        let end = match self {
            Self::Relay => self.response(),
            _ => b"\r\n\r\nok".to_vec(),
        };
        let mut received = Vec::new();
        let mut part = [0; 16 * 1024];
        for _ in 0..times {
            write(&mut stream, &mut session, &request)?;
            received.clear();
            while !received.ends_with(&end) {
                match read(&mut stream, &mut session, &mut part)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    length => received.extend_from_slice(&part[..length]),
                }
            }
        }
        Ok(())
    }
}

fn read(
    stream: &mut TcpStream,
    session: &mut Option<Session>,
    buffer: &mut [u8],
) -> io::Result<usize> {
    match session {
        Some(session) => session.read(stream, buffer),
        None => stream.read(buffer),
    }
}

fn write(stream: &mut TcpStream, session: &mut Option<Session>, bytes: &[u8]) -> io::Result<()> {
    match session {
        Some(session) => session.write(stream, bytes),
        None => stream.write_all(bytes),
    }
}
