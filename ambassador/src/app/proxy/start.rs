//! Starting: what takes privileges, giving them up, then threads.

use std::net::SocketAddr;
use std::path::{self, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use super::access_log::open_log;
use super::commands::commands_of;
use super::labels::Labels;
use super::listeners;
use super::loading::Loader;
use super::{Current, Housekeeping, Proxy, ProxyState};
use crate::addr::BindAddr;
use crate::app::captured::{self, Captured, Change};
use crate::app::figures::{self, ShardQuestions};
use crate::app::introduction::{self, Introduction};
use crate::app::open_listeners::{self, OpenListener};
use crate::app::{Failure, advice, answers, memory, unavailable, with_causes};
use crate::clock;
use crate::config::checked::{LogTarget, Workers};
use crate::config::{Certificates, Checked};
use crate::control::spiffe::{self, IdentitySource};
use crate::control::{
    self, AskShard, Control, Deadline, Event, Fingerprint, Phase, Readiness, Signals, WatchedFile,
    certificates,
};
use crate::proxy::context::Tokens;
use crate::proxy::generation::Generation;
use crate::proxy::memory::Memory;
use crate::proxy::room;
use crate::ring::{self, Backend, Remote};
use crate::shard::accept::{ListenSocket, host_addresses};
use crate::shard::{self, Callers, Plan, Shard, descriptors, place};
use crate::telemetry::Registry;
use crate::telemetry::access_log::AccessLog;
use crate::upstream::dial::OwnAddresses;
use crate::workload::memory::MappedFiles;
use crate::workload::named::{self, Access};
use crate::workload::{self, Commands, Helper, UserChange};

/// Events that may wait for the main thread.
const EVENTS: usize = 8;

/// What to start.
pub(crate) struct Start {
    /// The configuration.
    pub checked: Checked,
    /// Where it came from, if it can be read again, and what was read there,
    /// before the command line had its say.
    pub file: Option<(PathBuf, Fingerprint, Checked)>,
    /// What the command line says in place of the file.
    pub overrides: Overrides,
    /// Whom the proxy becomes.
    pub user: UserChange,
    /// The privileged helper, where it is needed.
    pub helper: Option<Arc<Helper>>,
    /// Who receives signals.
    pub signals: Signals,
    /// Pin links where the failure policy wants them to outlive the process.
    pub may_pin: bool,
}

/// Puts what the command line says in place of what the file does.
pub(crate) type Overrides = Box<dyn Fn(&mut Checked)>;

/// What is made while this process has its privileges and one thread.
struct Groundwork {
    registry: Arc<Registry>,
    generation: Arc<Generation>,
    certificates: Certificates,
    /// The CPUs that this process may use.
    cpus: Vec<usize>,
    shards: u16,
    opened: Vec<OpenListener>,
    captured: Option<Captured>,
    change: Change,
    commands: Arc<Commands>,
    control: control::Settings,
    bound_control: control::Bound,
    /// What is said of listeners and of what is captured.
    listening: String,
    captured_what: String,
}

/// What the shards have in common.
struct Shared<'a> {
    shards: u16,
    generation: &'a Arc<Generation>,
    captured: Option<&'a Captured>,
    log: Option<&'a AccessLog>,
    memory: &'a Arc<Memory>,
    backend: Backend,
    callers: Callers,
}

