//! The connection cap of one upstream, exact over all shards.
//!
//! A permit is a place under `max_connections`; every open connection holds
//! one. Taking a free one is a compare-and-swap. Only when none is left does a
//! caller join a queue behind a mutex, in which peers have turns: that is the cold
//! path. A permit given back while somebody waits goes to the waiter and never
//! becomes free in between, so newcomers cannot overtake the queue.
//!
//! No wake-up is lost: a waiter is queued and counted before it looks at
//! `in_use` again, and a permit is given back before `waiting` is read, all of
//! it sequentially consistent, so at least one of the two sees the other.

mod queue;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::addr::Peer;
use crate::clock::Instant;
use crate::policy::sync::{AtomicU32, Mutex, MutexGuard, Ordering::SeqCst, PoisonError};
use queue::{PushOutcome, Queue, QueueEntry};

/// A connection that comes free is handed to a waiter of its own shard, because
/// passing it on to another shard means closing it and dialling again. A waiter
/// of another shard at the head of the queue goes first once it has waited this
/// long, and twice as long as the one that would overtake it.
const FOREIGN_PATIENCE: Duration = Duration::from_millis(10);

/// The cap of one upstream, and the queue for it.
pub struct Permits {
    cap: AtomicU32,
    in_use: AtomicU32,
    waiting: AtomicU32,
    queue: Mutex<Queue<Arc<Waiter>>>,
}

/// Who asks for a permit.
#[derive(Debug, Clone, Copy)]
pub struct Requester {
    /// The shard that it is on.
    pub shard: u16,
    /// Who it belongs to.
    pub peer: Peer,
}

struct Waiter {
    requester: Requester,
    since: Instant,
    state: Mutex<State>,
}

enum State {
    Waiting(Option<Waker>),
    Granted(Grant),
    /// Its place in the queue is another's.
    TurnedAway,
    Taken,
}

/// What a waiter was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grant {
    Permit,
    Connection,
}

/// A place under the cap, given back on drop.
pub struct Permit {
    permits: Arc<Permits>,
}

/// The result of [`Permits::acquire`].
pub enum Acquisition {
    /// A place was free.
    Now(Permit),
    /// All places are taken; the future resolves when it is this caller's turn.
    Later(Wait),
    /// As many as `max_pending` wait already, and no peer has more of them than
    /// this caller's would have.
    Full,
}

/// The result of a wait.
pub enum Turn {
    /// A place to dial with.
    Dial(Permit),
    /// A connection of this shard was set aside for this caller.
    Reuse,
    /// The queue is full, and its peer has more than its share of it.
    TurnedAway,
}

/// A place in the queue. Dropped early, it leaves the queue and gives back the
/// permit it was given meanwhile; a connection that was set aside is for its
/// owner to find, by [`Wait::leave`].
pub struct Wait {
    permits: Arc<Permits>,
    waiter: Arc<Waiter>,
}

impl Permits {
    /// A cap of `max_connections`; `None` is no cap.
    pub fn new(max_connections: Option<u32>) -> Self {
        Self {
            cap: AtomicU32::new(max_connections.unwrap_or(u32::MAX)),
            in_use: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            queue: Mutex::default(),
        }
    }

    /// Changes the cap; connections above a lowered one stay in use, and close
    /// when they come back.
    pub fn set_cap(self: &Arc<Self>, max_connections: Option<u32>) {
        self.cap.store(max_connections.unwrap_or(u32::MAX), SeqCst);
        self.serve_queue();
    }

    /// Open connections, dials in flight included.
    pub fn in_use(&self) -> u32 {
        self.in_use.load(SeqCst)
    }

    /// Open connections that a lowered cap has no place for.
    pub fn above_cap(&self) -> u32 {
        self.in_use().saturating_sub(self.cap.load(SeqCst))
    }

