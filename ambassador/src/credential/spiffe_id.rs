//! SPIFFE IDs: who a workload is, as a URI.
//!
//! They are read as strictly as the specification (SPIFFE-ID, section 2) says that
//! they are written, so that two texts are the same id only if they are the same
//! bytes: no upper case in the trust domain, no percent-encoding, no empty
//! segments.

use std::fmt;
use std::str::FromStr;

/// The longest that has to be understood; nobody makes a longer one (section 2.3).
const BYTES_MAX: usize = 2048;
/// As long as the host of a URI may be (section 2.3).
const TRUST_DOMAIN_BYTES_MAX: usize = 255;
const SCHEME: &str = "spiffe://";

/// An id, of a workload or of a trust domain.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    /// The whole URI.
    text: Box<str>,
    /// Where the path begins: the length of the text where there is none.
    path_at: usize,
}

/// The name of a trust domain, as `example.org`: whoever has the same one is
/// vouched for by the same authorities.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Box<str>);

/// Which peers are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdMatch {
    /// `spiffe://td/path`: this workload and no other; not those below the path.
    Workload(SpiffeId),
    /// `spiffe://td/path/*`: every workload below the path, at any depth, and not the one
    /// of the path itself.
    Below(SpiffeId),
    /// `spiffe://td`, `spiffe://td/*`: every workload of the trust domain.
    TrustDomain(TrustDomain),
}

/// Why a text is no SPIFFE ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdError {
    /// It does not begin with `spiffe://`.
    Scheme,
    /// It is longer than 2048 bytes.
    Length,
    /// The trust domain is empty or longer than 255 bytes.
    TrustDomainLength,
    /// The trust domain contains something else than `a-z`, `0-9`, `.`, `-`, `_`,
    /// as a port or a user would.
    TrustDomainCharacter,
    /// A segment of the path is empty, `.` or `..`, or the path ends with `/`.
    Segment,
    /// The path contains something else than letters, digits, `.`, `-`, `_`, as a
    /// query, a fragment or an encoded byte would.
    PathCharacter,
}

impl SpiffeId {
    /// The URI.
    #[cfg(test)]
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The part that says who vouches for it.
    pub(crate) fn trust_domain(&self) -> TrustDomain {
        TrustDomain(self.text[SCHEME.len()..self.path_at].into())
    }

    /// From the first `/` on; empty for the id of a trust domain.
    pub(crate) fn path(&self) -> &str {
        &self.text[self.path_at..]
    }
}

impl FromStr for SpiffeId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let rest = text.strip_prefix(SCHEME).ok_or(IdError::Scheme)?;
        if text.len() > BYTES_MAX {
            return Err(IdError::Length);
        }
        let name = rest.split('/').next().unwrap_or_default();
        check_trust_domain(name)?;
        check_path(&rest[name.len()..])?;
        Ok(Self {
            text: text.into(),
            path_at: SCHEME.len() + name.len(),
        })
    }
}

fn check_trust_domain(name: &str) -> Result<(), IdError> {
    let is_allowed = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_')
    };
    match name.len() {
        1..=TRUST_DOMAIN_BYTES_MAX if name.bytes().all(is_allowed) => Ok(()),
        1..=TRUST_DOMAIN_BYTES_MAX => Err(IdError::TrustDomainCharacter),
        _ => Err(IdError::TrustDomainLength),
    }
}

/// Of nothing, or of `/` and a segment, any number of times.
fn check_path(path: &str) -> Result<(), IdError> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    path.split('/').skip(1).try_for_each(|segment| {
        if matches!(segment, "" | "." | "..") {
            return Err(IdError::Segment);
        }
        match segment.bytes().all(is_allowed) {
            true => Ok(()),
            false => Err(IdError::PathCharacter),
        }
    })
}

impl IdMatch {
    /// Whether the peer is one of them.
    pub(crate) fn accepts(&self, peer: &SpiffeId) -> bool {
        match self {
            Self::Workload(id) => id == peer,
            Self::Below(id) => {
                let rest = peer.text.strip_prefix(&*id.text);
                rest.is_some_and(|rest| rest.starts_with('/'))
            }
            Self::TrustDomain(domain) => *domain == peer.trust_domain(),
        }
    }
}

impl FromStr for IdMatch {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let parent = text.strip_suffix("/*");
        let id: SpiffeId = parent.unwrap_or(text).parse()?;
        Ok(match (id.path(), parent) {
            ("", _) => Self::TrustDomain(id.trust_domain()),
            (_, None) => Self::Workload(id),
            (_, Some(_)) => Self::Below(id),
        })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for IdMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(id) => write!(f, "{id}"),
            Self::Below(id) => write!(f, "{id}/*"),
            Self::TrustDomain(domain) => write!(f, "{SCHEME}{domain}"),
        }
    }
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "does not begin with spiffe://",
            Self::Length => "is longer than 2048 bytes",
            Self::TrustDomainLength => "has a trust domain that is empty or over 255 bytes",
            Self::TrustDomainCharacter => {
                "has a trust domain with other characters than a-z, 0-9, '.', '-' and '_'"
            }
            Self::Segment => "has a path with an empty segment, '.', '..' or a '/' at its end",
            Self::PathCharacter => {
                "has a path with other characters than letters, digits, '.', '-' and '_'"
            }
        })
    }
}

