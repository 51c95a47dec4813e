//! Tasks, wake-ups from other threads, the mailbox, and time.

use super::*;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use crate::clock::Instant;
use crate::ring::mailbox::SendError as MailboxError;
use crate::ring::{now, remote, spawn, task_count, task_panics};

on_both_backends!(
    timers_fire_in_order_and_not_early,
    what_is_ready_arms_no_timer,
    a_timeout_ends_what_takes_too_long,
    a_panic_ends_one_task_only,
    foreign_threads_wake_tasks,
    a_waker_may_outlive_its_task_and_its_shard,
    a_remote_runs_closures_in_order,
    a_remote_is_bounded_and_closes,
    many_threads_ring_at_once,
    an_idle_shard_does_not_turn,
);

async fn timers_fire_in_order_and_not_early() {
    let fired = Rc::new(std::cell::RefCell::new(Vec::new()));
    let start = now();
    for wait in [30, 5, 20, 1, 0, 10] {
        let fired = Rc::clone(&fired);
        spawn(async move {
            timer::sleep(Duration::from_millis(wait)).await;
            assert!(now() - start >= Duration::from_millis(wait));
            fired.borrow_mut().push(wait);
        });
    }
    until(|| fired.borrow().len() == 6).await;
    assert_eq!(*fired.borrow(), [0, 1, 5, 10, 20, 30]);
    timer::sleep_until(start).await;
}

async fn what_is_ready_arms_no_timer() {
    let armed = || crate::ring::with(|core| core.wheel.borrow().len());
    let before = armed();
    timer::timeout(Duration::from_secs(1), async {
        assert_eq!(armed(), before)
    })
    .await
    .unwrap();
    assert_eq!(armed(), before);
    let long = timer::timeout(Duration::from_secs(3_600), async {
        timer::sleep(Duration::from_millis(2)).await;
        assert_eq!(
            armed(),
            before + 1,
            "only the limit; the inner one has gone"
        );
    });
    long.await.unwrap();
    assert_eq!(armed(), before, "a dropped timer is forgotten");
    // Not even forever overflows.
    let forever = timer::timeout(Duration::MAX, timer::sleep(Duration::from_millis(1)));
    forever.await.unwrap();
}

async fn a_timeout_ends_what_takes_too_long() {
    let start = now();
    let waited = timer::timeout(Duration::from_millis(10), std::future::pending::<()>()).await;
    assert_eq!(waited, Err(timer::Elapsed));
    assert!(now() - start >= Duration::from_millis(10));
}

async fn a_panic_ends_one_task_only() {
    let (stream, far) = unix_pair();
    spawn(async move {
        let _held = stream;
        timer::sleep(Duration::from_millis(1)).await;
        panic!("a test's panic");
    });
    let ended = elsewhere(move || io::Read::read(&mut &far, &mut [0; 1])).await;
    assert_eq!(ended.unwrap(), 0, "what the task held was dropped");
    assert_eq!((task_count(), task_panics()), (1, 1));
}