    /// Callers in the queue.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(SeqCst)
    }

    /// Gives a permit now, or a place in the queue, or neither.
    pub fn acquire(
        self: &Arc<Self>,
        requester: Requester,
        max_pending: u32,
        now: Instant,
    ) -> Acquisition {
        if self.waiting() == 0 && self.take_free() {
            return Acquisition::Now(self.permit());
        }
        let waiter = Arc::new(Waiter {
            requester,
            since: now,
            state: Mutex::new(State::Waiting(None)),
        });
        match lock(&self.queue).push(Arc::clone(&waiter), max_pending) {
            PushOutcome::Full => return Acquisition::Full,
            PushOutcome::Free => {
                self.waiting.fetch_add(1, SeqCst);
            }
            PushOutcome::InPlaceOf(other) => other.end(State::TurnedAway),
        }
        // A permit may have been given back before we were counted.
        self.serve_queue();
        Acquisition::Later(Wait {
            permits: Arc::clone(self),
            waiter,
        })
    }

    /// Grants the turn to a waiter of `shard`, of which a connection has just
    /// come free, for the caller to set aside. `Close`: the connection should
    /// be closed instead, so that its place goes to a waiter of another shard.
    pub fn hand_over(&self, shard: u16, now: Instant) -> Handover {
        if self.waiting() == 0 {
            return Handover::NobodyWaits;
        }
        let mut queue = lock(&self.queue);
        let Some(front) = queue.front() else {
            return Handover::NobodyWaits;
        };
        let own = own_turn(&queue, front, shard, now);
        match own.and_then(|own| queue.take(own)) {
            Some(waiter) => {
                self.waiting.fetch_sub(1, SeqCst);
                waiter.end(State::Granted(Grant::Connection));
                Handover::Granted
            }
            None => Handover::Close,
        }
    }

    fn permit(self: &Arc<Self>) -> Permit {
        Permit {
            permits: Arc::clone(self),
        }
    }

    fn take_free(&self) -> bool {
        let cap = self.cap.load(SeqCst);
        self.in_use
            .fetch_update(SeqCst, SeqCst, |used| (used < cap).then(|| used + 1))
            .is_ok()
    }

    fn give_back(&self) {
        self.in_use.fetch_sub(1, SeqCst);
        if self.waiting() > 0 {
            self.serve_queue();
        }
    }

    fn serve_queue(&self) {
        let mut queue = lock(&self.queue);
        while queue.front().is_some() && self.take_free() {
            let waiter = queue.take(0).expect("checked: the queue is not empty");
            self.waiting.fetch_sub(1, SeqCst);
            waiter.end(State::Granted(Grant::Permit));
        }
    }
}

/// The place of the first waiter of a shard, unless that in front is to go first.
fn own_turn(queue: &Queue<Arc<Waiter>>, front: &Waiter, shard: u16, now: Instant) -> Option<usize> {
    let waited = |waiter: &Waiter| now.saturating_duration_since(waiter.since);
    let mut places = queue.iter().enumerate();
    let (place, own) = places.find(|(_, waiter)| waiter.requester.shard == shard)?;
    let may_go = place == 0 || waited(front) < FOREIGN_PATIENCE.max(waited(own) * 2);
    may_go.then_some(place)
}

/// The result of [`Permits::hand_over`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handover {
    /// No one waits: keep it.
    NobodyWaits,
    /// A waiter of this shard was woken to take it: set it aside.
    Granted,
    /// Only other shards wait: close it, its permit goes to them.
    Close,
}

impl Waiter {
    /// It waits no longer, because of this; called under the lock of the queue,
    /// by whoever took it out.
    fn end(&self, because: State) {
        let before = std::mem::replace(&mut *lock(&self.state), because);
        if let State::Waiting(Some(waker)) = before {
            waker.wake();
        }
    }
}

impl Future for Wait {
    type Output = Turn;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Turn> {
        let mut state = lock(&self.waiter.state);
        match &mut *state {
            State::Waiting(waker) => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
            State::Granted(grant) => {
                let turn = match grant {
                    Grant::Permit => Turn::Dial(self.permits.permit()),
                    Grant::Connection => Turn::Reuse,
                };
                *state = State::Taken;
                Poll::Ready(turn)
            }
            State::TurnedAway => {
                *state = State::Taken;
                Poll::Ready(Turn::TurnedAway)
            }
            State::Taken => Poll::Pending,
        }
    }
}

impl QueueEntry for Arc<Waiter> {
    fn peer(&self) -> Peer {
        self.requester.peer
    }
}

impl Wait {
    /// Leaves the queue; gives what was granted and not yet polled.
    pub fn leave(&mut self) -> Option<Turn> {
        // Whoever was granted a turn has left the queue: it is searched, from
        // end to end, only for one that gives up.
        let is_queued = matches!(*lock(&self.waiter.state), State::Waiting(_));
        if is_queued {
            let mut queue = lock(&self.permits.queue);
            let place = queue.iter().position(|w| Arc::ptr_eq(w, &self.waiter));
            if let Some(place) = place {
                queue.leave(place);
                self.permits.waiting.fetch_sub(1, SeqCst);
            }
        }
        let state = std::mem::replace(&mut *lock(&self.waiter.state), State::Taken);
        match state {
            State::Granted(Grant::Permit) => Some(Turn::Dial(self.permits.permit())),
            State::Granted(Grant::Connection) => Some(Turn::Reuse),
            State::Waiting(_) | State::TurnedAway | State::Taken => None,
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        drop(self.leave());
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.permits.give_back();
    }
}

/// A panic while the lock was held cannot leave the queue half changed: every
/// critical section is a handful of infallible moves.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
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
}
