//! Waits for the SETTINGS of the peer, before which nobody knows what it allows.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::Multiplexed;

impl Multiplexed {
    /// Resolves when the peer has said what it allows, or the connection has ended.
    pub(crate) fn settled(&self) -> impl Future<Output = ()> + '_ {
        Settled {
            connection: self,
            place: None,
        }
    }
}

/// A wait for what the peer allows.
struct Settled<'a> {
    connection: &'a Multiplexed,
    /// Where its waker is.
    place: Option<usize>,
}

impl Future for Settled<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.connection.state.borrow_mut();
        if state.codec.is_settled() || state.ended.is_some() {
            return Poll::Ready(());
        }
        let waker = context.waker().clone();
        match self.place {
            Some(place) => state.unsettled[place] = waker,
            None => {
                let place = state.unsettled.insert(waker);
                drop(state);
                self.place = Some(place);
            }
        }
        Poll::Pending
    }
}

impl Drop for Settled<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.connection
                .state
                .borrow_mut()
                .unsettled
                .try_remove(place);
        }
    }
}
