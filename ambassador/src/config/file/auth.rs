//! `auth` of an upstream: one kind of credential, where it cannot go astray.

mod aws_web_identity;
mod identity;
mod oauth2;
mod server;
mod sigv4;
mod token_exchange;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::config::findings::Findings;
use crate::config::read::{Field, Place, Spanned, object};
use crate::config::secrets;
use crate::config::setting::Value;
use crate::config::values::{FilePath, Period, Text, Time, own_field_mistake};
use crate::credential::settings::{self, SvidAudience, TokenSource};
use crate::credential::workload_endpoint;
use crate::message::fields::is_between_ends;
use crate::route::settings::{Claim, Endpoint, Endpoints, Protocol, Upstream};
use crate::route::tls::{Sni, Tls, Verify};
use identity::Identity;
use oauth2::OAuth2;
use sigv4::Sigv4;
use token_exchange::TokenExchange;

object! {
    /// The credential that the requests of an upstream carry: one of these.
    Auth {
        /// `Authorization: Bearer` and a token.
        bearer: Bearer,
        /// `Authorization: Basic`, made of a user and a password.
        basic: Basic,
        /// A field of its own.
        header: Header,
        /// `X-Service-Identity` and a token that the proxy signs, a JWT.
        identity: Identity,
        /// A bearer token of an OAuth 2.0 server.
        oauth2: OAuth2,
        /// A bearer token that is got for another one, or keys of AWS.
        token_exchange: TokenExchange,
        /// Signatures of AWS.
        sigv4: Sigv4,
    }
}

object! {
    /// A token: from a file or a command.
    Bearer {
        /// A file with the token, which is read again when it changes. A line end
        /// behind the token is no part of it.
        file: FilePath,
        /// A program and its arguments, instead of `file`: it prints the token. It runs
        /// as the proxy's user, for 10s at most, with PATH and HOME alone in its
        /// environment. The first one needs a restart.
        exec: Vec<Spanned<Text>>,
        /// How long the printed token is valid. It is fetched anew ahead of that.
        #[schemars(extend("default" = "10m"))]
        ttl: Period,
        /// In place of a file: the audience of a JWT-SVID, which the Workload API of
        /// `identity.spiffe` gives, again before it ends.
        spiffe: Text,
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
        file: FilePath,
    }
}

/// How long a printed token is valid, where the file does not say.
const COMMAND_TTL: Duration = Duration::from_secs(10 * 60);

/// What is said of a name that is taken.
const PROXY_FIELD: &str = "is a header that the proxy itself answers for";

/// What carries a credential.
#[derive(Clone, Copy)]
pub(super) struct Carrier<'a> {
    pub(super) claims: &'a [Claim],
    pub(super) endpoints: &'a Endpoints,
    pub(super) protocol: Protocol,
    pub(super) tls: Option<&'a Tls>,
    /// Who gives JWT-SVIDs.
    pub(super) workload_api: Option<&'a workload_endpoint::Endpoint>,
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
        raw.identity.as_ref().map(|it| &it.place),
        raw.oauth2.as_ref().map(|it| &it.place),
        raw.token_exchange.as_ref().map(|it| &it.place),
        raw.sigv4.as_ref().map(|it| &it.place),
    ];
    for other in places.into_iter().flatten().skip(1) {
        findings.mistake(
            other,
            "is the second kind of credential here: there can be one",
        );
    }
    if let Some(bearer) = raw.bearer.as_ref() {
        return bearer.settings(&bearer.place, carrier, findings);
    }
    if let Some(basic) = raw.basic.as_ref() {
        return basic.settings(&basic.place, findings);
    }
    if let Some(header) = raw.header.as_ref() {
        return header.settings(&header.place, findings);
    }
    if let Some(identity) = raw.identity.as_ref() {
        let settings = identity.settings(&identity.place, findings);
        return settings.map(settings::Auth::Identity);
    }
    if let Some(oauth2) = raw.oauth2.as_ref() {
        let settings = oauth2.settings(&oauth2.place, findings)?;
        return Some(settings::Auth::OAuth2(Box::new(settings)));
    }
    if let Some(sigv4) = raw.sigv4.as_ref() {
        let settings = sigv4.settings(&sigv4.place, findings);
        return settings.map(settings::Auth::SigV4);
    }
    if let Some(exchange) = raw.token_exchange.as_ref() {
        return exchange.settings(&exchange.place, carrier, findings);
    }
    let what = "must say what the credential is, as bearer or oauth2";
    findings.mistake_unless_inside(&raw.place, what);
    None
}

impl<'a> Carrier<'a> {
    /// That of an upstream, for what needs no Workload API.
    pub(super) fn of(upstream: &'a Upstream) -> Self {
        Self {
            claims: &upstream.claims,
            endpoints: &upstream.endpoints,
            protocol: upstream.protocol,
            tls: upstream.tls.as_deref(),
            workload_api: None,
        }
    }

