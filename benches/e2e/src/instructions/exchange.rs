//! The exchanges that are counted: what the proxy is told, what the upstream
//! answers, what the client sends.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use ambassador_tests::ports;

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
}

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const BODY: usize = 1024;
const RELAYED: usize = 64;

/// A client or an upstream that waits longer has failed.
const SILENCE: Duration = Duration::from_secs(30);

impl Exchange {
    /// Each.
    pub const ALL: [Self; 4] = [Self::Get, Self::GetOfThree, Self::Post, Self::Relay];

    /// As it is kept.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::GetOfThree => "get_of_three_endpoints",
            Self::Post => "post_of_1_kib",
            Self::Relay => "relayed_64_bytes",
        }
    }

    fn endpoints(self) -> usize {
        match self {
            Self::GetOfThree => 3,
            Self::Get | Self::Post | Self::Relay => 1,
        }
    }

    fn request(self) -> Vec<u8> {
        let head = |method: &str, more: &str| {
            format!("{method} / HTTP/1.1\r\nHost: web.test\r\n{more}\r\n").into_bytes()
        };
        match self {
            Self::Get | Self::GetOfThree => head("GET", ""),
            Self::Post => {
                let mut request = head("POST", &format!("Content-Length: {BODY}\r\n"));
                request.resize(request.len() + BODY, b'b');
                request
            }
            Self::Relay => vec![b'r'; RELAYED],
        }
    }

    fn response(self) -> Vec<u8> {
        match self {
            Self::Relay => vec![b'a'; RELAYED],
            Self::Get | Self::GetOfThree | Self::Post => RESPONSE.to_vec(),
        }
    }

    /// Starts the upstream's endpoints, each on a thread that ends with this
    /// process.
    pub fn serve(self) -> io::Result<Vec<SocketAddr>> {
        (0..self.endpoints())
            .map(|_| {
                let listener = TcpListener::bind(("127.0.0.1", ports::free()))?;
                let address = listener.local_addr()?;
                thread::spawn(move || {
                    for stream in listener.incoming().flatten() {
                        thread::spawn(move || self.answer(stream));
                    }
                });
                Ok(address)
            })
            .collect()
    }

    /// Answers whatever comes, once it is a whole request. The proxy adds
    /// fields to a head, and sends a body right behind it.
    fn answer(self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let response = self.response();
        let mut received = Vec::new();
        let mut part = [0; 16 * 1024];
        loop {
            match stream.read(&mut part)? {
                0 => return Ok(()),
                length => received.extend_from_slice(&part[..length]),
            }
            if self.is_whole(&received) {
                received.clear();
                stream.write_all(&response)?;
            }
        }
    }

    fn is_whole(self, received: &[u8]) -> bool {
        let head = received.windows(4).position(|four| four == b"\r\n\r\n");
        match self {
            Self::Relay => received.len() >= RELAYED,
            Self::Get | Self::GetOfThree => head.is_some(),
            Self::Post => head.is_some_and(|head| received.len() >= head + 4 + BODY),
        }
    }

    /// What the proxy is to do.
    pub fn config(self, listen: u16, admin: u16, endpoints: &[SocketAddr]) -> String {
        let endpoints: Vec<String> = endpoints.iter().map(|at| format!("\"{at}\"")).collect();
        let how = match self {
            Self::Relay => "protocol: tcp, upstream: web",
            Self::Get | Self::GetOfThree | Self::Post => "protocol: http",
        };
        format!(
            "workers: 1\n\
             admin: {{ listen: \"127.0.0.1:{admin}\" }}\n\
             listeners: [{{ name: counted, bind: \"127.0.0.1:{listen}\", {how} }}]\n\
             upstreams: {{ web: {{ hosts: [web.test], endpoints: [{}], load_balancing: round_robin }} }}\n",
            endpoints.join(", ")
        )
    }

    /// So many, one after the other, over one connection.
    pub fn repeat(self, listen: u16, times: u64) -> io::Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", listen))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        let request = self.request();
        let end = match self {
            Self::Relay => self.response(),
            Self::Get | Self::GetOfThree | Self::Post => b"\r\n\r\nok".to_vec(),
        };
        let mut received = Vec::new();
        let mut part = [0; 16 * 1024];
        for _ in 0..times {
            stream.write_all(&request)?;
            received.clear();
            while !received.ends_with(&end) {
                match stream.read(&mut part)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    length => received.extend_from_slice(&part[..length]),
                }
            }
        }
        Ok(())
    }
}
