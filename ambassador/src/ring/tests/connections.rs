//! Accepting, connecting, and how connections end.

use super::*;
use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::Shutdown;

use rustix::net;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::ring::table::ACCEPTED_MAX;
use crate::ring::{Departure, dial_socket, now, spawn, steer_by_cpu, timer};

on_both_backends!(
    tcp_echo_over_v4_and_v6,
    unix_listeners_accept,
    a_refused_connect_is_an_error,
    a_fin_ends_one_direction_only,
    bytes_before_the_fin_come_first,
    a_reset_is_seen_by_whoever_waits,
    an_idle_stream_shows_that_its_peer_has_gone,
    a_burst_of_connections_is_accepted,
    a_reuseport_group_is_steered,
    out_of_descriptors_accept_rests_and_goes_on,
);

async fn tcp_echo_over_v4_and_v6() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let (listener, address) = listen(address);
        spawn(async move { echo(listener.accept().await.unwrap()).await });
        let stream = Stream::connect(dial_socket(&address).unwrap(), &address).await;
        let stream = stream.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), address);
        assert_eq!(stream.local_addr().unwrap().ip(), address.ip());
        for size in [1, 100, 8 * 1024, 20_000] {
            let sent = pattern(size);
            stream.send(gather(sent.clone())).await.unwrap();
            assert!(recv_exact(&stream, size).await == sent);
        }
        stream.shutdown_write();
        assert!(stream.recv().await.unwrap().is_none());
        // And again: the end stays the end.
        assert!(stream.recv().await.unwrap().is_none());
    }
}

async fn unix_listeners_accept() {
    let directory = std::env::temp_dir();
    let name = format!(
        "ambassador-ring-{:?}-{}",
        thread::current().id(),
        std::process::id()
    );
    let path = directory.join(name);
    let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let listener = Listener::new(socket.into()).unwrap();
    let mut far = UnixStream::connect(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let stream = listener.accept().await.unwrap();
    assert!(stream.peer_addr().is_err());
    far.write_all(b"hello").unwrap();
    assert_eq!(recv_exact(&stream, 5).await, b"hello");
    stream.send(gather("world")).await.unwrap();
    let mut answer = [0; 5];
    far.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"world");
}

async fn a_refused_connect_is_an_error() {
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let refused = Stream::connect(dial_socket(&nobody).unwrap(), &nobody).await;
    assert_eq!(
        refused.unwrap_err().kind(),
        io::ErrorKind::ConnectionRefused
    );
}

async fn a_fin_ends_one_direction_only() {
    let (stream, mut far) = tcp_pair().await;
    far.write_all(b"question").unwrap();
    far.shutdown(Shutdown::Write).unwrap();
    assert_eq!(recv_exact(&stream, 8).await, b"question");
    assert!(stream.recv().await.unwrap().is_none());
    stream.send(gather("answer")).await.unwrap();
    stream.shutdown_write();
    let mut answer = String::new();
    far.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answer");
}

async fn bytes_before_the_fin_come_first() {
    let (stream, mut far) = tcp_pair().await;
    far.write_all(b"last words").unwrap();
    drop(far);
    // Both are here before anybody asks.
    timer::sleep(Duration::from_millis(20)).await;
    assert!(stream.is_closed_or_busy());
    assert_eq!(recv_exact(&stream, 10).await, b"last words");
    assert!(stream.recv().await.unwrap().is_none());
}

async fn a_reset_is_seen_by_whoever_waits() {
    let (stream, far) = tcp_pair().await;
    let (near, address) = listen("127.0.0.1:0");
    let other = TcpStream::connect(address).unwrap();
    let resetting = near.accept().await.unwrap();
    // One side of each pair belongs to the shard, so `reset` is tested too.
    resetting.reset();
    let mut byte = [0];
    let error = elsewhere(move || (&other).read(&mut byte).unwrap_err()).await;
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);

    // And the shard sees the peer's.
    crate::ring::sockets::reset_on_close(&far);
    drop(far);
    assert_eq!(stream.departure().await, Departure::Failed);
    let error = stream.recv().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert!(stream.is_closed_or_busy());
    assert!(stream.send(gather("too late")).await.is_err());
}

