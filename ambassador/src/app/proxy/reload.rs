//! The configuration, read again: all of it comes into force, or nothing does.

use std::path::Path;
use std::sync::Arc;

use super::Proxy;
use super::prepared::Prepared;
use crate::app::Failure;
use crate::config::{Checked, Mistakes};
use crate::control::Fingerprint;

/// A file that was refused, and why.
#[derive(PartialEq, Eq)]
pub(super) struct Refused {
    /// None where it could not be read to the end.
    content: Option<Fingerprint>,
    why: String,
}

/// What became of a good file.
enum ReloadOutcome {
    InForce,
    Unchanged,
}

impl Proxy {
    /// Reads the configuration again; a bad file changes nothing. What is wrong
    /// with it is told once: an editor and a signal may both ask.
    pub(crate) fn reload(&mut self) {
        if let Some(log) = &self.log {
            log.reopen();
        }
        let Some((file, before)) = self.file.clone() else {
            return;
        };
        let (content, taken) = match self.loader.load(&file) {
            Ok(loaded) => {
                let taken = self.take(&file, &before, loaded.checked);
                (Some(loaded.content), taken)
            }
            Err(why) => (None, Err(format!("{}: {why}", file.display()))),
        };
        let control = &self.state.registry.control;
        match taken {
            Ok(taken) => {
                control.reloaded(crate::clock::unix_ms() / 1_000);
                self.refused = None;
                let file = file.display();
                match taken {
                    ReloadOutcome::InForce => tracing::info!(%file, "configuration reloaded"),
                    ReloadOutcome::Unchanged => {
                        tracing::info!(%file, "configuration read again: nothing has changed");
                    }
                }
            }
            Err(why) => {
                let refused = Some(Refused { content, why });
                if refused == self.refused {
                    let file = file.display();
                    tracing::info!(%file, "configuration not reloaded: the file has the same mistakes as before");
                    return;
                }
                control.reload_failed();
                tracing::error!("configuration not reloaded, the old one stays:");
                let why = refused.as_ref().map_or("", |refused| &refused.why);
                why.lines().for_each(|line| tracing::error!("{line}"));
                self.refused = refused;
            }
        }
    }

    fn take(
        &mut self,
        file: &Path,
        before: &Checked,
        new: Result<Checked, Mistakes>,
    ) -> Result<ReloadOutcome, String> {
        let new = new.and_then(|new| {
            before.check_reload(&new, &file.display().to_string())?;
            Ok(new)
        });
        let new = new.map_err(|mistakes| mistakes.to_string())?;
        if new == *before {
            return Ok(ReloadOutcome::Unchanged);
        }
        let mut overridden = new.clone();
        (self.overrides)(&mut overridden);
        self.apply(&file.display().to_string(), overridden)
            .map_err(|failure| failure.to_string())?;
        self.file = Some((file.to_owned(), new));
        Ok(ReloadOutcome::InForce)
    }

    /// Puts a new configuration in force, or leaves all as it was.
    fn apply(&mut self, file: &str, new: Checked) -> Result<(), Failure> {
        self.prepare_commands(&new)?;
        let state = Arc::clone(&self.state);
        Prepared::prepare(file, new, &state, &self.shards)?.commit(self);
        Ok(())
    }
}
