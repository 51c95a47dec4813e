use std::sync::atomic::AtomicU32;
use std::task::Waker;

use super::*;

fn poll(wait: &mut Wait) -> Option<Turn> {
    match Pin::new(wait).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(turn) => Some(turn),
        Poll::Pending => None,
    }
}

fn on(shard: u16) -> Requester {
    let peer = Peer::Local;
    Requester { shard, peer }
}

fn permits(cap: u32) -> Arc<Permits> {
    Arc::new(Permits::new(Some(cap)))
}

fn now_permit(acquired: Acquisition) -> Permit {
    match acquired {
        Acquisition::Now(permit) => permit,
        _ => panic!("a place was free"),
    }
}

fn wait(acquired: Acquisition) -> Wait {
    match acquired {
        Acquisition::Later(wait) => wait,
        _ => panic!("no place was free"),
    }
}

#[test]
fn waiters_are_served_in_order_and_newcomers_do_not_overtake() {
    let permits = permits(1);
    let now = Instant::now();
    let held = now_permit(permits.acquire(on(0), 9, now));
    let mut first = wait(permits.acquire(on(0), 9, now));
    let mut second = wait(permits.acquire(on(1), 9, now));
    assert!(poll(&mut first).is_none());
    drop(held);
    let mut third = wait(permits.acquire(on(0), 9, now));
    assert!(poll(&mut second).is_none());
    let Some(Turn::Dial(held)) = poll(&mut first) else {
        panic!("the first waits no longer")
    };
    drop(held);
    assert!(poll(&mut third).is_none());
    assert!(matches!(poll(&mut second), Some(Turn::Dial(_))));
    assert_eq!(permits.in_use(), 1, "the third was granted the place");
}

#[test]
fn what_a_lowered_cap_has_no_place_for_is_counted() {
    let (permits, now) = (permits(3), Instant::now());
    let mut held: Vec<Permit> = (0..3)
        .map(|_| now_permit(permits.acquire(on(0), 9, now)))
        .collect();
    for (cap, above) in [(Some(3), 0), (Some(2), 1), (Some(0), 3), (None, 0)] {
        permits.set_cap(cap);
        assert_eq!(permits.above_cap(), above, "{cap:?}");
    }
    permits.set_cap(Some(2));
    held.pop();
    assert_eq!((permits.above_cap(), permits.in_use()), (0, 2));
}

#[test]
fn the_queue_is_limited() {
    let permits = permits(1);
    let now = Instant::now();
    let _held = now_permit(permits.acquire(on(0), 1, now));
    let _waiting = wait(permits.acquire(on(0), 1, now));
    assert!(matches!(permits.acquire(on(0), 1, now), Acquisition::Full));
}

#[test]
fn who_has_less_of_a_full_queue_takes_the_place_of_who_has_the_most() {
    let permits = permits(1);
    let now = Instant::now();
    let of = |peer| Requester {
        shard: 0,
        peer: Peer::Workload(peer),
    };
    let held = now_permit(permits.acquire(of(1), 2, now));
    let mut first = wait(permits.acquire(of(1), 2, now));
    let mut second = wait(permits.acquire(of(1), 2, now));
    let mut other = wait(permits.acquire(of(2), 2, now));
    assert!(matches!(poll(&mut second), Some(Turn::TurnedAway)));
    assert!(second.leave().is_none());
    assert_eq!(permits.waiting(), 2);
    assert!(matches!(permits.acquire(of(1), 2, now), Acquisition::Full));
    drop(held);
    drop(poll(&mut first));
    assert!(matches!(poll(&mut other), Some(Turn::Dial(_))));
    assert_eq!((permits.waiting(), permits.in_use()), (0, 0));
}

#[test]
fn a_cancelled_waiter_passes_its_turn_on() {
    let permits = permits(1);
    let now = Instant::now();
    let held = now_permit(permits.acquire(on(0), 9, now));
    let first = wait(permits.acquire(on(0), 9, now));
    let mut second = wait(permits.acquire(on(0), 9, now));
    drop(held);
    drop(first);
    assert!(matches!(poll(&mut second), Some(Turn::Dial(_))));
    assert_eq!((permits.waiting(), permits.in_use()), (0, 0));
}

#[test]
fn an_idle_connection_goes_to_its_own_shard_until_another_has_waited_long() {
    let permits = permits(1);
    let start = Instant::now();
    let _held = now_permit(permits.acquire(on(0), 9, start));
    let mut foreign = wait(permits.acquire(on(1), 9, start));
    let mut local = wait(permits.acquire(on(0), 9, start));
    assert_eq!(permits.hand_over(0, start), Handover::Granted);
    assert!(matches!(poll(&mut local), Some(Turn::Reuse)));
    let later = start + FOREIGN_PATIENCE;
    let _local = wait(permits.acquire(on(0), 9, later));
    assert_eq!(permits.hand_over(0, later), Handover::Close);
    assert!(poll(&mut foreign).is_none(), "it gets the permit on close");
    let both_long = later + FOREIGN_PATIENCE * 2;
    assert_eq!(permits.hand_over(0, both_long), Handover::Granted);
}

#[test]
fn a_waiter_that_leaves_hands_out_what_was_set_aside_for_it() {
    let permits = permits(1);
    let now = Instant::now();
    let _held = now_permit(permits.acquire(on(0), 9, now));
    let mut first = wait(permits.acquire(on(0), 9, now));
    assert_eq!(permits.hand_over(0, now), Handover::Granted);
    assert!(matches!(first.leave(), Some(Turn::Reuse)));
    assert!(first.leave().is_none());
    assert_eq!(permits.hand_over(0, now), Handover::NobodyWaits);
}

#[test]
fn raising_the_cap_serves_the_queue() {
    let permits = permits(1);
    let now = Instant::now();
    let _held = now_permit(permits.acquire(on(0), 9, now));
    let mut waiting = wait(permits.acquire(on(0), 9, now));
    permits.set_cap(Some(2));
    assert!(matches!(poll(&mut waiting), Some(Turn::Dial(_))));
}

#[test]
fn threads_never_exceed_the_cap_and_all_are_served() {
    let permits = permits(3);
    let highest = AtomicU32::new(0);
    let inside = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for shard in 0..4 {
            let (permits, highest, inside) = (&permits, &highest, &inside);
            scope.spawn(move || {
                for _ in 0..2_000 {
                    let held = match permits.acquire(on(shard), 100, Instant::now()) {
                        Acquisition::Now(permit) => permit,
                        Acquisition::Later(mut wait) => loop {
                            match poll(&mut wait) {
                                Some(Turn::Dial(permit)) => break permit,
                                Some(Turn::Reuse) => panic!("nothing was idle"),
                                Some(Turn::TurnedAway) => panic!("there is one peer"),
                                None => std::thread::yield_now(),
                            }
                        },
                        Acquisition::Full => panic!("four callers fit"),
                    };
                    highest.fetch_max(inside.fetch_add(1, SeqCst) + 1, SeqCst);
                    inside.fetch_sub(1, SeqCst);
                    drop(held);
                }
            });
        }
    });
    assert!(highest.into_inner() <= 3);
    assert_eq!((permits.in_use(), permits.waiting()), (0, 0));
}
