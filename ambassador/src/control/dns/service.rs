//! Where names are looked up: the files that a workload's own resolver would
//! read, and sockets in its network namespace.

use std::fs::{self, File};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{LookupIpStrategy, ResolveHosts, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_resolver::net::runtime::{RuntimeProvider, TokioRuntimeProvider};
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{Hosts, Resolver};
use tokio::net::{TcpSocket, UdpSocket};

/// The port of a name server in resolv.conf, which cannot name another.
pub(super) const DNS_PORT: u16 = 53;

/// How names are looked up.
#[derive(Clone)]
pub struct NameService {
    /// Name servers, search list and options; default /etc/resolv.conf.
    pub resolv_conf: PathBuf,
    /// Names that need no server; default /etc/hosts. It may be missing.
    pub hosts: PathBuf,
    /// Makes the sockets where they are not to be in the namespace of this
    /// process.
    pub sockets: Option<MakeSocket>,
}

/// Makes a fresh, unbound socket that reaches this server. Runs on the control
/// thread.
pub type MakeSocket = Arc<dyn Fn(SocketAddr, Transport) -> io::Result<OwnedFd> + Send + Sync>;

/// What carries a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A datagram socket.
    Udp,
    /// A stream socket, for answers too large for a datagram.
    Tcp,
}

impl Default for NameService {
    fn default() -> Self {
        Self {
            resolv_conf: "/etc/resolv.conf".into(),
            hosts: "/etc/hosts".into(),
            sockets: None,
        }
    }
}

impl NameService {
    /// A resolver as the files say now.
    pub(super) fn resolver(&self, server_port: u16) -> Result<Resolver<Provider>, NetError> {
        let (config, mut options) = parse_resolv_conf(fs::read(&self.resolv_conf)?)?;
        let (domain, search, mut servers) = config.into_parts();
        for connection in servers.iter_mut().flat_map(|it| &mut it.connections) {
            connection.port = server_port;
        }
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        // Answers are kept by who asks; a second cache would hold failures back.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        let config = ResolverConfig::from_parts(domain, search, servers);
        let provider = Provider {
            ours: TokioRuntimeProvider::default(),
            sockets: self.sockets.clone(),
        };
        let builder = Resolver::builder_with_config(config, provider);
        let mut resolver = builder.with_options(options).build()?;
        resolver.set_hosts(Arc::new(read_hosts(&self.hosts)?));
        Ok(resolver)
    }
}

fn read_hosts(path: &Path) -> io::Result<Hosts> {
    let mut hosts = Hosts::default();
    match File::open(path) {
        Ok(file) => hosts.read_hosts_conf(file)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(hosts)
}

/// Tokio's sockets, or those made elsewhere.
#[derive(Clone)]
pub(super) struct Provider {
    ours: TokioRuntimeProvider,
    sockets: Option<MakeSocket>,
}

type Soon<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

impl RuntimeProvider for Provider {
    type Handle = <TokioRuntimeProvider as RuntimeProvider>::Handle;
    type Timer = <TokioRuntimeProvider as RuntimeProvider>::Timer;
    type Udp = <TokioRuntimeProvider as RuntimeProvider>::Udp;
    type Tcp = <TokioRuntimeProvider as RuntimeProvider>::Tcp;

    fn create_handle(&self) -> Self::Handle {
        self.ours.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        bind: Option<SocketAddr>,
        within: Option<Duration>,
    ) -> Soon<Self::Tcp> {
        /// Used where the resolver names no limit.
        const CONNECT_WITHIN: Duration = Duration::from_secs(5);
        let Some(make) = self.sockets.clone() else {
            return self.ours.connect_tcp(server, bind, within);
        };
        Box::pin(async move {
            let socket = std::net::TcpStream::from(make(server, Transport::Tcp)?);
            socket.set_nonblocking(true)?;
            let connecting = TcpSocket::from_std_stream(socket).connect(server);
            let connected = tokio::time::timeout(within.unwrap_or(CONNECT_WITHIN), connecting);
            Ok(AsyncIoTokioAsStd(connected.await??))
        })
    }

    fn bind_udp(&self, local: SocketAddr, server: SocketAddr) -> Soon<Self::Udp> {
        let Some(make) = self.sockets.clone() else {
            return self.ours.bind_udp(local, server);
        };
        Box::pin(async move {
            // The kernel binds it to a random port with the first datagram.
            let socket = std::net::UdpSocket::from(make(server, Transport::Udp)?);
            socket.set_nonblocking(true)?;
            UdpSocket::from_std(socket)
        })
    }
}
