//! Everything that is not on the path of a request: the admin API, signals, the
//! watch of the configuration file, name resolution, and the commands that call a
//! running ambassador.
//!
//! All of it runs on one thread, on a tokio runtime. It knows the rest of the
//! program only through the callbacks in [`State`], and changes it only by
//! sending an [`Event`]. It never blocks on a shard: a shard answers through a
//! channel, or not at all.

mod admin;
pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod credentials;
mod deadline;
pub(crate) mod dns;
mod figures;
mod grpc;
mod health_checks;
mod https;
mod listen;
mod readiness;
mod reading;
mod rounds;
mod signals;
pub(crate) mod spiffe;
mod upstreams;
mod watch;

pub(crate) use certificates::{CertificateHolder, WatchedCertificates};
pub(crate) use credentials::KeptCredential;
pub(crate) use deadline::Deadline;
pub(crate) use dns::files as name_files;
pub(crate) use dns::{Files, NameService, NameServices, Publish, Transport, WatchedName};
pub(crate) use figures::AskShard;
pub(crate) use health_checks::CheckedUpstream;
pub(crate) use readiness::{Phase, Readiness, Remark};
pub(crate) use upstreams::{CircuitInfo, ResilienceInfo, Source, UpstreamInfo};
pub(crate) use watch::{Fingerprint, WatchedFile};

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::addr::BindAddr;
use crate::clock;
use crate::policy::breaker::Force;
use crate::telemetry::{Extras, Registry};
use crate::workload::{Commands, sockets};
use spiffe::IdentitySource;

/// How long the thread may take to end.
const ENDS_WITHIN: Duration = Duration::from_millis(200);
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// What the control side is told at start.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The whole admin API; default 127.0.0.1:15000.
    pub listen: BindAddr,
    /// A second address that serves /livez, /readyz, /metrics and /jwks.json alone.
    pub metrics_listen: Option<BindAddr>,
    /// Holds the token without which nothing is changed over TCP; read at every
    /// use, so that it may be rotated.
    pub token_file: Option<PathBuf>,
    /// What SIGTERM, SIGINT and SIGHUP mean.
    pub signals: Signals,
    /// The configuration file, where a change to it is to be taken over.
    pub watch: Option<WatchedFile>,
    /// Runs commands that print credentials.
    pub commands: Arc<Commands>,
}

/// Who receives the signals of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signals {
    /// SIGTERM and SIGINT drain, SIGHUP reloads.
    Handle,
    /// Another part of the program handles them (`exec` forwards them to CMD).
    Leave,
}

/// What the control side asks of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// Take no new work, finish what is in flight, end. A second one means: now.
    Drain,
    /// Read the configuration file again.
    Reload,
}

/// Sets the circuit breaker of the upstream with a name; `false`: there is none.
pub(crate) type ForceBreaker = Box<dyn Fn(&str, Force) -> bool + Send + Sync>;

/// Where the value of a policy of an upstream, by its key, stands; `None`: in no place.
pub(crate) type Origin = Box<dyn Fn(&str, &str) -> Option<String> + Send + Sync>;

/// The rest of the program, as the control side sees it. Callbacks run on the
/// control thread and must not block, [`Readiness`]'s canary apart.
pub(crate) struct State {
    /// Names and control counters.
    pub registry: Arc<Registry>,
    /// One per shard, by number.
    pub shards: Vec<Box<dyn AskShard>>,
    /// Whether the program serves.
    pub readiness: Arc<Readiness>,
    /// Counters kept outside the shards.
    pub extras: Box<dyn Fn() -> Extras + Send + Sync>,
    /// Every upstream as it is now, adopted ones included.
    pub upstreams: Box<dyn Fn() -> Vec<UpstreamInfo> + Send + Sync>,
    /// For who may change something.
    pub force_breaker: ForceBreaker,
    /// The effective configuration, secrets masked.
    pub config: Box<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// Where the value of a policy of an upstream stands in the file.
    pub origin: Origin,
    /// Where a resolution goes.
    pub resolved: Publish,
    /// Why the program cannot serve what it is to serve; `None`: it can.
    pub obstacle: Box<dyn Fn() -> Option<String> + Send + Sync>,
    /// Where the identity of the proxy goes.
    pub identity: spiffe::Publish,
    /// Ends the process where a drain does not end.
    pub deadline: Arc<Deadline>,
    /// Where events go. The channel is bounded; an event that finds it full is
    /// dropped, as enough of them wait already.
    pub events: SyncSender<Event>,
}

