//! The roles an address can play. Two roles never share a bare `SocketAddr`,
//! so that an original destination cannot be dialled by mistake for an endpoint.

mod peer;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use smallvec::SmallVec;

pub use peer::Peer;

/// Where an application meant to go before its connect() was captured.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OriginalDst(pub SocketAddr);

/// An address as an authority: with room for each of IPv4, those of IPv6 that are longer
/// are on the heap.
pub(crate) type AuthorityText = SmallVec<[u8; "255.255.255.255:65535".len()]>;

/// Where the proxy dials: one instance of an upstream.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointAddr(pub SocketAddr);

/// What a listener binds to.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum BindAddr {
    /// A TCP address; port 0 lets the kernel choose.
    Tcp(SocketAddr),
    /// A unix stream socket, made with mode 0600.
    Unix(PathBuf),
}

impl BindAddr {
    /// Whether only this machine can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

/// The host and optional port that a request names (RFC 9110 section 7.2).
/// The host is kept in lower case, an IPv6 literal without its brackets.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Authority {
    host: String,
    port: Option<u16>,
}

/// Why a text is not an [`Authority`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthorityError {
    /// The text or its host part is empty, or over 255 bytes.
    Length,
    /// A byte that no host name or address literal can hold.
    Character,
    /// What follows the colon is not a port from 1 to 65535.
    Port,
}

impl Authority {
    /// An authority from parts that are already known to be sound.
    pub fn new(host: &str, port: Option<u16>) -> Result<Self, AuthorityError> {
        Self::with_buffer(host, port, String::new())
    }

    /// Reads `host`, `host:port`, `[v6]` or `[v6]:port`.
    pub fn parse(text: &[u8]) -> Result<Self, AuthorityError> {
        Self::read(text, String::new())
    }

    /// The same, in place of one that was read before. Callers ask for few hosts
    /// again and again: the same one is not read twice.
    #[inline(always)]
    pub fn parse_again(text: &[u8], before: Option<Self>) -> Result<Self, AuthorityError> {
        let Some(before) = before else {
            return Self::parse(text);
        };
        let port = match text.strip_prefix(before.host.as_bytes()) {
            // One with a colon in it would stand in brackets.
            _ if before.host.as_bytes().contains(&b':') => return Self::read(text, before.host),
            Some([]) => None,
            Some([b':', port @ ..]) => read_port(port)?,
            Some(_) | None => return Self::read(text, before.host),
        };
        Ok(Self { port, ..before })
    }

    /// Whether this can be read as one; the port, where it names one.
    pub(crate) fn check(text: &[u8]) -> Result<Option<u16>, AuthorityError> {
        let (host, port) = split(text)?;
        check_host(host)?;
        Ok(port)
    }

    /// The host is kept in `buffer`, in place of what is in there.
    fn read(text: &[u8], buffer: String) -> Result<Self, AuthorityError> {
        let (host, port) = split(text)?;
        let host = str::from_utf8(host).map_err(|_| AuthorityError::Character)?;
        Self::with_buffer(host, port, buffer)
    }

    fn with_buffer(
        host: &str,
        port: Option<u16>,
        mut buffer: String,
    ) -> Result<Self, AuthorityError> {
        buffer.clear();
        buffer.push_str(host);
        buffer.make_ascii_lowercase();
        check_host(buffer.as_bytes())?;
        Ok(Self { host: buffer, port })
    }

    /// The host, lower case, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, where one was named.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The host as an address, where it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        // Most are names, and that is seen sooner than a parser sees it.
        let host = self.host.as_bytes();
        let may_be_one = host.last().is_some_and(u8::is_ascii_digit) || host.contains(&b':');
        may_be_one.then(|| self.host.parse().ok()).flatten()
    }
}

/// Host, without brackets, and port of a text.
fn split(text: &[u8]) -> Result<(&[u8], Option<u16>), AuthorityError> {
    let (host, behind) = match text {
        [b'[', rest @ ..] => {
            let end = rest.iter().position(|byte| *byte == b']');
            let end = end.ok_or(AuthorityError::Character)?;
            check_literal(&rest[..end])?;
            (&rest[..end], &rest[end + 1..])
        }
        _ => {
            let colon = text.iter().position(|byte| *byte == b':');
            text.split_at(colon.unwrap_or(text.len()))
        }
    };
    match behind {
        [] => Ok((host, None)),
        [b':', port @ ..] => Ok((host, read_port(port)?)),
        _ => Err(AuthorityError::Port),
    }
}

/// The port behind a colon, where there is one: RFC 3986 section 3.2.3 allows "host:".
fn read_port(digits: &[u8]) -> Result<Option<u16>, AuthorityError> {
    if digits.is_empty() {
        return Ok(None);
    }
    let port = digits.iter().try_fold(0_u16, |port, digit| {
        let digit = digit.wrapping_sub(b'0');
        let port = port.checked_mul(10)?.checked_add(digit.into())?;
        (digit < 10).then_some(port)
    });
    match port {
        None | Some(0) => Err(AuthorityError::Port),
        port => Ok(port),
    }
}

fn check_host(host: &[u8]) -> Result<(), AuthorityError> {
    if host.is_empty() || host.len() > 255 {
        return Err(AuthorityError::Length);
    }
    if !host.iter().all(|byte| IN_HOST[usize::from(*byte)]) {
        return Err(AuthorityError::Character);
    }
    match host.contains(&b':') {
        true => check_literal(host),
        false => Ok(()),
    }
}

