//! The replay. A connection that dies between two turns of the loop is still
//! taken for alive, so its first send fails and the kernel takes nothing: that
//! is made to happen here by not turning.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use crate::addr::{EndpointAddr, OriginalDst, Peer};
use crate::policy::limits::Timeouts;
use crate::proxy::after::After;
use crate::proxy::client;
use crate::proxy::context::{Context, Scratch};
use crate::proxy::downstream::Downstream;
use crate::proxy::forward::forward;
use crate::proxy::scripted::accepted_client;
use crate::proxy::tests::context;
use crate::ring::{self, Backend, Chunk, Gather, Options};
use crate::telemetry::{AttemptOutcome, Direction, UpstreamIndex};
use crate::upstream::dial::Namespace;
use crate::upstream::key::{Identity, PoolKey};
use crate::upstream::pool::{Checkout, Freshness};

const IDLE: Duration = Duration::from_secs(20);

fn gather(bytes: &[u8]) -> Gather {
    Gather::from(Chunk::from(bytes.to_vec()))
}

#[test]
fn a_post_that_a_dead_connection_took_nothing_of_is_replayed() {
    for backend in [Backend::Ring, Backend::Epoll] {
        // What is here at once, and what comes while the replay waits.
        for body in [2, 300_000] {
            let replay = async move { post_over_a_dead_connection(body).await };
            ring::run(
                Options {
                    backend,
                    shard: 0,
                    spin: ring::Spin::Never,
                },
                replay,
            )
            .unwrap();
        }
    }
}

async fn post_over_a_dead_connection(body: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let context = context();
    keep_a_dead_connection(&context, &listener, address).await;

    let server = thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let request = read_to(&mut connection, &vec![b'x'; body]);
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        connection.write_all(answer).unwrap();
        request
    });
    let head = format!("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: {body}\r\n\r\n");
    let (mut client, far) = accepted_client(&context, Some(OriginalDst(address)));
    // The first bytes are at hand, so that nothing is waited for.
    client.ahead = Some(Chunk::from(format!("{head}x").into_bytes()));
    let app = thread::spawn(move || {
        (&far).write_all(&vec![b'x'; body - 1]).unwrap();
        read_to(&mut &far, b"\r\n\r\n")
    });
    let mut scratch = Scratch::default();
    let patience = client::Patience::of(&Timeouts::default());
    let head = client.read_request(&mut scratch.request, patience);
    let head = head.await.unwrap().unwrap();
    let mut downstream = Downstream::http1(&mut client, &scratch.request);
    let after = forward(&mut downstream, &mut scratch, head).await;
    assert_eq!(after, After::KeepAlive);
    client.flush(IDLE).await;

    let answer = app.join().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{answer:?}");
    let request = server.join().unwrap();
    assert!(request.starts_with(b"POST /x HTTP/1.1\r\n"));
    assert!(request.ends_with(&vec![b'x'; body]));
    let snapshot = context.telemetry.cells.snapshot();
    let counted = snapshot.upstream(UpstreamIndex::UNMATCHED).unwrap();
    assert_eq!(counted.pool_reuse(), 1);
    assert!(counted.bytes(Direction::Sent) > body as u64);
    assert_eq!(counted.attempts(AttemptOutcome::Reset), 1);
    assert_eq!(counted.attempts(AttemptOutcome::Response), 1);
}

/// Leaves a connection in the pool that the server has reset, unseen by the
/// loop.
async fn keep_a_dead_connection(
    context: &Rc<Context>,
    listener: &TcpListener,
    address: SocketAddr,
) {
    let target = context.generation().unmatched();
    let key = PoolKey::http1(
        Namespace::default(),
        EndpointAddr(address),
        Identity::ANONYMOUS,
    );
    let pools = &context.pools;
    let dialled = pools.checkout(
        &target.shared,
        target.opening(),
        Checkout {
            key,
            freshness: Freshness::New,
            peer: Peer::Local,
            server_name: None,
        },
    );
    let Ok(leased) = dialled.await else {
        panic!("it listens");
    };
    let mut connection = leased.connection();
    connection.stream.send(gather(b"x")).await.unwrap();
    let near = connection.stream.as_fd().try_clone_to_owned().unwrap();
    connection.complete();
    drop(connection);
    // To close what has unread bytes is a reset.
    let (accepted, _) = listener.accept().unwrap();
    accepted.peek(&mut [0]).unwrap();
    drop(accepted);
    let near = TcpStream::from(near);
    let alive = |peeked: std::io::Result<usize>| {
        peeked.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    };
    while alive(near.peek(&mut [0])) {
        thread::yield_now();
    }
}

/// Reads until `end` has come.
fn read_to(stream: &mut impl Read, end: &[u8]) -> Vec<u8> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 16 * 1024]);
    while !bytes.ends_with(end) {
        match stream.read(&mut buffer).unwrap() {
            0 => break,
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
    bytes
}
