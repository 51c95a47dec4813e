//! Bytes on their way: order, backpressure, gathering.

use super::*;
use std::io::{Read, Write};

use crate::combinators::both;
use crate::ring::{Departure, RECEIVED_MAX, spawn};

on_both_backends!(
    four_mebibytes_cross_both_ways_past_slow_readers,
    what_nobody_reads_is_bounded,
    single_bytes_that_nobody_reads_take_no_more_room,
    gathered_chunks_arrive_in_order,
    chunks_of_shared_buffers_can_be_split_and_sent_on,
    a_send_that_fails_says_how_much_was_taken,
    what_a_failed_send_did_not_touch_comes_back,
    a_reset_that_a_send_found_is_no_end,
    an_empty_send_is_done,
);

const MUCH: usize = 4 * 1024 * 1024;

async fn four_mebibytes_cross_both_ways_past_slow_readers() {
    let (stream, far) = tcp_pair().await;
    let peer = thread::spawn(move || {
        let reader = far.try_clone().unwrap();
        let writer = thread::spawn(move || (&far).write_all(&pattern(MUCH)).unwrap());
        let mut bytes = vec![0; MUCH];
        // Small reads: the shard has to wait for room again and again.
        for part in bytes.chunks_mut(3_000) {
            (&reader).read_exact(part).unwrap();
        }
        writer.join().unwrap();
        bytes
    });
    let sent = pattern(MUCH);
    let sending = async {
        for part in sent.chunks(100_000) {
            stream
                .send(gather(part))
                .await
                .map_err(|error| error.source)?;
        }
        io::Result::Ok(())
    };
    let mut received = Vec::new();
    let receiving = async {
        let bytes = &mut received;
        while bytes.len() < MUCH {
            let chunk = stream.recv().await?.expect("more is to come");
            bytes.extend_from_slice(&chunk);
            if bytes.len() % 64 < 4 {
                timer::sleep(Duration::from_millis(1)).await;
            }
        }
        Ok(())
    };
    both(sending, receiving).await.unwrap();
    assert!(received == pattern(MUCH), "what came is what was sent");
    let at_peer = elsewhere(move || peer.join().unwrap()).await;
    assert!(at_peer == sent, "what the peer got is what was sent");
}

async fn what_nobody_reads_is_bounded() {
    let (stream, far) = unix_pair();
    let writer = thread::spawn(move || {
        far.set_write_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let mut written = 0;
        while let Ok(bytes) = (&far).write(&[7; 4_096]) {
            written += bytes;
        }
        (far, written)
    });
    let (far, written) = elsewhere(move || writer.join().unwrap()).await;
    let queued = crate::ring::with(|core| core.driver.socket(stream.key).received_bytes());
    let on_top = crate::ring::with(|core| core.driver.received_on_top());
    assert!(queued >= RECEIVED_MAX, "{queued}");
    assert!(queued < RECEIVED_MAX + on_top, "{queued}");
    assert!(queued < written, "the rest waits in the kernel");
    drop(far);
    // Nothing of it is lost.
    let mut received = 0;
    while let Some(chunk) = stream.recv().await.unwrap() {
        received += chunk.len();
    }
    assert_eq!(received, written);
}

async fn single_bytes_that_nobody_reads_take_no_more_room() {
    const SENT: usize = 300;
    let (stream, far) = tcp_pair().await;
    far.set_nodelay(true).unwrap();
    for number in 0..SENT {
        (&far).write_all(&[number as u8]).unwrap();
        let received =
            |core: &crate::ring::Core| core.driver.socket(stream.key).received_bytes() > number;
        while !crate::ring::with(received) {
            timer::sleep(Duration::from_millis(1)).await;
        }
    }
    let chunks = crate::ring::with(|core| core.driver.socket(stream.key).received_chunks());
    // What came in the last turn may stand alone yet.
    assert!(chunks <= 2, "{chunks}");
    let received = recv_exact(&stream, SENT).await;
    let sent: Vec<u8> = (0..SENT).map(|number| number as u8).collect();
    assert!(received == sent, "in order, and all of it");
}

async fn gathered_chunks_arrive_in_order() {
    let (stream, mut far) = tcp_pair().await;
    let mut expected = Vec::new();
    let mut gather = Gather::default();
    let mut number = 0_u32;
    while !gather.is_full() {
        let part = vec![number as u8; 1 + 9_000 * number as usize];
        expected.extend_from_slice(&part);
        gather.push(Chunk::from(part));
        number += 1;
    }
    assert_eq!(gather.bytes(), expected.len());
    let length = expected.len();
    let peer = thread::spawn(move || {
        let mut bytes = vec![0; length];
        far.read_exact(&mut bytes).unwrap();
        bytes
    });
    stream.send(gather).await.unwrap();
    assert!(elsewhere(move || peer.join().unwrap()).await == expected);
}

async fn chunks_of_shared_buffers_can_be_split_and_sent_on() {
    let (near, mut far) = unix_pair();
    let (out, back) = near_pair();
    far.write_all(b"head and body").unwrap();
    let mut head = near.recv().await.unwrap().unwrap();
    let mut body = head.split_off(4);
    body.advance(1);
    head.truncate(3);
    drop(near);
    let mut both = Gather::from(body);
    both.push(head);
    out.send(both).await.unwrap();
    assert_eq!(recv_exact(&back, 11).await, b"and bodyhea");
}

async fn a_send_that_fails_says_how_much_was_taken() {
    let (stream, far) = unix_pair();
    spawn(async move {
        timer::sleep(Duration::from_millis(20)).await;
        drop(far);
    });
    let error = stream.send(gather(vec![1; MUCH])).await.unwrap_err();
    assert!(error.sent > 0 && error.sent < MUCH, "{error:?}");
    assert!(error.unsent.is_none(), "a part is no whole");
    let error = stream.send(gather("more")).await.unwrap_err();
    assert_eq!(error.source.kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(error.sent, 0);
}

async fn what_a_failed_send_did_not_touch_comes_back() {
    let (stream, mut far) = unix_pair();
    far.write_all(b"and body").unwrap();
    let shared = stream.recv().await.unwrap().unwrap();
    drop(far);
    let mut both = gather("head ");
    both.push(shared);
    let error = stream.send(both).await.unwrap_err();
    assert_eq!(error.sent, 0);
    let (out, back) = near_pair();
    out.send(*error.unsent.unwrap()).await.unwrap();
    assert_eq!(recv_exact(&back, 13).await, b"head and body");
}

async fn a_reset_that_a_send_found_is_no_end() {
    let (stream, far) = tcp_pair().await;
    let stuck = stream.send(gather(vec![1; 32 << 20]));
    let reset = async {
        timer::sleep(Duration::from_millis(20)).await;
        crate::ring::sockets::reset_on_close(&far);
        drop(far);
        io::Result::Ok(())
    };
    let mut sent = Ok(());
    let stuck = async {
        sent = stuck.await;
        Ok(())
    };
    both(stuck, reset).await.unwrap();
    assert!(sent.unwrap_err().sent > 0);
    // The socket tells of it once; both directions have to know.
    assert_eq!(stream.departure().await, Departure::Failed);
    assert!(stream.recv().await.is_err());
}

async fn an_empty_send_is_done() {
    let (stream, _far) = unix_pair();
    stream.send(Gather::default()).await.unwrap();
}