async fn an_idle_stream_shows_that_its_peer_has_gone() {
    let (stream, far) = unix_pair();
    assert!(!stream.is_closed_or_busy());
    let early = timer::timeout(Duration::from_millis(5), stream.readable()).await;
    assert!(early.is_err());
    let soon = now() + Duration::from_millis(5);
    assert_eq!(
        poll_fn(|context| stream.poll_readable_by(soon, context)).await,
        Err(timer::Elapsed)
    );
    drop(far);
    stream.readable().await;
    assert_eq!(
        poll_fn(|context| stream.poll_readable_by(soon, context)).await,
        Ok(()),
        "what is here counts"
    );
    assert!(stream.is_closed_or_busy());
    assert_eq!(stream.departure().await, Departure::Fin);
}

async fn a_burst_of_connections_is_accepted() {
    let address = "127.0.0.1:0".parse().unwrap();
    let socket = dial_socket(&address).unwrap();
    bind_and_listen(&socket, address);
    let address = crate::ring::sockets::local_address(&socket).unwrap();
    let listener = Listener::new(socket).unwrap();
    // More than a listener queues for its owner.
    let burst = ACCEPTED_MAX + 200;
    let peers = thread::spawn(move || {
        let connect = |_| TcpStream::connect(address).unwrap();
        (0..burst).map(connect).collect::<Vec<_>>()
    });
    let mut streams = Vec::new();
    // The owner is late: the queue is full, and what comes then is not lost.
    let peers = elsewhere(move || peers.join().unwrap()).await;
    for _ in 0..burst {
        streams.push(listener.accept().await.unwrap());
    }
    for (mut peer, stream) in peers.iter().zip(&streams) {
        assert_eq!(stream.peer_addr().unwrap(), peer.local_addr().unwrap());
        peer.write_all(b"x").unwrap();
    }
    for stream in &streams {
        recv_exact(stream, 1).await;
    }
}

async fn a_reuseport_group_is_steered() {
    let first = reuseport("127.0.0.1:0".parse().unwrap());
    let address = crate::ring::sockets::local_address(&first).unwrap();
    let second = reuseport(address);
    steer_by_cpu(std::os::fd::AsFd::as_fd(&first), 2).unwrap();
    let listeners = [
        Listener::new(first).unwrap(),
        Listener::new(second).unwrap(),
    ];
    let cpus = thread::available_parallelism().unwrap().get().min(2);
    for cpu in 0..cpus {
        for _ in 0..8 {
            let far = elsewhere(move || {
                run_on_cpu(cpu);
                TcpStream::connect(address).unwrap()
            });
            let far = far.await;
            let accepted = listeners[cpu % 2].accept();
            let accepted = timer::timeout(Duration::from_secs(5), accepted).await;
            let stream = accepted
                .expect("it went to the listener of its CPU")
                .unwrap();
            assert_eq!(stream.peer_addr().unwrap(), far.local_addr().unwrap());
        }
    }
}

fn reuseport(address: SocketAddr) -> OwnedFd {
    let socket = dial_socket(&address).unwrap();
    net::sockopt::set_socket_reuseport(&socket, true).unwrap();
    bind_and_listen(&socket, address);
    socket
}

fn bind_and_listen(socket: &OwnedFd, address: SocketAddr) {
    net::bind(socket, &address).unwrap();
    net::listen(socket, 1_024).unwrap();
}

fn run_on_cpu(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).unwrap();
}

/// In a process of its own, because the limit is the process's.
async fn out_of_descriptors_accept_rests_and_goes_on() {
    let backend = crate::ring::with(|core| core.driver.backend());
    let name = "ring::tests::connections::accepts_with_few_descriptors";
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env("FEW_DESCRIPTORS", backend.to_string())
        .output();
    let child = child.unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{said}");
    assert!(said.contains("rested and went on"), "{said}");
}

/// The child of the test above; without the variable there is nothing to do.
#[test]
fn accepts_with_few_descriptors() {
    let backend = match std::env::var("FEW_DESCRIPTORS").as_deref() {
        Ok("epoll") => Backend::Epoll,
        Ok(_) => Backend::Ring,
        Err(_) => return,
    };
    on(backend, || async {
        let (listener, address) = listen("127.0.0.1:0");
        let connected = TcpStream::connect(address).unwrap();
        // The kernel gives the lowest free number: no room for another.
        let highest = connected.as_raw_fd() as u64 + 1;
        limit_descriptors(Some(highest));
        let started = now();
        let accepting = listener.accept();
        assert!(
            timer::timeout(Duration::from_millis(120), accepting)
                .await
                .is_err()
        );
        assert!(now() - started >= Duration::from_millis(120));
        let turns = crate::ring::turns();
        assert!(turns < 50, "it rests between attempts: {turns} turns");
        limit_descriptors(None);
        let stream = listener.accept().await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), connected.local_addr().unwrap());
        println!("rested and went on");
    });
}
