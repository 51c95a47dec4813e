//! A shard that stays awake while news comes fast.

use super::*;
use std::io::{Read, Write};

#[test]
fn ring_serves_and_rests() {
    serves_and_rests(Backend::Ring);
}

#[test]
fn epoll_serves_and_rests() {
    serves_and_rests(Backend::Epoll);
}

fn serves_and_rests(backend: Backend) {
    let options = Options {
        backend,
        shard: 0,
        spin: Spin::Adaptive,
    };
    let ran = run(options, async {
        let (stream, mut far) = unix_pair();
        let peer = thread::spawn(move || {
            let mut byte = [0];
            while far.read(&mut byte).unwrap() == 1 {
                far.write_all(&byte).unwrap();
            }
        });
        for number in 0..2_000_u32 {
            stream.post(gather([number as u8])).await.unwrap();
            let back = stream.recv().await.unwrap().unwrap();
            assert_eq!(back[..], [number as u8]);
        }
        // Timers are kept in the middle of it, and silence is slept through.
        let (before, start) = (cpu_time(), crate::ring::now());
        timer::sleep(Duration::from_millis(300)).await;
        assert!(crate::ring::now() - start >= Duration::from_millis(300));
        let spent = cpu_time() - before;
        assert!(spent < Duration::from_millis(30), "{spent:?} of 300 ms");
        drop(stream);
        elsewhere(move || peer.join().unwrap()).await;
    });
    ran.unwrap();
}

/// What this thread has computed so far.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}
