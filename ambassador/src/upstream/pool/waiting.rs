//! The queue for places on shared connections.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::upstream::key::PoolKey;

/// Tasks that wait for a place, in order.
#[derive(Default)]
pub(super) struct Waiting {
    queue: RefCell<VecDeque<Waiter>>,
    next: Cell<u64>,
}

/// One of them.
struct Waiter {
    number: u64,
    /// What it wants a place for.
    key: PoolKey,
    waker: Waker,
}

/// A turn in the queue for a place. Dropped with a place to look at, it passes that on.
pub(super) struct PlaceWait<'a> {
    waiting: &'a Waiting,
    key: PoolKey,
    /// `None`: it has not begun, or its turn has come and was used.
    number: Option<u64>,
}

impl Waiting {
    /// One place for a key is free.
    pub(super) fn wake_one(&self, key: PoolKey) {
        let woken = {
            let mut queue = self.queue.borrow_mut();
            let first = queue.iter().position(|waiter| waiter.key == key);
            first.and_then(|first| queue.remove(first))
        };
        if let Some(waiter) = woken {
            waiter.waker.wake();
        }
    }

    /// Everybody is to look again.
    pub(super) fn wake_all(&self) {
        let all = std::mem::take(&mut *self.queue.borrow_mut());
        all.into_iter().for_each(|waiter| waiter.waker.wake());
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.queue.borrow().len()
    }

    /// A turn in it, for a place for a key.
    pub(super) fn turn(&self, key: PoolKey) -> PlaceWait<'_> {
        PlaceWait {
            waiting: self,
            key,
            number: None,
        }
    }
}

impl Future for PlaceWait<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut queue = self.waiting.queue.borrow_mut();
        let Some(number) = self.number else {
            let number = self.waiting.next.get();
            self.waiting.next.set(number + 1);
            queue.push_back(Waiter {
                number,
                key: self.key,
                waker: context.waker().clone(),
            });
            drop(queue);
            self.number = Some(number);
            return Poll::Pending;
        };
        match queue.iter_mut().find(|waiter| waiter.number == number) {
            Some(waiter) => {
                waiter.waker.clone_from(context.waker());
                Poll::Pending
            }
            None => {
                drop(queue);
                self.number = None;
                Poll::Ready(())
            }
        }
    }
}

impl Drop for PlaceWait<'_> {
    fn drop(&mut self) {
        let Some(number) = self.number else {
            return;
        };
        let mut queue = self.waiting.queue.borrow_mut();
        match queue.iter().position(|waiter| waiter.number == number) {
            Some(at) => drop(queue.remove(at)),
            None => {
                drop(queue);
                self.waiting.wake_one(self.key);
            }
        }
    }
}
