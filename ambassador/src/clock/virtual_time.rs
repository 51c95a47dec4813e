//! Time and randomness of a test: the clock of a thread stands until something
//! moves it, and random bits come from a seed.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::Instant;

thread_local! {
    static NOW: Cell<Option<Instant>> = const { Cell::new(None) };
    static RANDOM: RefCell<Option<StdRng>> = const { RefCell::new(None) };
}

/// Ends the virtual time of its thread when it is dropped.
pub(crate) struct VirtualTime(());

/// Stops the clock of this thread, and has random bits come from `seed`.
pub(crate) fn begin(seed: u64) -> VirtualTime {
    NOW.set(Some(Instant::now()));
    RANDOM.set(Some(StdRng::seed_from_u64(seed)));
    VirtualTime(())
}

/// Whether the clock of this thread is virtual.
pub(crate) fn is_on() -> bool {
    NOW.get().is_some()
}

/// Moves the clock.
pub(crate) fn advance(time: Duration) {
    NOW.set(NOW.get().map(|now| now + time));
}

/// The time, where it is virtual.
pub(crate) fn now() -> Option<Instant> {
    NOW.get()
}

/// Random bits, where they are from a seed.
pub(crate) fn random_u64() -> Option<u64> {
    RANDOM.with_borrow_mut(|random| random.as_mut().map(|random| random.next_u64()))
}

impl Drop for VirtualTime {
    fn drop(&mut self) {
        NOW.set(None);
        RANDOM.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn the_clock_moves_by_hand_and_the_seed_decides() {
        let draw = |seed| {
            let _virtual = begin(seed);
            let before = clock::now();
            assert_eq!(clock::now(), before);
            advance(Duration::from_secs(60));
            assert_eq!(clock::now() - before, Duration::from_secs(60));
            [clock::random_u64(), clock::random_u64()]
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert!(!is_on());
        let real = clock::now();
        while clock::now() == real {}
    }
}
