//! The secrets that stand in for placeholders in the requests of an upstream. Each is
//! fetched and kept as the credential of an upstream is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::clock::Instant;
use crate::credential::Credential;
use crate::credential::settings::Auth;
use crate::upstream::credential::{CredentialView, Renewal, UpstreamCredential, ValidCredential};

/// Bytes of a name that no configuration has, as the log shows it.
const SHOWN_BYTES_MAX: usize = 64;

/// Those of one upstream, in one version of the configuration.
pub(crate) struct UpstreamPlaceholders {
    list: Vec<Arc<UpstreamCredential>>,
    is_unknown_told: AtomicBool,
}

/// The secrets as they are at one time.
pub(crate) struct PlaceholderSecrets<'a>(Vec<(&'a str, Option<ValidCredential>)>);

impl UpstreamPlaceholders {
    /// Those of these settings; what `previous` has of them stays as it is.
    pub(crate) fn new(settings: &[Arc<Auth>], previous: Option<&Self>) -> Self {
        let known = |auth: &Arc<Auth>| {
            let mut known = previous?.list.iter();
            known.find(|known| known.auth == *auth).cloned()
        };
        let secret = |auth| known(auth).unwrap_or_else(|| Arc::new(UpstreamCredential::new(auth)));
        Self {
            list: settings.iter().map(secret).collect(),
            is_unknown_told: AtomicBool::new(false),
        }
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<UpstreamCredential>> {
        self.list.iter()
    }

    /// That of the placeholder with this name.
    pub(crate) fn find(&self, name: &[u8]) -> Option<&Arc<UpstreamCredential>> {
        self.iter().find(|one| name_of(one).as_bytes() == name)
    }

    /// All of them, as they are now.
    pub(crate) fn secrets(&self, now: Instant) -> PlaceholderSecrets<'_> {
        let secrets = self.iter().map(|one| (name_of(one), one.valid(now)));
        PlaceholderSecrets(secrets.collect())
    }

    /// What there is to tell of each, by its name.
    pub(crate) fn views(&self, now: Instant) -> Vec<(String, CredentialView)> {
        let views = self
            .iter()
            .map(|one| (name_of(one).to_owned(), one.view(now)));
        views.collect()
    }

    /// Says in the log, once, that a program sends a placeholder of which there is no
    /// secret here.
    pub(crate) fn tell_of_unknown(&self, upstream: &str, name: &[u8]) {
        if !self.is_unknown_told.swap(true, Ordering::Relaxed) {
            let name = String::from_utf8_lossy(&name[..name.len().min(SHOWN_BYTES_MAX)]);
            tracing::warn!(
                upstream,
                %name,
                "a program sends a placeholder that is none of this upstream: it goes on as it is"
            );
        }
    }

    /// The upstream has refused a request with secrets of this number: has all of them
    /// read anew, once for all who say so.
    pub(crate) fn refuse(&self, number: u64, now: Instant) {
        if self.secrets(now).number() == number {
            self.iter().for_each(|one| one.refuse(one.number(now), now));
        }
    }

    /// Until there are others than those of this number, or it is known that there will
    /// be none. `now` tells the time.
    pub(crate) async fn renewed(&self, number: u64, now: impl Fn() -> Instant) -> Renewal {
        for one in self.iter() {
            if self.secrets(now()).number() > number {
                return Renewal::Done;
            }
            one.renewed(one.number(now()), &now).await;
        }
        match self.secrets(now()).number() > number {
            true => Renewal::Done,
            false => Renewal::Failed,
        }
    }
}

impl PlaceholderSecrets<'_> {
    /// The secret in place of the placeholder with this name. `None`: there is no such
    /// placeholder; else: there is no secret.
    pub(crate) fn find(&self, name: &[u8]) -> Option<Option<&[u8]>> {
        let mut all = self.0.iter();
        let (_, valid) = all.find(|(known, _)| known.as_bytes() == name)?;
        let credential = valid.as_ref().and_then(ValidCredential::credential);
        Some(match credential {
            Some(Credential::Substitute(secret)) => Some(secret.expose()),
            _ => None,
        })
    }

    /// Tells them from others: those that come later have a higher number.
    pub(crate) fn number(&self) -> u64 {
        let valid = self.0.iter().filter_map(|(_, valid)| valid.as_ref());
        valid.map(ValidCredential::number).sum()
    }
}

/// What programs call it.
fn name_of(placeholder: &UpstreamCredential) -> &str {
    match &*placeholder.auth {
        Auth::Placeholder { name, .. } => name,
        _ => "",
    }
}
