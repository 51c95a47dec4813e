//! `listeners[].tls`: the certificate of a listener, and what is asked of clients.

use crate::config::policies::MinVersion;
use crate::config::read::Place;
use crate::config::setting::{Layer, Value, settings};
use crate::config::values::{CertFile, ClientId, Distinct, FilePath, OrOff, choice};
use crate::route::tls::{self, CertificateSource};

/// What the file says.
#[derive(Debug, Clone, Default)]
pub(in crate::config) struct Written {
    settings: tls::ListenerTls,
    /// `None`: it follows from `client_ca`.
    client_auth: Option<tls::ClientAuth>,
}

settings! {
    /// The certificate of a listener, and what is asked of clients.
    #[schemars(extend("required" = ["cert"]))]
    ListenerTls for Written as tls, checked by is_whole {
        /// A file with the certificate and those between it and a root, in PEM; or
        /// `identity`. Required. A changed one is taken within 2 s, for new connections.
        cert: CertFile = tls.settings.cert,
        /// A file with its key, in PEM. Required where `cert` is a file.
        key: FilePath = tls.settings.key,
        /// Who vouches for clients: a file with the authorities that may have signed their
        /// certificates, in PEM; or `identity`: the bundles that came with `identity`, each
        /// for the X.509-SVIDs of its own trust domain, and the certificates that they have
        /// revoked. Where `cert` is `identity` and clients are asked, so is this one, unless
        /// it is said.
        client_ca: CertFile = tls.settings.client_ca,
        /// Whether clients show a certificate. Default: `required` where there is a
        /// `client_ca` or `clients`, else `off`.
        client_auth: ClientAuth = tls.client_auth,
        /// The SPIFFE IDs that the certificates of clients may have: `spiffe://td/path`:
        /// exactly this one; `spiffe://td/path/*`: those below it; `spiffe://td`: those of
        /// the trust domain. Absent: every client that somebody vouches for is let in.
        clients: Distinct<ClientId> = tls.settings.clients,
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
    let settings = &mut tls.settings;
    match (&settings.cert, raw.key.as_ref()) {
        (None, _) => layer.mistake_unless_inside(place, "must have a cert"),
        (Some(CertificateSource::File(_)), None) => {
            layer.mistake_unless_inside(place, "must have a key");
        }
        (Some(CertificateSource::Identity), Some(key)) => {
            let what = "must not be there with cert: identity";
            layer.findings.mistake_at(key, what);
        }
        (Some(_), _) => {}
    }
    let client_auth = raw.client_auth.as_ref();
    let asks = match tls.client_auth {
        Some(said) => said != tls::ClientAuth::Off,
        None => settings.client_ca.is_some() || raw.clients.as_ref().is_some(),
    };
    if !asks {
        let what = |key| format!("clients are not asked for a certificate, so {key} does nothing");
        if let Some(client_ca) = raw.client_ca.as_ref() {
            layer.findings.mistake_at(client_ca, what("client_ca"));
        }
        if let Some(clients) = raw.clients.as_ref() {
            layer.findings.mistake_at(clients, what("clients"));
        }
        if let Some(crl) = raw.crl.as_ref().filter(|crl| crl.value.0.is_some()) {
            layer.findings.mistake_at(crl, what("crl"));
        }
        return;
    }
    if let Some(clients) = raw
        .clients
        .as_ref()
        .filter(|clients| clients.value.0.is_empty())
    {
        let what = "names nobody; leave it out to let in whoever is vouched for";
        layer.findings.mistake_at(clients, what);
    }
    if settings.client_ca.is_none() && settings.cert == Some(CertificateSource::Identity) {
        settings.client_ca = Some(CertificateSource::Identity);
    }
    if settings.client_ca.is_none() {
        let what = "needs a client_ca";
        match (client_auth, raw.clients.as_ref()) {
            (Some(client_auth), _) => layer.findings.mistake_at(client_auth, what),
            (None, Some(clients)) => layer.findings.mistake_at(clients, what),
            (None, None) => {}
        }
    }
}
