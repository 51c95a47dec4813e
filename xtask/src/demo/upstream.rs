//! The upstream of the demo: a small HTTP server that does well or badly, as it
//! is told, and remembers what it was asked.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::workspace::Failure;

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 25\r\n\r\n\
                     hello from the upstream!\n";
const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";

/// What becomes of ten requests, over and over: never three failures on end, so
/// that three tries are enough.
const FLAKY: [Reply; 10] = [
    Reply::Hello,
    Reply::Busy,
    Reply::Hello,
    Reply::Hello,
    Reply::Busy,
    Reply::Reset,
    Reply::Hello,
    Reply::Hello,
    Reply::Hello,
    Reply::Hello,
];

/// How long an answer takes under [`Script::Slow`].
const SLOW: Duration = Duration::from_millis(100);

/// Longest request head; what asks is the proxy.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// What it does with requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// Answers at once.
    Well,
    /// Of ten requests, answers two with 503 and resets the connection of one.
    Flaky,
    /// Takes requests and answers none.
    Silent,
    /// Answers, after a tenth of a second: as one that has just come up.
    Slow,
}

/// What it does with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reply {
    Hello,
    Busy,
    Reset,
    Silence,
    Late,
}

/// A server on a loopback port; it lives as long as this process.
pub struct Upstream {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct State {
    script: Script,
    /// Requests since the script began.
    turn: usize,
    connections: usize,
    /// How often each request line came, as `GET /hello HTTP/1.1`.
    seen: HashMap<String, usize>,
}

impl Upstream {
    /// Listens, and does well.
    pub fn start() -> Result<Upstream, Failure> {
        let failed = |error| Failure::File(PathBuf::from("127.0.0.1:0"), error);
        let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let state = Arc::new(Mutex::new(State {
            script: Script::Well,
            turn: 0,
            connections: 0,
            seen: HashMap::new(),
        }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                lock(&shared).connections += 1;
                let shared = Arc::clone(&shared);
                // How a connection ends is part of the play.
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Ok(Upstream { address, state })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Does so from the next request on.
    pub fn play(&self, script: Script) {
        let mut state = lock(&self.state);
        state.script = script;
        state.turn = 0;
    }

    /// How many connections it has seen.
    pub fn connections(&self) -> usize {
        lock(&self.state).connections
    }

    /// How many requests it has seen, those that it did not answer included.
    pub fn requests(&self) -> usize {
        lock(&self.state).seen.values().sum()
    }

    /// How often each request came whose first line begins so.
    pub fn times_seen(&self, beginning: &str) -> Vec<usize> {
        let state = lock(&self.state);
        let seen = state.seen.iter();
        seen.filter(|(line, _)| line.starts_with(beginning))
            .map(|(_, times)| *times)
            .collect()
    }
}

impl State {
    /// Writes a request down and says what becomes of it.
    fn reply_to(&mut self, request_line: &str) -> Reply {
        *self.seen.entry(request_line.to_owned()).or_default() += 1;
        let turn = self.turn;
        self.turn += 1;
        match self.script {
            Script::Well => Reply::Hello,
            Script::Flaky => FLAKY[turn % FLAKY.len()],
            Script::Silent => Reply::Silence,
            Script::Slow => Reply::Late,
        }
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    while let Some(head) = peek_head(&mut stream)? {
        let request_line = head.lines().next().unwrap_or_default();
        let reply = lock(state).reply_to(request_line);
        if reply == Reply::Reset {
            // Closed with the request unread, the connection is reset (RFC 1122
            // section 4.2.2.13).
            return Ok(());
        }
        let mut request = vec![0; head.len() + body_bytes(&head)];
        stream.read_exact(&mut request)?;
        match reply {
            Reply::Hello => stream.write_all(HELLO.as_bytes())?,
            Reply::Busy => stream.write_all(BUSY.as_bytes())?,
            Reply::Late => {
                std::thread::sleep(SLOW);
                stream.write_all(HELLO.as_bytes())?;
            }
            Reply::Silence | Reply::Reset => {}
        }
    }
    Ok(())
}

/// The head of the next request, which stays unread; `None` at the end. The
/// proxy sends a head in one piece: one that is not whole is an error.
fn peek_head(stream: &mut TcpStream) -> io::Result<Option<String>> {
    let mut buffer = vec![0; HEAD_BYTES_MAX];
    let count = stream.peek(&mut buffer)?;
    if count == 0 {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&buffer[..count]);
    match text.find("\r\n\r\n") {
        Some(end) => Ok(Some(text[..end + 4].to_owned())),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// What `Content-Length` says.
fn body_bytes(head: &str) -> usize {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let mut lengths = fields.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = lengths.next();
    length
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

/// A panic under the lock leaves nothing half changed.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends a request and reads until an answer has come or the end.
    fn ask(stream: &mut TcpStream, request: &str) -> io::Result<String> {
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        let mut buffer = [0; 1024];
        while !answer.windows(4).any(|four| four == b"\r\n\r\n") {
            match stream.read(&mut buffer)? {
                0 => break,
                count => answer.extend_from_slice(&buffer[..count]),
            }
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    fn get(upstream: &Upstream) -> io::Result<String> {
        let mut stream = TcpStream::connect(upstream.address())?;
        ask(&mut stream, "GET /hello HTTP/1.1\r\nHost: demo\r\n\r\n")
    }

    #[test]
    fn a_flaky_one_fails_three_of_ten_and_never_three_on_end() {
        let upstream = Upstream::start().unwrap();
        upstream.play(Script::Flaky);
        let mut seen = Vec::new();
        for _ in 0..20 {
            seen.push(match get(&upstream) {
                Ok(answer) => answer[9..12].to_owned(),
                Err(error) => error.kind().to_string(),
            });
        }
        let count = |what: &str| seen.iter().filter(|one| *one == what).count();
        let reset = io::ErrorKind::ConnectionReset.to_string();
        assert_eq!((count("200"), count("503"), count(&reset)), (14, 4, 2));
        assert!(!seen.windows(3).any(|three| !three.contains(&"200".into())));
        assert_eq!((upstream.requests(), upstream.connections()), (20, 20));
    }

    #[test]
    fn it_counts_each_request_and_reads_bodies() {
        let upstream = Upstream::start().unwrap();
        let mut stream = TcpStream::connect(upstream.address()).unwrap();
        for target in ["/orders?1", "/orders?2", "/orders?1"] {
            let request = format!(
                "POST {target} HTTP/1.1\r\nHost: demo\r\ncontent-length: 8\r\n\r\namount=1"
            );
            assert!(ask(&mut stream, &request).unwrap().contains(" 200 "));
        }
        assert!(get(&upstream).unwrap().contains(" 200 "));
        let mut times = upstream.times_seen("POST /orders?");
        times.sort_unstable();
        assert_eq!(times, [1, 2]);
        assert_eq!(upstream.requests(), 4);
    }

    #[test]
    fn a_silent_one_takes_a_request_and_answers_nothing() {
        let upstream = Upstream::start().unwrap();
        upstream.play(Script::Silent);
        let mut stream = TcpStream::connect(upstream.address()).unwrap();
        stream
            .write_all(b"GET /hello HTTP/1.1\r\nHost: demo\r\n\r\n")
            .unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!((answer.as_str(), upstream.requests()), ("", 1));
    }
}
