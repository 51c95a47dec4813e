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
    assert!(starved.is_err(), "every buffer is held");
    assert!(spun < 100, "and nobody spins: {spun} turns");
    held.clear();
    assert_eq!(recv_exact(&other, 1).await, b"x");
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
