//! Opens one connection to one endpoint.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use crate::addr::EndpointAddr;
use crate::ring::{self, timer};
use crate::tls::HandshakeError;
use crate::transport::Transport;
use crate::workload::{Family, Owner, SocketStock};

/// Opens connections, in the network namespace of their caller.
pub struct Dialer {
    own: RefCell<OwnAddresses>,
    here: SocketStock,
    others: RefCell<Vec<Rc<SocketStock>>>,
    #[cfg(test)]
    network: RefCell<Option<Network>>,
}

/// What stands in for the network in a test: connects to an address.
#[cfg(test)]
pub(crate) type Network = Rc<dyn Fn(SocketAddr) -> Connecting>;

/// A connect to a scripted endpoint.
#[cfg(test)]
pub(crate) type Connecting = std::pin::Pin<Box<dyn Future<Output = io::Result<Transport>>>>;

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
pub(crate) enum DialError {
    /// The endpoint is a listener of this process.
    Loop,
    /// Not established within the connect timeout.
    Timeout,
    /// There is no socket to connect: this machine lacks something.
    Socket(#[expect(dead_code, reason = "the debug log shows it")] io::Error),
    /// What the kernel said.
    Connect(io::Error),
    /// Connected, but no TLS session came about.
    Tls(HandshakeError),
}

impl Dialer {
    /// A dialer that refuses to dial `own`; `others` makes the sockets of the
    /// namespaces other than the proxy's.
    pub fn new(own: OwnAddresses, others: Vec<SocketStock>) -> Self {
        Self {
            own: RefCell::new(own),
            here: SocketStock::own(),
            others: RefCell::new(others.into_iter().map(Rc::new).collect()),
            #[cfg(test)]
            network: RefCell::default(),
        }
    }

    /// Has every dial go through `network`.
    #[cfg(test)]
    pub(crate) fn dial_through(&self, network: Network) {
        self.network.replace(Some(network));
    }

    /// A listener of this process accepts there from now on.
    pub fn listens_at(&self, namespace: Namespace, address: SocketAddr) {
        if namespace == Namespace::default() {
            self.own.borrow_mut().bound.push(address);
        }
    }

    /// A listener of this process does not accept there any more.
    pub fn listens_no_more(&self, namespace: Namespace, address: SocketAddr) {
        let bound = &mut self.own.borrow_mut().bound;
        let at = bound.iter().position(|bound| *bound == address);
        if let Some(at) = at.filter(|_| namespace == Namespace::default()) {
            bound.swap_remove(at);
        }
    }

    /// Makes the sockets of one more namespace, the next by number.
    pub fn add(&self, stock: SocketStock) {
        self.others.borrow_mut().push(Rc::new(stock));
    }

    /// Connects to `endpoint` within `timeout`.
    pub(crate) async fn dial(
        &self,
        namespace: Namespace,
        endpoint: EndpointAddr,
        timeout: Duration,
    ) -> Result<Transport, DialError> {
        let is_here = namespace == Namespace::default();
        if is_here && self.own.borrow().contains(endpoint.0) {
            return Err(DialError::Loop);
        }
        #[cfg(test)]
        let network = self.network.borrow().clone();
        #[cfg(test)]
        if let Some(network) = network {
            return match timer::timeout(timeout, network(endpoint.0)).await {
                Ok(connected) => connected.map_err(DialError::Connect),
                Err(_) => Err(DialError::Timeout),
            };
        }
        let socket = match namespace.0.checked_sub(1) {
            None => ring::dial_socket(&endpoint.0),
            Some(other) => self.stocked(other, &endpoint.0, timeout).await,
        };
        let socket = socket.map_err(DialError::Socket)?;
        match timer::timeout(timeout, Transport::connect(socket, &endpoint.0)).await {
            Ok(Ok(stream)) if is_here && self.leads_back(&stream, endpoint) => Err(DialError::Loop),
            Ok(connected) => connected.map_err(DialError::Connect),
            Err(_) => Err(DialError::Timeout),
        }
    }

