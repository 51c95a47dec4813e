//! Runs two halves of one exchange in one task, without allocating.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

/// Which of two futures ended first.
pub enum First<A, B> {
    /// The left one.
    Left(A),
    /// The right one.
    Right(B),
}

/// Runs both until one ends; the other is dropped. The left one is asked
/// first, so it wins a tie.
pub async fn first<A, B>(
    left: impl Future<Output = A>,
    right: impl Future<Output = B>,
) -> First<A, B> {
    let (mut left, mut right) = (pin!(left), pin!(right));
    poll_fn(|context| {
        if let Poll::Ready(done) = left.as_mut().poll(context) {
            return Poll::Ready(First::Left(done));
        }
        right.as_mut().poll(context).map(First::Right)
    })
    .await
}

/// Runs `main` to its end beside `side`. An error of `side` ends both; its
/// success only means that `main` goes on alone.
pub async fn beside<T, E>(
    main: impl Future<Output = Result<T, E>>,
    side: impl Future<Output = Result<(), E>>,
) -> Result<T, E> {
    let (mut main, mut side) = (pin!(main), pin!(side));
    let mut side_done = false;
    poll_fn(|context| {
        if let Poll::Ready(done) = main.as_mut().poll(context) {
            return Poll::Ready(done);
        }
        if !side_done && let Poll::Ready(done) = side.as_mut().poll(context) {
            match done {
                Ok(()) => side_done = true,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Pending
    })
    .await
}

/// Runs both to their ends; the first error ends both.
pub async fn both<A, B, E>(
    left: impl Future<Output = Result<A, E>>,
    right: impl Future<Output = Result<B, E>>,
) -> Result<(A, B), E> {
    let (mut left, mut right) = (pin!(left), pin!(right));
    let (mut from_left, mut from_right) = (None, None);
    poll_fn(|context| {
        if from_left.is_none()
            && let Poll::Ready(done) = left.as_mut().poll(context)
        {
            match done {
                Ok(value) => from_left = Some(value),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        if from_right.is_none()
            && let Poll::Ready(done) = right.as_mut().poll(context)
        {
            match done {
                Ok(value) => from_right = Some(value),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        match (from_left.take(), from_right.take()) {
            (Some(left), Some(right)) => Poll::Ready(Ok((left, right))),
            (left, right) => {
                (from_left, from_right) = (left, right);
                Poll::Pending
            }
        }
    })
    .await
}
