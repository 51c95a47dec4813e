//! Mistakes and warnings, collected while a file is read and checked.

use super::mistakes::Mistake;

/// Mistakes, and warnings, that are reported one by one.
const REPORTED_MAX: usize = 100;
/// Mistakes and warnings so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) mistakes: Vec<Mistake>,
    /// How many mistakes there are beyond those kept.
    pub(super) more: usize,
    pub(super) warnings: Vec<Mistake>,
}

impl Findings {
    pub(super) fn note(&mut self, mistake: Mistake) {
        match self.has_room() {
            true => self.mistakes.push(mistake),
            false => self.more += 1,
        }
    }

    pub(super) fn note_warning(&mut self, warning: Mistake) {
        if self.warnings.len() < REPORTED_MAX {
            self.warnings.push(warning);
        }
    }

    /// Whether another mistake would be kept, and is worth a text.
    pub(super) fn has_room(&self) -> bool {
        self.mistakes.len() < REPORTED_MAX
    }
}