/// The running control side; dropping it ends its thread.
#[derive(Debug)]
pub(crate) struct Control {
    names: mpsc::Sender<dns::WatchedNames>,
    certificates: mpsc::Sender<Vec<WatchedCertificates>>,
    credentials: mpsc::Sender<Vec<KeptCredential>>,
    health_checks: mpsc::Sender<Vec<CheckedUpstream>>,
    identity: tokio::sync::watch::Sender<Option<IdentitySource>>,
    listen: BindAddr,
    metrics_listen: Option<BindAddr>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Why the control side does not start.
#[derive(Debug)]
pub(crate) enum StartError {
    /// An address cannot be listened on.
    Listen {
        /// The address.
        address: BindAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The configuration file cannot be watched.
    Watch(io::Error),
    /// The runtime, its thread or a signal handler cannot be made.
    Runtime(io::Error),
}

/// What takes the rights that the process has at its start: the admin addresses
/// are bound, the file is watched.
#[derive(Debug)]
pub(crate) struct Bound {
    admin: listen::Bound,
    metrics: Option<listen::Bound>,
    watch: Option<watch::Prepared>,
}

impl Bound {
    /// Binds the addresses of the settings and watches their file.
    pub(crate) fn bind(settings: &Settings) -> Result<Self, StartError> {
        let until = clock::now() + sockets::FREE_WITHIN;
        let listen_on = |address: &BindAddr| {
            let bound = sockets::once_free(address, until, || listen::Bound::bind(address));
            bound.map_err(|source| StartError::Listen {
                address: address.clone(),
                source,
            })
        };
        let watch = settings.watch.clone();
        Ok(Self {
            admin: listen_on(&settings.listen)?,
            metrics: settings
                .metrics_listen
                .as_ref()
                .map(listen_on)
                .transpose()?,
            watch: watch
                .map(watch::Prepared::new)
                .transpose()
                .map_err(StartError::Watch)?,
        })
    }
}

/// Serves on a thread of its own. When this returns, the admin addresses accept
/// and signals no longer end the process.
pub(crate) fn start(settings: Settings, bound: Bound, state: State) -> Result<Control, StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .build()
        .map_err(StartError::Runtime)?;
    let inside = runtime.enter();
    let admin = bound.admin.serve().map_err(StartError::Runtime)?;
    let metrics = bound.metrics.map(listen::Bound::serve).transpose();
    let metrics = metrics.map_err(StartError::Runtime)?;
    let watch = bound
        .watch
        .map(watch::Prepared::start)
        .transpose()
        .map_err(StartError::Watch)?;
    if settings.signals == Signals::Handle {
        let (events, deadline) = (state.events.clone(), Arc::clone(&state.deadline));
        signals::Handlers::start(events, deadline).map_err(StartError::Runtime)?;
    }

