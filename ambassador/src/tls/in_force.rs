//! What connections are encrypted with at present, and the wait for its successor.
//!
//! A certificate is renewed well before its end. Where the process stood still over
//! that end, its successor may be known to the agent, or stand in the file, and not be
//! read yet: a handshake begun with the old one would fail for nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use crate::clock;
use crate::ring::timer;

/// How often a handshake that waits looks for a certificate that is valid.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How often it looks before it gives up: half a second. They are counted, as whoever
/// stands still does not look.
const LOOKS_MAX: u128 = 100;

/// A configuration that is replaced as a whole.
#[derive(Debug)]
pub(super) struct InForce<C> {
    context: ArcSwapOption<C>,
    /// There was none yet, or a handshake has waited in vain: those that follow do not
    /// wait.
    is_given_up: AtomicBool,
}

/// What has an end.
pub(super) trait Ending {
    /// The last second in which the own certificate is valid, since 1970; `None`: there
    /// is no end.
    fn not_after(&self) -> Option<u64>;

    /// Whether that has passed.
    fn has_ended(&self) -> bool {
        let now = clock::unix_ms() / 1_000;
        self.not_after().is_some_and(|end| end < now)
    }
}

impl<C: Ending> InForce<C> {
    /// Puts this in force first.
    pub(super) fn new(context: Option<Arc<C>>) -> Self {
        Self {
            is_given_up: AtomicBool::new(context.is_none()),
            context: context.into(),
        }
    }

    /// Puts this in force for handshakes that begin from here on.
    pub(super) fn put(&self, context: Option<Arc<C>>) {
        let is_there = context.is_some();
        self.context.store(context);
        if is_there {
            self.is_given_up.store(false, Ordering::Relaxed);
        }
    }

    /// The newest; `None`: there is none.
    pub(super) fn newest(&self) -> Option<Arc<C>> {
        self.context.load_full()
    }

    /// The same, once it is there and has not ended; else what there is after `within`, or
    /// earlier where waiting is in vain.
    pub(super) async fn lasting(&self, within: Duration) -> Option<Arc<C>> {
        let mut looks = LOOKS_MAX.min(within.as_millis() / LOOK_EVERY.as_millis());
        loop {
            let newest = self.newest();
            if newest.as_ref().is_some_and(|newest| !newest.has_ended())
                || self.is_given_up.load(Ordering::Relaxed)
            {
                return newest;
            }
            if looks == 0 {
                self.is_given_up.store(true, Ordering::Relaxed);
                return newest;
            }
            looks -= 1;
            timer::sleep(LOOK_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::virtual_time;
    use crate::ring::{self, Backend, Options, Spin};

    /// The end of a certificate.
    #[derive(Debug)]
    struct End(Option<u64>);

    impl Ending for End {
        fn not_after(&self) -> Option<u64> {
            self.0
        }
    }

    const WITHIN: Duration = Duration::from_millis(400);
    const VALID: End = End(Some(u64::MAX));
    const PAST: End = End(Some(0));

    fn of(end: Option<End>) -> InForce<End> {
        InForce::new(end.map(Arc::new))
    }

    fn on_a_shard<F: Future<Output = ()> + 'static>(test: impl FnOnce() -> F + 'static) {
        let _virtual = virtual_time::begin(1);
        let options = Options {
            backend: Backend::Epoll,
            shard: 0,
            spin: Spin::Never,
        };
        let panics = ring::run(options, async move {
            test().await;
            ring::task_panics()
        });
        assert_eq!(panics.unwrap(), 0);
    }

    /// What a handshake gets that begins now and waits for up to 400 ms, and how long it
    /// waits for that.
    async fn taken(in_force: &InForce<End>) -> (Option<Option<u64>>, Duration) {
        let begun = clock::now();
        let taken = in_force.lasting(WITHIN).await;
        (taken.map(|end| end.0), clock::now() - begun)
    }

    #[test]
    fn what_is_valid_is_taken_at_once() {
        on_a_shard(|| async {
            for end in [Some(u64::MAX), None] {
                let in_force = of(Some(End(end)));
                assert_eq!(taken(&in_force).await, (Some(end), Duration::ZERO));
            }
        });
    }

    #[test]
    fn a_successor_is_waited_for() {
        on_a_shard(|| async {
            for before in [None, Some(PAST)] {
                let in_force = std::rc::Rc::new(of(Some(VALID)));
                in_force.put(before.map(Arc::new));
                let put = std::rc::Rc::clone(&in_force);
                ring::spawn(async move {
                    timer::sleep(Duration::from_millis(103)).await;
                    put.put(Some(Arc::new(VALID)));
                });
                let (end, waited) = taken(&in_force).await;
                assert_eq!(end, Some(VALID.0));
                assert!((103..=110).contains(&waited.as_millis()), "{waited:?}");
            }
        });
    }

    #[test]
    fn where_one_has_waited_in_vain_nobody_waits() {
        on_a_shard(|| async {
            let in_force = of(Some(PAST));
            let (end, waited) = taken(&in_force).await;
            assert_eq!(end, Some(PAST.0), "the peer may not mind");
            assert!(waited >= WITHIN && waited < 2 * WITHIN, "{waited:?}");
            in_force.put(None);
            assert_eq!(taken(&in_force).await, (None, Duration::ZERO));
            // For one that is new and ends as well, there may be a successor.
            in_force.put(Some(Arc::new(PAST)));
            assert!(taken(&in_force).await.1 >= WITHIN);
            // The first one may take long to come.
            assert_eq!(taken(&of(None)).await, (None, Duration::ZERO));
        });
    }

    #[test]
    fn time_for_which_nobody_has_looked_does_not_count() {
        on_a_shard(|| async {
            let in_force = std::rc::Rc::new(of(Some(PAST)));
            let put = std::rc::Rc::clone(&in_force);
            ring::spawn(async move {
                timer::sleep(LOOK_EVERY).await;
                virtual_time::advance(Duration::from_secs(9));
                timer::sleep(LOOK_EVERY).await;
                put.put(Some(Arc::new(VALID)));
            });
            let (end, waited) = taken(&in_force).await;
            assert_eq!(end, Some(VALID.0));
            assert!(waited >= Duration::from_secs(9), "{waited:?}");
        });
    }
}
