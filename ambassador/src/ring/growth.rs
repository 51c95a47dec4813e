//! Counts bytes moved to the heap because their reader does not take them, and
//! reports when they have become many. Bytes that are read at once add nothing.

use std::future::poll_fn;
use std::task::{Poll, Waker};

use super::waiting::keep;

/// How much went to the heap since that was last looked at.
pub(crate) struct Growth {
    bytes: usize,
    /// From how many on it is told.
    much: usize,
    watcher: Option<Waker>,
}

impl Default for Growth {
    fn default() -> Self {
        Self {
            bytes: 0,
            much: usize::MAX,
            watcher: None,
        }
    }
}

impl Growth {
    /// So many more.
    pub(crate) fn add(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.is_much()
            && let Some(watcher) = self.watcher.take()
        {
            watcher.wake();
        }
    }

    /// Whether it is time to look.
    pub(crate) fn is_much(&self) -> bool {
        self.bytes >= self.much
    }

    fn watch(&mut self, watcher: &Waker) -> Poll<()> {
        if self.is_much() {
            return Poll::Ready(());
        }
        keep(&mut self.watcher, watcher);
        Poll::Pending
    }

    /// Counts anew, up to `much`; says how many there were.
    fn look_again_at(&mut self, much: usize) -> usize {
        self.much = much;
        std::mem::take(&mut self.bytes)
    }
}

/// Resolves when much has gone to the heap of this shard, as
/// [`look_again_at`] says how much that is. At first it is never much.
pub(crate) async fn much_has_grown() {
    poll_fn(|context| {
        super::with(|core| core.driver.growth(|growth| growth.watch(context.waker())))
    })
    .await;
}

/// Counts anew, and from now on so many bytes are much; says how many there were
/// since the last time.
pub(crate) fn look_again_at(much: usize) -> usize {
    super::with(|core| core.driver.growth(|growth| growth.look_again_at(much)))
}

/// Somebody keeps so many bytes more on the heap, for a peer that does not go
/// on. Whether it is much with what came before.
pub(crate) fn has_grown(bytes: usize) -> bool {
    super::with(|core| {
        core.driver.growth(|growth| {
            growth.add(bytes);
            growth.is_much()
        })
    })
}