/// Starts everything and returns once all listeners accept.
pub(crate) fn start(start: Start) -> Result<Proxy, Failure> {
    let ground = Groundwork::lay(&start)?;
    ground.give_up_privileges(&start)?;
    // From here on there are threads, and nothing that needs a privilege.
    if let Some(captured) = &ground.captured {
        let started = captured.start_supply();
        started.map_err(unavailable("cannot start a thread"))?;
    }
    let checked = start.checked;
    let (backend, why_not_ring) = ring::probe();
    let log = checked.access_log.as_ref();
    let log = log.map(|log| open_log(log, &ground.registry)).transpose()?;
    let memory = Arc::new(Memory::new(ground.shards, checked.memory_limit));
    let shared = Shared {
        shards: ground.shards,
        generation: &ground.generation,
        captured: ground.captured.as_ref(),
        log: log.as_ref(),
        memory: &memory,
        backend,
        callers: match start.signals {
            Signals::Handle => Callers::Remain,
            Signals::Leave => Callers::Ended,
        },
    };
    let plans = shared.plans(&checked, ground.opened, ground.change, &ground.cpus);
    let now = Current {
        listeners: listeners::by_name(&checked, &ground.registry),
        checked: Arc::new(checked),
        generation: ground.generation,
        certificates: ground.certificates,
    };
    let identity = now.certificates.identity();
    let state = ProxyState::new(ground.registry, ground.captured, memory, backend, now);
    state.identity.send_replace(identity);
    // Before the shards, so that whoever was served can end us by a signal.
    let control = ground.control;
    let (control, events) = start_control(&state, control, ground.bound_control, ground.shards)?;
    let shards = start_shards(&state, plans)?;
    let mut labels = Labels::default();
    labels.follow(&state.generation());
    state.watch_names(&control);
    control.watch_certificates(state.certificates());
    state.keep_credentials(&control);
    state.check_health(&control);
    control.keep_identity(state.identity_source());
    let introduction = Introduction {
        backend,
        why_not_ring,
        shards: ground.shards,
        listeners: ground.listening,
        captured: ground.captured_what,
        admin: control.listen().clone(),
        metrics: control.metrics_listen().cloned(),
    };
    introduction.log();
    if let Some(why) = &start.user.remark {
        tracing::warn!("the proxy stays root: {why}");
    }
    state.readiness.set(Phase::Serving);
    MappedFiles::find().unmap();
    Ok(Proxy {
        shards,
        control,
        events,
        state,
        log,
        labels,
        file: start.file.map(|(path, _, checked)| (path, checked)),
        overrides: start.overrides,
        loader: Loader::default(),
        commands: ground.commands,
        refused: None,
        housekeeping: Housekeeping::default(),
    })
}

impl Groundwork {
    fn lay(start: &Start) -> Result<Self, Failure> {
        let checked = &start.checked;
        if let Err(error) = descriptors::use_all() {
            tracing::warn!(%error, "cannot raise the soft limit of open files");
        }
        let registry = Arc::new(Registry::default());
        let cpus = place::cpus().map_err(unavailable("cannot read the CPU affinity"))?;
        let shards = workers(checked.workers, cpus.len());
        room::set_total(checked.max_connections);
        registry.control.loaded(clock::unix_ms() / 1_000);
        let file = start
            .file
            .as_ref()
            .map(|(path, ..)| path.display().to_string());
        let file = file.as_deref().unwrap_or("environment");
        let certificates = Certificates::open(checked, file, &Certificates::default());
        let certificates = certificates.map_err(Failure::Config)?;
        let generation = Generation::new(checked.routes.clone(), &registry, None);
        let generation =
            Arc::new(generation.with_tls(certificates.of_upstreams(&checked.routes.upstreams)));
        generation.put_in_force();
        let opened = open_listeners::open(checked, &certificates, &registry, shards, |_| true)?;
        let (captured, change) = match (&checked.capture, &start.helper) {
            (Some(settings), Some(helper)) if !settings.targets.is_empty() => {
                let start = captured::Start {
                    settings: settings.clone(),
                    generation: &generation,
                    shards,
                    helper,
                    may_pin: start.may_pin,
                };
                let (captured, change) = start.run()?;
                (Some(captured), change)
            }
            _ => (None, Change::default()),
        };
        let config = start.file.as_ref().map(|(path, ..)| path::absolute(path));
        let config = config.transpose();
        let config = config.map_err(unavailable("cannot name the file"))?;
        let commands = Commands::start(&start.user, config, commands_of(checked));
        let commands = commands.map_err(unavailable("cannot start what runs commands"))?;
        let commands = Arc::new(commands);
        let control = control_settings(start, &commands);
        let bound_control = control::Bound::bind(&control).map_err(cannot_control)?;
        let capture = checked.capture.as_ref().filter(|_| captured.is_some());
        Ok(Self {
            listening: introduction::listeners(&checked.listeners, &opened),
            captured_what: introduction::captured(capture, checked.routes.unmatched),
            registry,
            generation,
            certificates,
            cpus,
            shards,
            opened,
            captured,
            change,
            commands,
            control,
            bound_control,
        })
    }

    fn give_up_privileges(&self, start: &Start) -> Result<(), Failure> {
        let checked = &start.checked;
        let mut files = named_files(checked, start.file.as_ref().map(|(path, ..)| path));
        if let Some(helper) = &start.helper {
            named::remember(helper, &files)
                .and_then(|()| helper.seal())
                .map_err(unavailable("the privileged helper does not answer"))?;
        }
        let listeners = checked.listeners.iter();
        let sockets = listeners.filter_map(|listener| unix_path(&listener.bind));
        files.extend(sockets.map(|path| (path, Access::Remove)));
        workload::confine(&start.user, &files).map_err(unavailable("cannot give up privileges"))
    }
}

