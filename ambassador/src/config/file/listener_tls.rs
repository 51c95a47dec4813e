//! `listeners[].tls`: the certificate of a listener, and what is asked of clients.

use crate::config::policies::MinVersion;
use crate::config::read::Place;
use crate::config::setting::{Layer, Value, settings};
use crate::config::values::{FilePath, OrOff, choice};
use crate::route::tls;

/// What the file says.
#[derive(Debug, Clone, Default)]
pub(in crate::config) struct Written {
    settings: tls::ListenerTls,
    /// `None`: it follows from `client_ca`.
    client_auth: Option<tls::ClientAuth>,
}

settings! {
    /// The certificate of a listener, and what is asked of clients.
    #[schemars(extend("required" = ["cert", "key"]))]
    ListenerTls for Written as tls, checked by is_whole {
        /// A file with the certificate and those between it and a root, in PEM. Required.
        /// A changed file is taken within 2 s, for new connections.
        cert: FilePath = tls.settings.cert,
        /// A file with its key, in PEM. Required.
        key: FilePath = tls.settings.key,
        /// A file with the authorities that may have signed the certificates of clients,
        /// in PEM.
        client_ca: FilePath = tls.settings.client_ca,
        /// Whether clients show a certificate. Default: `required` where there is a
        /// `client_ca`, else `off`.
        client_auth: ClientAuth = tls.client_auth,
        /// What requests tell of the certificate of their client.
        forward_client_cert: ForwardClientCert = tls.settings.forward_client_cert,
        /// A file with lists of revoked certificates, in PEM. With it, a certificate is
        /// refused whose issuer has no valid list there.
        crl: OrOff<FilePath> = tls.settings.crl,
        /// The oldest version that is spoken.
        min_version: MinVersion = tls.settings.min_version,
    }
}

choice! {
    /// Whether clients show a certificate.
    ClientAuth: tls::ClientAuth {
        /// They are not asked for one.
        Off = "off" => tls::ClientAuth::Off,
        /// They may. One that is not good ends the handshake.
        Optional = "optional" => tls::ClientAuth::Optional,
        /// They must.
        Required = "required" => tls::ClientAuth::Required,
    }
}

impl Value<Option<tls::ClientAuth>> for ClientAuth {
    fn meaning(&self) -> Option<tls::ClientAuth> {
        Some(self.meaning())
    }

    fn written(meaning: &Option<tls::ClientAuth>) -> Option<serde_json::Value> {
        <Self as Value<tls::ClientAuth>>::written(meaning.as_ref()?)
    }
}

choice! {
    /// What requests tell of the certificate of their client.
    ForwardClientCert: tls::ForwardClientCert {
        /// Nothing. A header of theirs passes.
        Off = "off" => tls::ForwardClientCert::Off,
        /// `x-forwarded-client-cert` has its hash and its URIs. A header of theirs is
        /// removed.
        SanitizeSet = "sanitize_set" => tls::ForwardClientCert::SanitizeSet,
    }
}

impl Written {
    pub(super) fn settings(self) -> tls::ListenerTls {
        let by_ca = match self.settings.client_ca {
            Some(_) => tls::ClientAuth::Required,
            None => tls::ClientAuth::Off,
        };
        tls::ListenerTls {
            client_auth: self.client_auth.unwrap_or(by_ca),
            ..self.settings
        }
    }
}

impl From<&tls::ListenerTls> for Written {
    fn from(settings: &tls::ListenerTls) -> Self {
        Self {
            settings: settings.clone(),
            client_auth: Some(settings.client_auth),
        }
    }
}

fn is_whole(raw: &ListenerTls, place: &Place, tls: &mut Written, layer: &mut Layer<'_>) {
    for (name, value) in [("cert", &raw.cert), ("key", &raw.key)] {
        if value.as_ref().is_none() {
            layer.mistake_unless_inside(place, &format!("must have a {name}"));
        }
    }
    let asks = tls.client_auth.unwrap_or_default() != tls::ClientAuth::Off;
    let client_auth = raw.client_auth.as_ref();
    match (asks, &tls.settings.client_ca, client_auth) {
        (true, None, Some(client_auth)) => {
            layer.findings.mistake_at(client_auth, "needs a client_ca");
        }
        (false, Some(_), Some(client_auth)) => {
            let what = "clients are not asked, so client_ca does nothing";
            layer.findings.mistake_at(client_auth, what);
        }
        _ => {}
    }
}
