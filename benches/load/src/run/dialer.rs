//! Opening connections, and opening all of them before the load.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::connection::{Connection, Work};
use super::open_loop::Moment;
use super::session::Tls;
use crate::failure::Failure;
use crate::poller::{ENDED, EVENTS, EventFlags, Poller};
use crate::sockets::{self, Close, Connect};

/// All connections are open this long after the start, or there is no run.
const OPENING_MAX: Duration = Duration::from_secs(5);

/// The time since the start of a run.
pub struct Clock(Instant);

impl Clock {
    /// Starts now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The moment.
    pub fn now(&self) -> Moment {
        self.0.elapsed()
    }
}

/// Where connections go, and how they begin and end.
pub struct Dialer {
    /// The other end: a proxy, or the upstream.
    pub to: SocketAddr,
    /// Who waits for connects.
    pub connect: Connect,
    /// How connections are ended.
    pub close: Close,
    /// What encrypts, if anything does.
    pub tls: Option<Tls>,
}

impl Dialer {
    /// Begins to open `connection`, whose events are named `token`; gives the
    /// time that the connect() call took.
    pub fn open(
        &self,
        connection: &mut Connection,
        token: usize,
        due: Option<Moment>,
        poller: &Poller,
        clock: &Clock,
    ) -> Result<Duration, Errno> {
        let socket = sockets::client(self.to, self.connect, self.close)?;
        let since = clock.now();
        let connected = sockets::connect(&socket, self.to, self.connect);
        let call = clock.now() - since;
        connected?;
        if self.connect == Connect::Blocking {
            sockets::stop_blocking(&socket)?;
        }
        // Not before: epoll calls a socket without a connection hung up.
        poller.watch(&socket, token)?;
        let session = self.tls.as_ref().map(Tls::session).transpose()?;
        connection.connecting(socket, session, since, due);
        Ok(call)
    }

    /// Opens all of `connections`.
    pub fn open_all(&self, connections: &mut [Connection], poller: &Poller) -> Result<(), Failure> {
        let clock = Clock::start();
        let wanted = connections.len();
        let unreachable = |open, error: Errno| Failure::Unreachable {
            to: self.to,
            open,
            wanted,
            source: error.into(),
        };
        for (token, connection) in connections.iter_mut().enumerate() {
            self.open(connection, token, None, poller, &clock)
                .map_err(|error| unreachable(token, error))?;
        }
        let mut ready = Vec::with_capacity(EVENTS);
        let mut open = 0;
        while open < wanted {
            let left = OPENING_MAX.checked_sub(clock.now());
            let left = left.ok_or_else(|| unreachable(open, Errno::TIMEDOUT))?;
            poller
                .wait(&mut ready, Some(left))
                .map_err(Failure::system("waiting for connections"))?;
            for event in &ready {
                let (token, flags) = (event.data.u64() as usize, event.flags);
                let connection = &mut connections[token];
                let connecting = matches!(connection.work(), Work::Connecting { .. });
                if connecting && flags.intersects(EventFlags::OUT | ENDED) {
                    connection
                        .connect_result()
                        .map_err(|error| unreachable(open, error))?;
                    open += 1;
                }
            }
        }
        Ok(())
    }
}