impl Shared<'_> {
    /// What each shard starts with.
    fn plans(
        &self,
        checked: &Checked,
        opened: Vec<OpenListener>,
        mut change: Change,
        cpus: &[usize],
    ) -> Vec<Plan> {
        let count = usize::from(self.shards);
        let mut listen_sockets: Vec<Vec<ListenSocket>> = (0..count).map(|_| Vec::new()).collect();
        for opened in opened {
            for (shard, listen_socket) in opened.listen_sockets().into_iter().enumerate() {
                listen_sockets[shard].push(listen_socket);
            }
        }
        let own = self.own_addresses();
        let mut plans = Vec::with_capacity(count);
        for (shard, mut listen_sockets) in listen_sockets.into_iter().enumerate() {
            let mut heartbeat = None;
            let mut namespaces = Vec::new();
            if let Some(captured) = self.captured {
                listen_sockets.append(&mut change.listen_sockets[shard]);
                namespaces = std::mem::take(&mut change.stocks[shard]);
                let beats = captured.heartbeat(shard as u16);
                heartbeat = beats.map(|beats| (beats, captured.reliance()));
            }
            plans.push(Plan {
                shard: shard as u16,
                shards: count,
                cpu: (count == cpus.len()).then(|| cpus[shard]),
                backend: self.backend,
                spin: checked.spin,
                generation: Arc::clone(self.generation),
                listen_sockets,
                own: own.clone(),
                memory: Arc::clone(self.memory),
                namespaces,
                log: self.log.map(AccessLog::sink),
                heartbeat,
                tokens: self.captured.map_or(Tokens::Guarded, Captured::tokens),
                callers: self.callers,
            });
        }
        plans
    }

    fn own_addresses(&self) -> OwnAddresses {
        let captured = self.captured.iter();
        let bound = captured.map(|captured| SocketAddr::from(([0; 4], captured.port)));
        OwnAddresses {
            // Explicit listeners are added where they accept.
            bound: bound.collect(),
            host: host_addresses().unwrap_or_default(),
        }
    }
}

impl ProxyState {
    fn new(
        registry: Arc<Registry>,
        captured: Option<Captured>,
        memory: Arc<Memory>,
        backend: Backend,
        now: Current,
    ) -> Arc<Self> {
        Arc::new_cyclic(|weak: &Weak<Self>| {
            let weak = weak.clone();
            let canary = move || {
                let state = weak.upgrade();
                let captured = state.as_ref().and_then(|state| state.captured.as_ref());
                captured.map_or(Ok(()), Captured::canary)
            };
            let canary: Box<dyn Fn() -> Result<(), String> + Send + Sync> = Box::new(canary);
            Self {
                registry,
                readiness: Arc::new(Readiness::new(captured.is_some().then_some(canary))),
                captured,
                memory,
                remotes: OnceLock::new(),
                backend,
                names: Arc::default(),
                identity: spiffe::Publish::default(),
                current: Mutex::new(now),
            }
        })
    }
}

fn start_shards(state: &ProxyState, plans: Vec<Plan>) -> Result<Vec<Shard>, Failure> {
    let shards = shard::start(plans).map_err(unavailable("cannot start the shards"))?;
    let remotes: Vec<Remote> = shards.iter().map(|shard| shard.remote.clone()).collect();
    let kept = memory::keep(&state.memory, remotes.clone());
    kept.map_err(unavailable("cannot start a thread"))?;
    if state.remotes.set(remotes).is_err() {
        unreachable!("they are set once, here");
    }
    Ok(shards)
}

/// The files that the proxy opens again, or only once it is somebody else.
pub(crate) fn named_files(checked: &Checked, config: Option<&PathBuf>) -> Vec<(PathBuf, Access)> {
    let mut files = Vec::new();
    let read = config.into_iter().chain(&checked.admin.token_file).cloned();
    let upstreams = checked.routes.upstreams.iter();
    let auths = upstreams.flat_map(|upstream| upstream.secrets());
    let read = read.chain(auths.flat_map(|auth| auth.files()));
    files.extend(read.map(|path| (path, Access::Read)));
    for path in certificate_files(checked) {
        // Upstreams may share them.
        if !files.iter().any(|(known, _)| *known == path) {
            files.push((path, Access::Read));
        }
    }
    let admin = [
        Some(&checked.admin.listen),
        checked.admin.metrics_listen.as_ref(),
    ];
    let sockets = admin.into_iter().flatten().filter_map(unix_path);
    files.extend(sockets.map(|path| (path, Access::Remove)));
    if let Some(LogTarget::File(path)) = checked.access_log.as_ref().map(|log| &log.target) {
        files.push((path.clone(), Access::Append));
    }
    files
}

