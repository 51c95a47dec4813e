//! Masks values that may be secrets: in `/config`, `explain`, `status` and in
//! mistakes, whatever their key.

use std::borrow::Cow;

/// Stands where a secret was.
pub(super) const MASK: &str = "***";

/// A key that holds one of these words holds a secret, or names a file that does:
/// who mistakes the one for the other has written the secret.
const SECRET_WORDS: [&str; 10] = [
    "auth",
    "bearer",
    "cookie",
    "credential",
    "key",
    "passwd",
    "password",
    "secret",
    "session",
    "token",
];
/// Keys below which everything may be a secret.
const SECRET_GROUPS: [&str; 3] = ["headers", "auth", "placeholders"];
/// Schemes of `Authorization`: a secret follows.
const SCHEMES: [&str; 4] = ["Basic ", "Bearer ", "Digest ", "Token "];
/// A word this long with large and small letters and digits is a token sooner than
/// anything else that the file may hold.
const MIXED_BYTES_MIN: usize = 20;
/// And so is one of hexadecimal digits alone.
const HEX_BYTES_MIN: usize = 32;

/// A value of the key at `path` as a message may show it.
pub(crate) fn shown<'a>(path: &str, value: &'a str) -> Cow<'a, str> {
    // The names of headers are none.
    let name = path.ends_with(value) || is_below(path, "remove");
    match (looks_secret(value), is_secret(path)) {
        (true, _) => MASK.into(),
        (false, true) if name => key(value),
        (false, true) => MASK.into(),
        (false, false) => of_url(value),
    }
}

/// A key of a mapping as a message may show it: who forgets the space behind a
/// colon, or an indentation, makes the value part of the key.
pub(super) fn key(text: &str) -> Cow<'_, str> {
    let end = text.find(|c: char| c.is_whitespace() || matches!(c, '=' | '@'));
    match end {
        Some(end) => format!("{}{MASK}", &text[..end]).into(),
        None => text.into(),
    }
}

fn is_secret(path: &str) -> bool {
    let mut keys = path.rsplit('.').map(without_number);
    let last = keys.next().unwrap_or_default().to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| last.contains(word))
        || SECRET_GROUPS.contains(&&*last)
        || keys.any(|key| SECRET_GROUPS.contains(&key))
}

/// Whether it is an item of the list under this key.
fn is_below(path: &str, list: &str) -> bool {
    let last = path.rsplit('.').next().unwrap_or_default();
    last.len() > list.len() && without_number(last) == list
}

/// `hosts` of `hosts[3]`.
fn without_number(key: &str) -> &str {
    key.split('[').next().unwrap_or(key)
}

/// Whether it is one sooner than anything else.
pub(super) fn looks_secret(value: &str) -> bool {
    let value = value.trim_start();
    let scheme = |scheme: &&str| {
        let start = value.get(..scheme.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    let any = |kind: fn(&u8) -> bool| value.as_bytes().iter().any(kind);
    let of_token = |b: u8| b.is_ascii_alphanumeric() || b"+/=_-".contains(&b);
    let mixed = value.len() >= MIXED_BYTES_MIN
        && !value.starts_with('/')
        && value.bytes().all(of_token)
        && any(u8::is_ascii_digit)
        && any(u8::is_ascii_uppercase)
        && any(u8::is_ascii_lowercase);
    let hex = value.len() >= HEX_BYTES_MIN && value.bytes().all(|b| b.is_ascii_hexdigit());
    // The beginning of a JSON Web Token, and of keys in PEM.
    mixed
        || hex
        || value.starts_with("eyJ")
        || value.contains("-----BEGIN")
        || SCHEMES.iter().any(scheme)
}

/// A URL, or what may be one, without who asks and without its query.
fn of_url(value: &str) -> Cow<'_, str> {
    let start = value.find("://").map_or(0, |at| at + 3);
    let named = value.rfind('@').map(|at| at.max(start));
    let rest = named.unwrap_or(start);
    let end = value[rest..].find(['?', '#']).map(|at| rest + at + 1);
    if named.is_none() && end.is_none() {
        return value.into();
    }
    let scheme = &value[..start];
    let user = if named.is_some() { MASK } else { "" };
    let (end, query) = end.map_or((value.len(), ""), |end| (end, MASK));
    format!("{scheme}{user}{}{query}", &value[rest..end]).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_whether_its_value_is_a_secret() {
        for path in [
            "upstreams.up.headers.set.x-team",
            "admin.token_file",
            "upstreams.up.auth.bearer",
            "upstreams.up.auth.oauth2.scopes[0]",
            "placeholders.stripe.value",
            "upstreams.up.headers",
        ] {
            assert_eq!(shown(path, "s3cret"), MASK, "{path}");
        }
        // The names of headers are none.
        assert_eq!(shown("defaults.headers.set.host", "host"), "host");
        let removed = shown("defaults.headers.remove[2]", "x-api-key: s3cret");
        assert_eq!(removed, "x-api-key:***");
        for path in [
            "upstreams.up.dns",
            "upstreams.auth-service.endpoints[0]",
            "upstreams.tokens.hosts[1]",
        ] {
            assert_eq!(shown(path, "s3cret"), "s3cret", "{path}");
        }
    }

    #[test]
    fn a_value_may_say_so_by_itself() {
        for secret in [
            "Bearer abc",
            "basic dTpw",
            "eyJhbGciOiJIUzI1NiJ9.e30.c2ln",
            "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY0",
            "0123456789abcdef0123456789abcdef",
            "-----BEGIN PRIVATE KEY-----",
        ] {
            assert_eq!(shown("workers", secret), MASK, "{secret}");
        }
        for (value, expected) in [
            ("https://u:p@h.example/x", "https://***@h.example/x"),
            ("https://u:p/w@h.example/x", "https://***@h.example/x"),
            ("u:p@h.example:80", "***@h.example:80"),
            ("http://h/x?api=s3cret", "http://h/x?***"),
            ("h.example#s3cret", "h.example#***"),
            ("u:p?w@h", "***@h"),
            ("10.1.2.3:8o", "10.1.2.3:8o"),
            (
                "payments-service-v2-eu-west-1",
                "payments-service-v2-eu-west-1",
            ),
            (
                "a-name-of-some-service.prod.example:443",
                "a-name-of-some-service.prod.example:443",
            ),
            (
                "/var/run/secrets/tokens/api-token-1",
                "/var/run/secrets/tokens/api-token-1",
            ),
        ] {
            assert_eq!(shown("upstreams.up.dns", value), expected);
        }
    }

    #[test]
    fn a_key_that_swallowed_its_value_is_cut() {
        for (text, expected) in [
            ("x-api-key: s3cret", "x-api-key:***"),
            ("PASSWORD=s3cret", "PASSWORD***"),
            ("u:p@host", "u:p***"),
            ("max_connections", "max_connections"),
            ("*.pay.svc:8443", "*.pay.svc:8443"),
        ] {
            assert_eq!(key(text), expected);
        }
    }
}
