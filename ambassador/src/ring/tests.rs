//! One suite for both backends: real sockets, a thread per test, peers that
//! are plain blocking sockets or other tasks of the shard.

mod closing;
mod connections;
mod limits;
mod loop_and_timers;
mod moving;
mod posts;
mod spinning;
mod transfers;

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Backend, Chunk, Gather, Listener, Options, Spin, Stream, run, timer};

/// Makes a test per backend of each of these async functions.
macro_rules! on_both_backends {
    ($($name:ident),* $(,)?) => {
        mod ring {
            $(#[test] fn $name() { crate::ring::tests::on(crate::ring::Backend::Ring, super::$name); })*
        }
        mod epoll {
            $(#[test] fn $name() { crate::ring::tests::on(crate::ring::Backend::Epoll, super::$name); })*
        }
    };
}
use on_both_backends;

/// A test that takes longer hangs.
const TEST_TIME_MAX: Duration = Duration::from_secs(30);

/// Runs `test` on a shard in a thread of its own.
fn on<F: Future<Output = ()> + 'static>(backend: Backend, test: fn() -> F) {
    let (done, wait) = mpsc::channel();
    let shard = thread::spawn(move || {
        let result = run(
            Options {
                backend,
                shard: 0,
                spin: Spin::Never,
            },
            async move { test().await },
        );
        let _ = done.send(());
        result
    });
    if wait.recv_timeout(TEST_TIME_MAX) == Err(mpsc::RecvTimeoutError::Timeout) {
        panic!("the shard hangs");
    }
    let result = shard.join().expect("the shard does not panic");
    result.expect("the test on the shard does not panic");
}

/// A listener of the shard on a free port.
fn listen(address: &str) -> (Listener, SocketAddr) {
    let socket = TcpListener::bind(address).unwrap();
    let address = socket.local_addr().unwrap();
    (Listener::new(socket.into()).unwrap(), address)
}

/// A stream of the shard and its blocking peer, over TCP.
async fn tcp_pair() -> (Stream, TcpStream) {
    let (listener, address) = listen("127.0.0.1:0");
    let far = TcpStream::connect(address).unwrap();
    far.set_nodelay(true).unwrap();
    (listener.accept().await.unwrap(), far)
}

/// A stream of the shard and its blocking peer, over a unix socket.
fn unix_pair() -> (Stream, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    (Stream::from_connected(near.into()).unwrap(), far)
}

/// Two streams of the shard.
fn near_pair() -> (Stream, Stream) {
    let (left, right) = UnixStream::pair().unwrap();
    let near = |socket: UnixStream| Stream::from_connected(OwnedFd::from(socket)).unwrap();
    (near(left), near(right))
}

fn gather(bytes: impl Into<Vec<u8>>) -> Gather {
    Gather::from(Chunk::from(bytes.into()))
}

/// Receives exactly `length` bytes.
async fn recv_exact(stream: &Stream, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let chunk = stream.recv().await.unwrap().expect("more is to come");
        bytes.extend_from_slice(&chunk);
    }
    assert_eq!(bytes.len(), length);
    bytes
}

/// Sends back what comes until the peer's FIN, and ends then.
async fn echo(stream: Stream) {
    while let Ok(Some(chunk)) = stream.recv().await {
        if stream.send(Gather::from(chunk)).await.is_err() {
            return;
        }
    }
}

/// Runs something that blocks in a thread of its own, and waits for it without
/// stopping the shard.
async fn elsewhere<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (mut done, wait) = UnixStream::pair().unwrap();
    let wait = Stream::from_connected(wait.into()).unwrap();
    let worker = thread::spawn(move || {
        let result = work();
        io::Write::write_all(&mut done, b".").unwrap();
        result
    });
    // A FIN without the byte: the work has panicked.
    let _ = wait.recv().await;
    worker.join().expect("the work does not panic")
}

/// Lets other tasks and the kernel go on until `condition` holds.
async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        timer::sleep(Duration::from_millis(1)).await;
    }
}

/// Bytes that show when some are lost, doubled or out of order.
fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    let next = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    });
    next.take(length).collect()
}

/// What a descriptor refers to, `socket:[inode]`: unique while it is open.
fn identity(socket: &impl AsRawFd) -> String {
    let link = format!("/proc/self/fd/{}", socket.as_raw_fd());
    std::fs::read_link(link).unwrap().display().to_string()
}

/// Whether this process has a descriptor of that identity.
fn is_open(identity: &str) -> bool {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap();
    entries
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .any(|link| link.to_str() == Some(identity))
}

/// Asks for as many descriptors as the system lets this process have.
fn limit_descriptors(wanted: Option<u64>) {
    let limit = getrlimit(Resource::Nofile);
    let limit = Rlimit {
        current: wanted.or(limit.maximum),
        ..limit
    };
    setrlimit(Resource::Nofile, limit).unwrap();
}

#[test]
fn a_ring_can_be_had_here_and_either_backend_can_be_forced() {
    // In processes of their own: the environment is the process's.
    for (forced, expected) in [("epoll", "epoll"), ("ring", "io_uring"), ("", "io_uring")] {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "ring::tests::says_what_the_probe_finds",
                "--nocapture",
            ])
            .env("AMBASSADOR_BACKEND", forced)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(
            said.contains(&format!("backend={expected};")),
            "{forced}: {said}"
        );
    }
}

/// The child of the test above; by itself it only shows that nothing breaks.
#[test]
fn says_what_the_probe_finds() {
    let (backend, reason) = super::probe();
    println!("backend={backend}; {reason:?}");
    assert_eq!(backend == Backend::Ring, reason.is_none());
}

#[test]
fn an_open_socket_takes_little_memory() {
    let size = size_of::<super::table::Socket>();
    println!("a socket's entry: {size} bytes");
    assert!(size <= 256, "{size}");
}
