//! The load generator: settings in, a report out.

mod announcement;
mod answer;
mod connection;
mod dialer;
mod errors;
mod generator;
mod open_loop;
mod report;
mod session;
mod tally;

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use self::dialer::Dialer;
use self::generator::Generator;
use self::session::Tls;
use crate::failure::Failure;
use crate::process;
use crate::protocol::{self, Protocol};
use crate::sockets::Connect;

pub use self::report::Report;
pub use crate::sockets::Close;

/// How often a connection is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// For as long as the peer lets it.
    KeepAlive,
    /// Once.
    NewConnections,
}

/// What to do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to connect to.
    pub to: SocketAddr,
    /// What to speak.
    pub protocol: Protocol,
    /// The `host` field.
    pub host: String,
    /// What is before the size in the path.
    pub path_prefix: String,
    /// Further fields, as lines.
    pub fields: Vec<String>,
    /// The authorities of the server, where TLS is spoken.
    pub tls: Option<PathBuf>,
    /// Bytes per answer.
    pub size: u64,
    /// Connections, and requests at the same time.
    pub connections: usize,
    /// How often a connection is used.
    pub reuse: Reuse,
    /// Whether connect() waits for its end.
    pub blocking_connect: bool,
    /// How connections are ended.
    pub close: Close,
    /// Requests per second; none for a closed loop.
    pub rate: Option<NonZeroU64>,
    /// From which delay of its own on the generator is called late.
    pub late_after: Duration,
    /// Load before anything counts.
    pub warmup: Duration,
    /// Load that counts.
    pub length: Duration,
    /// Whether to say when that begins and ends.
    pub announce: bool,
    /// The CPU to stay on.
    pub cpu: Option<usize>,
}

impl Settings {
    fn dialer(&self) -> Result<Dialer, Failure> {
        let tls = |authorities| Tls::new(authorities, &self.host);
        Ok(Dialer {
            to: self.to,
            connect: match self.blocking_connect {
                true => Connect::Blocking,
                false => Connect::Event,
            },
            close: self.close,
            tls: self.tls.as_deref().map(tls).transpose()?,
        })
    }

    fn request(&self) -> Vec<u8> {
        match self.protocol {
            Protocol::Tcp => protocol::opaque_request(self.size).to_vec(),
            Protocol::Http => {
                protocol::http_request(&self.host, &self.path_prefix, self.size, &self.fields)
            }
        }
    }
}

/// Generates the load and says what came of it.
pub fn run(settings: &Settings) -> Result<Report, Failure> {
    if let Some(cpu) = settings.cpu {
        process::pin(cpu).map_err(Failure::system("pinning to a CPU"))?;
    }
    process::raise_open_files().map_err(Failure::system("raising the limit of open files"))?;
    process::wake_on_time().map_err(Failure::system("setting the timer slack"))?;
    let generator = Generator::start(settings)?;
    let outcome = generator
        .run()
        .map_err(Failure::system("waiting for answers"))?;
    Ok(Report::new(settings, &outcome))
}
