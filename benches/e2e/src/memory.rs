//! Memory of the proxies, each alone: pages of the binary that several of one
//! kind shared would count for a part only.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use ambassador_tests::program::Running;
use ambassador_tests::{Netns, os};
use serde::Serialize;

use crate::process;
use crate::protocol::Protocol;
use crate::standing::Standing;
use crate::variant::Variant;

/// Idle connections that are held.
const IDLE: usize = 1000;

/// Proportional set sizes of one proxy, in bytes, its helper included.
#[derive(Debug, Clone, Serialize)]
pub struct Memory {
    /// After the first request.
    pub at_rest: u64,
    /// With a thousand idle client connections, each after one request; none
    /// where clients are captured, which this one is not.
    pub with_idle: Option<u64>,
    /// During the load of a thousand connections.
    pub under_load: u64,
    /// After it.
    pub after: u64,
}

/// Starts a variant by itself and measures.
pub fn measure(variant: Variant, binaries: &Path, load: &Path) -> Result<Memory, String> {
    let standing = Standing::start(variant, binaries, load)?;
    let now = || process::pss(&standing.proxy_processes());
    let at_rest = now();
    let with_idle = match variant.is_transparent() {
        true => None,
        false => Some(with_idle(&standing)?),
    };
    let mut client = standing.http_client(load, IDLE as u32);
    client.args(["--seconds", "1.5"]).stdout(Stdio::null());
    let mut client = Running::start(&mut client);
    std::thread::sleep(Duration::from_secs(1));
    let under_load = now();
    client.wait(Duration::from_secs(30));
    // Its pooled connections have to grow old, too.
    std::thread::sleep(Duration::from_secs(4));
    Ok(Memory {
        at_rest,
        with_idle,
        under_load,
        after: now(),
    })
}

/// Opens the idle connections, measures, and closes them.
fn with_idle(standing: &Standing) -> Result<u64, String> {
    let address = standing.address(Protocol::Http1);
    within(standing.netns(), || {
        let held: Vec<TcpStream> = (0..IDLE)
            .map(|_| ask(address).map_err(|error| error.to_string()))
            .collect::<Result<_, _>>()?;
        let memory = process::pss(&standing.proxy_processes());
        drop(held);
        Ok(memory)
    })
}

/// Runs `work` on a thread in a namespace.
pub fn within<T: Send>(
    netns: &Netns,
    work: impl FnOnce() -> Result<T, String> + Send,
) -> Result<T, String> {
    let namespace = File::open(netns.path()).map_err(|error| error.to_string())?;
    let work = || {
        os::enter_network_namespace(namespace.as_fd()).map_err(|error| error.to_string())?;
        work()
    };
    std::thread::scope(|scope| {
        let joined = scope.spawn(work).join();
        joined.map_err(|_| "a client failed".to_owned())?
    })
}

/// One request; the connection stays open.
pub fn ask(address: SocketAddr) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /64 HTTP/1.1\r\nhost: bench.test\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    let whole = |answer: &[u8]| {
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
        end.is_some_and(|end| answer.len() >= end + 4 + 64)
    };
    while !whole(&answer) {
        match stream.read(&mut buffer)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            length => answer.extend_from_slice(&buffer[..length]),
        }
    }
    Ok(stream)
}
