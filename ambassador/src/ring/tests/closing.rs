//! What is dropped in the middle of something.

use super::*;
use std::io::{Read, Write};

use crate::combinators::both;
use crate::ring::{dial_socket, spawn, task_count};

on_both_backends!(
    a_dropped_stream_is_closed,
    a_stream_closed_while_it_sends_is_closed,
    a_dropped_recv_loses_nothing,
    a_dropped_send_goes_on,
    a_dropped_connect_is_closed,
    a_dropped_listener_closes_what_it_had_accepted,
    a_reset_overtakes_what_is_queued,
    keys_are_used_again_without_mixing_up_connections,
    a_shard_that_ends_closes_everything,
    nothing_is_mixed_up_when_everything_is_dropped_at_random,
);

async fn a_dropped_stream_is_closed() {
    let (stream, mut far) = tcp_pair().await;
    let name = identity(&stream.raw());
    drop(stream);
    let read = elsewhere(move || far.read(&mut [0; 8]).unwrap()).await;
    assert_eq!(read, 0, "the peer sees the end");
    until(|| !is_open(&name)).await;
}

async fn a_stream_closed_while_it_sends_is_closed() {
    let (stream, far) = unix_pair();
    let name = identity(&stream.raw());
    let send = stream.send(gather(vec![3; 1 << 20]));
    assert!(
        timer::timeout(Duration::from_millis(10), send)
            .await
            .is_err()
    );
    drop(stream);
    until(|| !is_open(&name)).await;
    let mut rest = Vec::new();
    let read = elsewhere(move || (&far).read_to_end(&mut rest).map(|_| rest)).await;
    let rest = read.unwrap();
    assert!(!rest.is_empty() && rest.iter().all(|byte| *byte == 3));
}

async fn a_dropped_recv_loses_nothing() {
    let (stream, mut far) = tcp_pair().await;
    for round in 0..20_u8 {
        let nothing = timer::timeout(Duration::from_millis(1), stream.recv()).await;
        assert!(nothing.is_err());
        far.write_all(&[round]).unwrap();
        assert_eq!(recv_exact(&stream, 1).await, [round]);
    }
}

async fn a_dropped_send_goes_on() {
    let (stream, far) = unix_pair();
    let first = pattern(1 << 20);
    let send = stream.send(gather(first.clone()));
    assert!(
        timer::timeout(Duration::from_millis(10), send)
            .await
            .is_err()
    );
    // Another one waits its turn: neither is mixed into the other.
    let both = [first.clone(), vec![9; 100_000]].concat();
    let length = both.len();
    let peer = thread::spawn(move || {
        let mut bytes = vec![0; length];
        (&far).read_exact(&mut bytes).unwrap();
        bytes
    });
    stream.send(gather(vec![9; 100_000])).await.unwrap();
    assert!(elsewhere(move || peer.join().unwrap()).await == both);
}

async fn a_dropped_connect_is_closed() {
    // A full backlog: connects to it wait.
    let full = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = full.local_addr().unwrap();
    shrink_backlog(&full);
    let fill = |_| {
        let socket = dial_socket(&address).unwrap();
        Box::pin(Stream::connect(socket, &address))
    };
    let mut held = Vec::new();
    let mut waiting = false;
    for attempt in (0..16).map(fill) {
        match timer::timeout(Duration::from_millis(50), attempt).await {
            Ok(stream) => held.push(stream.unwrap()),
            Err(_) => waiting = true,
        }
        if waiting {
            break;
        }
    }
    assert!(waiting, "the backlog is full at some point");
    let socket = dial_socket(&address).unwrap();
    let name = identity(&socket);
    let connect = Stream::connect(socket, &address);
    assert!(
        timer::timeout(Duration::from_millis(20), connect)
            .await
            .is_err()
    );
    until(|| !is_open(&name)).await;
}

fn shrink_backlog(listener: &TcpListener) {
    rustix::net::listen(listener, 0).unwrap();
}

