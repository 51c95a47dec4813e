//! What a reload may change.

use super::checked::Checked;
use super::mistakes::{Mistake, Mistakes};
use crate::capture::settings::Mode;

impl Checked {
    /// Refuses a new configuration that only a restart can bring into effect.
    pub fn check_reload(&self, new: &Self, file: &str) -> Result<(), Mistakes> {
        let mode = |checked: &Self| checked.capture.as_ref().map(|c| c.mode).unwrap_or_default();
        let (mode_old, mode_new): (Mode, Mode) = (mode(self), mode(new));
        // Attaching takes privileges that the proxy has given up, and so does
        // changing REDIRECT rules.
        let fixed = |checked: &Self| {
            checked.capture.as_ref().map(|capture| {
                let rules = (capture.mode == Mode::Iptables).then(|| {
                    let scope = (capture.include.clone(), capture.exclude.clone());
                    (scope, capture.unmatched)
                });
                (capture.targets.clone(), capture.quic, rules)
            })
        };
        let changed = [
            ("workers", self.workers != new.workers),
            ("admin", self.admin != new.admin),
            ("capture.mode", mode_old != mode_new),
            ("capture", mode_old == mode_new && fixed(self) != fixed(new)),
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