/// An address of IPv6 without its brackets.
fn check_literal(literal: &[u8]) -> Result<(), AuthorityError> {
    let literal = str::from_utf8(literal).ok();
    let address = literal.and_then(|literal| literal.parse::<Ipv6Addr>().ok());
    address.map(drop).ok_or(AuthorityError::Character)
}

/// The bytes that a name or an address may have: every request brings one.
static IN_HOST: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        let mark = matches!(byte as u8, b'-' | b'.' | b'_' | b'~' | b':' | b'%');
        table[byte] = mark || (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    table
};

impl FromStr for Authority {
    type Err = AuthorityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text.as_bytes())
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for AuthorityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Length => "a host has 1 to 255 bytes",
            Self::Character => "not a host name or address",
            Self::Port => "a port is a number from 1 to 65535",
        })
    }
}

impl std::error::Error for AuthorityError {}

impl OriginalDst {
    /// The address with a v4-mapped one written as v4, so that rules and
    /// tables need not know which kind of socket the application used.
    pub fn canonical(self) -> Self {
        let ip = self.0.ip().to_canonical();
        Self(SocketAddr::new(ip, self.0.port()))
    }
}

impl EndpointAddr {
    /// Names it as an authority. A request may be sent to it by that name.
    pub(crate) fn authority(self) -> AuthorityText {
        let SocketAddr::V4(address) = self.0 else {
            return AuthorityText::from_slice(self.to_string().as_bytes());
        };
        // From its end to its front, as that is how digits are found; a mark before each
        // number.
        let mut text = [0; ".255.255.255.255:65535".len()];
        let mut start = text.len();
        let mut put = |byte| {
            start -= 1;
            text[start] = byte;
        };
        let mut put_number = |mark, mut number: u16| {
            while number > 9 {
                put(b'0' + (number % 10) as u8);
                number /= 10;
            }
            put(b'0' + number as u8);
            put(mark);
        };
        put_number(b':', address.port());
        for octet in address.ip().octets().into_iter().rev() {
            put_number(b'.', octet.into());
        }
        AuthorityText::from_slice(&text[start + 1..])
    }
}

impl fmt::Display for BindAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => write!(f, "{addr}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

macro_rules! shown_as_inner {
    ($($role:ident),*) => {$(
        impl fmt::Display for $role {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl fmt::Debug for $role {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
shown_as_inner!(OriginalDst, EndpointAddr);

macro_rules! debug_as_display {
    ($($role:ident),*) => {$(
        impl fmt::Debug for $role {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}
debug_as_display!(Authority, BindAddr);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_read_as_rfc_3986_writes_them() {
        let shown = |text: &str| Authority::parse(text.as_bytes()).map(|a| a.to_string());
        assert_eq!(shown("API.Example").unwrap(), "api.example");
        assert_eq!(shown("api.example:8443").unwrap(), "api.example:8443");
        assert_eq!(shown("api.example:").unwrap(), "api.example");
        assert_eq!(shown("[2001:DB8::1]:80").unwrap(), "[2001:db8::1]:80");
        assert_eq!(shown("10.1.2.3").unwrap(), "10.1.2.3");
    }

    #[test]
    fn what_is_no_authority_is_refused() {
        for (text, error) in [
            ("", AuthorityError::Length),
            ("a b", AuthorityError::Character),
            ("user@host", AuthorityError::Character),
            ("host/path", AuthorityError::Character),
            ("[::1", AuthorityError::Character),
            ("[nope]", AuthorityError::Character),
            ("host:0", AuthorityError::Port),
            ("host:65536", AuthorityError::Port),
            ("host:+1", AuthorityError::Port),
            ("a:b:c", AuthorityError::Port),
        ] {
            assert_eq!(Authority::parse(text.as_bytes()), Err(error), "{text:?}");
        }
    }

    #[test]
    fn an_authority_is_read_again_as_it_is_read() {
        let texts = [
            "a", "A", "a:1", "a:01", "a:", "ab", "a:0", "a:x", "a:1:2", "[::1]", "[::1]:2", "::1",
        ];
        for before in texts {
            for text in texts {
                let text = text.as_bytes();
                let kept = Authority::parse(before.as_bytes()).ok();
                assert_eq!(Authority::parse_again(text, kept), Authority::parse(text));
            }
        }
    }

    #[test]
    fn a_host_may_be_an_address() {
        for (host, address) in [
            ("10.0.0.1", Some("10.0.0.1")),
            ("[::ffff:a]", Some("::ffff:a")),
            ("[fe80::]:1", Some("fe80::")),
            ("web1", None),
            ("1.2.3", None),
            ("web.test", None),
        ] {
            let host = Authority::parse(host.as_bytes()).expect("an authority");
            assert_eq!(
                host.ip(),
                address.map(|address| address.parse().expect("one"))
            );
        }
    }

    #[test]
    fn an_endpoint_is_named_as_it_is_shown() {
        for address in [
            "0.0.0.0:0",
            "255.255.255.255:65535",
            "10.0.20.100:80",
            "[::1]:443",
        ] {
            let endpoint = EndpointAddr(address.parse().expect("an address"));
            assert_eq!(&endpoint.authority()[..], address.as_bytes());
        }
    }

    #[test]
    fn mapped_addresses_become_v4() {
        let mapped: SocketAddr = "[::ffff:10.1.2.3]:80".parse().unwrap();
        assert_eq!(OriginalDst(mapped).canonical().to_string(), "10.1.2.3:80");
    }
}