async fn a_dropped_listener_closes_what_it_had_accepted() {
    let (listener, address) = listen("127.0.0.1:0");
    let connect = |_| TcpStream::connect(address).unwrap();
    let _taken = connect(0);
    let peers: Vec<_> = (1..10).map(connect).collect();
    // One was taken, the others wait in the listener's queue or the backlog.
    let stream = listener.accept().await.unwrap();
    timer::sleep(Duration::from_millis(10)).await;
    drop(listener);
    for mut peer in peers {
        let read = elsewhere(move || peer.read(&mut [0; 1])).await;
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
    assert!(!stream.is_closed_or_busy());
    until(|| TcpStream::connect(address).is_err()).await;
}

async fn a_reset_overtakes_what_is_queued() {
    let (stream, mut far) = tcp_pair().await;
    let name = identity(&stream.raw());
    far.write_all(b"unread").unwrap();
    stream.readable().await;
    let send = stream.send(gather(vec![3; 16 << 20]));
    assert!(
        timer::timeout(Duration::from_millis(10), send)
            .await
            .is_err()
    );
    stream.reset();
    until(|| !is_open(&name)).await;
    let error = elsewhere(move || io::copy(&mut far, &mut io::sink()).unwrap_err()).await;
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

async fn keys_are_used_again_without_mixing_up_connections() {
    let mut keys = std::collections::HashSet::new();
    for round in 0..200_u8 {
        let (stream, mut far) = unix_pair();
        keys.insert(stream.key);
        let (old, mut old_far) = unix_pair();
        // Something is in flight and on its way when the key becomes free.
        old_far.write_all(&[255; 100]).unwrap();
        drop(old);
        far.write_all(&[round]).unwrap();
        assert_eq!(recv_exact(&stream, 1).await, [round]);
        let nothing = timer::timeout(Duration::from_micros(1), stream.recv()).await;
        assert!(nothing.is_err());
    }
    assert!(keys.len() < 20, "keys are used again: {}", keys.len());
}

async fn a_shard_that_ends_closes_everything() {
    let backend = crate::ring::with(|core| core.driver.backend());
    let names = elsewhere(move || {
        run(
            Options {
                backend,
                shard: 1,
                spin: Spin::Never,
            },
            async {
                let (listener, address) = listen("127.0.0.1:0");
                let mut names = vec![identity_of_key(listener.key)];
                let far = TcpStream::connect(address).unwrap();
                let stream = listener.accept().await.unwrap();
                names.push(identity(&stream.raw()));
                let (sending, far_of_sending) = unix_pair();
                names.push(identity(&sending.raw()));
                spawn(async move {
                    let _ = sending.send(gather(vec![1; 1 << 20])).await;
                    drop((far, far_of_sending));
                });
                spawn(async move {
                    let _ = listener.accept().await;
                    drop(stream);
                });
                timer::sleep(Duration::from_millis(10)).await;
                assert_eq!(task_count(), 3);
                names
            },
        )
        .unwrap()
    });
    for name in names.await {
        assert!(!is_open(&name), "{name}");
    }
}

fn identity_of_key(key: crate::ring::table::Key) -> String {
    crate::ring::with(|core| identity(&core.driver.socket(key).fd))
}

async fn nothing_is_mixed_up_when_everything_is_dropped_at_random() {
    const CLIENTS: u32 = 48;
    let (listener, address) = listen("127.0.0.1:0");
    let server = async move {
        loop {
            spawn(echo(listener.accept().await.unwrap()));
        }
    };
    let done = std::rc::Rc::new(std::cell::Cell::new(0));
    let talks = std::rc::Rc::new(std::cell::Cell::new((0, 0)));
    for client in 0..CLIENTS {
        let (done, talks) = (std::rc::Rc::clone(&done), std::rc::Rc::clone(&talks));
        spawn(async move {
            // A seed per client: what goes wrong once goes wrong again.
            let mut random = pattern(10_000 + client as usize).into_iter().rev();
            for _ in 0..100 {
                let mut next = || usize::from(random.next().unwrap());
                let socket = dial_socket(&address).unwrap();
                let limit = Duration::from_micros(next() as u64 * 20);
                let connect = Stream::connect(socket, &address);
                let Ok(stream) = timer::timeout(limit, connect).await else {
                    continue;
                };
                let stream = stream.unwrap();
                let talk = async {
                    for _ in 0..4 {
                        // Different from what any other connection sends.
                        let sent = vec![client as u8 + 1; 1 + next() * next()];
                        let sending = stream.send(gather(sent.clone()));
                        let mut back = Vec::new();
                        let receiving = async {
                            back = recv_exact(&stream, sent.len()).await;
                            Ok(())
                        };
                        let sending = async { sending.await.map_err(|error| error.source) };
                        both(sending, receiving).await.unwrap();
                        assert!(back == sent, "an echo is what was sent");
                    }
                };
                let whole = timer::timeout(limit * 2, talk).await.is_ok();
                let (cut, ended) = talks.get();
                talks.set((cut + u32::from(!whole), ended + u32::from(whole)));
                if limit.as_micros().is_multiple_of(3) {
                    stream.reset();
                }
            }
            done.set(done.get() + 1);
        });
    }
    let clients = until(|| task_count() <= 1);
    let _ = crate::combinators::first(clients, server).await;
    assert_eq!(done.get(), CLIENTS, "no client has panicked");
    let (cut, ended) = talks.get();
    assert!(cut > 0 && ended > 0, "{cut} were cut, {ended} ended");
    // Every stream on both sides is closed: what is left is the listener's, if
    // anything.
    let open = || crate::ring::with(|core| core.driver.open_sockets());
    until(|| open() == 0).await;
}
