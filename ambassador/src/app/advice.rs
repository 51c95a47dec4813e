//! Advice for a failed start: what a person can do about it, appended to the
//! error.

use std::io;
use std::net::SocketAddr;

use super::Failure;
use crate::addr::BindAddr;
use crate::workload;

/// Ports below this need a privilege.
const PRIVILEGED_PORTS: u16 = 1024;

/// `what` cannot listen on `address`.
pub(super) fn cannot_listen(what: &str, address: &BindAddr, error: &io::Error) -> Failure {
    let why = without_number(error);
    let advice = match address {
        BindAddr::Tcp(address) => of_tcp(*address, error.kind()),
        BindAddr::Unix(_) => of_unix(error.kind()),
    };
    let advice = advice.map_or(String::new(), |advice| format!("; {advice}"));
    Failure::Unavailable(format!("{what}: cannot listen on {address}: {why}{advice}"))
}

/// A file that a reload names cannot be opened.
pub(super) fn named_too_late(failure: Failure) -> Failure {
    match failure {
        Failure::Unavailable(text) => Failure::Unavailable(format!(
            "{text}; what a reload names has to be in reach of `user`, and in a directory that was \
             written at the start; else it needs a restart"
        )),
        failure => failure,
    }
}

/// What the system said, without its number for it.
pub(super) fn without_number(error: &dyn std::error::Error) -> String {
    let text = error.to_string();
    let end = text.rfind(" (os error ").filter(|_| text.ends_with(')'));
    text[..end.unwrap_or(text.len())].to_owned()
}

fn of_tcp(address: SocketAddr, kind: io::ErrorKind) -> Option<String> {
    let port = address.port();
    match kind {
        io::ErrorKind::AddrInUse => Some(format!(
            "another process does (`ss -ltnp 'sport = :{port}'` shows which): end it, or choose another port"
        )),
        io::ErrorKind::AddrNotAvailable => Some(
            "no interface of this machine has that address (`ip address` shows those it has)"
                .to_owned(),
        ),
        io::ErrorKind::PermissionDenied if port < PRIVILEGED_PORTS && workload::is_confined() => {
            Some(format!(
                "ports below {PRIVILEGED_PORTS} need a restart: the privileges of the start are gone"
            ))
        }
        io::ErrorKind::PermissionDenied if port < PRIVILEGED_PORTS => Some(format!(
            "ports below {PRIVILEGED_PORTS} need root or CAP_NET_BIND_SERVICE"
        )),
        _ => None,
    }
}

fn of_unix(kind: io::ErrorKind) -> Option<String> {
    let advice = match kind {
        io::ErrorKind::AddrInUse => {
            "a process serves that socket, or the file is something else: remove it, or choose another path"
        }
        io::ErrorKind::NotFound => "its directory does not exist",
        io::ErrorKind::PermissionDenied if workload::is_confined() => {
            "a new unix listener needs a restart: the privileges of the start are gone"
        }
        io::ErrorKind::PermissionDenied => "this user may not write in its directory",
        _ => return None,
    };
    Some(advice.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_an_error_is_left_out() {
        let refused = io::Error::from_raw_os_error(libc::ECONNREFUSED);
        assert_eq!(without_number(&refused), "Connection refused");
        let other = io::Error::other("a (os error 1) b");
        assert_eq!(without_number(&other), "a (os error 1) b");
    }

    #[test]
    fn a_listener_that_cannot_be_opened_says_what_to_do() {
        let said = |address: &str, kind: io::ErrorKind| {
            let address = match address.strip_prefix("unix:") {
                Some(path) => BindAddr::Unix(path.into()),
                None => BindAddr::Tcp(address.parse().unwrap()),
            };
            cannot_listen("listener a", &address, &kind.into()).to_string()
        };
        use io::ErrorKind::{AddrInUse, AddrNotAvailable, NotFound, PermissionDenied};
        for (address, kind, words) in [
            ("127.0.0.1:8081", AddrInUse, "'sport = :8081'"),
            ("10.1.2.3:8081", AddrNotAvailable, "`ip address`"),
            ("127.0.0.1:80", PermissionDenied, "CAP_NET_BIND_SERVICE"),
            ("unix:/a/b", AddrInUse, "remove it"),
            ("unix:/a/b", NotFound, "directory does not exist"),
        ] {
            let said = said(address, kind);
            let start = format!("ambassador: listener a: cannot listen on {address}: ");
            assert!(said.starts_with(&start) && said.contains(words), "{said}");
            assert_eq!(said.lines().count(), 1);
        }
    }
}
