//! A stream that leaves one shard for another.

use super::*;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::ring::{Remote, is_quiet, remote, spawn};

on_both_backends!(
    one_that_left_goes_on_elsewhere,
    one_that_has_news_is_closed_instead,
    a_leave_that_is_dropped_closes,
    a_starved_one_leaves,
    what_comes_on_the_way_is_not_lost,
    nothing_is_lost_between_shards_under_traffic,
);

/// Another shard, with the same backend, until it is dropped.
struct Elsewhere {
    remote: Remote,
    ended: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Elsewhere {
    fn start() -> Self {
        let backend = crate::ring::with(|core| core.driver.backend());
        let (told, tell) = mpsc::channel();
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        let thread = thread::spawn(move || {
            let options = Options {
                backend,
                shard: 1,
                spin: Spin::Never,
            };
            let serving = async move {
                told.send(remote()).unwrap();
                until(|| end.load(Ordering::SeqCst)).await;
            };
            run(options, serving).unwrap();
        });
        Self {
            remote: tell.recv().unwrap(),
            ended,
            thread: Some(thread),
        }
    }

    /// Echoes on a socket over there.
    fn echo_on(&self, socket: OwnedFd) {
        let echoing = move || {
            let stream = Stream::from_connected(socket).unwrap();
            spawn(echo(stream));
        };
        self.remote.send(Box::new(echoing)).unwrap();
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let ended = self.thread.take().map(thread::JoinHandle::join);
        assert!(thread::panicking() || matches!(ended, Some(Ok(()))));
    }
}

async fn one_that_left_goes_on_elsewhere() {
    let other = Elsewhere::start();
    let (stream, mut far) = tcp_pair().await;
    // Used before, and its read has been armed for a while.
    far.write_all(b"a").unwrap();
    assert_eq!(recv_exact(&stream, 1).await, b"a");
    stream.post(gather(*b"b")).await.unwrap();
    stream.flush().await.unwrap();
    timer::sleep(Duration::from_millis(2)).await;
    let name = identity(&stream.raw());
    let socket = stream.leave().await.expect("it is quiet");
    assert!(is_quiet(&socket) && identity(&socket) == name);
    until(|| crate::ring::with(|core| core.driver.open_sockets()) == 0).await;
    other.echo_on(socket);
    let answer = elsewhere(move || {
        far.write_all(b"hello").unwrap();
        far.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        far.read_to_end(&mut answer).unwrap();
        answer
    });
    assert_eq!(answer.await, b"bhello");
    until(|| !is_open(&name)).await;
}

async fn one_that_has_news_is_closed_instead() {
    for news in 0..4 {
        let (stream, mut far) = tcp_pair().await;
        let name = identity(&stream.raw());
        match news {
            0 => far.write_all(b"x").unwrap(),
            1 => far.shutdown(std::net::Shutdown::Write).unwrap(),
            2 => {
                // To close what has unread bytes is a reset.
                stream.send(gather(*b"x")).await.unwrap();
                far.peek(&mut [0]).unwrap();
                drop(far);
            }
            _ => {
                let send = stream.send(gather(vec![0; 16 << 20]));
                assert!(
                    timer::timeout(Duration::from_millis(5), send)
                        .await
                        .is_err()
                );
            }
        }
        if news < 3 {
            stream.readable().await;
        }
        assert!(stream.leave().await.is_none(), "{news}");
        until(|| !is_open(&name)).await;
    }
}

async fn a_leave_that_is_dropped_closes() {
    let (stream, mut far) = tcp_pair().await;
    timer::sleep(Duration::from_millis(2)).await;
    let name = identity(&stream.raw());
    {
        let mut leaving = std::pin::pin!(stream.leave());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let _ = leaving.as_mut().poll(&mut context);
    }
    until(|| !is_open(&name)).await;
    let read = elsewhere(move || far.read(&mut [0; 8])).await;
    assert!(matches!(read, Ok(0)));
}

async fn a_starved_one_leaves() {
    // Neither buffers nor a read to cancel: the others hold and owe everything.
    let pairs: Vec<(Stream, UnixStream)> = (0..64).map(|_| unix_pair()).collect();
    let (quiet, _far) = unix_pair();
    for (_, far) in &pairs {
        (&mut &*far).write_all(&[7; 9_000]).unwrap();
    }
    for _ in 0..3 {
        timer::sleep(Duration::from_millis(1)).await;
    }
    assert!(quiet.leave().await.is_some());
    for (stream, _far) in &pairs {
        assert_eq!(recv_exact(stream, 9_000).await, [7; 9_000]);
    }
}

async fn what_comes_on_the_way_is_not_lost() {
    let other = Elsewhere::start();
    for end in [false, true] {
        let (stream, mut far) = tcp_pair().await;
        timer::sleep(Duration::from_millis(2)).await;
        let socket = stream.leave().await.expect("it is quiet");
        match end {
            true => far.shutdown(std::net::Shutdown::Write).unwrap(),
            false => far.write_all(b"early").unwrap(),
        }
        let noisy = socket.try_clone().unwrap();
        until(|| !is_quiet(&noisy)).await;
        drop(noisy);
        other.echo_on(socket);
        let answer = elsewhere(move || {
            let _ = far.shutdown(std::net::Shutdown::Write);
            let mut answer = Vec::new();
            far.read_to_end(&mut answer).unwrap();
            answer
        });
        let expected: &[u8] = if end { b"" } else { b"early" };
        assert_eq!(answer.await, expected);
    }
}

/// Streams that carry bytes at the very moment at which they are to leave: either
/// they have left and everything comes out over there, or they are closed and say
/// so. Their keys are used by others meanwhile.
async fn nothing_is_lost_between_shards_under_traffic() {
    const ROUNDS: usize = 200;
    let other = Elsewhere::start();
    let (mut left, mut closed) = (0, 0);
    for round in 0..ROUNDS {
        let (stream, far) = tcp_pair().await;
        let (busy, mut busy_far) = unix_pair();
        let (go, ready) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
        );
        let (going, is_ready) = (Arc::clone(&go), Arc::clone(&ready));
        let writer = thread::spawn(move || {
            let mut far = far;
            is_ready.store(true, Ordering::SeqCst);
            while !going.load(Ordering::SeqCst) {
                std::hint::spin_loop();
            }
            let written = match round % 3 {
                0 => far.write_all(b"bytes").is_ok(),
                1 => far.shutdown(std::net::Shutdown::Write).is_ok(),
                _ => true,
            };
            (far, written && round % 3 == 0)
        });
        busy_far.write_all(&[1; 100]).unwrap();
        until(|| ready.load(Ordering::SeqCst)).await;
        // Around the moment of the cancel.
        go.store(true, Ordering::SeqCst);
        for _ in 0..(round % 50) * 20 {
            std::hint::spin_loop();
        }
        if round % 4 == 0 {
            // By now its shard knows.
            timer::sleep(Duration::from_millis(1)).await;
        }
        let socket = stream.leave().await;
        let (near, _near_far) = unix_pair();
        assert_eq!(recv_exact(&busy, 100).await, [1; 100]);
        let (mut far, sent) = elsewhere(move || writer.join().unwrap()).await;
        match socket {
            Some(socket) => {
                left += 1;
                other.echo_on(socket);
                let answer = elsewhere(move || {
                    let _ = far.shutdown(std::net::Shutdown::Write);
                    let mut answer = Vec::new();
                    far.read_to_end(&mut answer).unwrap();
                    answer
                });
                let expected: &[u8] = if sent { b"bytes" } else { b"" };
                assert_eq!(answer.await, expected);
            }
            None => {
                closed += 1;
                let read = elsewhere(move || far.read(&mut [0; 8])).await;
                assert!(!matches!(read, Ok(1..)), "closed, not served");
            }
        }
        assert!(!near.is_closed_or_busy());
    }
    println!("{left} have left, {closed} were closed");
    assert!(left > 0 && closed > 0);
    until(|| crate::ring::with(|core| core.driver.open_sockets()) == 0).await;
}
