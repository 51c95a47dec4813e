//! Waits for a peer of an exchange: until it falls silent, or until it turns out
//! to be slower than `timeouts.min_rate`.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;

use crate::clock::Instant;
use crate::policy::limits::Timeouts;
use crate::policy::pace::{Pace, Part, Verdict};
use crate::ring;
use crate::ring::timer::{Sleep, sleep_until};

/// How a peer has done so far; `None`: it has not been waited for, or need not
/// be fast. Boxed, as every request has a place for four.
pub(super) type Paced = Option<Box<Pace>>;

/// Why a peer is waited for no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PeerTimeout {
    /// Nothing came of it for too long.
    Silent,
    /// It is slower than it may be.
    TooSlow,
}

/// How long a peer may be waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience<'a> {
    /// At a time.
    pub silence: Duration,
    /// Has the rate.
    pub timeouts: &'a Timeouts,
    /// What the peer does.
    pub part: Part,
}

pin_project! {
    /// See [`within`].
    pub(super) struct Within<'a, F, M> {
        #[pin]
        future: F,
        patience: Patience<'a>,
        pace: &'a mut Paced,
        moved: M,
        wait: Option<Wait>,
    }
}

/// A wait that has begun.
struct Wait {
    silent_at: Instant,
    /// From when on it is not yet taken note of.
    since: Instant,
    sleep: Sleep,
}

/// Waits for `future`, by which a peer moves bytes. `moved` says how many it has
/// moved so far, and nothing where it is not this peer that is waited for, after
/// all. What is ready at once costs nothing.
pub(super) fn within<'a, F, M>(
    patience: Patience<'a>,
    pace: &'a mut Paced,
    future: F,
    moved: M,
) -> Within<'a, F, M>
where
    F: Future,
    M: Fn() -> Option<i64>,
{
    Within {
        future,
        patience,
        pace,
        moved,
        wait: None,
    }
}

impl<F: Future, M: Fn() -> Option<i64>> Future for Within<'_, F, M> {
    type Output = Result<F::Output, PeerTimeout>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(done) = this.future.poll(context) {
            if let (Some(pace), Some(wait)) = (this.pace, this.wait) {
                pace.spend(ring::now().saturating_duration_since(wait.since));
            }
            return Poll::Ready(Ok(done));
        }
        let (patience, moved) = (this.patience, &*this.moved);
        let wait = this
            .wait
            .get_or_insert_with(|| begin(patience, this.pace, moved));
        loop {
            if Pin::new(&mut wait.sleep).poll(context).is_pending() {
                return Poll::Pending;
            }
            let now = ring::now();
            if now >= wait.silent_at {
                return Poll::Ready(Err(PeerTimeout::Silent));
            }
            let Some(pace) = this.pace.as_mut() else {
                // Cannot be: nothing else ends the sleep.
                return Poll::Ready(Err(PeerTimeout::Silent));
            };
            pace.spend(now.saturating_duration_since(wait.since));
            match moved().map(|moved| pace.look(moved)) {
                Some(Verdict::TooSlow) => return Poll::Ready(Err(PeerTimeout::TooSlow)),
                Some(Verdict::Keeps) => {}
                None => pace.excuse(),
            }
            wait.since = now;
            wait.sleep = sleep_until(wait.silent_at.min(now + pace.until_look()));
        }
    }
}

/// The peer is not ready: the wait begins.
fn begin(patience: &Patience<'_>, pace: &mut Paced, moved: impl Fn() -> Option<i64>) -> Wait {
    let Patience {
        silence,
        timeouts,
        part,
    } = *patience;
    let now = ring::now();
    let silent_at = now + silence;
    if let Some(rate) = timeouts.min_rate {
        let begins = || Box::new(Pace::new(rate, part, silence, moved().unwrap_or_default()));
        pace.get_or_insert_with(begins);
    }
    let look = pace.as_ref().map(|pace| now + pace.until_look());
    Wait {
        silent_at,
        since: now,
        sleep: sleep_until(look.map_or(silent_at, |look| look.min(silent_at))),
    }
}
