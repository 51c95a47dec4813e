//! What a reload may change.

use super::checked::Checked;
use super::mistakes::{Mistake, Mistakes};
use crate::capture::settings::Mode;

impl Checked {
    /// Refuses a new configuration that only a restart can bring into effect.
    pub fn check_reload(&self, new: &Self, file: &str) -> Result<(), Mistakes> {
        let mode = |checked: &Self| checked.capture.as_ref().map(|c| c.mode).unwrap_or_default();
        let (mode_old, mode_new): (Mode, Mode) = (mode(self), mode(new));
        let changed = [
            ("workers", self.workers != new.workers),
            ("spin", self.spin != new.spin),
            ("user", self.user != new.user),
            ("admin", self.admin != new.admin),
            ("capture.mode", mode_old != mode_new),
        ];
        let mistakes = changed.into_iter().filter(|(_, changed)| *changed);
        let mistakes = mistakes.map(|(key, _)| Mistake {
            path: key.to_owned(),
            ..Mistake::of_file("needs a restart".to_owned())
        });
        let mistakes = Mistakes::new(file, mistakes.collect());
        if mistakes.is_empty() {
            Ok(())
        } else {
            Err(mistakes)
        }
    }
}
