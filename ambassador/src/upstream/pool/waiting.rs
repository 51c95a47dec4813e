//! The queue for places on shared connections, in which peers take turns.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::addr::Peer;
use crate::upstream::key::PoolKey;
use crate::upstream::permits::queue::{PushOutcome, Queue, QueueEntry};

/// Tasks that wait for a place, in order.
#[derive(Default)]
pub(super) struct Waiting {
    queue: RefCell<Queue<Rc<Waiter>>>,
    /// Those who wait to open a connection as well. They have a turn in that queue.
    diallers: RefCell<Vec<Rc<Waiter>>>,
}

/// One of them.
struct Waiter {
    /// What it wants a place for.
    key: PoolKey,
    peer: Peer,
    state: Cell<State>,
}

enum State {
    Waiting(Option<Waker>),
    Over(Turn),
    /// That is known.
    Taken,
}

/// What comes of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// There may be a place.
    Look,
    /// The queue is full, and its peer has more than its share of it.
    TurnedAway,
}

/// A turn in the queue for a place. Dropped with a place to look at, it passes that on.
pub(super) struct PlaceWait<'a> {
    waiting: &'a Waiting,
    waiter: Rc<Waiter>,
}

impl Waiting {
    /// One place for a key is free.
    pub(super) fn wake_one(&self, key: PoolKey) {
        let dialler = {
            let mut diallers = self.diallers.borrow_mut();
            let first = diallers.iter().position(|waiter| waiter.key == key);
            first.map(|first| diallers.remove(first))
        };
        let woken = dialler.or_else(|| {
            let mut queue = self.queue.borrow_mut();
            let first = queue.iter().position(|waiter| waiter.key == key)?;
            queue.take(first)
        });
        if let Some(woken) = woken {
            woken.end(Turn::Look);
        }
    }

    /// Everybody is to look again.
    pub(super) fn wake_all(&self) {
        let mut all = std::mem::take(&mut *self.diallers.borrow_mut());
        all.extend(std::iter::from_fn(|| self.queue.borrow_mut().take(0)));
        all.into_iter().for_each(|waiter| waiter.end(Turn::Look));
    }

    /// How many wait, but for those who wait to open a connection as well.
    pub(super) fn len(&self) -> usize {
        self.queue.borrow().iter().count()
    }

    /// A turn in it for one of a peer, for a place for a key. As many wait as `max` says;
    /// `None`: one more would be too many.
    pub(super) fn turn(&self, key: PoolKey, peer: Peer, max: u32) -> Option<PlaceWait<'_>> {
        let waiter = Waiter::new(key, peer);
        let pushed = self.queue.borrow_mut().push(Rc::clone(&waiter), max);
        match pushed {
            PushOutcome::Full => return None,
            PushOutcome::Free => {}
            PushOutcome::InPlaceOf(other) => other.end(Turn::TurnedAway),
        }
        Some(PlaceWait {
            waiting: self,
            waiter,
        })
    }

    /// The same for one who waits to open a connection as well.
    pub(super) fn turn_of_dialler(&self, key: PoolKey) -> PlaceWait<'_> {
        let waiter = Waiter::new(key, Peer::Local);
        self.diallers.borrow_mut().push(Rc::clone(&waiter));
        PlaceWait {
            waiting: self,
            waiter,
        }
    }
}

impl Waiter {
    fn new(key: PoolKey, peer: Peer) -> Rc<Self> {
        Rc::new(Self {
            key,
            peer,
            state: Cell::new(State::Waiting(None)),
        })
    }

    /// It waits no longer; called by whoever took it out.
    fn end(&self, turn: Turn) {
        if let State::Waiting(Some(waker)) = self.state.replace(State::Over(turn)) {
            waker.wake();
        }
    }
}

impl QueueEntry for Rc<Waiter> {
    fn peer(&self) -> Peer {
        self.peer
    }
}

impl Future for PlaceWait<'_> {
    type Output = Turn;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Turn> {
        let (state, poll) = match self.waiter.state.replace(State::Taken) {
            State::Over(turn) => (State::Taken, Poll::Ready(turn)),
            State::Waiting(_) => {
                let waker = context.waker().clone();
                (State::Waiting(Some(waker)), Poll::Pending)
            }
            State::Taken => (State::Taken, Poll::Pending),
        };
        self.waiter.state.set(state);
        poll
    }
}

impl Drop for PlaceWait<'_> {
    fn drop(&mut self) {
        match self.waiter.state.replace(State::Taken) {
            State::Waiting(_) => {
                let is_it = |other: &Rc<Waiter>| Rc::ptr_eq(other, &self.waiter);
                let mut queue = self.waiting.queue.borrow_mut();
                let at = queue.iter().position(is_it);
                drop(at.and_then(|at| queue.leave(at)));
                let mut diallers = self.waiting.diallers.borrow_mut();
                diallers.retain(|other| !is_it(other));
            }
            State::Over(Turn::Look) => self.waiting.wake_one(self.waiter.key),
            State::Over(Turn::TurnedAway) | State::Taken => {}
        }
    }
}
