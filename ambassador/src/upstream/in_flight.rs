//! The requests of an upstream that are in flight, over all shards.

use std::sync::atomic::{AtomicU32, Ordering};

/// The count of requests in flight.
#[derive(Debug, Default)]
pub struct InFlight(AtomicU32);

/// A request in flight, until it is dropped.
#[derive(Debug)]
pub struct Entered<'a>(&'a InFlight);

impl InFlight {
    /// Counts one more; `None`: there are `max` already.
    pub fn enter(&self, max: Option<u32>) -> Option<Entered<'_>> {
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        let entered = Entered(self);
        max.is_none_or(|max| before < max).then_some(entered)
    }

    /// How many there are now.
    pub fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_over_the_limit_is_refused_and_not_counted() {
        let in_flight = InFlight::default();
        let first = in_flight.enter(Some(2)).unwrap();
        let _second = in_flight.enter(Some(2)).unwrap();
        assert!(in_flight.enter(Some(2)).is_none());
        assert_eq!(in_flight.count(), 2);
        drop(first);
        assert!(in_flight.enter(Some(2)).is_some());
        assert!(in_flight.enter(None).is_some());
        assert_eq!(in_flight.count(), 1);
    }

    #[test]
    fn threads_never_exceed_the_limit() {
        let (in_flight, highest) = (InFlight::default(), AtomicU32::new(0));
        let inside = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        if let Some(_entered) = in_flight.enter(Some(2)) {
                            let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                            highest.fetch_max(now, Ordering::SeqCst);
                            inside.fetch_sub(1, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        assert!((1..=2).contains(&highest.into_inner()));
        assert_eq!(in_flight.count(), 0);
    }
}
