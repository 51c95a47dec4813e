//! Authentication schemes that speak for a connection, not for a request: NTLM
//! and Negotiate (RFC 4559 section 6).

use crate::message::fields::{Fields, Kind};
use crate::message::{RequestHead, ResponseHead};

/// Who asks for the credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenger {
    /// The server: 401, `WWW-Authenticate`, `Authorization`.
    Server,
    /// A proxy on the way: 407, `Proxy-Authenticate`, `Proxy-Authorization`.
    Proxy,
}

/// Who offers such a scheme in a response.
pub fn offered(response: &ResponseHead, head: &[u8]) -> Option<Challenger> {
    let (challenger, kind) = match response.status() {
        401 => (Challenger::Server, Kind::Challenge),
        407 => (Challenger::Proxy, Kind::ProxyChallenge),
        _ => return None,
    };
    let offers = |value: &[u8]| challenges(value).any(is_of_the_connection);
    any(response.fields(), kind, head, offers).then_some(challenger)
}

/// For whom a request carries credentials of such a scheme.
pub fn presented(request: &RequestHead, head: &[u8]) -> Option<Challenger> {
    let fields = request.fields();
    let presents = |kind| any(fields, kind, head, is_of_the_connection);
    if presents(Kind::Credentials) {
        Some(Challenger::Server)
    } else {
        presents(Kind::ProxyCredentials).then_some(Challenger::Proxy)
    }
}

fn any(fields: &Fields, kind: Kind, head: &[u8], is_it: impl Fn(&[u8]) -> bool) -> bool {
    fields.has(kind)
        && fields
            .iter()
            .any(|field| field.kind == kind && is_it(field.value(head)))
}

/// Whether credentials, or an element of a list of challenges, begin with such a
/// scheme. A parameter of another challenge has an equals sign behind its name.
fn is_of_the_connection(element: &[u8]) -> bool {
    let element = element.trim_ascii();
    let end = element.iter().position(|byte| matches!(byte, b' ' | b'\t'));
    let (scheme, rest) = element.split_at(end.unwrap_or(element.len()));
    let is = |known: &[u8]| scheme.eq_ignore_ascii_case(known);
    (is(b"ntlm") || is(b"negotiate")) && !rest.trim_ascii().starts_with(b"=")
}

/// The elements of a list of challenges: each is a challenge with its first
/// parameter, or a further parameter (RFC 9110 section 11.6.1).
fn challenges(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    value.split(move |byte| {
        if escaped {
            escaped = false;
        } else {
            escaped = quoted && *byte == b'\\';
            quoted ^= *byte == b'"';
        }
        !quoted && *byte == b','
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::sample;

    fn of_response(status: u16, fields: &str) -> Option<Challenger> {
        let head = format!("HTTP/1.1 {status} x\r\n{fields}\r\nContent-Length: 0\r\n\r\n");
        offered(&sample::response(&head), head.as_bytes())
    }

    fn of_request(fields: &str) -> Option<Challenger> {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
        presented(&sample::request(&head), head.as_bytes())
    }

    #[test]
    fn an_offer_is_found_wherever_it_stands() {
        for offer in [
            "NTLM",
            "ntlm",
            "Negotiate",
            "NEGOTIATE oYG2MIGz==",
            "NTLM TlRMTVNTUAACAAAA",
            "Basic realm=\"x\", NTLM",
            "Basic realm=\"a, b\",Negotiate",
            "Digest realm=\"a\\\", b\", nonce=\"c\", Negotiate, NTLM",
            "Basic realm=\"x\"\r\nWWW-Authenticate: Negotiate",
        ] {
            let field = format!("Www-authenticate: {offer}");
            assert_eq!(
                of_response(401, &field),
                Some(Challenger::Server),
                "{offer}"
            );
        }
        let proxy = "Proxy-Authenticate: Basic realm=x\r\nproxy-authenticate:NTLM";
        assert_eq!(of_response(407, proxy), Some(Challenger::Proxy));
    }

    #[test]
    fn what_only_looks_like_an_offer_is_none() {
        for (status, field) in [
            (401, "WWW-Authenticate: Basic realm=\"x\""),
            (401, "WWW-Authenticate: Basic realm=\"a, NTLM\""),
            (401, "WWW-Authenticate: Basic realm=\"\\\", NTLM, \""),
            (401, "WWW-Authenticate: Custom ntlm=1, negotiate = 2"),
            (401, "WWW-Authenticate: NTLMv3"),
            (401, "X-Authenticate-Ts: NTLM"),
            (401, "Proxy-Authenticate: NTLM"),
            (407, "WWW-Authenticate: NTLM"),
            (200, "WWW-Authenticate: NTLM"),
        ] {
            assert_eq!(of_response(status, field), None, "{status} {field}");
        }
    }

    #[test]
    fn credentials_go_by_their_scheme() {
        for (field, challenger) in [
            ("Authorization: NTLM TlRM", Some(Challenger::Server)),
            ("authorization: negotiate YII=", Some(Challenger::Server)),
            (
                "Proxy-Authorization: Negotiate YII=",
                Some(Challenger::Proxy),
            ),
            ("Authorization: Basic bnRsbQ==", None),
            ("Authorization: Bearer NTLM", None),
            ("Proxy-Authorization: Basic eA==", None),
            ("X-Authorization: NTLM TlRM", None),
        ] {
            assert_eq!(of_request(field), challenger, "{field}");
        }
    }
}
