//! The URL of a server that gives credentials. Secrets are sent there, so it is
//! `https`, or a server of this machine.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::addr::Authority;

/// A URL in parts.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrl {
    scheme: Scheme,
    authority: Authority,
    /// Path and query.
    target: String,
}

/// What the bytes are sent over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// TLS.
    Https,
    /// Plain text.
    Http,
}

/// Why a text is no such URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlError {
    /// It begins neither with `https://` nor with `http://`.
    Scheme,
    /// Plain text to another machine.
    PlainText,
    /// A user, with or without a password.
    User,
    /// The host or the port.
    Authority,
    /// A character that no URL holds, or a fragment.
    Character,
}

/// Where programs of AWS get credentials: from ECS, and from EKS over both versions of
/// IP. An agent on this machine answers at these link-local addresses.
const AWS_AGENTS: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
];

/// Whether what goes to this address stays on this machine.
pub(crate) fn is_on_this_machine(address: IpAddr) -> bool {
    let address = address.to_canonical();
    address.is_loopback() || AWS_AGENTS.contains(&address)
}

impl ServerUrl {
    /// Reads a URL without a fragment and without a user.
    ///
    /// # Errors
    /// See [`UrlError`].
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
            _ => return Err(UrlError::Scheme),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        if authority.contains('@') {
            return Err(UrlError::User);
        }
        let authority = Authority::parse(authority.as_bytes()).map_err(|_| UrlError::Authority)?;
        // RFC 3986 section 2: what is left has to be written as %XX.
        let is_known = |b: u8| b.is_ascii_graphic() && !b"\"#<>\\^`{|}".contains(&b);
        if !target.bytes().all(is_known) {
            return Err(UrlError::Character);
        }
        let url = Self {
            scheme,
            authority,
            target: match target.starts_with('/') {
                true => target.to_owned(),
                false => format!("/{target}"),
            },
        };
        match scheme == Scheme::Https || url.names_this_machine() {
            true => Ok(url),
            false => Err(UrlError::PlainText),
        }
    }

    /// What the bytes are sent over.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host, lower case, an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        self.authority.host()
    }

    /// The port, that of the scheme where none is named.
    pub fn port(&self) -> u16 {
        self.authority.port().unwrap_or(match self.scheme {
            Scheme::Https => 443,
            Scheme::Http => 80,
        })
    }

    /// Host and port as a `Host` field has them.
    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Path and query.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// By its name; that the name leads there is seen when it is resolved.
    fn names_this_machine(&self) -> bool {
        match self.authority.ip() {
            Some(address) => is_on_this_machine(address),
            None => self.host() == "localhost",
        }
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Https => "https",
            Scheme::Http => "http",
        };
        write!(f, "{scheme}://{}{}", self.authority, self.target)
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "must begin with https://",
            Self::PlainText => {
                "must begin with https://: plain http would show secrets to who listens, unless \
                 the server is on loopback"
            }
            Self::User => "must not hold a user or a password",
            Self::Authority => "must have a host, and a port from 1 to 65535 where it has one",
            Self::Character => "holds a character that no URL has: write it as %XX",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_parts() {
        let cases = [
            ("https://login.example", "login.example", 443, "/"),
            (
                "HTTPS://Login.Example:8443/a/b?c=d&e=%20",
                "login.example",
                8443,
                "/a/b?c=d&e=%20",
            ),
            ("https://[2001:db8::1]/t", "2001:db8::1", 443, "/t"),
            ("https://login.example?x=1", "login.example", 443, "/?x=1"),
            ("http://127.0.0.1/x", "127.0.0.1", 80, "/x"),
            ("http://[::1]:8080/x", "::1", 8080, "/x"),
            ("http://localhost/x", "localhost", 80, "/x"),
            (
                "http://169.254.170.2/v2/credentials",
                "169.254.170.2",
                80,
                "/v2/credentials",
            ),
            (
                "http://[fd00:ec2::23]/v1/credentials",
                "fd00:ec2::23",
                80,
                "/v1/credentials",
            ),
        ];
        for (text, host, port, target) in cases {
            let url = ServerUrl::parse(text).expect(text);
            assert_eq!(
                (url.host(), url.port(), url.target()),
                (host, port, target),
                "{text}"
            );
        }
        let url = ServerUrl::parse("https://[::1]:8443/a").unwrap();
        assert_eq!(url.to_string(), "https://[::1]:8443/a");
    }

    #[test]
    fn another_url_is_none() {
        let cases = [
            ("", UrlError::Scheme),
            ("login.example/token", UrlError::Scheme),
            ("ftp://login.example", UrlError::Scheme),
            ("http://login.example/token", UrlError::PlainText),
            ("http://10.0.0.1/token", UrlError::PlainText),
            ("http://169.254.169.254/", UrlError::PlainText),
            ("http://localhost.example/", UrlError::PlainText),
            ("https://user:hunter2@login.example/", UrlError::User),
            ("https:///token", UrlError::Authority),
            ("https://login.example:0/", UrlError::Authority),
            ("https://login.example:x/", UrlError::Authority),
            ("https://login.example/a b", UrlError::Character),
            ("https://login.example/a\r\nx: y", UrlError::Character),
            ("https://login.example/ü", UrlError::Character),
            ("https://login.example/#top", UrlError::Character),
        ];
        for (text, expected) in cases {
            assert_eq!(ServerUrl::parse(text), Err(expected), "{text}");
        }
    }
}
