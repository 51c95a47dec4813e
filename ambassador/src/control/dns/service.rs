//! Resolves names as a workload's own resolver would: with its files, and with
//! sockets in its network namespace.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::Resolver;
use hickory_resolver::config::{
    LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_resolver::net::runtime::{RuntimeProvider, TokioRuntimeProvider};
use tokio::net::{TcpSocket, UdpSocket};

use super::files::{self, Fallback, ResolvConf};
use crate::control::reading::Reader;
use crate::workload::small_file;

/// The port of a name server in resolv.conf, which cannot name another.
pub(super) const DNS_PORT: u16 = 53;

/// How names are looked up.
#[derive(Clone)]
pub(crate) struct NameService {
    files: Arc<Files>,
    /// Makes the sockets where they are not to be in the namespace of this
    /// process.
    sockets: Option<MakeSocket>,
    reader: Reader,
}

/// The files that a resolver reads; a missing hosts file is an empty one.
#[derive(Debug)]
pub(crate) enum Files {
    /// Those of this machine.
    Own {
        /// Name servers, search list and options.
        resolv_conf: PathBuf,
        /// Names that need no server.
        hosts: PathBuf,
    },
    /// Those in the /etc of a workload with this root directory.
    Workload(OwnedFd),
}

/// Why a name has no address.
#[derive(Debug)]
pub(in crate::control) enum LookUpError {
    /// A file cannot be read. What is in it is nowhere told.
    File(&'static str, io::Error),
    /// There is nobody to ask.
    NoServer,
    /// The answer is empty.
    NoAddress,
    /// The name servers.
    Servers(NetError),
}

/// Addresses, and for how long they may be used.
pub(super) type Resolved = (Vec<IpAddr>, Duration);

/// Makes a fresh, unbound socket that reaches this server. It may block; it runs
/// on a thread of its own.
pub(crate) type MakeSocket =
    Arc<dyn Fn(SocketAddr, Transport) -> io::Result<OwnedFd> + Send + Sync>;

/// What carries a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// A datagram socket.
    Udp,
    /// A stream socket, for answers too large for a datagram.
    Tcp,
}

impl Default for NameService {
    fn default() -> Self {
        let files = Files::Own {
            resolv_conf: "/etc/resolv.conf".into(),
            hosts: "/etc/hosts".into(),
        };
        Self::new(files, None)
    }
}

impl NameService {
    /// Looks names up by `files`, through `sockets` or those of this process.
    pub(crate) fn new(files: Files, sockets: Option<MakeSocket>) -> Self {
        Self {
            files: Arc::new(files),
            sockets,
            reader: Reader::default(),
        }
    }

    /// The addresses of a name or of an address, IPv4 first; there is one at least.
    pub(in crate::control) async fn addresses(
        &self,
        name: &str,
    ) -> Result<Vec<IpAddr>, LookUpError> {
        let (mut addresses, _) = self.look_up(name, DNS_PORT).await?;
        addresses.sort_by_key(IpAddr::is_ipv6);
        Ok(addresses)
    }

    /// The addresses of a name. Reads the files anew each time: they are small,
    /// this is rare, and a change to them needs no notice of its own.
    pub(super) async fn look_up(
        &self,
        name: &str,
        server_port: u16,
    ) -> Result<Resolved, LookUpError> {
        /// An answer of a file holds for longer than any is kept.
        const HOLDS: Duration = Duration::from_secs(60 * 60);
        let (files, owned) = (Arc::clone(&self.files), name.to_owned());
        let read = self.reader.read(move || Ok(files.look_up(&owned)));
        let read = read.await.unwrap_or_else(|error| {
            let what = "hosts or resolv.conf";
            Err(LookUpError::File(what, error))
        });
        let resolver = match read? {
            Read::Addresses(addresses) => return Ok((addresses, HOLDS)),
            Read::Servers(servers) => self.resolver(servers, server_port)?,
        };
        let answer = resolver.lookup_ip(name).await?;
        let addresses: Vec<IpAddr> = answer.iter().collect();
        match addresses.is_empty() {
            true => Err(LookUpError::NoAddress),
            false => {
                let until = answer.valid_until();
                Ok((addresses, until.saturating_duration_since(Instant::now())))
            }
        }
    }

    fn resolver(&self, conf: ResolvConf, port: u16) -> Result<Resolver<Provider>, NetError> {
        let mut servers: Vec<NameServerConfig> = conf
            .servers
            .into_iter()
            .map(NameServerConfig::udp_and_tcp)
            .collect();
        for connection in servers.iter_mut().flat_map(|it| &mut it.connections) {
            connection.port = port;
        }
        let mut options = ResolverOpts::default();
        options.ndots = conf.ndots;
        options.timeout = conf.timeout;
        options.attempts = conf.attempts;
        options.edns0 = conf.edns0;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        // Answers are kept by who asks; a second cache would hold failures back.
        options.cache_size = 0;
        // It is read already.
        options.use_hosts_file = ResolveHosts::Never;
        let config = ResolverConfig::from_parts(conf.domain, conf.search, servers);
        let provider = Provider {
            ours: TokioRuntimeProvider::default(),
            sockets: self.sockets.clone(),
        };
        let builder = Resolver::builder_with_config(config, provider);
        builder.with_options(options).build()
    }
}

/// What the files say of a name.
enum Read {
    Addresses(Vec<IpAddr>),
    Servers(ResolvConf),
}

impl Files {
    fn look_up(&self, name: &str) -> Result<Read, LookUpError> {
        const HOSTS: &str = "hosts";
        const RESOLV_CONF: &str = "resolv.conf";
        let hosts = match self.read(HOSTS) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            hosts => hosts.map_err(|error| LookUpError::File(HOSTS, error))?,
        };
        let addresses = match name.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => files::addresses(&hosts, name),
        };
        if !addresses.is_empty() {
            return Ok(Read::Addresses(addresses));
        }
        let text = self.read(RESOLV_CONF);
        let text = text.map_err(|error| LookUpError::File(RESOLV_CONF, error))?;
        let fallback = match self {
            Self::Own { .. } => Fallback::Host,
            Self::Workload(_) => Fallback::None,
        };
        let conf = ResolvConf::parse(&text, fallback);
        match conf.servers.is_empty() {
            true => Err(LookUpError::NoServer),
            false => Ok(Read::Servers(conf)),
        }
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        match self {
            Self::Own { hosts, .. } if name == "hosts" => {
                small_file::read(hosts, small_file::BYTES_MAX)
            }
            Self::Own { resolv_conf, .. } => small_file::read(resolv_conf, small_file::BYTES_MAX),
            Self::Workload(root) => {
                let path = Path::new("etc").join(name);
                small_file::read_in(root, &path, small_file::BYTES_MAX)
            }
        }
    }
}

impl From<NetError> for LookUpError {
    fn from(error: NetError) -> Self {
        Self::Servers(error)
    }
}

impl fmt::Display for LookUpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(name, error) => write!(f, "{name}: {error}"),
            Self::NoServer => f.write_str("resolv.conf names no name server"),
            Self::NoAddress => f.write_str("the answer holds no address"),
            Self::Servers(error) => error.fmt(f),
        }
    }
}

/// Tokio's sockets, or those made elsewhere.
#[derive(Clone)]
pub(super) struct Provider {
    ours: TokioRuntimeProvider,
    sockets: Option<MakeSocket>,
}

/// Not on the control thread: whoever makes them may hang.
async fn made(make: MakeSocket, server: SocketAddr, transport: Transport) -> io::Result<OwnedFd> {
    let making = tokio::task::spawn_blocking(move || make(server, transport));
    making.await.map_err(io::Error::other)?
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
            let socket = std::net::TcpStream::from(made(make, server, Transport::Tcp).await?);
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
            let socket = std::net::UdpSocket::from(made(make, server, Transport::Udp).await?);
            socket.set_nonblocking(true)?;
            UdpSocket::from_std(socket)
        })
    }
}