    /// Why a credential must not go there.
    pub(super) fn mistake(self) -> Option<&'static str> {
        if self.protocol == Protocol::Tcp {
            return Some("protocol tcp has no requests that could carry a credential");
        }
        let is_verified = self.tls.is_some_and(Tls::is_verified);
        match self.endpoints {
            Endpoints::Static(_) | Endpoints::Dns { .. } if is_verified => None,
            Endpoints::Static(list) if is_loopback(list) => None,
            Endpoints::Static(_) | Endpoints::Dns { .. } => Some(
                "needs tls with verify: full, or endpoints on loopback: the credential would go \
                 to whoever answers there, or listens on the way",
            ),
            Endpoints::Original if is_verified && self.is_named() => None,
            Endpoints::Original => Some(
                "needs endpoints or dns, or tls with verify: full and an sni or hosts that are \
                 names: a forged host would have the credential sent anywhere",
            ),
        }
    }

    /// A JWT-SVID for an audience.
    fn jwt_svid(
        self,
        audience: String,
        place: &Place,
        findings: &mut Findings,
    ) -> Option<SvidAudience> {
        let Some(endpoint) = self.workload_api.cloned() else {
            findings.mistake(place, "needs identity.spiffe, which gives JWT-SVIDs");
            return None;
        };
        Some(SvidAudience { endpoint, audience })
    }

    /// Whether the name that is verified is one of the file, not of the program.
    fn is_named(self) -> bool {
        let is_name = |claim: &Claim| matches!(claim, Claim::Name { .. } | Claim::Wildcard { .. });
        let is_set = self.tls.is_some_and(is_one_server);
        is_set || !self.claims.is_empty() && self.claims.iter().all(is_name)
    }
}

/// Whether nobody else can answer there. A name may resolve to anything, localhost
/// too.
fn is_loopback(list: &[Endpoint]) -> bool {
    let mut endpoints = list.iter();
    endpoints.all(|endpoint| endpoint.address.0.ip().to_canonical().is_loopback())
}

/// Whether a route without a host would have the credential of an upstream sent to
/// whoever a program names.
pub(super) fn goes_where_a_host_says(upstream: &Upstream) -> bool {
    let tls = upstream.tls.as_deref();
    upstream.has_secrets()
        && upstream.endpoints == Endpoints::Original
        && !tls.is_some_and(is_one_server)
}

/// Whether the file says whom the server is to be, whatever a program asks for.
fn is_one_server(tls: &Tls) -> bool {
    tls.sni != Sni::Auto || matches!(tls.verify, Verify::Spiffe(_))
}

impl Bearer {
    fn settings(
        &self,
        place: &Place,
        carrier: Carrier<'_>,
        findings: &mut Findings,
    ) -> Option<settings::Auth> {
        if let Some(audience) = self.spiffe.as_ref() {
            let others = [
                self.file.as_ref().map(|it| &it.place),
                self.exec.as_ref().map(|it| &it.place),
                self.ttl.as_ref().map(|it| &it.place),
            ];
            for other in others.into_iter().flatten() {
                findings.mistake(other, "must not be there with spiffe");
            }
            let audience = audience.value.0.clone();
            let wanted = carrier.jwt_svid(audience, place, findings)?;
            return Some(settings::Auth::Bearer(TokenSource::Spiffe(wanted)));
        }
        let Some(exec) = self.exec.as_ref() else {
            if let Some(ttl) = self.ttl.as_ref() {
                findings.mistake_at(ttl, "is that of exec: a file says itself when it changes");
            }
            let what = "must have a file, exec or spiffe";
            let file = self.file.as_ref().map(|file| file.value.0.clone());
            if file.is_none() {
                findings.mistake_unless_inside(place, what);
            }
            return Some(settings::Auth::Bearer(TokenSource::File(file?)));
        };
        if self.file.as_ref().is_some() {
            findings.mistake(&exec.place, "a token has file or exec, not both");
        }
        let words = exec.value.iter().map(|word| word.value.0.clone());
        let words: Vec<String> = words.collect();
        if words.first().is_none_or(String::is_empty) || words.iter().any(|it| it.contains('\0')) {
            findings.mistake(&exec.place, "must be a program and its arguments");
        }
        let ttl = self.ttl.as_ref().map(|ttl| ttl.value.meaning());
        let ttl = ttl.unwrap_or(COMMAND_TTL);
        Some(settings::Auth::Bearer(TokenSource::Command { words, ttl }))
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
pub(super) fn secret(
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
fn file(file: &Field<FilePath>, place: &Place, findings: &mut Findings) -> Option<PathBuf> {
    let path = file.as_ref().map(|file| file.value.0.clone());
    if path.is_none() {
        findings.mistake_unless_inside(place, "must have a file");
    }
    path
}

/// As the file would write it: where secrets are, and none of them.
pub(super) fn shown(auth: &settings::Auth) -> Json {
    let file = auth.files().first().map(|file| file.display().to_string());
    let file = json!({ "file": file });
    let shown = match auth {
        settings::Auth::Bearer(TokenSource::File(_)) => file,
        settings::Auth::Bearer(TokenSource::Command { words, ttl }) => {
            // Arguments may hold a secret.
            let shown = words.iter().enumerate();
            let shown = shown.map(|(at, word)| if at == 0 { word } else { secrets::MASK });
            let ttl = Time::text(*ttl);
            json!({ "exec": shown.collect::<Vec<_>>(), "ttl": ttl })
        }
        settings::Auth::Bearer(TokenSource::Spiffe(wanted)) => {
            json!({ "spiffe": wanted.audience })
        }
        settings::Auth::Basic { user, .. } => json!({ "user": user, "password": file }),
        settings::Auth::Header { name, .. } => json!({ "name": name, "value": file }),
        settings::Auth::Identity(settings) => identity::shown(settings),
        settings::Auth::SigV4(settings) => sigv4::shown(settings),
        settings::Auth::OAuth2(settings) => oauth2::shown(settings),
        settings::Auth::TokenExchange(settings) => token_exchange::shown(settings),
        settings::Auth::Placeholder { .. } => json!({ "value": file }),
    };
    json!({ auth.kind(): shown })
}
