//! Where a Workload API is served.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The address of a SPIFFE Workload Endpoint, in the form of
/// `SPIFFE_ENDPOINT_SOCKET` (SPIFFE Workload Endpoint, section 4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `unix:/path` or `unix:///path`. The user of the proxy needs the right to
    /// write to the socket, and the agent sees that user as the one who asks.
    Unix(PathBuf),
    /// `tcp://127.0.0.1:8000`. Nothing protects the keys that come over it, so it
    /// has to be a loopback address.
    Tcp(SocketAddr),
}

/// Why a text is no address of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointError {
    /// It begins with neither `unix:` nor `tcp://`.
    Scheme,
    /// The path of the socket does not begin with `/`, or holds a `?` or `#`.
    Path,
    /// It is no address with a port.
    Address,
    /// It is the address of another machine.
    Remote,
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if let Some(rest) = text.strip_prefix("unix:") {
            // With slashes in front, the part for a host is there and empty.
            let path = rest.strip_prefix("//").unwrap_or(rest);
            return match path.starts_with('/') && !path.contains(['?', '#']) {
                true => Ok(Self::Unix(path.into())),
                false => Err(EndpointError::Path),
            };
        }
        let address = text.strip_prefix("tcp://").ok_or(EndpointError::Scheme)?;
        let address: SocketAddr = address.parse().map_err(|_| EndpointError::Address)?;
        match address.ip().is_loopback() {
            true => Ok(Self::Tcp(address)),
            false => Err(EndpointError::Remote),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", Path::display(path)),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "is neither `unix:/path` nor `tcp://address:port`",
            Self::Path => "has a path that does not begin with `/`, or holds a `?` or `#`",
            Self::Address => "has no IP address with a port",
            Self::Remote => "is not on loopback: keys would cross the network in clear",
        })
    }
}

impl std::error::Error for EndpointError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_socket_of_this_machine() {
        for (text, shown) in [
            ("unix:/run/agent.sock", "unix:/run/agent.sock"),
            ("unix:///run/agent.sock", "unix:/run/agent.sock"),
            ("tcp://127.0.0.1:8000", "tcp://127.0.0.1:8000"),
            ("tcp://[::1]:8000", "tcp://[::1]:8000"),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), shown);
        }
        use EndpointError::*;
        for (text, error) in [
            ("/run/agent.sock", Scheme),
            ("http://127.0.0.1:80", Scheme),
            ("tcp:127.0.0.1:80", Scheme),
            ("unix:run/agent.sock", Path),
            ("unix://host/run/agent.sock", Path),
            ("unix:/run/agent.sock?a", Path),
            ("unix:", Path),
            ("tcp://127.0.0.1", Address),
            ("tcp://127.0.0.1:8000/foo", Address),
            ("tcp://localhost:8000", Address),
            ("tcp://10.0.0.1:8000", Remote),
        ] {
            assert_eq!(text.parse::<Endpoint>(), Err(error), "{text}");
        }
    }
}
