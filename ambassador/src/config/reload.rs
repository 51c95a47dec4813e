//! What a reload may change.

use super::checked::Checked;
use super::mistakes::{Mistake, Mistakes};

impl Checked {
    /// Refuses a new configuration that only a restart can bring into effect.
    pub(crate) fn check_reload(&self, new: &Self, file: &str) -> Result<(), Mistakes> {
        let (old, new) = (self.needing_restart(), new.needing_restart());
        let added = new.iter().filter(|entry| !old.contains(entry));
        let gone = old
            .iter()
            .filter(|(key, _)| !new.iter().any(|(other, _)| other == key));
        let mistakes = added.chain(gone).map(|(key, _)| Mistake {
            path: key.clone(),
            ..Mistake::of_file("needs a restart".to_owned())
        });
        let mistakes = Mistakes::new(file, mistakes.collect());
        match mistakes.is_empty() {
            true => Ok(()),
            false => Err(mistakes),
        }
    }
}
