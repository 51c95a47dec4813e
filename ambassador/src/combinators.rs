//! Runs two halves of one exchange in one task, without allocating.
//!
//! Each is a struct, not an `async fn`: an `async fn` stores a future that it
//! is given twice, once as its argument and once where it is pinned, and the
//! size of these is what an idle connection costs.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

/// Polls a future once. Most sends are ready at once, and then nobody prepares to
/// wait.
#[inline(always)]
pub(crate) fn at_once<F: Future + Unpin>(
    future: &mut F,
) -> impl Future<Output = Poll<F::Output>> + use<'_, F> {
    poll_fn(|context| Poll::Ready(Pin::new(&mut *future).poll(context)))
}

/// Waits for a future that few requests come to. It is in a box and its code apart, so
/// that the others have no place for it, and their own code is short.
#[cold]
pub(crate) fn rarely<F: Future>(future: F) -> Rarely<F> {
    Rarely(Box::pin(future))
}

/// See [`rarely`].
pub(crate) struct Rarely<F>(Pin<Box<F>>);

impl<F: Future> Future for Rarely<F> {
    type Output = F::Output;

    #[inline(never)]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

/// Which of two futures ended first.
pub(crate) enum First<A, B> {
    /// The left one.
    Left(A),
    /// The right one.
    Right(B),
}

impl<L, R> First<L, R> {
    /// What the left one gave; `other` where the right one was first.
    #[inline(always)]
    pub(crate) fn left_or(self, other: L) -> L {
        match self {
            Self::Left(left) => left,
            Self::Right(_) => other,
        }
    }
}

pin_project! {
    /// See [`first`].
    pub(crate) struct FirstOf<A, B> {
        #[pin]
        left: A,
        #[pin]
        right: B,
    }
}

/// Runs both until one ends; the other is dropped. The left one is asked
/// first, so it wins a tie.
pub(crate) fn first<A: Future, B: Future>(left: A, right: B) -> FirstOf<A, B> {
    FirstOf { left, right }
}

impl<A: Future, B: Future> Future for FirstOf<A, B> {
    type Output = First<A::Output, B::Output>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(done) = this.left.poll(context) {
            return Poll::Ready(First::Left(done));
        }
        this.right.poll(context).map(First::Right)
    }
}

pin_project! {
    /// See [`first_ok`].
    pub(crate) struct FirstOk<A, B, E> {
        #[pin]
        left: A,
        #[pin]
        right: B,
        left_failed: Option<E>,
        right_failed: bool,
    }
}

/// Runs both until one succeeds; the other is dropped. If both fail, the error
/// is that of the left one.
pub(crate) fn first_ok<T, U, E, A, B>(left: A, right: B) -> FirstOk<A, B, E>
where
    A: Future<Output = Result<T, E>>,
    B: Future<Output = Result<U, E>>,
{
    FirstOk {
        left,
        right,
        left_failed: None,
        right_failed: false,
    }
}

impl<T, U, E, A, B> Future for FirstOk<A, B, E>
where
    A: Future<Output = Result<T, E>>,
    B: Future<Output = Result<U, E>>,
{
    type Output = Result<First<T, U>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if this.left_failed.is_none()
            && let Poll::Ready(done) = this.left.poll(context)
        {
            match done {
                Ok(done) => return Poll::Ready(Ok(First::Left(done))),
                Err(error) => *this.left_failed = Some(error),
            }
        }
        if !*this.right_failed
            && let Poll::Ready(done) = this.right.poll(context)
        {
            match done {
                Ok(done) => return Poll::Ready(Ok(First::Right(done))),
                Err(_) => *this.right_failed = true,
            }
        }
        match this.left_failed.take_if(|_| *this.right_failed) {
            Some(error) => Poll::Ready(Err(error)),
            None => Poll::Pending,
        }
    }
}

pin_project! {
    /// See [`beside`].
    pub struct Beside<M, S> {
        #[pin]
        main: M,
        #[pin]
        side: S,
        side_done: bool,
    }
}

