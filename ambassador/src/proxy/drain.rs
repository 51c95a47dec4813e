//! Tells idle connections of a shard that it wants to end.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use slab::Slab;

use crate::ring::slack;

/// Set once, never unset.
#[derive(Default)]
pub struct Drain {
    begun: Cell<bool>,
    waiting: RefCell<Slab<Waker>>,
}

/// Resolves when the drain begins.
pub struct Begun<'a> {
    drain: &'a Drain,
    place: Option<usize>,
}

impl Drain {
    /// Begins the drain and wakes who waits for it.
    pub fn begin(&self) {
        self.begun.set(true);
        for waker in self.waiting.borrow_mut().drain() {
            waker.wake();
        }
    }

    /// Whether it has begun.
    pub fn has_begun(&self) -> bool {
        self.begun.get()
    }

    /// Waits for it to begin.
    pub fn begun(&self) -> Begun<'_> {
        Begun {
            drain: self,
            place: None,
        }
    }
}

impl Future for Begun<'_> {
    type Output = ();

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.drain.begun.get() {
            self.place = None;
            return Poll::Ready(());
        }
        let mut waiting = self.drain.waiting.borrow_mut();
        match self.place {
            Some(place) => waiting[place].clone_from(context.waker()),
            None => {
                let place = waiting.insert(context.waker().clone());
                drop(waiting);
                self.place = Some(place);
            }
        }
        Poll::Pending
    }
}

impl Drop for Begun<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // Once the drain has begun the list is empty.
        if let Some(place) = self.place
            && !self.drain.begun.get()
        {
            let mut waiting = self.drain.waiting.borrow_mut();
            waiting.remove(place);
            slack::shrink(&mut waiting);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;

    #[test]
    fn waiters_are_woken_and_leave_nothing_behind() {
        let drain = Drain::default();
        let mut context = Context::from_waker(Waker::noop());
        {
            let mut early = pin!(drain.begun());
            assert!(early.as_mut().poll(&mut context).is_pending());
            assert!(early.as_mut().poll(&mut context).is_pending());
            assert_eq!(drain.waiting.borrow().len(), 1);
        }
        assert!(drain.waiting.borrow().is_empty());
        let mut waiting = pin!(drain.begun());
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        drain.begin();
        assert!(waiting.as_mut().poll(&mut context).is_ready());
        assert!(pin!(drain.begun()).poll(&mut context).is_ready());
    }
}