    /// A socket of another namespace. That none has come is this machine's fault.
    async fn stocked(
        &self,
        other: u16,
        address: &SocketAddr,
        timeout: Duration,
    ) -> io::Result<OwnedFd> {
        let stock = self.others.borrow().get(usize::from(other)).cloned();
        let stock = stock.ok_or(io::ErrorKind::NotFound)?;
        let taken = timer::timeout(timeout, stock.take(Family::of(address))).await;
        taken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
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

    /// Whether a connection has come back to a listener on all addresses, by one
    /// that the host was given later: both ends are then the same.
    fn leads_back(&self, stream: &Transport, endpoint: EndpointAddr) -> bool {
        self.own.borrow().is_everywhere(endpoint.0)
            && stream
                .local_addr()
                .is_ok_and(|local| local.ip().to_canonical() == endpoint.0.ip().to_canonical())
    }
}

impl OwnAddresses {
    fn contains(&self, address: SocketAddr) -> bool {
        let ip = reached(address.ip());
        let is_exact =
            |bound: &SocketAddr| bound.port() == address.port() && bound.ip().to_canonical() == ip;
        self.bound.iter().any(is_exact)
            || (ip.is_loopback() || self.host.contains(&ip)) && self.is_everywhere(address)
    }

    /// Whether a listener on all addresses has this one's port.
    fn is_everywhere(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        self.bound.iter().any(|bound| {
            bound.port() == address.port()
                && match bound.ip().to_canonical() {
                    IpAddr::V4(bound) => bound.is_unspecified() && ip.is_ipv4(),
                    // Those of IPv4 too.
                    IpAddr::V6(bound) => bound.is_unspecified(),
                }
        })
    }
}

/// Whom a connect to this address reaches: to none in particular is to this host
/// itself.
fn reached(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
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
                "[::1]:8082".parse().unwrap(),
                "0.0.0.0:8083".parse().unwrap(),
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
            ("0.0.0.0:8081", true),
            ("[::ffff:0.0.0.0]:8081", true),
            ("[::]:8081", false),
            ("[::]:8082", true),
            ("0.0.0.0:8082", false),
            ("0.0.0.0:15001", true),
            ("[::1]:15001", true),
            ("[::]:15001", true),
            ("127.0.0.9:8083", true),
            ("0.0.0.0:8083", true),
            ("[::1]:8083", false),
        ] {
            assert_eq!(
                own.contains(address.parse().unwrap()),
                expected,
                "{address}"
            );
        }
    }

    #[test]
    fn listeners_come_and_go() {
        let dialer = Dialer::new(OwnAddresses::default(), Vec::new());
        let address = "127.0.0.1:8081".parse().unwrap();
        let is_own = || dialer.own.borrow().contains(address);
        dialer.listens_at(Namespace(1), address);
        assert!(!is_own(), "it is somewhere else");
        dialer.listens_at(Namespace::default(), address);
        assert!(is_own());
        dialer.listens_no_more(Namespace(1), address);
        assert!(is_own());
        dialer.listens_no_more(Namespace::default(), address);
        assert!(!is_own());
    }

    #[test]
    fn a_loop_is_one_where_this_process_listens_and_nowhere_else() {
        let address: SocketAddr = "10.0.0.1:80".parse().unwrap();
        let own = OwnAddresses {
            bound: vec![address],
            ..OwnAddresses::default()
        };
        let dialer = Dialer::new(own, Vec::new());
        dialer.dial_through(Rc::new(|_| {
            let refused = io::ErrorKind::ConnectionRefused.into();
            Box::pin(std::future::ready(Err(refused)))
        }));
        let options = ring::Options {
            backend: ring::Backend::Epoll,
            shard: 0,
            spin: ring::Spin::Never,
        };
        let dialled = ring::run(options, async move {
            let mut is_loop = Vec::new();
            for namespace in [0, 1] {
                let endpoint = EndpointAddr(address);
                let timeout = Duration::from_secs(1);
                let dialled = dialer.dial(Namespace(namespace), endpoint, timeout).await;
                is_loop.push(matches!(dialled, Err(DialError::Loop)));
            }
            is_loop
        });
        assert_eq!(dialled.unwrap(), [true, false]);
    }
}
