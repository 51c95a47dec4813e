//! `auth` of an upstream: one kind of credential, where it cannot go astray.

use std::path::PathBuf;

use serde_json::{Value as Json, json};

use crate::config::findings::Findings;
use crate::config::read::{Field, Place, Spanned, object};
use crate::config::values::{AbsolutePath, Text, own_field_mistake};
use crate::credential::settings::{self, TokenSource};
use crate::message::fields::is_between_ends;
use crate::route::settings::{Endpoints, Protocol};

object! {
    /// The credential that the requests of an upstream carry: one of these.
    Auth {
        /// `Authorization: Bearer` and a token.
        bearer: Bearer,
        /// `Authorization: Basic`, made of a user and a password.
        basic: Basic,
        /// A field of its own.
        header: Header,
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

object! {
    /// A user and a password.
    #[schemars(extend("required" = ["user", "password"]))]
    Basic {
        /// The name of the user, without a colon. Required.
        user: Text,
        /// The password. Required.
        password: SecretFile,
    }
}

object! {
    /// A field.
    #[schemars(extend("required" = ["name", "value"]))]
    Header {
        /// Its name, as `x-api-key`; none that describes the message, the connection
        /// or a trace. Required.
        name: Text,
        /// Its value. Required.
        value: SecretFile,
    }
}

object! {
    /// What a file holds.
    #[schemars(extend("required" = ["file"]))]
    SecretFile {
        /// The file, which is read again when it changes. A line end behind the secret
        /// is no part of it. Required.
        file: AbsolutePath,
    }
}

/// What is said of a name that is taken.
const PROXY_FIELD: &str = "is a header that the proxy itself answers for";

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
    let places = [
        raw.bearer.as_ref().map(|it| &it.place),
        raw.basic.as_ref().map(|it| &it.place),
        raw.header.as_ref().map(|it| &it.place),
    ];
    for other in places.into_iter().flatten().skip(1) {
        findings.mistake(
            other,
            "is the second kind of credential here: there can be one",
        );
    }
    if let Some(bearer) = raw.bearer.as_ref() {
        return bearer.settings(&bearer.place, findings);
    }
    if let Some(basic) = raw.basic.as_ref() {
        return basic.settings(&basic.place, findings);
    }
    if let Some(header) = raw.header.as_ref() {
        return header.settings(&header.place, findings);
    }
    let what = "must say what the credential is: bearer, basic or header";
    findings.mistake_unless_inside(&raw.place, what);
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

impl Basic {
    fn settings(&self, place: &Place, findings: &mut Findings) -> Option<settings::Auth> {
        let password = secret(&self.password, place, "must have a password", findings);
        let Some(user) = self.user.as_ref() else {
            findings.mistake_unless_inside(place, "must have a user");
            return None;
        };
        // RFC 7617 section 2.
        if user.value.0.chars().any(|c| c == ':' || c.is_control()) {
            findings.mistake_at(user, "a user has no colon and no control characters");
        }
        Some(settings::Auth::Basic {
            user: user.value.0.as_str().into(),
            password: password?,
        })
    }
}

impl Header {
    fn settings(&self, place: &Place, findings: &mut Findings) -> Option<settings::Auth> {
        let value = secret(&self.value, place, "must have a value", findings);
        let Some(name) = self.name.as_ref() else {
            findings.mistake_unless_inside(place, "must have a name");
            return None;
        };
        let text = name.value.0.as_str();
        let owned = (!is_between_ends(text.as_bytes())).then_some(PROXY_FIELD);
        if let Some(what) = own_field_mistake(text).or(owned) {
            findings.mistake_at(name, what);
        }
        Some(settings::Auth::Header {
            name: text.into(),
            value: value?,
        })
    }
}

/// A secret that has to be there; `what` says of it that it is not.
fn secret(
    secret: &Field<SecretFile>,
    place: &Place,
    what: &str,
    findings: &mut Findings,
) -> Option<PathBuf> {
    let Some(secret) = secret.as_ref() else {
        findings.mistake_unless_inside(place, what);
        return None;
    };
    file(&secret.file, &secret.place, findings)
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
    let file = auth.file().map(|file| file.display().to_string());
    let file = json!({ "file": file });
    let shown = match auth {
        settings::Auth::Bearer(TokenSource::File(_)) => file,
        settings::Auth::Basic { user, .. } => json!({ "user": user, "password": file }),
        settings::Auth::Header { name, .. } => json!({ "name": name, "value": file }),
    };
    json!({ auth.kind(): shown })
}
