//! Memory for the future of one request, used again for the next one. It is on
//! the heap, so that a connection between two requests is small, and belongs to
//! the shard, so that a request allocates nothing.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use crate::proxy::context::Scratch;
use crate::spares::Spares;

/// A place for the future of a request that begins with a `B` and resolves to an `R`.
pub(super) type Slot<B, R> = Pin<Box<dyn Serve<B, R>>>;

/// Serves one request after another: it may [`begin`](Serve::begin) again once it has
/// resolved.
pub(super) trait Serve<B, R>: Future<Output = R> {
    /// Begins with a request.
    fn begin(self: Pin<&mut Self>, request: B);
}

/// The empty slots of a thread.
pub(super) type Slots<B, R> = Spares<Slot<B, R>>;

pin_project! {
    struct Server<S, F> {
        serve: S,
        // `None` while a request has it.
        scratch: Option<Box<Scratch>>,
        #[pin]
        running: Option<F>,
    }
}

/// An empty slot for the futures of `serve`.
pub(super) fn empty<B, R, F>(serve: impl Fn(B, Box<Scratch>) -> F + 'static) -> Slot<B, R>
where
    F: Future<Output = (R, Box<Scratch>)> + 'static,
{
    Box::pin(Server {
        serve,
        scratch: None,
        running: None,
    })
}

impl<B, R, S, F> Serve<B, R> for Server<S, F>
where
    S: Fn(B, Box<Scratch>) -> F,
    F: Future<Output = (R, Box<Scratch>)>,
{
    fn begin(self: Pin<&mut Self>, request: B) {
        let mut this = self.project();
        let scratch = this.scratch.take().unwrap_or_default();
        let running = (this.serve)(request, scratch);
        this.running.set(Some(running));
    }
}

impl<S, F, R> Future for Server<S, F>
where
    F: Future<Output = (R, Box<Scratch>)>,
{
    type Output = R;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let future = this.running.as_mut().as_pin_mut();
        let (resolved, scratch) = ready!(
            future
                .expect("awaited only after it has begun")
                .poll(context)
        );
        this.running.set(None);
        *this.scratch = Some(scratch);
        Poll::Ready(resolved)
    }
}
