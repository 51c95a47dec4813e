//! A long line: what goes through comes later, and no faster than it carries.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// What a chunk of the line holds at most.
const CHUNK: usize = 64 * 1024;
/// Chunks on their way at once: more than any line of a test has under way.
const CHUNKS: usize = 1024;
/// How late the line may be and still make up for it, as the buffer of a link would.
const LATE: Duration = Duration::from_millis(1);

/// How long a line is, and how wide.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// From one end to the other and back.
    pub round_trip: Duration,
    /// Bytes a second, each way.
    pub rate: u32,
}

impl Line {
    /// Where its near end is, for a server at the far end. Connections through it last as
    /// long as their ends, and it listens as long as the test runs.
    pub fn to(self, server: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is left");
        let near = listener.local_addr().expect("it listens");
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A connection that fails ends for the peer, and the test sees that.
                let _ = stream.and_then(|stream| self.join(&stream, server));
            }
        });
        near
    }

    /// Both directions of one connection.
    fn join(self, near: &TcpStream, server: SocketAddr) -> io::Result<()> {
        let far = TcpStream::connect(server)?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        for (from, to) in [(near, &far), (&far, near)] {
            let (from, to) = (from.try_clone()?, to.try_clone()?);
            let (send, receive) = sync_channel(CHUNKS);
            std::thread::spawn(move || self.carry(from, &send));
            std::thread::spawn(move || arrive(to, &receive));
        }
        Ok(())
    }

    /// Takes bytes as fast as the line carries them, and says when each chunk arrives.
    fn carry(self, mut from: TcpStream, chunks: &SyncSender<(Instant, Vec<u8>)>) {
        let mut free = Instant::now();
        let mut buffer = vec![0; CHUNK];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let now = Instant::now();
            let takes = Duration::from_secs(1).mul_f64(count as f64 / f64::from(self.rate));
            free = free.max(now.checked_sub(LATE).unwrap_or(now)) + takes;
            let arrives = free + self.round_trip / 2;
            if chunks.send((arrives, buffer[..count].to_vec())).is_err() {
                return;
            }
            std::thread::sleep(free.saturating_duration_since(Instant::now()));
        }
    }
}

/// Gives each chunk to the other end when it arrives there.
fn arrive(mut to: TcpStream, chunks: &Receiver<(Instant, Vec<u8>)>) {
    for (when, bytes) in chunks {
        std::thread::sleep(when.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            // Nor is anything taken any more.
            let _ = to.shutdown(Shutdown::Both);
            return;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