    let (listen, metrics_listen) = (
        admin.address().clone(),
        metrics.as_ref().map(|listener| listener.address().clone()),
    );
    let surface = match listen.is_local() {
        true => admin::Surface::Whole,
        false => admin::Surface::Guarded,
    };
    let (names, names_in) = mpsc::channel(4);
    let (certificates, certificates_in) = mpsc::channel(4);
    let (credentials, credentials_in) = mpsc::channel(4);
    let (health_checks, health_checks_in) = mpsc::channel(4);
    let (identity, identity_in) = tokio::sync::watch::channel(None);
    let (stop, stopped) = oneshot::channel();
    let serve = async move {
        let state = Arc::new(state);
        let events = &state.events;
        let publish = state.identity.clone();
        let published = publish.subscribe();
        let dns = dns::run(
            names_in,
            Arc::clone(&state.registry),
            Arc::clone(&state.resolved),
        );
        let public_keys = Arc::<credentials::PublicKeys>::default();
        let surroundings = credentials::Surroundings {
            public_keys: Arc::clone(&public_keys),
            names: Arc::default(),
            commands: settings.commands,
        };
        let told = surroundings.clone();
        let runners = credentials::runners::watch(&told, &state.registry, &state.readiness);
        let kept = credentials::run(credentials_in, Arc::clone(&state.registry), surroundings);
        let server = admin::Server::new(Arc::clone(&state), settings.token_file, public_keys);
        tokio::select! {
            _ = stopped => {}
            () = dns => {}
            () = certificates::run(certificates_in, published, &state.registry) => {}
            () = spiffe::keep(identity_in, publish, &state.registry) => {}
            () = kept => {}
            () = health_checks::run(health_checks_in, Arc::clone(&state.registry)) => {}
            () = runners => {}
            () = server.clone().serve(admin, surface) => {}
            () = serve_optional(server, metrics) => {}
            () = async { match watch {
                Some(watch) => watch.run(events).await,
                None => std::future::pending().await,
            }} => {}
        }
    };
    let thread = thread::Builder::new().name("control".into()).spawn({
        drop(inside);
        move || {
            runtime.block_on(serve);
            // A canary that hangs must not hold up the end of the program.
            runtime.shutdown_background();
        }
    });
    Ok(Control {
        names,
        certificates,
        credentials,
        health_checks,
        identity,
        listen,
        metrics_listen,
        stop: Some(stop),
        thread: Some(thread.map_err(StartError::Runtime)?),
    })
}

async fn serve_optional(server: Arc<admin::Server>, listener: Option<listen::Listener>) {
    match listener {
        Some(listener) => server.serve(listener, admin::Surface::Metrics).await,
        None => std::future::pending().await,
    }
}

impl Control {
    /// Resolves these names from now on, and no others; those of a namespace
    /// anew where its service is not that of before. Waits only while four
    /// earlier calls have not been taken up, so not to be called by a callback
    /// of [`State`].
    pub(crate) fn watch_names(&self, names: Vec<WatchedName>, services: NameServices) {
        let wanted = dns::WatchedNames { names, services };
        if self.names.blocking_send(wanted).is_err() {
            tracing::error!("the control thread is gone: names are no longer resolved");
        }
    }

    /// Follows the files of these certificates from now on, and of no others. Waits as
    /// [`Control::watch_names`] does.
    pub(crate) fn watch_certificates(&self, watched: Vec<WatchedCertificates>) {
        if self.certificates.blocking_send(watched).is_err() {
            tracing::error!("the control thread is gone: certificates are no longer watched");
        }
    }

    /// Keeps these credentials fetched from now on, and no others. Waits as
    /// [`Control::watch_names`] does.
    pub(crate) fn keep_credentials(&self, credentials: Vec<KeptCredential>) {
        if self.credentials.blocking_send(credentials).is_err() {
            tracing::error!("the control thread is gone: credentials are no longer fetched");
        }
    }

    /// Checks the endpoints of these upstreams from now on, and of no others. Waits as
    /// [`Control::watch_names`] does.
    pub(crate) fn check_health(&self, checked: Vec<CheckedUpstream>) {
        if self.health_checks.blocking_send(checked).is_err() {
            tracing::error!("the control thread is gone: endpoints are no longer checked");
        }
    }

    /// Has the identity of the proxy come from here from now on.
    pub(crate) fn keep_identity(&self, source: Option<IdentitySource>) {
        self.identity.send_if_modified(|before| {
            let is_new = *before != source;
            *before = source;
            is_new
        });
    }

    /// Where the admin API listens, a port chosen by the kernel filled in.
    pub(crate) fn listen(&self) -> &BindAddr {
        &self.listen
    }

    /// Where the metrics listen.
    pub(crate) fn metrics_listen(&self) -> Option<&BindAddr> {
        self.metrics_listen.as_ref()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // The receiver is gone if the thread ended by itself.
        let _ = self.stop.take().map(|stop| stop.send(()));
        let Some(thread) = self.thread.take() else {
            return;
        };
        let until = clock::now() + ENDS_WITHIN;
        while !thread.is_finished() {
            // In a call that hangs: it ends with the process.
            if clock::now() >= until {
                return tracing::error!("the control thread hangs");
            }
            thread::sleep(LOOK_EVERY);
        }
        if thread.join().is_err() {
            tracing::error!("the control thread panicked");
        }
    }
}

/// Hands an event on, unless enough of them wait.
fn raise(events: &SyncSender<Event>, event: Event) {
    if events.try_send(event).is_err() {
        tracing::warn!(?event, "dropped: earlier ones are still waiting");
    }
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Listen { address, .. } => write!(f, "cannot listen on {address}"),
            Self::Watch(_) => f.write_str("cannot watch the configuration file"),
            Self::Runtime(_) => f.write_str("cannot start the control thread"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Listen { source, .. } | Self::Watch(source) | Self::Runtime(source) => {
                Some(source)
            }
        }
    }
}

#[cfg(test)]
mod tests;
