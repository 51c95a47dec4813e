//! Memory of the proxies with TLS, each alone.

use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ambassador_tests::Session;
use rustls::{ClientConfig, ClientConnection};
use serde::Serialize;

use crate::memory::within;
use crate::process;
use crate::protocol::Protocol;
use crate::standing::Standing;
use crate::variant::Variant;

/// Connections before those that are counted: what the first ones bring is not
/// theirs alone.
const BEFORE: usize = 50;

/// Idle connections that are counted.
const IDLE: usize = 1000;

/// Until what handshakes have taken for a moment has been given back.
const REST: Duration = Duration::from_secs(1);

/// Until a proxy is idle: the ambassador lets go of what a handshake has run after
/// five seconds.
const IDLE_AFTER: Duration = Duration::from_secs(7);

/// Proportional set sizes, in bytes.
#[derive(Debug, Clone, Serialize)]
pub struct TlsMemory {
    /// Right after the first request over mutual TLS to an upstream.
    pub after_request: u64,
    /// When no more had come for a while.
    pub idle: u64,
    /// Of an idle TLS connection of a client, after one request.
    pub idle_connection: f64,
}

/// Starts a variant by itself and measures.
pub fn measure(variant: Variant, binaries: &Path, load: &Path) -> Result<TlsMemory, String> {
    let standing = Standing::start(variant, binaries, load)?;
    let now = || process::pss(&standing.proxy_processes());
    let after_request = now();
    std::thread::sleep(IDLE_AFTER);
    let idle = now();
    let authority = standing.authority().ok_or("it has no certificates")?;
    let client = Arc::new(authority.client(None));
    let port = Protocol::Tls.listener_port();
    let idle_connection = within(standing.netns(), || {
        let open = |count: usize| -> Result<Vec<_>, String> {
            let each = (0..count).map(|_| ask(port, &client));
            let all = each.collect::<std::io::Result<_>>();
            all.map_err(|error| error.to_string())
        };
        let first = open(BEFORE)?;
        std::thread::sleep(REST);
        let before = now();
        let held = open(IDLE)?;
        std::thread::sleep(REST);
        let more = now().saturating_sub(before);
        drop((first, held));
        Ok(more as f64 / IDLE as f64)
    })?;
    Ok(TlsMemory {
        after_request,
        idle,
        idle_connection,
    })
}

/// One request over TLS; the connection stays open.
fn ask(port: u16, client: &Arc<ClientConfig>) -> std::io::Result<(TcpStream, Session)> {
    let name = Protocol::Tls.host().try_into();
    let name = name.map_err(std::io::Error::other)?;
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let connection = ClientConnection::new(Arc::clone(client), name);
    let connection = connection.map_err(std::io::Error::other)?;
    let mut session = Session::agree(connection, &mut stream)?;
    session.write(&mut stream, b"GET /64 HTTP/1.1\r\nhost: bench.test\r\n\r\n")?;
    let mut answer = [0; 4096];
    let mut received = 0;
    while !is_whole(&answer[..received]) {
        match session.read(&mut stream, &mut answer[received..])? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            more => received += more,
        }
    }
    Ok((stream, session))
}

fn is_whole(answer: &[u8]) -> bool {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    end.is_some_and(|end| answer.len() >= end + 4 + 64)
}