fn certificate_files(checked: &Checked) -> Vec<PathBuf> {
    let directory = &checked.directory;
    let upstreams = checked.routes.upstreams.iter();
    let upstreams = upstreams.filter_map(|upstream| upstream.tls.as_deref());
    let upstreams = upstreams.map(|tls| certificates::of_upstream(tls, directory));
    let listeners = checked.listeners.iter();
    let listeners = listeners.filter_map(|listener| listener.tls.as_deref());
    let listeners = listeners.map(|tls| certificates::of_listener(tls, directory));
    let identity = checked.identity_source();
    let identity = identity.iter().flat_map(IdentitySource::paths);
    let mut files: Vec<PathBuf> = identity.cloned().collect();
    upstreams
        .chain(listeners)
        .for_each(|set| files.extend(set.paths().cloned()));
    files
}

fn unix_path(bind: &BindAddr) -> Option<PathBuf> {
    match bind {
        BindAddr::Unix(path) => Some(path.clone()),
        BindAddr::Tcp(_) => None,
    }
}

fn control_settings(start: &Start, commands: &Arc<Commands>) -> control::Settings {
    let admin = start.checked.admin.clone();
    control::Settings {
        listen: admin.listen,
        metrics_listen: admin.metrics_listen,
        token_file: admin.token_file,
        commands: Arc::clone(commands),
        signals: start.signals,
        watch: start.file.as_ref().map(|(path, loaded, _)| WatchedFile {
            path: path.clone(),
            loaded: *loaded,
        }),
    }
}

fn cannot_control(error: control::StartError) -> Failure {
    match &error {
        control::StartError::Listen { address, source } => {
            advice::cannot_listen("admin", address, source)
        }
        _ => Failure::Unavailable(with_causes(&error)),
    }
}

fn start_control(
    state: &Arc<ProxyState>,
    settings: control::Settings,
    bound: control::Bound,
    shards: u16,
) -> Result<(Control, Receiver<Event>), Failure> {
    let signals = settings.signals;
    let (raise, events) = sync_channel(EVENTS);
    let (obstacle, extras, upstreams, breakers, effective, origins, resolved, ending) = (
        Arc::clone(state),
        Arc::clone(state),
        Arc::clone(state),
        Arc::clone(state),
        Arc::clone(state),
        Arc::clone(state),
        Arc::clone(state),
        Arc::clone(state),
    );
    let state = control::State {
        registry: Arc::clone(&state.registry),
        shards: (0..usize::from(shards))
            .map(|shard| {
                let state = Arc::clone(state);
                let remote = move || state.remotes.get().map(|remotes| remotes[shard].clone());
                Box::new(ShardQuestions(remote)) as Box<dyn AskShard>
            })
            .collect(),
        readiness: Arc::clone(&state.readiness),
        identity: state.identity.clone(),
        obstacle: Box::new(move || obstacle.obstacle()),
        extras: Box::new(move || extras.extras()),
        upstreams: Box::new(move || figures::upstreams(&upstreams.generation())),
        force_breaker: Box::new(move |name, force| {
            figures::force_breaker(&breakers.generation(), name, force)
        }),
        config: Box::new(move || effective.current().checked.effective()),
        origin: Box::new(move |upstream, key| {
            figures::origin(&origins.current().checked, upstream, key)
        }),
        resolved: Arc::new(move |watched, addresses| {
            let generation = resolved.generation();
            answers::publish(&generation, resolved.captured.as_ref(), watched, &addresses);
        }),
        deadline: Arc::new(Deadline::new(move || {
            let checked = Arc::clone(&ending.current().checked);
            // `exec` ends with its command.
            (signals == Signals::Handle).then(|| checked.drain_delay + checked.drain_timeout)
        })),
        events: raise,
    };
    let control = control::start(settings, bound, state).map_err(cannot_control)?;
    Ok((control, events))
}

/// One shard per CPU that the process may use, within its cgroup's quota.
fn workers(workers: Workers, cpus: usize) -> u16 {
    let count = match workers {
        Workers::Count(count) => return count.max(1),
        Workers::Auto => {
            let own = workload::cgroup::own_cgroup().ok();
            let quota = own
                .and_then(|own| std::fs::read_to_string(own.join("cpu.max")).ok())
                .and_then(|text| place::quota(&text));
            quota.map_or(cpus, |quota| quota.min(cpus))
        }
    };
    u16::try_from(count.max(1)).unwrap_or(u16::MAX)
}
