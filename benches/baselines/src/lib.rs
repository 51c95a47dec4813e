//! What the forwarders have in common: their command line and their listener.
//!
//! Each is one thread that accepts at one address and forwards to one other,
//! so that what a request costs the ambassador can be told from what its
//! runtime costs. SIGTERM ends them as it ends any program without a handler.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};

use ambassador::testing::shard::place;
use clap::Parser;

/// The command line of a forwarder.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to listen; port 0 lets the kernel choose.
    #[arg(long)]
    listen: SocketAddr,
    /// Where everything is forwarded to.
    #[arg(long)]
    to: SocketAddr,
    /// The CPU to stay on; without it the scheduler chooses.
    #[arg(long)]
    cpu: Option<usize>,
}

/// What a forwarder starts with.
pub struct Start {
    /// Bound and listening.
    pub listener: TcpListener,
    /// Where everything is forwarded to.
    pub to: SocketAddr,
}

/// Reads the command line, binds this thread to its CPU, listens, and says
/// `ready ADDRESS` on standard output. Connections wait in the backlog until
/// the forwarder takes them.
pub fn start() -> io::Result<Start> {
    let arguments = Arguments::parse();
    if let Some(cpu) = arguments.cpu {
        place::pin_to(cpu);
    }
    let listener = TcpListener::bind(arguments.listen)?;
    let mut out = io::stdout();
    writeln!(out, "ready {}", listener.local_addr()?)?;
    out.flush()?;
    Ok(Start {
        listener,
        to: arguments.to,
    })
}