/// Runs `main` to its end beside `side`. An error of `side` ends both; its
/// success only means that `main` goes on alone.
pub(crate) fn beside<T, E, M, S>(main: M, side: S) -> Beside<M, S>
where
    M: Future<Output = Result<T, E>>,
    S: Future<Output = Result<(), E>>,
{
    Beside {
        main,
        side,
        side_done: false,
    }
}

impl<T, E, M, S> Future for Beside<M, S>
where
    M: Future<Output = Result<T, E>>,
    S: Future<Output = Result<(), E>>,
{
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(done) = this.main.poll(context) {
            return Poll::Ready(done);
        }
        if !*this.side_done
            && let Poll::Ready(done) = this.side.poll(context)
        {
            match done {
                Ok(()) => *this.side_done = true,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Pending
    }
}

pin_project! {
    /// See [`both`].
    pub struct Both<A, B> {
        #[pin]
        left: A,
        #[pin]
        right: B,
        left_done: bool,
        right_done: bool,
    }
}

/// Runs both to their ends; the first error ends both.
pub fn both<E, A, B>(left: A, right: B) -> Both<A, B>
where
    A: Future<Output = Result<(), E>>,
    B: Future<Output = Result<(), E>>,
{
    Both {
        left,
        right,
        left_done: false,
        right_done: false,
    }
}

impl<E, A, B> Future for Both<A, B>
where
    A: Future<Output = Result<(), E>>,
    B: Future<Output = Result<(), E>>,
{
    type Output = Result<(), E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if !*this.left_done
            && let Poll::Ready(done) = this.left.poll(context)
        {
            match done {
                Ok(()) => *this.left_done = true,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        if !*this.right_done
            && let Poll::Ready(done) = this.right.poll(context)
        {
            match done {
                Ok(()) => *this.right_done = true,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        match *this.left_done && *this.right_done {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use std::pin::pin;
    use std::task::Waker;

    fn poll<F: Future>(future: F) -> Poll<F::Output> {
        pin!(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn the_left_one_wins_a_tie() {
        assert!(matches!(
            poll(first(ready(1), ready(2))),
            Poll::Ready(First::Left(1))
        ));
        assert!(matches!(
            poll(first(pending::<()>(), ready(2))),
            Poll::Ready(First::Right(2))
        ));
    }

    #[test]
    fn a_side_that_ends_well_leaves_the_main_one_alone() {
        let main = || pending::<Result<(), &str>>();
        assert!(poll(beside(main(), ready(Ok(())))).is_pending());
        assert_eq!(
            poll(beside(main(), ready(Err("side")))),
            Poll::Ready(Err("side"))
        );
        let side = pending::<Result<(), ()>>();
        assert_eq!(poll(beside(ready(Ok(7)), side)), Poll::Ready(Ok(7)));
    }

    #[test]
    fn a_failure_waits_for_the_other_to_do_better() {
        type Answer = Result<u8, &'static str>;
        let never = || pending::<Answer>();
        let (ok, bad) = (|| ready(Answer::Ok(1)), |text| ready(Answer::Err(text)));
        let left = poll(first_ok(ok(), ok()));
        assert!(matches!(left, Poll::Ready(Ok(First::Left(1)))));
        let right = poll(first_ok(bad("left"), ok()));
        assert!(matches!(right, Poll::Ready(Ok(First::Right(1)))));
        assert!(poll(first_ok(bad("left"), never())).is_pending());
        assert!(poll(first_ok(never(), bad("right"))).is_pending());
        let neither = poll(first_ok(bad("left"), bad("right")));
        assert!(matches!(neither, Poll::Ready(Err("left"))));
    }

    #[test]
    fn both_must_end() {
        let ended = || ready(Ok::<(), ()>(()));
        assert_eq!(poll(both(ended(), ended())), Poll::Ready(Ok(())));
        assert!(poll(both(ended(), pending())).is_pending());
        assert_eq!(poll(both(pending(), ready(Err(())))), Poll::Ready(Err(())));
    }
}
