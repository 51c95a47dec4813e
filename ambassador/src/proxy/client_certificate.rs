//! TLS on a listener: the handshake, and the certificate that a client shows.

use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};

use crate::clock;
use crate::ring::timer;
use crate::route::tls::ForwardClientCert;
use crate::telemetry::TlsOutcome;
use crate::tls::{HandshakeError, Server, uris};
use crate::transport::Transport;

/// A connection whose client has agreed upon a TLS session.
pub(crate) struct Secured {
    /// The connection.
    pub stream: Transport,
    /// What its client has shown, or that nothing was.
    pub certificate: Rc<ClientCertificate>,
}

/// What is known of the client of a TLS connection by its certificate.
#[derive(Debug)]
pub(crate) struct ClientCertificate {
    /// Its first URI, such as a SPIFFE id; `None`: it has shown none.
    pub id: Option<String>,
    /// What becomes of `x-forwarded-client-cert`.
    pub forwarded: Forwarded,
}

/// What becomes of `x-forwarded-client-cert` in requests.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Forwarded {
    /// It passes as it came.
    Kept,
    /// It is removed.
    Removed,
    /// It is replaced by this.
    Replaced(String),
}

/// What the client of a TLS listener has shown, in the form of Envoy.
pub(crate) const X_FORWARDED_CLIENT_CERT: &str = "x-forwarded-client-cert";

/// Whether a field of this name can be taken for that by who reads it: CGI and WSGI take
/// `_` for `-` (RFC 3875 section 4.1.18).
pub(crate) fn reads_as_forwarded(name: &[u8]) -> bool {
    let known = X_FORWARDED_CLIENT_CERT.as_bytes();
    let as_read = |byte: &u8| match byte {
        b'_' => b'-',
        byte => byte.to_ascii_lowercase(),
    };
    name.len() == known.len() && name.iter().map(as_read).eq(known.iter().copied())
}

/// Agrees upon a session within a time, and counts how that went. `None`: the connection
/// has ended.
pub(crate) async fn secure(
    stream: Transport,
    server: Arc<Server>,
    within: Duration,
) -> Option<Secured> {
    let agreed = timer::timeout(within, agree(stream, &server, within / 2)).await;
    let (stream, own_id) = match agreed {
        Ok(Ok(agreed)) => agreed,
        Ok(Err(error)) => {
            note_failure(&server, &error);
            return None;
        }
        Err(_) => {
            server.handshakes.failed(TlsOutcome::Timeout);
            return None;
        }
    };
    if let Some(summary) = stream.tls() {
        server.handshakes.completed(&summary);
    }
    let shown = stream.peer_certificate();
    let uris = shown.as_ref().map(|shown| uris(shown)).unwrap_or_default();
    let forwarded = match (server.settings().forward_client_cert, &shown) {
        (ForwardClientCert::Off, _) => Forwarded::Kept,
        (ForwardClientCert::SanitizeSet, None) => Forwarded::Removed,
        (ForwardClientCert::SanitizeSet, Some(shown)) => {
            Forwarded::Replaced(element(own_id.as_deref(), shown, &uris))
        }
    };
    Some(Secured {
        stream,
        certificate: Rc::new(ClientCertificate {
            id: uris.into_iter().next(),
            forwarded,
        }),
    })
}

/// Agrees upon a session with what is in force when the client begins: one that is slow
/// to begin would be shown what has ended by then. Gives the first URI of what it was
/// shown too. A certificate that is valid is waited for within a time.
async fn agree(
    stream: Transport,
    server: &Server,
    valid_within: Duration,
) -> Result<(Transport, Option<String>), HandshakeError> {
    stream.readable().await;
    let in_force = server.lasting(valid_within).await;
    let in_force = in_force.ok_or_else(HandshakeError::no_identity)?;
    let stream = stream.accept_tls(Arc::clone(&in_force.config)).await?;
    Ok((stream, in_force.uri.clone()))
}

fn note_failure(server: &Server, error: &HandshakeError) {
    static TOLD: clock::OncePerSecond = clock::OncePerSecond::new();
    if TOLD.is_due() {
        tracing::info!(error = %error.source, "the TLS handshake of a client has failed");
    }
    server.handshakes.failed(error.outcome);
}

/// One certificate in the form of Envoy's header: by whom it was taken, its SHA-256, its
/// URIs.
pub fn element(own: Option<&str>, certificate: &[u8], uris: &[String]) -> String {
    let mut element = String::new();
    if let Some(own) = own {
        push(&mut element, "By", own);
    }
    let mut hash = String::new();
    for byte in digest(&SHA256, certificate).as_ref() {
        // Writing to a String cannot fail.
        let _ = write!(hash, "{byte:02x}");
    }
    push(&mut element, "Hash", &hash);
    uris.iter().for_each(|uri| push(&mut element, "URI", uri));
    element
}

/// Values with a separator are quoted; of what no header can hold nothing passes.
fn push(element: &mut String, key: &str, value: &str) {
    if !element.is_empty() {
        element.push(';');
    }
    element.push_str(key);
    element.push('=');
    let is_plain = value
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !b"\"\\,;=".contains(&byte));
    if is_plain {
        return element.push_str(value);
    }
    element.push('"');
    for c in value.chars().filter(|c| c.is_ascii_graphic() || *c == ' ') {
        if c == '"' || c == '\\' {
            element.push('\\');
        }
        element.push(c);
    }
    element.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_names_whom_it_was_shown_to_its_hash_and_its_uris() {
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let uris = [
            "spiffe://td/a".to_owned(),
            "urn:a;b=\"c\"\r\nx: y".to_owned(),
        ];
        assert_eq!(
            element(Some("spiffe://td/own"), b"abc", &uris),
            format!(
                "By=spiffe://td/own;Hash={hash};URI=spiffe://td/a;URI=\"urn:a;b=\\\"c\\\"x: y\""
            )
        );
        assert_eq!(element(None, b"abc", &[]), format!("Hash={hash}"));
    }
}
