//! An upstream's endpoint: a real server, well or in trouble.

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ambassador_tests::server::Request;
use ambassador_tests::{Connection, Server, ports};

use crate::fault::{Fault, Trouble};
use crate::ledger::Ledger;
use crate::random::Random;

/// One endpoint, at the same address all the while.
pub struct Endpoint {
    address: SocketAddr,
    state: Arc<State>,
    /// `None`: it refuses.
    server: Option<Server>,
}

struct State {
    ledger: Arc<Ledger>,
    now: Mutex<Now>,
}

struct Now {
    trouble: Option<Trouble>,
    /// Which requests a trouble that is not for all is for.
    random: Random,
    /// What to close when it is to refuse.
    open: HashMap<u64, TcpStream>,
    /// Connections so far, of all its servers.
    connections: u64,
}

impl Endpoint {
    /// Listens on a port of its own, and is well.
    pub fn start(ledger: Arc<Ledger>, random: Random) -> io::Result<Endpoint> {
        let now = Now {
            trouble: None,
            random,
            open: HashMap::new(),
            connections: 0,
        };
        let mut endpoint = Endpoint {
            address: SocketAddr::from(([127, 0, 0, 1], ports::free())),
            state: Arc::new(State {
                ledger,
                now: Mutex::new(now),
            }),
            server: None,
        };
        endpoint.listen()?;
        Ok(endpoint)
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins to fail.
    pub fn begin(&mut self, trouble: Trouble) {
        self.state.now().trouble = Some(trouble);
        if trouble.fault == Fault::Refuse {
            self.server = None;
            for stream in std::mem::take(&mut self.state.now().open).into_values() {
                // It may have ended by itself.
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    /// Is well again.
    pub fn end(&mut self) -> io::Result<()> {
        self.state.now().trouble = None;
        match self.server {
            Some(_) => Ok(()),
            None => self.listen(),
        }
    }

    fn listen(&mut self) -> io::Result<()> {
        let state = Arc::clone(&self.state);
        let listener = TcpListener::bind(self.address)?;
        self.server = Some(Server::over(listener, move |connection| {
            serve(connection, &state)
        }));
        Ok(())
    }
}

impl State {
    /// A panic under the lock leaves nothing half changed.
    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request is answered before its body has come: half of those
    /// that have a large one.
    fn answers_early(&self, request: &Request) -> bool {
        let length = request.field("content-length");
        let length = length.and_then(|length| length.parse::<usize>().ok());
        length.is_some_and(|length| length > 1_000) && self.now().random.percent(50)
    }

    /// What goes wrong with the next request.
    fn fault(&self) -> Option<Fault> {
        let mut now = self.now();
        let Trouble { fault, share } = now.trouble?;
        now.random.percent(share).then_some(fault)
    }
}

fn serve(connection: &mut Connection, state: &State) -> io::Result<()> {
    // Only while it lasts: a connection ends with the last descriptor of it.
    let open = connection.stream().try_clone()?;
    let number = {
        let mut now = state.now();
        now.connections += 1;
        let number = now.connections;
        now.open.insert(number, open);
        number
    };
    let result = answer(connection, state);
    state.now().open.remove(&number);
    result
}

fn answer(connection: &mut Connection, state: &State) -> io::Result<()> {
    while let Some(mut request) = connection.head()? {
        state.ledger.arrived(&request);
        let fault = state.fault();
        if let Some(Fault::Status(status)) = fault
            && state.answers_early(&request)
        {
            // What is left of the request stays unread.
            connection.write(refusal(status))?;
            return Ok(());
        }
        connection.body(&mut request)?;
        let (head, body) = response(&request.target);
        match fault {
            None => connection.write([head, body].concat())?,
            Some(Fault::Slow(late)) => {
                std::thread::sleep(late);
                connection.write([head, body].concat())?;
            }
            Some(Fault::Status(status)) => connection.write(refusal(status))?,
            Some(Fault::Garbage) => {
                connection.write("220 mail.test ESMTP\r\n\r\n")?;
                return Ok(());
            }
            Some(Fault::ResetHead(count)) => {
                connection.write(&head[..count.min(head.len() - 1)])?;
                return connection.reset();
            }
            Some(Fault::ResetBody(count)) => {
                connection.write([&head[..], &body[..count.min(body.len() - 1)]].concat())?;
                return connection.reset();
            }
            Some(Fault::CutBody(count)) => {
                connection.write([&head[..], &body[..count.min(body.len() - 1)]].concat())?;
                return Ok(());
            }
            Some(Fault::Hang) => {
                // Until the proxy has had enough.
                while connection.read(&mut [0; 1024])? > 0 {}
                return Ok(());
            }
            Some(Fault::Refuse) => return connection.reset(),
        }
    }
    Ok(())
}

/// Head and body of the answer to a target: no two are alike, and half of them
/// are chunked.
fn response(target: &str) -> (Vec<u8>, Vec<u8>) {
    let text = content(target);
    let filler = "x-filler: long enough to be cut in many places";
    let (framing, body) = match text.len() % 2 {
        0 => (format!("content-length: {}", text.len()), text),
        _ => (
            "transfer-encoding: chunked".to_owned(),
            format!("{:x}\r\n{text}\r\n0\r\n\r\n", text.len()),
        ),
    };
    let head = format!("HTTP/1.1 200 OK\r\n{filler}\r\n{framing}\r\n\r\n");
    (head.into_bytes(), body.into_bytes())
}

fn refusal(status: u16) -> String {
    format!("HTTP/1.1 {status} Bad\r\nContent-Length: 0\r\n\r\n")
}

/// What a caller gets for a target.
pub fn content(target: &str) -> String {
    let mut random = Random::new(
        target.bytes().fold(0, |sum, byte| {
            u64::wrapping_add(u64::wrapping_mul(sum, 31), byte.into())
        }),
        0,
    );
    let times = 1 + random.below(40);
    let mut text = format!("this is the answer to {target}\n").repeat(times as usize);
    if random.percent(50) {
        text.push('.');
    }
    text
}

/// The number of a POST in its target, where it has no key: it may come once.
pub fn once_only(request: &Request) -> Option<u64> {
    let is_post = request.method == "POST" && request.field("idempotency-key").is_none();
    let number = request.target.rsplit('/').next()?;
    is_post.then(|| number.parse().ok())?
}

/// A moment for what a proxy does on its own.
pub const MOMENT: Duration = Duration::from_millis(10);
