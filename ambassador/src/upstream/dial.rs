//! Opens one connection to one endpoint.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::addr::EndpointAddr;
use crate::ring::{self, Stream, timer};
use crate::workload::{Family, Owner, SocketStock};

/// Opens connections, in the network namespace of whom they are for.
pub struct Dialer {
    own: OwnAddresses,
    here: SocketStock,
    others: RefCell<Vec<SocketStock>>,
}

/// A network namespace that upstream sockets are made in: 0 is the proxy's
/// own, the others count from 1 in the order given to [`Dialer::new`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Namespace(pub u16);

/// Where this process listens: dialling any of these would be a loop.
#[derive(Debug, Clone, Default)]
pub struct OwnAddresses {
    /// What the listeners are bound to.
    pub bound: Vec<SocketAddr>,
    /// The addresses of this host, for listeners bound to all of them.
    pub host: Vec<IpAddr>,
}

/// Why a dial failed.
#[derive(Debug)]
pub enum DialError {
    /// The endpoint is a listener of this process.
    Loop,
    /// Not established within the connect timeout.
    Timeout,
    /// There is no socket to connect: this machine lacks something.
    Socket(io::Error),
    /// What the kernel said.
    Connect(io::Error),
}

impl Dialer {
    /// A dialer that refuses to dial `own`; `others` makes the sockets of the
    /// namespaces other than the proxy's.
    pub fn new(own: OwnAddresses, others: Vec<SocketStock>) -> Self {
        Self {
            own,
            here: SocketStock::own(),
            others: RefCell::new(others),
        }
    }

    /// Makes the sockets of one more namespace, the next by number.
    pub fn add(&self, stock: SocketStock) {
        self.others.borrow_mut().push(stock);
    }

    /// Connects to `endpoint` within `timeout`.
    pub async fn dial(
        &self,
        namespace: Namespace,
        endpoint: EndpointAddr,
        timeout: Duration,
    ) -> Result<Stream, DialError> {
        if namespace == Namespace::default() && self.own.contains(endpoint.0) {
            return Err(DialError::Loop);
        }
        let socket = self.socket(namespace, &endpoint.0);
        let socket = socket.map_err(DialError::Socket)?;
        match timer::timeout(timeout, Stream::connect(socket, &endpoint.0)).await {
            Ok(connected) => connected.map_err(DialError::Connect),
            Err(_) => Err(DialError::Timeout),
        }
    }

    /// Who has the other end of a connection that a listener of this namespace
    /// accepted.
    ///
    /// # Errors
    /// Where the kernel cannot tell.
    pub fn owner_of(
        &self,
        namespace: Namespace,
        local: SocketAddr,
        peer: SocketAddr,
    ) -> io::Result<Owner> {
        match namespace.0.checked_sub(1) {
            None => self.here.owner_of(local, peer),
            Some(other) => match self.others.borrow().get(usize::from(other)) {
                Some(stock) => stock.owner_of(local, peer),
                None => Err(io::ErrorKind::NotFound.into()),
            },
        }
    }

    fn socket(&self, namespace: Namespace, address: &SocketAddr) -> io::Result<OwnedFd> {
        match namespace.0.checked_sub(1) {
            None => ring::dial_socket(address),
            Some(other) => match self.others.borrow().get(usize::from(other)) {
                Some(stock) => stock.take(Family::of(address)),
                None => Err(io::ErrorKind::NotFound.into()),
            },
        }
    }
}

impl OwnAddresses {
    fn contains(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        self.bound.iter().any(|bound| {
            let bound_ip = bound.ip().to_canonical();
            bound.port() == address.port()
                && (bound_ip == ip
                    || bound_ip.is_unspecified() && (ip.is_loopback() || self.host.contains(&ip)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_own_listeners_are_recognised() {
        let own = OwnAddresses {
            bound: vec![
                "127.0.0.1:8081".parse().unwrap(),
                "[::]:15001".parse().unwrap(),
            ],
            host: vec!["192.0.2.1".parse().unwrap()],
        };
        for (address, expected) in [
            ("127.0.0.1:8081", true),
            ("[::ffff:127.0.0.1]:8081", true),
            ("127.0.0.2:8081", false),
            ("127.0.0.1:8082", false),
            ("127.0.0.7:15001", true),
            ("192.0.2.1:15001", true),
            ("192.0.2.2:15001", false),
        ] {
            assert_eq!(
                own.contains(address.parse().unwrap()),
                expected,
                "{address}"
            );
        }
    }
}
