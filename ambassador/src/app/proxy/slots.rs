//! The main thread's work on the token table: it takes unused slots back, and
//! reports destinations that found none.

use std::time::Duration;

use crate::app::captured::Captured;
use crate::clock::{self, Instant};
use crate::control::{Readiness, Remark};

/// How often slots are looked through for unused ones.
const TAKE_BACK_EVERY: Duration = Duration::from_secs(5);

/// How often the log says that some find none, and how long `/readyz` does after
/// the last time.
const EVERY: Duration = Duration::from_secs(60);

/// What was done and said.
#[derive(Default)]
pub(super) struct Slots {
    /// When unused ones are taken back next.
    take_back_at: Option<Instant>,
    shortage: Shortage,
}

/// What was said of a shortage.
#[derive(Default)]
struct Shortage {
    /// Connects that found none, when it was looked last.
    turned_away: u64,
    /// When one did last, where `/readyz` says so.
    last: Option<Instant>,
    /// When the log may say so again.
    again: Option<Instant>,
}

/// What is to be said now.
#[derive(Debug, PartialEq, Eq)]
enum Notice {
    /// All as before.
    Nothing,
    /// In `/readyz`.
    InReadyz,
    /// There and in the log.
    InLogToo,
    /// No more of it in `/readyz`.
    ItIsOver,
}

impl Slots {
    /// To be called now and then.
    pub(super) fn look_after(&mut self, captured: &Captured, readiness: &Readiness) {
        let now = clock::now();
        if self.take_back_at.is_none_or(|at| now >= at) {
            self.take_back_at = Some(now + TAKE_BACK_EVERY);
            captured.take_slots_back();
        }
        if self.shortage.last.is_none() && !captured.is_short_of_slots() {
            return;
        }
        let Some(shortage) = captured.shortage() else {
            return;
        };
        match self.shortage.look(shortage.turned_away(), now) {
            Notice::Nothing => {}
            Notice::InReadyz => readiness.remark(Remark::Slots, Some(shortage.to_string())),
            Notice::InLogToo => {
                readiness.remark(Remark::Slots, Some(shortage.to_string()));
                tracing::warn!("{shortage}");
            }
            Notice::ItIsOver => readiness.remark(Remark::Slots, None),
        }
    }
}

impl Shortage {
    /// So many connects found none so far.
    fn look(&mut self, turned_away: u64, now: Instant) -> Notice {
        if turned_away == self.turned_away {
            let is_over = |last| now.saturating_duration_since(last) >= EVERY;
            return match self.last.take_if(|last| is_over(*last)) {
                Some(_) => Notice::ItIsOver,
                None => Notice::Nothing,
            };
        }
        self.turned_away = turned_away;
        self.last = Some(now);
        if self.again.is_some_and(|again| now < again) {
            return Notice::InReadyz;
        }
        self.again = Some(now + EVERY);
        Notice::InLogToo
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_while_it_lasts() {
        let start = clock::now();
        let mut shortage = Shortage::default();
        let mut look = |turned_away, seconds| {
            let now = start + Duration::from_secs(seconds);
            shortage.look(turned_away, now)
        };
        assert_eq!(look(0, 0), Notice::Nothing);
        assert_eq!(look(3, 1), Notice::InLogToo);
        assert_eq!(look(3, 2), Notice::Nothing);
        assert_eq!(look(4, 3), Notice::InReadyz, "the log has said it");
        assert_eq!(look(5, 61), Notice::InLogToo);
        assert_eq!(look(5, 120), Notice::Nothing);
        assert_eq!(look(5, 121), Notice::ItIsOver);
        assert_eq!(look(5, 200), Notice::Nothing);
        assert_eq!(look(6, 201), Notice::InLogToo);
    }
}
