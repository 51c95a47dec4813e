//! Memory for the future of one request, used again for the next one. It is on
//! the heap, so that a connection between two requests is small, and belongs to
//! the shard, so that a request allocates nothing.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use crate::proxy::after::After;
use crate::proxy::client::{Client, Patience};
use crate::proxy::context::Scratch;

/// Slots kept. More are made when more requests are in flight at once, and dropped
/// afterwards.
const KEPT_MAX: usize = 16;

thread_local! {
    static SPARE: RefCell<Vec<Slot>> = const { RefCell::new(Vec::new()) };
}

/// A place for the future of a request.
pub(super) type Slot = Pin<Box<dyn Serve>>;

/// Serves one request after another. It resolves to the connection and what
/// becomes of it, and may then [`begin`](Serve::begin) again.
pub(super) trait Serve: Future<Output = (Box<Client>, After)> {
    /// Begins with a request of which the first bytes are ahead.
    fn begin(self: Pin<&mut Self>, client: Box<Client>, patience: Patience);
}

pin_project! {
    struct Server<S, F> {
        serve: S,
        // `None` while a request has it.
        scratch: Option<Box<Scratch>>,
        #[pin]
        running: Option<F>,
    }
}

/// A slot for one request; `new` makes one where none is left.
pub(super) fn take(new: impl FnOnce() -> Slot) -> Slot {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(new)
}

/// Keeps a slot, which is empty, for the next request.
pub(super) fn give_back(slot: Slot) {
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < KEPT_MAX {
            spare.push(slot);
        }
    });
}

/// Frees what is kept.
pub(super) fn drop_all() {
    SPARE.take();
}

/// An empty slot for the futures of `serve`.
pub(super) fn empty<F>(serve: impl Fn(Box<Client>, Box<Scratch>, Patience) -> F + 'static) -> Slot
where
    F: Future<Output = (Box<Client>, Box<Scratch>, After)> + 'static,
{
    Box::pin(Server {
        serve,
        scratch: None,
        running: None,
    })
}

impl<S, F> Serve for Server<S, F>
where
    S: Fn(Box<Client>, Box<Scratch>, Patience) -> F,
    F: Future<Output = (Box<Client>, Box<Scratch>, After)>,
{
    fn begin(self: Pin<&mut Self>, client: Box<Client>, patience: Patience) {
        let mut this = self.project();
        let scratch = this.scratch.take().unwrap_or_default();
        let running = (this.serve)(client, scratch, patience);
        this.running.set(Some(running));
    }
}

impl<S, F> Future for Server<S, F>
where
    F: Future<Output = (Box<Client>, Box<Scratch>, After)>,
{
    type Output = (Box<Client>, After);

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let future = this.running.as_mut().as_pin_mut();
        let (client, scratch, after) = ready!(
            future
                .expect("awaited only after it has begun")
                .poll(context)
        );
        this.running.set(None);
        *this.scratch = Some(scratch);
        Poll::Ready((client, after))
    }
}
