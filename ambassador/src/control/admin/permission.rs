//! Who may read and who may change something.
//!
//! A page in a browser on the same machine can reach loopback, under a name of its
//! own that resolves there; so Host must be an address or `localhost`, and Origin,
//! where sent, must be that same host. To change something takes more: over the
//! unix socket to be its owner, as its mode says, over TCP the token.

use std::fmt;
use std::io;

use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, ORIGIN};
use hyper::{Request, StatusCode};

use crate::addr::Authority;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Host is missing, repeated, or a name other than `localhost`.
    Host,
    /// Origin is another site's.
    Origin,
    /// No token file is configured.
    NeedsToken,
    /// The token file cannot be read or is empty.
    TokenFile,
    /// The token is missing or wrong.
    WrongToken,
}

/// Whether the request may change something, or comes from who may. `token` is asked for only where it
/// is needed; `None`: no file of it is configured.
pub(super) async fn check<B>(
    request: &Request<B>,
    over_unix: bool,
    token: Option<impl Future<Output = io::Result<Vec<u8>>>>,
) -> Result<(), Refusal> {
    check_site(request, over_unix)?;
    if over_unix {
        return Ok(());
    }
    let token = token.ok_or(Refusal::NeedsToken)?.await;
    let token = token.map_err(|_| Refusal::TokenFile)?;
    let token = token.trim_ascii();
    if token.is_empty() {
        return Err(Refusal::TokenFile);
    }
    let sent = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.as_bytes().split_at_checked("Bearer ".len()))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer "));
    match sent {
        Some((_, sent)) if same(sent.trim_ascii(), token) => Ok(()),
        _ => Err(Refusal::WrongToken),
    }
}

/// Whether it comes from a program, or from a page of this very host.
pub(super) fn check_site<B>(request: &Request<B>, over_unix: bool) -> Result<(), Refusal> {
    let headers = request.headers();
    let host = single(headers, HOST).and_then(|host| Authority::parse(host).ok());
    if !over_unix {
        let target = request.uri().authority().map(|target| target.as_str());
        let target = target.map(|target| target.parse::<Authority>().ok());
        let named = [Some(host.clone()), target];
        for named in named.into_iter().flatten() {
            let named = named.ok_or(Refusal::Host)?;
            if named.host() != "localhost" && named.ip().is_none() {
                return Err(Refusal::Host);
            }
        }
    }
    if headers.contains_key(ORIGIN) {
        let origin = single(headers, ORIGIN)
            .and_then(|origin| origin.strip_prefix(b"http://"))
            .and_then(|origin| Authority::parse(origin).ok());
        if origin.is_none() || origin != host {
            return Err(Refusal::Origin);
        }
    }
    Ok(())
}

fn single(headers: &HeaderMap, name: HeaderName) -> Option<&[u8]> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    values.next().is_none().then(|| first.as_bytes())
}

/// Compares without telling by its time where the first difference is.
fn same(sent: &[u8], token: &[u8]) -> bool {
    let differences = sent.iter().zip(token).fold(0, |all, (a, b)| all | (a ^ b));
    sent.len() == token.len() && differences == 0
}

impl Refusal {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::WrongToken => StatusCode::UNAUTHORIZED,
            Self::Host | Self::Origin | Self::NeedsToken | Self::TokenFile => StatusCode::FORBIDDEN,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "Host must be an address or localhost",
            Self::Origin => "Origin is not this host",
            Self::NeedsToken => {
                "changes need admin.listen to be a unix socket, or admin.token_file to be set"
            }
            Self::TokenFile => "admin.token_file cannot be read or is empty",
            Self::WrongToken => "needs Authorization: Bearer with the token of admin.token_file",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn checked(headers: &[(&str, &str)], over_unix: bool) -> Result<(), Refusal> {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        outcome(&request.body(()).unwrap(), over_unix, Some(b"s3cret\n"))
    }

    fn outcome(
        request: &Request<()>,
        over_unix: bool,
        token: Option<&[u8]>,
    ) -> Result<(), Refusal> {
        let token = token.map(|token| std::future::ready(Ok(token.to_vec())));
        let mut check = pin!(check(request, over_unix, token));
        match check.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(checked) => checked,
            Poll::Pending => panic!("nothing is waited for"),
        }
    }

    const TOKEN: (&str, &str) = ("authorization", "bearer s3cret");

    #[test]
    fn the_token_opens_on_loopback_names_only() {
        for host in ["localhost:15000", "127.0.0.1:15000", "[::1]:15000"] {
            assert_eq!(checked(&[("host", host), TOKEN], false), Ok(()), "{host}");
        }
        let rebound = [("host", "evil.example"), TOKEN];
        assert_eq!(checked(&rebound, false), Err(Refusal::Host));
        assert_eq!(checked(&[TOKEN], false), Err(Refusal::Host));
        let twice = [("host", "localhost"), ("host", "evil.example"), TOKEN];
        assert_eq!(checked(&twice, false), Err(Refusal::Host));
    }

    #[test]
    fn a_rebound_name_reads_nothing() {
        let read = |headers: &[(&str, &str)], target: &str| {
            let mut request = Request::builder().uri(target);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            check_site(&request.body(()).unwrap(), false)
        };
        for host in ["localhost:15000", "127.0.0.1:15000", "[::1]:15000"] {
            assert_eq!(read(&[("host", host)], "/config"), Ok(()), "{host}");
        }
        let refused = Err(Refusal::Host);
        assert_eq!(read(&[("host", "evil.example")], "/config"), refused);
        assert_eq!(
            read(&[("host", "localhost.evil.example")], "/config"),
            refused
        );
        assert_eq!(read(&[], "/config"), refused);
        let local = ("host", "localhost");
        assert_eq!(read(&[local, ("host", "evil.example")], "/config"), refused);
        // What the first line names goes before Host.
        assert_eq!(read(&[local], "http://evil.example/config"), refused);
        assert_eq!(read(&[local], "http://localhost/config"), Ok(()));
        let page = [local, ("origin", "http://evil.example")];
        assert_eq!(read(&page, "/config"), Err(Refusal::Origin));
    }

    #[test]
    fn a_foreign_origin_is_refused_even_with_the_token() {
        let host = ("host", "localhost:15000");
        let foreign = [host, ("origin", "http://evil.example"), TOKEN];
        assert_eq!(checked(&foreign, false), Err(Refusal::Origin));
        assert_eq!(
            checked(&[host, ("origin", "null"), TOKEN], false),
            Err(Refusal::Origin)
        );
        let own = [host, ("origin", "http://localhost:15000"), TOKEN];
        assert_eq!(checked(&own, false), Ok(()));
    }

    #[test]
    fn a_wrong_token_does_not_open() {
        let host = ("host", "localhost");
        for token in [
            "Bearer s3cre",
            "Bearer s3crets",
            "Basic s3cret",
            "Bearer",
            "Bearer x3cret",
        ] {
            let sent = [host, ("authorization", token)];
            assert_eq!(checked(&sent, false), Err(Refusal::WrongToken), "{token}");
        }
        let request = Request::builder()
            .header("host", "localhost")
            .body(())
            .unwrap();
        assert_eq!(outcome(&request, false, None), Err(Refusal::NeedsToken));
        assert_eq!(
            outcome(&request, false, Some(b" \n")),
            Err(Refusal::TokenFile)
        );
    }

    #[test]
    fn the_unix_socket_needs_no_token() {
        assert_eq!(checked(&[("host", "anything")], true), Ok(()));
        let foreign = [("host", "x"), ("origin", "http://y")];
        assert_eq!(checked(&foreign, true), Err(Refusal::Origin));
    }
}
