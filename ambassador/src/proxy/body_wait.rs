//! Since when a caller withholds the rest of its body. A server gives up such a
//! request, in whatever way, and that says nothing about how well it is.

use std::cell::Cell;
use std::future::Future;
use std::time::Duration;

use crate::clock::Instant;

/// From when on it counts. Less is a round trip, and what fails then might have
/// failed in any case; servers wait for longer before they give up.
const LONG: Duration = Duration::from_secs(1);

/// Whether the rest of a body is waited for.
#[derive(Debug, Default)]
pub(super) struct BodyWait(Cell<Option<Instant>>);

impl BodyWait {
    /// Waits for `more` of it.
    pub(super) async fn wait<T>(&self, more: impl Future<Output = T>, now: Instant) -> T {
        self.0.set(Some(now));
        let more = more.await;
        self.end();
        more
    }

    /// It is not waited for any more.
    pub(super) fn end(&self) {
        self.0.set(None);
    }

    /// Whether it has been waited for so long that the caller is at fault.
    pub(super) fn is_long(&self, now: impl FnOnce() -> Instant) -> bool {
        let since = self.0.get();
        since.is_some_and(|since| now().saturating_duration_since(since) >= LONG)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn it_counts_while_nothing_comes() {
        let (withheld, now) = (BodyWait::default(), Instant::now());
        assert!(!withheld.is_long(|| now + LONG));
        let here = Cell::new(false);
        let more = std::future::poll_fn(|_| match here.get() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        });
        let mut wait = pin!(withheld.wait(more, now));
        let mut context = Context::from_waker(Waker::noop());
        assert!(wait.as_mut().poll(&mut context).is_pending());
        assert!(!withheld.is_long(|| now + LONG - Duration::from_millis(1)));
        assert!(withheld.is_long(|| now + LONG));
        here.set(true);
        assert!(wait.as_mut().poll(&mut context).is_ready());
        assert!(!withheld.is_long(|| now + LONG));
    }
}
