//! The configuration after every check: what the rest of the program sees.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::mistakes::Mistakes;
use crate::addr::BindAddr;
use crate::capture;
use crate::control::spiffe::{IdentityFiles, IdentitySource};
use crate::credential::workload_endpoint::Endpoint;
use crate::message::trace;
use crate::proxy::memory;
use crate::ring;
use crate::route;
use crate::route::tls::ListenerTls;
use crate::telemetry::access_log::{Keep, LineFormat};
use crate::workload::User;

/// Where the admin API listens unless the file says otherwise.
pub(crate) const ADMIN_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15000);

/// A sound configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// Data-plane threads.
    pub workers: Workers,
    /// Whether they spin.
    pub spin: ring::Spin,
    /// What the proxy runs as after the start.
    pub user: User,
    /// The admin API.
    pub admin: Admin,
    /// Connections of applications at most; `None`: any number.
    pub max_connections: Option<u32>,
    /// Memory that the process may hold.
    pub memory_limit: memory::Limit,
    /// How long work in flight may take to finish.
    pub drain_timeout: Duration,
    /// How long to go on serving before the drain starts.
    pub drain_delay: Duration,
    /// Who the proxy is; `None`: nobody.
    pub identity: Option<Identity>,
    /// Interception; `None`: the file has no `capture`.
    pub capture: Option<capture::settings::Settings>,
    /// Explicit listeners.
    pub listeners: Vec<Listener>,
    /// Upstreams and routes.
    pub routes: route::settings::Settings,
    /// The policies of each upstream of `routes`, in its order, with where
    /// each value came from.
    pub policies: Vec<Vec<Policy>>,
    /// The same for each route; `None`: it changes none of its upstream's.
    pub route_policies: Vec<Option<Vec<Policy>>>,
    /// The access log; `None`: off.
    pub access_log: Option<AccessLog>,
    /// The traces of requests, as upstreams have them that say nothing else;
    /// `None`: the headers pass unchanged.
    pub tracing: Option<trace::Settings>,
    /// The directory of the file. The paths of credentials and of the admin API begin
    /// there already, those of certificates do when they are read.
    pub directory: PathBuf,
    /// What is sound but perhaps not meant.
    pub warnings: Mistakes,
}

/// What an empty file says.
impl Default for Checked {
    fn default() -> Self {
        Self {
            workers: Workers::Auto,
            spin: ring::Spin::default(),
            user: User::default(),
            admin: Admin::default(),
            max_connections: None,
            memory_limit: memory::Limit::default(),
            drain_timeout: Duration::from_secs(30),
            drain_delay: Duration::ZERO,
            identity: None,
            capture: None,
            listeners: Vec::new(),
            routes: route::settings::Settings::default(),
            policies: Vec::new(),
            route_policies: Vec::new(),
            access_log: None,
            tracing: None,
            directory: PathBuf::new(),
            warnings: Mistakes::default(),
        }
    }
}

impl Checked {
    /// Has relative paths begin in this directory, that of the file.
    pub(super) fn begin_paths_in(&mut self, directory: &Path) {
        self.directory = directory.to_owned();
        let upstreams = self.routes.upstreams.iter_mut().map(Arc::make_mut);
        let auths = upstreams.flat_map(|it| it.auth.iter_mut().chain(&mut it.placeholders));
        let files = auths.flat_map(|auth| Arc::make_mut(auth).files_mut());
        for file in files.chain(&mut self.admin.token_file) {
            *file = directory.join(&file);
        }
    }
}

impl Identity {
    /// Where it comes from. Relative paths begin in `directory`.
    pub(crate) fn source(&self, directory: &Path) -> Option<IdentitySource> {
        match self {
            Self {
                spiffe: Some(endpoint),
                ..
            } => Some(IdentitySource::WorkloadApi(endpoint.clone())),
            Self {
                cert: Some(cert),
                key: Some(key),
                bundle: Some(bundle),
                ..
            } => Some(IdentitySource::Files(IdentityFiles {
                cert: directory.join(cert),
                key: directory.join(key),
                bundle: directory.join(bundle),
            })),
            _ => None,
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: BindAddr::Tcp(ADMIN_LISTEN),
            metrics_listen: None,
            token_file: None,
        }
    }
}

/// One that has no name yet, and is bound nowhere.
impl Default for Listener {
    fn default() -> Self {
        Self {
            name: String::new(),
            bind: BindAddr::Unix(PathBuf::new()),
            protocol: ListenerProtocol::Http,
            upstream: None,
            max_connections: None,
            tls: None,
            tls_line: 0,
        }
    }
}

impl Default for AccessLog {
    fn default() -> Self {
        Self {
            target: LogTarget::Stdout,
            format: LineFormat::Json,
            sample: 1.0,
            keep: Keep::default(),
        }
    }
}

/// Where the identity of the proxy comes from: a Workload API, or three files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// Where a Workload API is served.
    pub spiffe: Option<Endpoint>,
    /// The SVID and the certificates between it and an authority.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// The authorities of its trust domain.
    pub bundle: Option<PathBuf>,
}

/// Data-plane threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// One for each CPU that the process may use.
    Auto,
    /// This many.
    Count(u16),
}

/// The admin API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Where it listens.
    pub listen: BindAddr,
    /// Where health and metrics alone are served.
    pub metrics_listen: Option<BindAddr>,
    /// The file with the bearer token.
    pub token_file: Option<PathBuf>,
}

/// An explicit listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub bind: BindAddr,
    /// What is spoken on it.
    pub protocol: ListenerProtocol,
    /// Index into the upstreams; always there for `Tcp`, never for `Http`.
    pub upstream: Option<usize>,
    /// Connections at most; `None`: any number.
    pub max_connections: Option<u32>,
    /// How its connections are encrypted; `None`: they are in clear.
    pub tls: Option<Arc<ListenerTls>>,
    /// The line that says so; 0: none does.
    pub tls_line: usize,
}

/// What is spoken on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerProtocol {
    /// Requests, routed one by one.
    Http,
    /// Opaque bytes.
    Tcp,
}

/// The access log.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessLog {
    /// Where lines go.
    pub target: LogTarget,
    /// How a line is written.
    pub(crate) format: LineFormat,
    /// The share of requests logged, from 0 to 1.
    pub sample: f64,
    /// What is logged whatever that says.
    pub(crate) keep: Keep,
}

/// Where log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Appended to a file.
    File(PathBuf),
}

/// One policy value of an upstream or route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The key below the upstream, as `pool.max_idle`.
    pub key: String,
    /// The value as the file would write it.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The program's own default.
    BuiltIn,
    /// `telemetry` in the file, on this line.
    Telemetry(usize),
    /// `defaults` in the file, on this line.
    Defaults(usize),
    /// The upstream itself, on this line.
    Upstream(usize),
    /// A route.
    Route {
        /// Its place in `routes`, from 0.
        number: usize,
        /// The line.
        line: usize,
    },
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built in"),
            Self::Telemetry(line) => write!(f, "telemetry, line {line}"),
            Self::Defaults(line) => write!(f, "defaults, line {line}"),
            Self::Upstream(line) => write!(f, "upstream, line {line}"),
            Self::Route { number, line } => write!(f, "routes[{number}]:{line}"),
        }
    }
}
