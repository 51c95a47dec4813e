//! A bare relay on the ambassador's own ring: bytes in both directions, nothing
//! parsed, pooled or counted. The floor of what a hop in user space costs.
//! `AMBASSADOR_BACKEND=epoll` runs it on epoll, as it does the proxy.

use std::io;
use std::net::SocketAddr;

use ambassador::testing::combinators::both;
use ambassador::testing::ring::{self, Gather, Listener, Options, Spin, Stream};
use ambassador_baselines::{Start, start};

fn main() -> io::Result<()> {
    let start = start()?;
    let (backend, _) = ring::probe();
    ring::run(
        Options {
            backend,
            shard: 0,
            spin: Spin::Never,
        },
        accept(start),
    )?
}

async fn accept(start: Start) -> io::Result<()> {
    let listener = Listener::new(start.listener.into())?;
    loop {
        let client = listener.accept().await?;
        ring::spawn(async move {
            // A connection that fails is closed by its drop.
            let _ = relay(client, start.to).await;
        });
    }
}

async fn relay(client: Stream, to: SocketAddr) -> io::Result<()> {
    let upstream = Stream::connect(ring::dial_socket(&to)?, &to).await?;
    both(pass(&client, &upstream), pass(&upstream, &client)).await
}

/// Passes on what has arrived, in as few sends as it fits in, until the end.
async fn pass(from: &Stream, to: &Stream) -> io::Result<()> {
    while let Some(chunk) = from.recv().await? {
        let mut gather = Gather::from(chunk);
        while !gather.is_full()
            && let Some(more) = from.try_recv()
        {
            gather.push(more);
        }
        to.post(gather).await.map_err(|error| error.source)?;
    }
    to.flush().await.map_err(|error| error.source)?;
    to.shutdown_write();
    Ok(())
}
