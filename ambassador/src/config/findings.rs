//! What is found wrong while a file is read and checked.

use super::mistakes::Mistake;

/// Mistakes, and warnings, that are told one by one.
const REPORTED_MAX: usize = 100;
/// What reading and checking has found so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) mistakes: Vec<Mistake>,
    /// How many more there are than are kept.
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

    /// Whether another mistake is told, and worth finding words for.
    pub(super) fn has_room(&self) -> bool {
        self.mistakes.len() < REPORTED_MAX
    }
}