async fn foreign_threads_wake_tasks() {
    const ROUNDS: usize = 2_000;
    let shared = Arc::new((AtomicUsize::new(0), Mutex::new(None::<Waker>)));
    let other = Arc::clone(&shared);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = thread::spawn(move || {
        while !stopped.load(Ordering::SeqCst) {
            if let Some(waker) = other.1.lock().unwrap().take() {
                other.0.fetch_add(1, Ordering::SeqCst);
                waker.wake();
            }
        }
    });
    for round in 1..=ROUNDS {
        // Nothing else ever wakes it: one lost wake-up and this hangs.
        std::future::poll_fn(|context| {
            let mut slot = shared.1.lock().unwrap();
            if shared.0.load(Ordering::SeqCst) >= round {
                return Poll::Ready(());
            }
            *slot = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
    stop.store(true, Ordering::SeqCst);
    thread.join().unwrap();
    // And when the threads are silent, so is the shard.
    timer::sleep(Duration::from_millis(2)).await;
    let turns = crate::ring::turns();
    timer::sleep(Duration::from_millis(50)).await;
    let turned = crate::ring::turns() - turns;
    assert!(turned <= 3, "{turned} turns");
}

async fn a_waker_may_outlive_its_task_and_its_shard() {
    let (give, take) = mpsc::channel();
    let give_also = give.clone();
    spawn(std::future::poll_fn(move |context| {
        give.send(context.waker().clone()).unwrap();
        Poll::Ready(())
    }));
    timer::sleep(Duration::from_millis(1)).await;
    let woken = Rc::new(Cell::new(0));
    let polls = Rc::clone(&woken);
    // It has the ended task's place.
    spawn(std::future::poll_fn(move |_| {
        polls.set(polls.get() + 1);
        Poll::<()>::Pending
    }));
    timer::sleep(Duration::from_millis(1)).await;
    assert_eq!(woken.get(), 1);
    let waker = take.recv().unwrap();
    waker.wake_by_ref();
    elsewhere(move || waker.wake()).await;
    timer::sleep(Duration::from_millis(5)).await;
    assert_eq!(woken.get(), 1, "a waker of another task wakes nobody");

    let backend = crate::ring::with(|core| core.driver.backend());
    elsewhere(move || {
        run(
            Options {
                backend,
                shard: 1,
                spin: Spin::Never,
            },
            async move {
                std::future::poll_fn(|context| {
                    give_also.send(context.waker().clone()).unwrap();
                    Poll::Ready(())
                })
                .await;
            },
        )
        .unwrap();
    })
    .await;
    take.recv().unwrap().wake();
}

async fn a_remote_runs_closures_in_order() {
    let handle = remote();
    let (give, take) = mpsc::channel();
    let shard = thread::current().id();
    elsewhere(move || {
        for number in 0..500 {
            let give = give.clone();
            let mail = Box::new(move || {
                give.send((number, thread::current().id())).unwrap();
                // Closures run on the shard, with all of it at hand.
                spawn(async {});
            });
            handle.send(mail).unwrap();
        }
    })
    .await;
    let mut seen = Vec::new();
    until(|| {
        seen.extend(take.try_iter());
        seen.len() == 500
    })
    .await;
    let expected: Vec<_> = (0..500).map(|number| (number, shard)).collect();
    assert_eq!(seen, expected);
}

async fn a_remote_is_bounded_and_closes() {
    let backend = crate::ring::with(|core| core.driver.backend());
    let ran = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&ran);
    let handle = elsewhere(move || {
        run(
            Options {
                backend,
                shard: 1,
                spin: Spin::Never,
            },
            async move {
                let handle = remote();
                // The shard does not turn meanwhile, so nothing is taken.
                let mail = || {
                    let counted = Arc::clone(&counted);
                    Box::new(move || {
                        counted.fetch_add(1, Ordering::SeqCst);
                    })
                };
                for _ in 0..1_024 {
                    handle.send(mail()).unwrap();
                }
                assert_eq!(handle.send(mail()), Err(MailboxError::Full));
                timer::sleep(Duration::from_millis(2)).await;
                assert_eq!(counted.load(Ordering::SeqCst), 1_024);
                handle.send(mail()).unwrap();
                handle
            },
        )
        .unwrap()
    })
    .await;
    assert_eq!(handle.send(Box::new(|| ())), Err(MailboxError::Closed));
    assert_eq!(
        ran.load(Ordering::SeqCst),
        1_024,
        "what waited at the end was dropped"
    );
}

async fn many_threads_ring_at_once() {
    const EACH: usize = 5_000;
    let ran = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..4)
        .map(|_| (remote(), Arc::clone(&ran)))
        .map(|(remote, ran)| {
            thread::spawn(move || {
                let mut sent = 0;
                while sent < EACH {
                    let ran = Arc::clone(&ran);
                    let mail = move || {
                        ran.fetch_add(1, Ordering::SeqCst);
                    };
                    match remote.send(Box::new(mail)) {
                        Ok(()) => sent += 1,
                        Err(error) => assert_eq!(error, MailboxError::Full),
                    }
                }
            })
        })
        .collect();
    until(|| ran.load(Ordering::SeqCst) == 4 * EACH).await;
    for thread in threads {
        thread.join().unwrap();
    }
    // A closure that panics does not end the shard.
    remote()
        .send(Box::new(|| panic!("a test's panic")))
        .unwrap();
    timer::sleep(Duration::from_millis(2)).await;
    assert_eq!(task_panics(), 1);
    let turns = crate::ring::turns();
    timer::sleep(Duration::from_millis(50)).await;
    let turned = crate::ring::turns() - turns;
    assert!(turned <= 3, "a silent eventfd stays silent: {turned} turns");
}

async fn an_idle_shard_does_not_turn() {
    let (_stream, _far) = unix_pair();
    timer::sleep(Duration::from_millis(5)).await;
    let turns = crate::ring::turns();
    let start = Instant::now();
    timer::sleep(Duration::from_millis(200)).await;
    assert!(start.elapsed() >= Duration::from_millis(200));
    let turned = crate::ring::turns() - turns;
    assert!(turned <= 5, "{turned} turns in 200 ms of nothing");
}
