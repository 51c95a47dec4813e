//! One request over a kept connection, and every way in which its answer can
//! end.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Nothing takes longer, whatever goes wrong: more than `timeouts.request`.
pub const PATIENCE: Duration = Duration::from_secs(8);

/// A connection to the proxy.
pub struct Line {
    stream: TcpStream,
    unread: Vec<u8>,
    deadline: Instant,
}

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// All of a response.
    Whole {
        /// Its status.
        status: u16,
        /// `x-ambassador-reason`; empty where the upstream answered.
        reason: String,
        /// Its content, framing removed.
        body: Vec<u8>,
    },
    /// The head of a response and not all of its body.
    Cut {
        /// Its status.
        status: u16,
    },
    /// The connection ended before a whole head.
    None(String),
    /// Nothing ended it in time.
    Silent,
}

/// The head of a response.
struct Head {
    status: u16,
    reason: String,
    length: Option<usize>,
    closes: bool,
}

impl Line {
    /// Connects.
    pub fn to(address: SocketAddr) -> io::Result<Line> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Line {
            stream,
            unread: Vec::new(),
            deadline: Instant::now(),
        })
    }

    /// Sends without waiting for an answer.
    pub fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request)
    }

    /// Sends and reads the answer. The connection is given back where it can be
    /// used again.
    pub fn ask(mut self, request: &[u8]) -> (Answer, Option<Line>) {
        self.deadline = Instant::now() + PATIENCE;
        // An answer may come before the whole of a request is out.
        let sent = self.send(request);
        let head = match self.head() {
            Ok(head) => head,
            Err(error) if sent.is_err() => {
                let why = format!("{error}; sending: {:?}", sent.err());
                return (Answer::None(why), None);
            }
            Err(error) if timed_out(&error) => return (Answer::Silent, None),
            Err(error) => return (Answer::None(error.to_string()), None),
        };
        let status = head.status;
        match self.body(head.length) {
            Ok(body) => {
                let answer = Answer::Whole {
                    status,
                    reason: head.reason,
                    body,
                };
                (answer, (!head.closes && sent.is_ok()).then_some(self))
            }
            Err(error) if timed_out(&error) => (Answer::Silent, None),
            Err(_) => (Answer::Cut { status }, None),
        }
    }

    fn head(&mut self) -> io::Result<Head> {
        let mut head = Head {
            status: 0,
            reason: String::new(),
            length: Some(0),
            closes: false,
        };
        let first = self.line()?;
        let status = first.split(' ').nth(1).and_then(|word| word.parse().ok());
        head.status = status.ok_or_else(|| io::Error::other(format!("answer {first:?}")))?;
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else {
                return Ok(head);
            };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => head.length = value.parse().ok(),
                "transfer-encoding" => head.length = None,
                "x-ambassador-reason" => head.reason = value.to_owned(),
                "connection" => head.closes = value.eq_ignore_ascii_case("close"),
                _ => {}
            }
        }
    }

    fn body(&mut self, length: Option<usize>) -> io::Result<Vec<u8>> {
        if let Some(length) = length {
            return self.bytes(length);
        }
        let mut body = Vec::new();
        loop {
            let size = self.line()?;
            let size = usize::from_str_radix(&size, 16).map_err(io::Error::other)?;
            body.extend(self.bytes(size)?);
            self.line()?;
            if size == 0 {
                return Ok(body);
            }
        }
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            self.fill()?;
        }
    }

    fn bytes(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.unread.len() < count {
            self.fill()?;
        }
        Ok(self.unread.drain(..count).collect())
    }

    fn fill(&mut self) -> io::Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.unread.extend_from_slice(&buffer[..count]);
                Ok(())
            }
        }
    }
}

fn timed_out(error: &io::Error) -> bool {
    let kinds = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut];
    kinds.contains(&error.kind())
}
