//! Waiting for a time, and waiting for something at most so long.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;

use super::wheel::Key;
use crate::clock::Instant;
use crate::combinators::{First, FirstOf, first};

/// A time limit has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed;

/// Resolves at its deadline, to the millisecond and never before.
#[derive(Debug)]
pub struct Sleep {
    deadline: Instant,
    key: Option<Key>,
}

/// Waits for `duration` from the start of this turn of the loop.
pub fn sleep(duration: Duration) -> Sleep {
    let now = super::now();
    // Two centuries are as good as forever.
    let forever = Duration::from_secs(200 * 365 * 86_400);
    sleep_until(now + duration.min(forever))
}

/// Waits until `deadline`.
pub(crate) fn sleep_until(deadline: Instant) -> Sleep {
    Sleep {
        deadline,
        key: None,
    }
}

/// Waits for `future`, but not longer than `duration`. What is ready at once
/// arms no timer.
pub(crate) fn timeout<F: Future>(duration: Duration, future: F) -> Timeout<F> {
    Timeout {
        either: first(future, sleep(duration)),
    }
}

/// Waits for `future`, but not past `deadline`.
pub(crate) fn timeout_at<F: Future>(deadline: Instant, future: F) -> Timeout<F> {
    Timeout {
        either: first(future, sleep_until(deadline)),
    }
}

pin_project! {
    /// See [`timeout`] and [`timeout_at`].
    pub struct Timeout<F> {
        #[pin]
        either: FirstOf<F, Sleep>,
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.project()
            .either
            .poll(context)
            .map(|ended| match ended {
                First::Left(done) => Ok(done),
                First::Right(()) => Err(Elapsed),
            })
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline;
        let key = super::with(|core| {
            let mut wheel = core.wheel.borrow_mut();
            match self.key {
                Some(key) if wheel.poll(key, context.waker()) => None,
                Some(key) => Some(key),
                None if deadline <= super::now() => None,
                None => Some(wheel.arm(deadline, context.waker().clone())),
            }
        });
        match key {
            Some(key) => {
                self.key = Some(key);
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            super::try_with(|core| core.wheel.borrow_mut().remove(key));
        }
    }
}
