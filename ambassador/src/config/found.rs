//! What is found wrong while a file is read and checked.

use super::mistakes::Mistake;

/// Mistakes, and warnings, that are told one by one.
const TOLD_MAX: usize = 100;
/// What reading and checking has found so far.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) mistakes: Vec<Mistake>,
    /// How many more there are than are kept.
    pub(super) more: usize,
    pub(super) warnings: Vec<Mistake>,
}

impl Found {
    pub(super) fn note(&mut self, mistake: Mistake) {
        match self.tells_more() {
            true => self.mistakes.push(mistake),
            false => self.more += 1,
        }
    }

    pub(super) fn note_warning(&mut self, warning: Mistake) {
        if self.warnings.len() < TOLD_MAX {
            self.warnings.push(warning);
        }
    }

    /// Whether another mistake is told, and worth finding words for.
    pub(super) fn tells_more(&self) -> bool {
        self.mistakes.len() < TOLD_MAX
    }
}
