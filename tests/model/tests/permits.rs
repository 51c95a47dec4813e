//! Shards that ask for permits, give them back and give up at once.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use ambassador_model::addr::Peer;
use ambassador_model::clock::Instant;
use ambassador_model::upstream::permits::{Acquisition, Permit, Permits, Requester, Turn, Wait};
use ambassador_model::{explore, spawn};

/// Who may wait at once.
const PENDING_MAX: u32 = 2;

fn ask(permits: &Arc<Permits>, peer: u32) -> Acquisition {
    let requester = Requester {
        shard: peer as u16,
        peer: Peer::Workload(peer),
    };
    permits.acquire(requester, PENDING_MAX, Instant::now())
}

fn poll(wait: &mut Wait) -> Option<Turn> {
    match Pin::new(wait).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(turn) => Some(turn),
        Poll::Pending => None,
    }
}

fn wait(acquired: Acquisition) -> Wait {
    match acquired {
        Acquisition::Later(wait) => wait,
        _ => panic!("there is a place in the queue, and no permit"),
    }
}

/// One permit, held by peer 1, and a queue that is full of waiters of peer 1.
fn crowded() -> (Arc<Permits>, Permit, [Wait; 2]) {
    let permits = Arc::new(Permits::new(Some(1)));
    let Acquisition::Now(held) = ask(&permits, 1) else {
        panic!("it is free");
    };
    let waits = [(); 2].map(|()| wait(ask(&permits, 1)));
    (permits, held, waits)
}

/// Whether it comes to be its turn, once those who have a permit gave it back.
fn is_served(wait: &mut Wait) -> bool {
    matches!(poll(wait), Some(Turn::Dial(_)))
}

#[test]
fn whoever_takes_a_place_while_a_permit_comes_back_is_served() {
    explore(|| {
        let (permits, held, [mut first, mut second]) = crowded();
        let held = Arc::new(Mutex::new(Some(held)));
        let gives_back = spawn(&held, |held| drop(held.lock().unwrap().take()));
        let mut other = wait(ask(&permits, 2));
        gives_back.join().unwrap();

        assert!(is_served(&mut first));
        // In place of the second, or in that which the first had left.
        assert!(poll(&mut second).is_some());
        assert!(is_served(&mut other));
        assert_eq!((permits.in_use(), permits.waiting()), (0, 0));
    });
}

#[test]
fn whoever_asks_while_the_last_permit_comes_back_is_served() {
    explore(|| {
        let permits = Arc::new(Permits::new(Some(1)));
        let Acquisition::Now(held) = ask(&permits, 1) else {
            panic!("it is free");
        };
        let held = Arc::new(Mutex::new(Some(held)));
        let gives_back = spawn(&held, |held| drop(held.lock().unwrap().take()));
        let other = ask(&permits, 2);
        gives_back.join().unwrap();
        match other {
            Acquisition::Now(permit) => drop(permit),
            Acquisition::Later(mut wait) => assert!(is_served(&mut wait)),
            Acquisition::Full => panic!("nobody waits"),
        }
        assert_eq!((permits.in_use(), permits.waiting()), (0, 0));
    });
}

#[test]
fn of_two_peers_that_come_at_once_one_takes_the_place() {
    explore(|| {
        let (permits, held, [mut first, mut second]) = crowded();
        let comes = spawn(&Arc::new(Arc::clone(&permits)), |permits| ask(permits, 2));
        let third = ask(&permits, 3);
        let came = [comes.join().unwrap(), third];
        let mut places: Vec<Wait> = Vec::new();
        for came in came {
            match came {
                Acquisition::Later(wait) => places.push(wait),
                Acquisition::Full => {}
                Acquisition::Now(_) => panic!("the permit is held"),
            }
        }
        assert_eq!(places.len(), 1);
        assert_eq!(permits.waiting(), PENDING_MAX);
        assert!(matches!(poll(&mut second), Some(Turn::TurnedAway)));
        drop(held);
        assert!(is_served(&mut first));
        assert!(is_served(&mut places[0]));
        assert_eq!((permits.in_use(), permits.waiting()), (0, 0));
    });
}

#[test]
fn whoever_gives_up_while_it_is_turned_away_leaves_nothing() {
    explore(|| {
        let (permits, held, [mut first, second]) = crowded();
        let second = Arc::new(Mutex::new(Some(second)));
        let gives_up = spawn(&second, |second| drop(second.lock().unwrap().take()));
        let mut other = wait(ask(&permits, 2));
        gives_up.join().unwrap();
        assert_eq!(permits.waiting(), 2);
        drop(held);
        assert!(is_served(&mut first));
        assert!(is_served(&mut other));
        assert_eq!((permits.in_use(), permits.waiting()), (0, 0));
    });
}
