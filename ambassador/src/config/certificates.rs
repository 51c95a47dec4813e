//! Checks the files with certificates and keys that a configuration names, and makes
//! of them what connections are encrypted with.

use std::sync::Arc;

use super::checked::{Checked, Origin};
use super::mistakes::{Mistake, Mistakes};
use crate::control::certificates;
use crate::route::settings::Upstream;
use crate::tls::{Client, FileError};

impl Checked {
    /// What the connections of each upstream are encrypted with, in their order.
    /// `known` says what is in force for an upstream with a name: it stays where the
    /// settings are the same. `file` stands for the configuration in messages.
    ///
    /// # Errors
    /// Every file that cannot be used.
    pub(crate) fn open_certificates<'a>(
        &self,
        file: &str,
        known: impl Fn(&str) -> Option<&'a Arc<Client>>,
    ) -> Result<Vec<Option<Arc<Client>>>, Mistakes> {
        let mut mistakes = Vec::new();
        let mut all = Vec::new();
        for (upstream, policies) in self.routes.upstreams.iter().zip(&self.policies) {
            match self.open(upstream, known(&upstream.name)) {
                Ok(client) => all.push(client),
                Err(FileError { key, what }) => {
                    let key = format!("tls.{key}");
                    let policy = policies.iter().find(|policy| policy.key == key);
                    mistakes.push(Mistake {
                        line: policy.map_or(0, |policy| policy.origin.line()),
                        path: format!("upstreams.{}.{key}", upstream.name),
                        what,
                        got: policy.map(|policy| policy.value.clone()),
                    });
                }
            }
        }
        match mistakes.is_empty() {
            true => Ok(all),
            false => Err(Mistakes::new(file, mistakes)),
        }
    }

    fn open(
        &self,
        upstream: &Upstream,
        known: Option<&Arc<Client>>,
    ) -> Result<Option<Arc<Client>>, FileError> {
        let Some(settings) = &upstream.tls else {
            return Ok(None);
        };
        if let Some(known) = known.filter(|known| known.serves(upstream)) {
            return Ok(Some(Arc::clone(known)));
        }
        let files = certificates::read(settings, &self.directory)?;
        Ok(Client::new(upstream, &files)?.map(Arc::new))
    }
}

impl Origin {
    /// The line of the file; 0: none.
    fn line(self) -> usize {
        match self {
            Self::BuiltIn => 0,
            Self::Telemetry(line) | Self::Defaults(line) | Self::Upstream(line) => line,
            Self::Route { line, .. } => line,
        }
    }
}
