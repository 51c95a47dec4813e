//! Many streams, few buffers.

use super::*;
use std::cell::Cell;
use std::io::Write;
use std::rc::Rc;

use crate::ring::buffers::{COUNT, SIZE};
use crate::ring::spawn;

on_both_backends!(
    a_thousand_stalled_readers_do_not_stop_one_echo,
    chunks_that_are_held_do_not_starve_the_shard_for_good,
    a_stream_with_always_something_to_read_leaves_room_for_others,
    a_starved_stream_that_is_closed_is_forgotten,
    a_task_that_is_always_ready_leaves_room_for_io,
);

async fn a_thousand_stalled_readers_do_not_stop_one_echo() {
    limit_descriptors(None);
    let mut stalled = Vec::new();
    for _ in 0..1_000 {
        let (near, far) = near_pair();
        // Its peer sends more than fits, and nobody receives.
        spawn(async move {
            let _ = far.send(gather(vec![1; 1 << 20])).await;
        });
        stalled.push(near);
    }
    let (near, far) = near_pair();
    spawn(echo(far));
    for round in 0..200_u8 {
        let sent = vec![round; 10_000];
        near.send(gather(sent.clone())).await.unwrap();
        assert!(recv_exact(&near, 10_000).await == sent);
    }
    // And none of the stalled has lost anything.
    let one = stalled.pop().unwrap();
    assert!(
        recv_exact(&one, 1 << 20)
            .await
            .iter()
            .all(|byte| *byte == 1)
    );
}

async fn chunks_that_are_held_do_not_starve_the_shard_for_good() {
    let (stream, mut far) = unix_pair();
    let (other, mut far_other) = unix_pair();
    let mut held = Vec::new();
    // A task may hold what it has taken for as long as it likes.
    for _ in 0..COUNT {
        far.write_all(&vec![1; SIZE]).unwrap();
        held.push(stream.recv().await.unwrap().unwrap());
    }
    far_other.write_all(b"x").unwrap();
    let starved = timer::timeout(Duration::from_millis(20), other.recv()).await;
    let turns = crate::ring::turns();
    timer::sleep(Duration::from_millis(50)).await;
    let spun = crate::ring::turns() - turns;
    assert!(spun < 100, "nobody spins: {spun} turns");
    match starved {
        // epoll copies what waits in a queue before it gives up, so that a
        // buffer is left.
        Ok(chunk) => assert_eq!(&*chunk.unwrap().unwrap(), b"x"),
        Err(timer::Elapsed) => {
            held.clear();
            assert_eq!(recv_exact(&other, 1).await, b"x");
        }
    }
}

async fn a_stream_with_always_something_to_read_leaves_room_for_others() {
    let (fast, far_fast) = unix_pair();
    let writer = thread::spawn(move || while (&far_fast).write(&[1; 65_536]).is_ok() {});
    let (near, far) = near_pair();
    spawn(echo(far));
    let enough = Rc::new(Cell::new(false));
    let stop = Rc::clone(&enough);
    spawn(async move { while !stop.get() && fast.recv().await.is_ok() {} });
    for _ in 0..200 {
        near.send(gather("ping")).await.unwrap();
        assert_eq!(recv_exact(&near, 4).await, b"ping");
    }
    enough.set(true);
    elsewhere(move || writer.join().unwrap()).await;
}

async fn a_starved_stream_that_is_closed_is_forgotten() {
    let (stream, mut far) = unix_pair();
    let mut held = Vec::new();
    for _ in 0..COUNT {
        far.write_all(&vec![1; SIZE]).unwrap();
        held.push(stream.recv().await.unwrap().unwrap());
    }
    // Some starve who have nothing to read: they may not be in the way either.
    let _idle: Vec<_> = (0..100).map(|_| unix_pair()).collect();
    timer::sleep(Duration::from_millis(1)).await;
    let mut waiting = Vec::new();
    for _ in 0..50 {
        let (near, mut far) = unix_pair();
        far.write_all(b"x").unwrap();
        waiting.push((near, far));
    }
    timer::sleep(Duration::from_millis(5)).await;
    let last = waiting.pop().unwrap();
    let mut names = Vec::new();
    for (near, _far) in waiting.drain(..) {
        names.push(identity(&near.raw()));
    }
    // One buffer for many that are gone and one that is not.
    held.pop();
    let fed = timer::timeout(Duration::from_secs(5), last.0.recv()).await;
    assert_eq!(&*fed.expect("it is fed").unwrap().unwrap(), b"x");
    until(|| names.iter().all(|name| !is_open(name))).await;
}

async fn a_task_that_is_always_ready_leaves_room_for_io() {
    spawn(std::future::poll_fn(|context| {
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    }));
    let (near, far) = near_pair();
    spawn(echo(far));
    for _ in 0..20 {
        near.send(gather("ping")).await.unwrap();
        assert_eq!(recv_exact(&near, 4).await, b"ping");
    }
    timer::sleep(Duration::from_millis(5)).await;
}
