//! `auth` of an upstream: one kind of credential, where it cannot go astray.

use std::path::PathBuf;

use serde_json::{Value as Json, json};

use crate::config::findings::Findings;
use crate::config::read::{Field, Place, Spanned, object};
use crate::config::values::AbsolutePath;
use crate::credential::settings::{self, TokenSource};
use crate::route::settings::{Endpoints, Protocol};

object! {
    /// The credential that the requests of an upstream carry: one of these.
    Auth {
        /// `Authorization: Bearer` and a token.
        bearer: Bearer,
    }
}

object! {
    /// A token.
    Bearer {
        /// A file with the token, which is read again when it changes. A line end
        /// behind the token is no part of it.
        file: AbsolutePath,
    }
}

/// What carries a credential.
#[derive(Clone, Copy)]
pub(super) struct Carrier<'a> {
    pub(super) endpoints: &'a Endpoints,
    pub(super) protocol: Protocol,
}

/// What `auth` means there; `None`: that is a mistake, which is noted.
pub(super) fn check(
    raw: &Spanned<Auth>,
    carrier: Carrier<'_>,
    findings: &mut Findings,
) -> Option<settings::Auth> {
    if let Some(what) = carrier.mistake() {
        findings.mistake(&raw.place, what);
    }
    let kinds = [raw.bearer.as_ref().map(|it| &it.place)];
    if let Some(second) = kinds.into_iter().flatten().nth(1) {
        findings.mistake(second, "auth is of one kind");
    }
    if let Some(bearer) = raw.bearer.as_ref() {
        return bearer.settings(&bearer.place, findings);
    }
    findings.mistake_unless_inside(&raw.place, "must say what the credential is, as bearer");
    None
}

impl Carrier<'_> {
    /// Why a credential must not go there.
    fn mistake(self) -> Option<&'static str> {
        if self.protocol == Protocol::Tcp {
            return Some("protocol tcp has no requests that could carry a credential");
        }
        match self.endpoints {
            Endpoints::Original => Some(
                "needs endpoints: a request with a forged host would carry the credential anywhere",
            ),
            _ if self.is_private() => None,
            Endpoints::Static(_) | Endpoints::Dns { .. } => Some(
                "needs endpoints on loopback: elsewhere the credential would go in plain text to \
                 whoever answers there",
            ),
        }
    }

    /// Whether nobody else can read or answer what goes there. A name may resolve to
    /// anything, localhost too.
    fn is_private(self) -> bool {
        let Endpoints::Static(list) = self.endpoints else {
            return false;
        };
        let mut endpoints = list.iter();
        endpoints.all(|endpoint| endpoint.address.0.ip().to_canonical().is_loopback())
    }
}

impl Bearer {
    fn settings(&self, place: &Place, findings: &mut Findings) -> Option<settings::Auth> {
        let file = file(&self.file, place, findings)?;
        Some(settings::Auth::Bearer(TokenSource::File(file)))
    }
}

/// A file that has to be named.
fn file(file: &Field<AbsolutePath>, place: &Place, findings: &mut Findings) -> Option<PathBuf> {
    let path = file.as_ref().map(|file| file.value.0.clone());
    if path.is_none() {
        findings.mistake_unless_inside(place, "must have a file");
    }
    path
}

/// As the file would write it: where secrets are, and none of them.
pub(super) fn shown(auth: &settings::Auth) -> Json {
    match auth {
        settings::Auth::Bearer(TokenSource::File(file)) => {
            json!({ "bearer": { "file": file.display().to_string() } })
        }
    }
}
