//! What kinds of `auth` have in common: servers that are asked, and what signatures hold
//! for.

use serde_json::{Map, Value as Json};

use crate::config::findings::Findings;
use crate::config::read::{Field, Place, Spanned, object};
use crate::config::values::{FilePath, Text};
use crate::credential::server_url::ServerUrl;
use crate::credential::settings::servers::{ClientCertificate, TokenServer};
use crate::credential::sigv4::Scope;

object! {
    /// How the connection to the server is encrypted. Its certificate is always verified.
    ServerTls {
        /// A file with the authorities that may have signed the certificate of the server,
        /// in PEM. Absent: those that the system trusts.
        ca: FilePath,
        /// A file with a client certificate and those between it and a root, in PEM.
        cert: FilePath,
        /// The file with its key, in PEM.
        key: FilePath,
    }
}

/// The server at a URL.
pub(super) fn server(
    url: ServerUrl,
    tls: &Field<ServerTls>,
    findings: &mut Findings,
) -> TokenServer {
    let Some(tls) = tls.as_ref() else {
        return TokenServer {
            url,
            ca: None,
            certificate: None,
        };
    };
    let path = |field: &Field<FilePath>| Some(field.as_ref()?.value.0.clone());
    let (cert, key) = (path(&tls.cert), path(&tls.key));
    if cert.is_some() != key.is_some() {
        findings.mistake_unless_inside(&tls.place, "must have cert and key, or neither");
    }
    TokenServer {
        url,
        ca: path(&tls.ca),
        certificate: cert
            .zip(key)
            .map(|(cert, key)| ClientCertificate { cert, key }),
    }
}

/// `tls` as the file would write it.
pub(super) fn shown_tls(server: &TokenServer) -> Option<Json> {
    let mut tls = Map::new();
    if let Some(ca) = &server.ca {
        tls.insert("ca".into(), ca.display().to_string().into());
    }
    if let Some(ClientCertificate { cert, key }) = &server.certificate {
        tls.insert("cert".into(), cert.display().to_string().into());
        tls.insert("key".into(), key.display().to_string().into());
    }
    (!tls.is_empty()).then(|| tls.into())
}

/// What the signatures hold for.
pub(super) fn scope(
    service: &Field<Text>,
    region: &Field<Text>,
    place: &Place,
    findings: &mut Findings,
) -> Option<Scope> {
    for name in [service, region].into_iter().filter_map(|it| it.as_ref()) {
        let mut bytes = name.value.0.bytes();
        if !bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            findings.mistake_at(name, "has small letters, digits and hyphens alone");
        }
    }
    let service = required(service, place, "must have a service", findings);
    let region = required(region, place, "must have a region", findings);
    Some(Scope {
        service: service?,
        region: region?,
    })
}

/// A text that has to be there.
pub(super) fn required(
    text: &Field<Text>,
    place: &Place,
    what: &str,
    findings: &mut Findings,
) -> Option<String> {
    let text = optional(text);
    if text.is_none() {
        findings.mistake_unless_inside(place, what);
    }
    text
}

/// A text, unless it is empty.
pub(super) fn optional(text: &Field<Text>) -> Option<String> {
    let text = text.as_ref().map(|text| text.value.0.clone());
    text.filter(|text| !text.is_empty())
}

/// The scopes of a list.
pub(super) fn scopes(list: &Field<Vec<Spanned<Text>>>, findings: &mut Findings) -> Vec<String> {
    // RFC 6749 section 3.3.
    let is_scope = |b: u8| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    for scope in list.items() {
        let text = &scope.value.0;
        if text.is_empty() || !text.bytes().all(is_scope) {
            findings.mistake_at(scope, "a scope is one word");
        }
    }
    list.items()
        .iter()
        .map(|scope| scope.value.0.clone())
        .collect()
}
