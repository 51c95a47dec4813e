//! Whether the helper answers, as far as the proxy has noticed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use super::Helper;

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It answers.
    Answers = 0,
    /// It has not answered for a while.
    Silent = 1,
    /// It has ended.
    Ended = 2,
}

/// What is known of it by now.
#[derive(Debug, Default)]
pub(super) struct LifeCell(AtomicU8);

impl LifeCell {
    pub(super) fn get(&self) -> Life {
        match self.0.load(Ordering::Acquire) {
            0 => Life::Answers,
            1 => Life::Silent,
            _ => Life::Ended,
        }
    }

    /// Takes note, and says whether that is news. There is no way back from the
    /// end.
    pub(super) fn note(&self, life: Life) -> bool {
        let before = self.0.fetch_max(life as u8, Ordering::AcqRel);
        if life == Life::Answers && before == Life::Silent as u8 {
            let silent = Life::Silent as u8;
            let changed =
                self.0
                    .compare_exchange(silent, life as u8, Ordering::AcqRel, Ordering::Acquire);
            return changed.is_ok();
        }
        before < life as u8
    }
}

/// Who depends on a helper: captured programs of other network namespaces, whose
/// upstream sockets it makes.
#[derive(Debug)]
pub struct Reliance {
    helper: Arc<Helper>,
    is_needed: AtomicBool,
}

impl Reliance {
    /// On this helper, for nothing yet.
    pub fn on(helper: &Arc<Helper>) -> Self {
        Self {
            helper: Arc::clone(helper),
            is_needed: AtomicBool::new(false),
        }
    }

    /// Says whether sockets of other namespaces are needed from now on.
    pub fn set_needed(&self, is_needed: bool) {
        self.is_needed.store(is_needed, Ordering::Release);
    }

    /// Whether what is captured can be served.
    pub fn holds(&self) -> bool {
        !self.is_needed.load(Ordering::Acquire) || self.helper.life() == Life::Answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_ends_with_an_answer_and_the_end_does_not() {
        let known = LifeCell::default();
        assert!(!known.note(Life::Answers));
        assert!(known.note(Life::Silent));
        assert!(!known.note(Life::Silent), "known already");
        assert!(known.note(Life::Answers));
        assert_eq!(known.get(), Life::Answers);
        assert!(known.note(Life::Ended));
        assert!(!known.note(Life::Answers) && !known.note(Life::Silent));
        assert_eq!(known.get(), Life::Ended);
    }
}
