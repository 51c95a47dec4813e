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

pub(super) mod queue;

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

    /// Connections that may be opened now.
    pub fn free(&self) -> u32 {
        self.cap.load(SeqCst).saturating_sub(self.in_use())
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
mod tests;