impl std::error::Error for IdError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<SpiffeId, IdError> {
        text.parse()
    }

    #[test]
    fn an_id_is_a_trust_domain_and_a_path() {
        for (text, domain, path) in [
            ("spiffe://example.org", "example.org", ""),
            ("spiffe://example.org/orders", "example.org", "/orders"),
            ("spiffe://td/ns/a/sa/B-_.9", "td", "/ns/a/sa/B-_.9"),
            ("spiffe://1.2.3.4/a", "1.2.3.4", "/a"),
            ("spiffe://..._-/...", "..._-", "/..."),
            ("spiffe://a/.a/b.", "a", "/.a/b."),
        ] {
            let id = parsed(text).unwrap();
            assert_eq!(id.as_str(), text);
            assert_eq!(id.trust_domain().to_string(), domain);
            assert_eq!(id.path(), path);
        }
    }

    #[test]
    fn what_the_specification_forbids_is_refused() {
        use IdError::*;
        for (text, error) in [
            ("", Scheme),
            ("spiffe", Scheme),
            ("spiffe:/a/b", Scheme),
            ("spiffe:a", Scheme),
            ("SPIFFE://a/b", Scheme),
            (" spiffe://a/b", Scheme),
            ("https://a/b", Scheme),
            ("spiffe://", TrustDomainLength),
            ("spiffe:///a", TrustDomainLength),
            ("spiffe://A/b", TrustDomainCharacter),
            ("spiffe://a:80/b", TrustDomainCharacter),
            ("spiffe://user@a/b", TrustDomainCharacter),
            ("spiffe://a%62/b", TrustDomainCharacter),
            ("spiffe://[::1]/b", TrustDomainCharacter),
            ("spiffe://ä/b", TrustDomainCharacter),
            ("spiffe://a?b", TrustDomainCharacter),
            ("spiffe://a#b", TrustDomainCharacter),
            ("spiffe://a\0/b", TrustDomainCharacter),
            ("spiffe://a/", Segment),
            ("spiffe://a//b", Segment),
            ("spiffe://a/b/", Segment),
            ("spiffe://a/./b", Segment),
            ("spiffe://a/b/..", Segment),
            ("spiffe://a/b?c", PathCharacter),
            ("spiffe://a/b#c", PathCharacter),
            ("spiffe://a/b%2e", PathCharacter),
            ("spiffe://a/b c", PathCharacter),
            ("spiffe://a/*", PathCharacter),
            ("spiffe://a/ü", PathCharacter),
            ("spiffe://a/b\n", PathCharacter),
        ] {
            assert_eq!(parsed(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn lengths_are_limited() {
        let of = |domain: usize, path: usize| {
            let (domain, path) = ("d".repeat(domain), "p".repeat(path));
            parsed(&format!("spiffe://{domain}/{path}")).map(drop)
        };
        assert_eq!(of(255, 1), Ok(()));
        assert_eq!(of(256, 1), Err(IdError::TrustDomainLength));
        assert_eq!(of(1, 2048 - 11), Ok(()));
        assert_eq!(of(1, 2048 - 10), Err(IdError::Length));
    }

    #[test]
    fn a_match_is_of_one_workload_of_those_below_a_path_or_of_a_trust_domain() {
        let accepts = |expected: &str, peer: &str| {
            let expected: IdMatch = expected.parse().unwrap();
            expected.accepts(&parsed(peer).unwrap())
        };
        assert!(accepts("spiffe://a/b", "spiffe://a/b"));
        for peer in [
            "spiffe://a/b/c",
            "spiffe://a/B",
            "spiffe://a",
            "spiffe://x/b",
        ] {
            assert!(!accepts("spiffe://a/b", peer), "{peer}");
        }
        assert!(accepts("spiffe://a", "spiffe://a/b"));
        assert!(accepts("spiffe://a", "spiffe://a/b/c"));
        assert!(!accepts("spiffe://a", "spiffe://a.b/b"));
        for peer in ["spiffe://a/b/c", "spiffe://a/b/c/d"] {
            assert!(accepts("spiffe://a/b/*", peer), "{peer}");
        }
        for peer in [
            "spiffe://a/b",
            "spiffe://a/bc",
            "spiffe://a/bc/d",
            "spiffe://a",
            "spiffe://x/b/c",
        ] {
            assert!(!accepts("spiffe://a/b/*", peer), "{peer}");
        }
        assert!(accepts("spiffe://a/*", "spiffe://a/b/c"));
        assert!(!accepts("spiffe://a/*", "spiffe://ab/c"));
        for text in ["spiffe://a", "spiffe://a/b", "spiffe://a/b/*"] {
            assert_eq!(text.parse::<IdMatch>().unwrap().to_string(), text);
        }
        for text in [
            "spiffe://a/b*",
            "spiffe://a/*/b",
            "spiffe://a/b//*",
            "spiffe:///*",
            "*",
        ] {
            assert!(text.parse::<IdMatch>().is_err(), "{text}");
        }
    }
}
