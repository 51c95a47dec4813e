//! `auth.oauth2`: a token that a client gets for itself.

use serde_json::{Value as Json, json};

use super::server::{ServerTls, required, scopes, server, shown_tls};
use super::{SecretFile, file, secret};
use crate::config::findings::Findings;
use crate::config::read::{Place, Spanned, object};
use crate::config::values::{FilePath, Text, Url, choice};
use crate::credential::settings::servers::{ClientAuth, ClientCredentials, ClientKey};

object! {
    /// A bearer token of an OAuth 2.0 server, by the client credentials grant (RFC 6749
    /// section 4.4). It is got again before it ends.
    #[schemars(extend("required" = ["token_url", "client_id"]))]
    OAuth2 {
        /// The URL of the token endpoint: `https`, or `http` on loopback. Required.
        token_url: Url,
        /// Who asks. Required.
        client_id: Text,
        /// How the client shows who it is. Absent: `secret_basic` with `client_secret`,
        /// `private_key_jwt` with `private_key`, else `mtls`.
        client_auth: ClientAuthKind,
        /// The secret of the client, for `secret_post` and `secret_basic`.
        client_secret: SecretFile,
        /// The key of the client, for `private_key_jwt`.
        private_key: PrivateKey,
        /// What the token is to allow.
        scopes: Vec<Spanned<Text>>,
        /// Who is to accept the token, where the server wants to be told.
        audience: Text,
        /// How the connection to the server is encrypted.
        tls: ServerTls,
    }
}

object! {
    /// A key that signs who the client is (RFC 7523).
    #[schemars(extend("required" = ["file"]))]
    PrivateKey {
        /// A file with the key in PEM: Ed25519, EC P-256, or RSA of 2048 bits or more. It
        /// is read again when it changes. Required.
        file: FilePath,
        /// What the server calls the key (`kid`). Absent: its thumbprint (RFC 7638).
        id: Text,
    }
}

choice! {
    /// How a client shows who it is.
    ClientAuthKind: &'static str {
        /// The secret in the form.
        SecretPost = "secret_post" => "secret_post",
        /// The secret in `Authorization: Basic`.
        SecretBasic = "secret_basic" => "secret_basic",
        /// A token that the client signs.
        PrivateKeyJwt = "private_key_jwt" => "private_key_jwt",
        /// The client certificate in `tls`.
        Mtls = "mtls" => "mtls",
    }
}

impl OAuth2 {
    pub(super) fn settings(
        &self,
        place: &Place,
        findings: &mut Findings,
    ) -> Option<ClientCredentials> {
        let client_id = required(&self.client_id, place, "must have a client_id", findings);
        let client_auth = self.client_auth(place, findings);
        let scopes = scopes(&self.scopes, findings);
        let Some(url) = self.token_url.as_ref() else {
            findings.mistake_unless_inside(place, "must have a token_url");
            return None;
        };
        let server = server(url.value.0.clone(), &self.tls, findings);
        if client_auth == Some(ClientAuth::Mtls) && server.certificate.is_none() {
            findings.mistake_unless_inside(
                place,
                "must have client_secret, private_key, or tls with cert and key",
            );
        }
        Some(ClientCredentials {
            server,
            client_id: client_id?,
            client_auth: client_auth?,
            scopes,
            audience: super::server::optional(&self.audience),
        })
    }

    fn client_auth(&self, place: &Place, findings: &mut Findings) -> Option<ClientAuth> {
        let own = self.client_auth.as_ref().map(|kind| kind.value);
        let kind = own.unwrap_or(
            match (self.client_secret.as_ref(), self.private_key.as_ref()) {
                (Some(_), _) => ClientAuthKind::SecretBasic,
                (None, Some(_)) => ClientAuthKind::PrivateKeyJwt,
                (None, None) => ClientAuthKind::Mtls,
            },
        );
        let needs_secret = matches!(
            kind,
            ClientAuthKind::SecretPost | ClientAuthKind::SecretBasic
        );
        if let Some(unused) = self.client_secret.as_ref().filter(|_| !needs_secret) {
            findings.mistake(&unused.place, "does nothing with this client_auth");
        }
        let needs_key = matches!(kind, ClientAuthKind::PrivateKeyJwt);
        if let Some(unused) = self.private_key.as_ref().filter(|_| !needs_key) {
            findings.mistake(&unused.place, "does nothing with this client_auth");
        }
        let mut the_secret = || {
            secret(
                &self.client_secret,
                place,
                "must have a client_secret",
                findings,
            )
        };
        match kind {
            ClientAuthKind::SecretPost => the_secret().map(ClientAuth::SecretPost),
            ClientAuthKind::SecretBasic => the_secret().map(ClientAuth::SecretBasic),
            ClientAuthKind::PrivateKeyJwt => {
                let Some(key) = self.private_key.as_ref() else {
                    findings.mistake_unless_inside(place, "must have a private_key");
                    return None;
                };
                Some(ClientAuth::PrivateKeyJwt(ClientKey {
                    file: file(&key.file, &key.place, findings)?,
                    id: super::server::optional(&key.id),
                }))
            }
            ClientAuthKind::Mtls => Some(ClientAuth::Mtls),
        }
    }
}

/// As the file would write it.
pub(super) fn shown(settings: &ClientCredentials) -> Json {
    let mut shown = json!({
        "token_url": settings.server.url.to_string(),
        "client_id": settings.client_id,
    });
    let file = settings
        .client_auth
        .file()
        .map(|file| file.display().to_string());
    let kind = match &settings.client_auth {
        ClientAuth::SecretPost(_) => "secret_post",
        ClientAuth::SecretBasic(_) => "secret_basic",
        ClientAuth::PrivateKeyJwt(key) => {
            shown["private_key"] = json!({ "file": file });
            if let Some(id) = &key.id {
                shown["private_key"]["id"] = id.as_str().into();
            }
            "private_key_jwt"
        }
        ClientAuth::Mtls => "mtls",
    };
    shown["client_auth"] = kind.into();
    if kind.starts_with("secret") {
        shown["client_secret"] = json!({ "file": file });
    }
    if !settings.scopes.is_empty() {
        shown["scopes"] = json!(settings.scopes);
    }
    if let Some(audience) = &settings.audience {
        shown["audience"] = audience.as_str().into();
    }
    if let Some(tls) = shown_tls(&settings.server) {
        shown["tls"] = tls;
    }
    shown
}
