//! Memory of the proxies: at rest, with a thousand idle connections, after
//! load.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use ambassador_tests::os;
use serde::Serialize;

use crate::process;
use crate::scenario::Protocol;
use crate::variant::Standing;

/// Idle connections that are held.
const IDLE: usize = 1000;

/// Proportional set sizes of one proxy, in bytes, its helper included.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Memory {
    /// Before the first request.
    pub at_rest: u64,
    /// With a thousand idle client connections, each after one request.
    pub with_idle: u64,
    /// After those were closed, and after all the load.
    pub after: u64,
}

/// As of now.
pub fn of(standing: &Standing) -> u64 {
    process::pss(&standing.proxy_processes())
}

/// Opens the idle connections, measures, and closes them.
pub fn with_idle(standing: &Standing) -> Result<u64, String> {
    let address = standing.address(Protocol::Http1);
    let namespace = File::open(standing.netns().path()).map_err(|error| error.to_string())?;
    let work = || {
        os::enter_network_namespace(namespace.as_fd()).map_err(|error| error.to_string())?;
        let held: Vec<TcpStream> = (0..IDLE)
            .map(|_| ask(address).map_err(|error| error.to_string()))
            .collect::<Result<_, _>>()?;
        let memory = of(standing);
        drop(held);
        Ok(memory)
    };
    std::thread::scope(|scope| {
        let joined = scope.spawn(work).join();
        joined.map_err(|_| "a client failed".to_owned())?
    })
}

/// One request; the connection stays open.
fn ask(address: SocketAddr) -> std::io::Result<TcpStream> {
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
