//! Sends that are not waited for.

use super::*;
use std::io::{Read, Write};

on_both_backends!(
    posts_arrive_in_order_without_news,
    a_post_that_is_not_taken_whole_goes_on_by_itself,
    a_flush_waits_for_no_news,
    what_was_flushed_survives_the_close,
    a_post_that_failed_gives_its_bytes_back,
    a_failed_post_fails_the_next_send,
    a_stream_that_still_sends_is_busy,
    more_streams_than_buffers_answer_at_once,
);

/// Less than is posted without a wait, more than fits with what came before.
const PART: usize = 16 * 1024;

async fn posts_arrive_in_order_without_news() {
    let (stream, mut far) = tcp_pair().await;
    for part in ["one ", "two ", "three"] {
        stream.post(gather(part)).await.unwrap();
    }
    let read = elsewhere(move || {
        let mut bytes = [0; 13];
        far.read_exact(&mut bytes).unwrap();
        bytes
    });
    assert_eq!(&read.await, b"one two three");
}

async fn a_post_that_is_not_taken_whole_goes_on_by_itself() {
    let (stream, mut far) = unix_pair();
    let mut posted = Vec::new();
    let (filled, full) = mpsc::channel();
    let peer = thread::spawn(move || {
        full.recv().unwrap();
        let mut bytes = Vec::new();
        far.read_to_end(&mut bytes).unwrap();
        bytes
    });
    // The last of them waits: the one before it was not taken whole.
    for number in 0.. {
        let part = vec![number as u8; PART];
        let post = stream.post(gather(part.clone()));
        if timer::timeout(Duration::from_millis(50), post)
            .await
            .is_err()
        {
            break;
        }
        posted.extend_from_slice(&part);
    }
    filled.send(()).unwrap();
    stream.flush().await.unwrap();
    drop(stream);
    assert!(elsewhere(move || peer.join().unwrap()).await == posted);
}

async fn a_flush_waits_for_no_news() {
    let (stream, _far) = unix_pair();
    for _ in 0..100 {
        stream.post(gather("x")).await.unwrap();
        stream.flush().await.unwrap();
    }
    stream.flush().await.unwrap();
}

async fn what_was_flushed_survives_the_close() {
    let (stream, mut far) = unix_pair();
    stream.post(gather("last words")).await.unwrap();
    stream.flush().await.unwrap();
    drop(stream);
    let read = elsewhere(move || {
        let mut bytes = String::new();
        far.read_to_string(&mut bytes).unwrap();
        bytes
    });
    assert_eq!(read.await, "last words");
}

async fn a_post_that_failed_gives_its_bytes_back() {
    let (stream, mut far) = unix_pair();
    far.write_all(b"and body").unwrap();
    let shared = stream.recv().await.unwrap().unwrap();
    drop(far);
    let mut whole = gather("head ");
    whole.push(shared);
    stream.post(whole).await.unwrap();
    assert!(
        stream.recv().await.unwrap().is_none(),
        "its reader sees the end"
    );
    let error = stream.send_failure().expect("the post has failed");
    assert_eq!(
        (error.source.kind(), error.sent),
        (io::ErrorKind::BrokenPipe, 0)
    );
    assert!(stream.send_failure().is_none(), "told once");
    let (out, back) = near_pair();
    out.send(*error.unsent.unwrap()).await.unwrap();
    assert_eq!(recv_exact(&back, 13).await, b"head and body");
}

async fn a_failed_post_fails_the_next_send() {
    let (stream, far) = unix_pair();
    drop(far);
    stream.post(gather("lost")).await.unwrap();
    let error = stream.send(gather("more")).await.unwrap_err();
    assert_eq!(error.source.kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(error.unsent.expect("nothing of it was tried").bytes(), 4);
}

async fn a_stream_that_still_sends_is_busy() {
    let (stream, mut far) = unix_pair();
    assert!(!stream.is_closed_or_busy());
    while timer::timeout(
        Duration::from_millis(50),
        stream.post(gather(vec![7; PART])),
    )
    .await
    .is_ok()
    {}
    assert!(stream.is_closed_or_busy());
    let (stop, stopped) = mpsc::channel::<()>();
    let reader = thread::spawn(move || {
        let mut bytes = [0; PART];
        while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
            far.set_read_timeout(Some(Duration::from_millis(20)))
                .unwrap();
            // Silence is the end of what was posted.
            let _ = far.read(&mut bytes);
        }
        far
    });
    stream.flush().await.unwrap();
    assert!(!stream.is_closed_or_busy());
    stop.send(()).unwrap();
    drop(elsewhere(move || reader.join().unwrap()).await);
}

async fn more_streams_than_buffers_answer_at_once() {
    let streams = 3 * usize::from(crate::ring::buffers::COUNT);
    let mut peers = Vec::new();
    for _ in 0..streams {
        let (stream, far) = unix_pair();
        peers.push(far);
        crate::ring::spawn(async move {
            while let Ok(Some(chunk)) = stream.recv().await {
                stream.post(Gather::from(chunk)).await.unwrap();
            }
        });
    }
    // All is written before the loop turns: it has less buffers than there are
    // streams with news, what holds them are posts, and no other news comes.
    for round in 0..20_u32 {
        for mut peer in &peers {
            peer.write_all(&round.to_ne_bytes()).unwrap();
        }
        let answered = move || {
            for mut peer in &peers {
                let mut back = [0; 4];
                peer.read_exact(&mut back).unwrap();
                assert_eq!(u32::from_ne_bytes(back), round);
            }
            peers
        };
        peers = elsewhere(answered).await;
    }
}
