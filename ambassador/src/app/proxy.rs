//! The proxy as a whole: started, reloaded, drained.

mod labels;
mod loading;
mod reload;
mod slots;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::captured::{self, Captured, Change};
use super::introduction::{self, Introduction};
use super::names::{Listeners, Places};
use super::{Failure, advice, figures, memory, names, opened, unavailable};
use crate::addr::BindAddr;
use crate::capture::settings::Settings;
use crate::clock::{self, Instant};
use crate::config::Checked;
use crate::config::checked::{AccessLog, LogTarget, Workers};
use crate::control::{
    self, Control, Deadline, Event, Fingerprint, NameService, Phase, Readiness, Signals,
    WatchedFile,
};
use crate::proxy::generation::Generation;
use crate::proxy::memory::Memory;
use crate::proxy::{drop_spares, room};
use crate::ring::{self, Backend, Remote, ebb};
use crate::shard::accept::{self, Intake, host_addresses};
use crate::shard::{self, Callers, Plan, Shard, descriptors, place};
use crate::telemetry::access_log;
use crate::telemetry::{Extras, ListenerIndex, Registry, Snapshot};
use crate::upstream::dial::OwnAddresses;
use crate::workload::memory::MappedFiles;
use crate::workload::named::{self, Access};
use crate::workload::{self, Helper, Identity};

/// Events that may wait for the main thread.
const EVENTS: usize = 8;

/// How often the main thread looks whether the shards have ended, while it
/// waits for them.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How often the main thread looks whether captured cgroups are still those
/// that their paths name, and whether there is memory to give back. To attach
/// takes a few hundred milliseconds, and all of it is to take a second.
const LOOK_AROUND_EVERY: Duration = Duration::from_millis(500);

/// How long shards may take to cut what is left after the deadline of a drain.
const CUT_WITHIN: Duration = Duration::from_millis(500);

/// How long shards are given to free what a burst has left them.
const SPARES_DROPPED_WITHIN: Duration = Duration::from_millis(100);

/// The summary of a run without traffic.
const NO_TRAFFIC: &str = "no call to sum up: the command made no TCP connection that is captured \
     (loopback, UDP and what `capture` leaves out are not)\n";

/// What to start.
pub(super) struct Start {
    /// The configuration.
    pub checked: Checked,
    /// Where it came from, if it can be read again, and what was read there,
    /// before the command line had its say.
    pub file: Option<(PathBuf, Fingerprint, Checked)>,
    /// What the command line says in place of the file.
    pub overrides: Overrides,
    /// Whom the proxy becomes.
    pub identity: Identity,
    /// The privileged helper, where it is needed.
    pub helper: Option<Arc<Helper>>,
    /// Who receives signals.
    pub signals: Signals,
    /// Pin links where the failure policy wants them to outlive the process.
    pub may_pin: bool,
}

/// Puts what the command line says in place of what the file does.
pub(super) type Overrides = Box<dyn Fn(&mut Checked)>;

/// A running proxy.
pub(super) struct Proxy {
    shards: Vec<Shard>,
    control: Control,
    events: Receiver<Event>,
    common: Arc<Common>,
    log: Option<access_log::AccessLog>,
    file: Option<(PathBuf, Checked)>,
    overrides: Overrides,
    /// It had when the main thread last looked around.
    burst_has_ended: bool,
    /// Slots of the token table.
    slots: slots::Slots,
    /// Numbers of names that are in use.
    labels: labels::Labels,
    /// Reads the file again.
    loader: loading::Loader,
    /// The file that was refused last.
    refused: Option<reload::Refused>,
}

/// What callbacks of the control side share with the main thread.
struct Common {
    registry: Arc<Registry>,
    readiness: Arc<Readiness>,
    captured: Option<Captured>,
    memory: Arc<Memory>,
    /// One per shard, once they run.
    remotes: OnceLock<Vec<Remote>>,
    backend: Backend,
    /// How names are looked up where nothing is captured.
    names: Arc<NameService>,
    now: Mutex<Now>,
}

/// What a reload replaces.
struct Now {
    checked: Arc<Checked>,
    generation: Arc<Generation>,
    listeners: reload::Known,
}

/// Starts everything and returns once all listeners accept.
pub(super) fn start(start: Start) -> Result<Proxy, Failure> {
    let Start {
        checked, helper, ..
    } = start;
    if let Err(error) = descriptors::use_all() {
        tracing::warn!(%error, "the soft limit of open files stays as it is");
    }
    let registry = Arc::new(Registry::default());
    let cpus = place::cpus().map_err(unavailable("cannot read the CPU affinity"))?;
    let count = workers(checked.workers, cpus.len());
    room::set_total(checked.max_connections);
    registry.control.loaded(clock::unix_ms() / 1_000);
    let generation = Arc::new(Generation::new(checked.routes.clone(), &registry, None));
    let opened = opened::open(&checked, &registry, count, |_| true)?;
    let (captured, mut change) = match (&checked.capture, &helper) {
        (Some(settings), Some(helper)) if !settings.targets.is_empty() => {
            let settings = settings.clone();
            let (captured, change) =
                captured::start(settings, &generation, count, helper, start.may_pin)?;
            (Some(captured), change)
        }
        _ => (None, Change::default()),
    };
    let listening = introduction::listeners(&checked.listeners, &opened);
    let capture = checked.capture.as_ref().filter(|_| captured.is_some());
    let captured_what = introduction::captured(capture, checked.routes.unmatched);
    let control = control_settings(&checked, start.signals, start.file.as_ref());
    let bound_control = control::Bound::bind(&control).map_err(cannot_control)?;
    let mut files = named_files(&checked, start.file.as_ref().map(|(path, ..)| path));
    if let Some(helper) = &helper {
        named::remember(helper, &files)
            .and_then(|()| helper.seal())
            .map_err(unavailable("the privileged helper does not answer"))?;
    }
    // From here on there are threads, and nothing that needs a privilege.
    let listeners = checked.listeners.iter();
    let sockets = listeners.filter_map(|listener| unix_path(&listener.bind));
    files.extend(sockets.map(|path| (path, Access::Remove)));
    workload::confine(&start.identity, &files).map_err(unavailable("cannot give up privileges"))?;
    if let Some(captured) = &captured {
        let started = captured.start_supply();
        started.map_err(unavailable("cannot start a thread"))?;
    }
    let (backend, why_not_ring) = ring::probe();
    let log = checked.access_log.as_ref();
    let log = log.map(|log| open_log(log, &registry)).transpose()?;

    let mut intakes: Vec<Vec<Intake>> = (0..count).map(|_| Vec::new()).collect();
    let listeners = reload::by_name(&checked, &registry);
    for opened in opened {
        for (shard, intake) in opened.intakes().into_iter().enumerate() {
            intakes[shard].push(intake);
        }
    }
    let own = OwnAddresses {
        // Explicit listeners are added where they accept.
        bound: captured
            .iter()
            .map(|captured| SocketAddr::from(([0; 4], captured.port)))
            .collect(),
        host: host_addresses().unwrap_or_default(),
    };
    let held = Arc::new(Memory::new(count, checked.memory_limit));
    let mut plans = Vec::with_capacity(intakes.len());
    for (shard, mut intakes) in intakes.into_iter().enumerate() {
        let mut heartbeat = None;
        let mut namespaces = Vec::new();
        if let Some(captured) = &captured {
            intakes.append(&mut change.intakes[shard]);
            namespaces = std::mem::take(&mut change.stocks[shard]);
            let beats = captured.heartbeat(shard as u16);
            heartbeat = beats.map(|beats| (beats, captured.reliance()));
        }
        plans.push(Plan {
            shard: shard as u16,
            shards: count,
            cpu: (usize::from(count) == cpus.len()).then(|| cpus[shard]),
            backend,
            spin: checked.spin,
            generation: Arc::clone(&generation),
            intakes,
            own: own.clone(),
            memory: Arc::clone(&held),
            namespaces,
            log: log.as_ref().map(access_log::AccessLog::sink),
            heartbeat,
            callers: match start.signals {
                Signals::Handle => Callers::Remain,
                Signals::Leave => Callers::Ended,
            },
        });
    }
    let common = Arc::new_cyclic(|weak: &std::sync::Weak<Common>| {
        let weak = weak.clone();
        let canary =
            captured
                .is_some()
                .then(|| -> Box<dyn Fn() -> Result<(), String> + Send + Sync> {
                    Box::new(move || {
                        let common = weak.upgrade();
                        let captured = common.as_ref().and_then(|common| common.captured.as_ref());
                        captured.map_or(Ok(()), Captured::canary)
                    })
                });
        Common {
            registry: Arc::clone(&registry),
            readiness: Arc::new(Readiness::new(canary)),
            captured,
            memory: held,
            remotes: OnceLock::new(),
            backend,
            names: Arc::default(),
            now: Mutex::new(Now {
                checked: Arc::new(checked),
                generation,
                listeners,
            }),
        }
    });
    let file = start.file.map(|(path, _, checked)| (path, checked));
    // Before the shards, so that whoever was served can end us by a signal.
    let (control, events) = start_control(&common, control, bound_control, count)?;
    let shards = shard::start(plans).map_err(unavailable("cannot start the shards"))?;
    let remotes: Vec<Remote> = shards.iter().map(|shard| shard.remote.clone()).collect();
    let kept = memory::keep(&common.memory, remotes.clone());
    kept.map_err(unavailable("cannot start a thread"))?;
    if common.remotes.set(remotes).is_err() {
        unreachable!("they are set once, here");
    }
    let mut labels = labels::Labels::default();
    labels.follow(&common.generation());
    common.watch_names(&control);
    let introduction = Introduction {
        backend,
        why_not_ring,
        shards: count,
        listeners: listening,
        captured: captured_what,
        admin: control.listen().clone(),
        metrics: control.metrics_listen().cloned(),
    };
    introduction.log();
    if let Some(why) = &start.identity.remark {
        tracing::warn!("it goes on as root: {why}");
    }
    common.readiness.set(Phase::Serving);
    MappedFiles::find().unmap();
    Ok(Proxy {
        shards,
        control,
        events,
        common,
        log,
        file,
        overrides: start.overrides,
        burst_has_ended: false,
        slots: slots::Slots::default(),
        labels,
        loader: loading::Loader::default(),
        refused: None,
    })
}

/// The files that the proxy opens again, or only once it is somebody else.
pub(super) fn named_files(checked: &Checked, config: Option<&PathBuf>) -> Vec<(PathBuf, Access)> {
    let mut files = Vec::new();
    let read = config.into_iter().chain(&checked.admin.token_file);
    files.extend(read.map(|path| (path.clone(), Access::Read)));
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

fn unix_path(bind: &BindAddr) -> Option<PathBuf> {
    match bind {
        BindAddr::Unix(path) => Some(path.clone()),
        BindAddr::Tcp(_) => None,
    }
}

fn control_settings(
    checked: &Checked,
    signals: Signals,
    file: Option<&(PathBuf, Fingerprint, Checked)>,
) -> control::Settings {
    let admin = checked.admin.clone();
    control::Settings {
        listen: admin.listen,
        metrics_listen: admin.metrics_listen,
        token_file: admin.token_file,
        signals,
        watch: file.map(|(path, loaded, _)| WatchedFile {
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
        _ => Failure::Unavailable(super::with_causes(&error)),
    }
}

fn start_control(
    common: &Arc<Common>,
    settings: control::Settings,
    bound: control::Bound,
    shards: u16,
) -> Result<(Control, Receiver<Event>), Failure> {
    let signals = settings.signals;
    let (raise, events) = sync_channel(EVENTS);
    let (extras, upstreams, breakers, effective, resolved, ending) = (
        Arc::clone(common),
        Arc::clone(common),
        Arc::clone(common),
        Arc::clone(common),
        Arc::clone(common),
        Arc::clone(common),
    );
    let state = control::State {
        registry: Arc::clone(&common.registry),
        shards: (0..usize::from(shards))
            .map(|shard| {
                let common = Arc::clone(common);
                figures::ask(move || common.remotes.get().map(|remotes| remotes[shard].clone()))
            })
            .collect(),
        readiness: Arc::clone(&common.readiness),
        extras: Box::new(move || extras.extras()),
        upstreams: Box::new(move || figures::upstreams(&upstreams.generation())),
        force_breaker: Box::new(move |name, force| {
            figures::force_breaker(&breakers.generation(), name, force)
        }),
        config: Box::new(move || effective.now().checked.effective()),
        resolved: Arc::new(move |watched, addresses| {
            let generation = resolved.generation();
            super::answers::publish(&generation, resolved.captured.as_ref(), watched, &addresses);
        }),
        deadline: Arc::new(Deadline::new(move || {
            let checked = Arc::clone(&ending.now().checked);
            // `exec` ends with its command.
            (signals == Signals::Handle).then(|| checked.drain_delay + checked.drain_timeout)
        })),
        events: raise,
    };
    let control = control::start(settings, bound, state).map_err(cannot_control)?;
    Ok((control, events))
}

impl Proxy {
    /// Serves until it is told to drain; reloads on the way.
    pub(super) fn serve(&mut self) {
        // By the clock: events may come more often than it is time to look.
        let mut next_look = clock::now() + LOOK_AROUND_EVERY;
        loop {
            let wait = next_look.saturating_duration_since(clock::now());
            match self.events.recv_timeout(wait) {
                Ok(Event::Reload) => self.reload(),
                Ok(Event::Drain) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if clock::now() >= next_look {
                self.look_around();
                next_look = clock::now()
                    + match self.burst_has_ended {
                        true => SPARES_DROPPED_WITHIN,
                        false => LOOK_AROUND_EVERY,
                    };
            }
        }
    }

    /// What comes up by itself.
    fn look_around(&mut self) {
        self.follow_cgroups();
        if let Some(captured) = &self.common.captured {
            self.slots.look_after(captured, &self.common.readiness);
        }
        self.labels.give_back(&self.common.registry, &self.shards);
        // Not at once, so that the shards have freed what they keep, too. What
        // ran for the burst need not run for what is left.
        if std::mem::replace(&mut self.burst_has_ended, ebb::burst_has_ended()) {
            workload::memory::give_back_freed();
            MappedFiles::find().unmap();
        }
        if self.burst_has_ended {
            for shard in &self.shards {
                shard.tell(|context| drop_spares(context));
            }
        }
    }

    fn follow_cgroups(&self) {
        let common = &self.common;
        let Some(captured) = &common.captured else {
            return;
        };
        match captured.follow_cgroups(&common.generation()) {
            None => {}
            Some(Ok(change)) => {
                tracing::info!("a captured cgroup was made anew; it is captured again");
                self.change_capture(change);
            }
            Some(Err(error)) => {
                tracing::error!(%error, "a captured cgroup was made anew and is not captured");
            }
        }
    }

    /// Has the shards do what a change of capture takes.
    fn change_capture(&self, change: Change) {
        for (_, shared) in self.common.generation().targets() {
            for namespace in &change.stopped {
                shared.elsewhere.forget(*namespace);
            }
        }
        let work = change.stocks.into_iter().zip(change.intakes);
        for (shard, (stocks, intakes)) in self.shards.iter().zip(work) {
            let stopped = change.stopped.clone();
            shard.tell(move |context| {
                for stock in stocks {
                    context.pools.add_namespace(stock);
                }
                for namespace in stopped {
                    context.stop_listener(ListenerIndex::CAPTURE, namespace);
                    context.pools.forget_namespace(namespace);
                }
            });
            for intake in intakes {
                accept_on(shard, intake);
            }
        }
    }

    /// Takes note of what has happened meanwhile; `exec` waits for its command
    /// instead of events.
    pub(super) fn handle_pending(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            match event {
                Event::Reload => self.reload(),
                Event::Drain => tracing::info!("exec drains when its command has ended"),
            }
        }
    }

    /// Goes on serving for `drain_delay`, while captured programs still run;
    /// then finishes what is in flight, within `drain_timeout`. Another drain
    /// event cuts what is left.
    pub(super) fn drain(mut self) {
        self.common.readiness.set(Phase::Draining);
        let checked = Arc::clone(&self.common.now().checked);
        self.delay(&checked);
        let deadline = clock::now() + checked.drain_timeout;
        tracing::info!(timeout = ?checked.drain_timeout, "draining");
        self.finish(deadline, accept::CLOSING_GRACE);
        let captured = self.common.captured.as_ref();
        if captured.is_some_and(Captured::is_pinned) {
            tracing::warn!(
                "by on_failure: refuse, captured programs cannot connect until the next start; \
                 `ambassador doctor --clean` lets them, 10 s from now"
            );
        }
    }

    /// Ends, giving what is in flight until `deadline`, and who is about to
    /// connect or to ask `grace`; gives what all shards have counted.
    pub(super) fn finish(&mut self, deadline: Instant, grace: Duration) -> Snapshot {
        for shard in &self.shards {
            shard.drain(deadline, grace);
        }
        while !self.shards.iter().all(Shard::has_ended) {
            if clock::now() >= deadline + CUT_WITHIN {
                tracing::error!("a shard hangs; what it counted last is lost");
                break;
            }
            match self.events.recv_timeout(LOOK_EVERY) {
                Ok(Event::Drain) => {
                    for shard in &self.shards {
                        shard.drain(clock::now(), Duration::ZERO);
                    }
                }
                Ok(Event::Reload) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(LOOK_EVERY),
            }
        }
        let mut sum = Snapshot::default();
        for shard in self.shards.drain(..).filter(Shard::has_ended) {
            match shard.join() {
                Ok(counted) => sum.merge(&counted),
                Err(error) => tracing::error!(%error, "a shard failed"),
            }
        }
        if let Some(log) = self.log.take() {
            log.finish();
        }
        sum
    }

    /// The summary of what [`Proxy::finish`] gave.
    pub(super) fn summary(&self, sum: &Snapshot) -> String {
        let generation = self.common.generation();
        let figures = figures::summary(sum, &self.common.registry, &generation);
        let mut text = figures.unwrap_or_else(|| NO_TRAFFIC.to_owned());
        if let Some(captured) = &self.common.captured {
            for (verdict, count) in captured.verdicts() {
                // Canaries are the proxy's own.
                if count > 0 && !verdict.starts_with("canary") {
                    text.push_str(&format!("connects {verdict}: {count}\n"));
                }
            }
        }
        text
    }

    fn delay(&self, checked: &Checked) {
        if checked.drain_delay.is_zero() {
            return;
        }
        let until = clock::now() + checked.drain_delay;
        let groups: Vec<PathBuf> = checked
            .capture
            .iter()
            .flat_map(|capture| &capture.targets)
            .map(|target| target.cgroup.clone())
            .collect();
        tracing::info!(delay = ?checked.drain_delay, "serving on before the drain");
        while clock::now() < until {
            let empty = !groups.is_empty() && groups.iter().all(|group| is_empty(group));
            if empty || self.events.recv_timeout(LOOK_EVERY * 5) == Ok(Event::Drain) {
                return;
            }
        }
    }
}

fn accept_on(shard: &Shard, intake: Intake) {
    shard.tell(move |context| {
        if let Err(error) = accept::spawn(context, intake) {
            tracing::error!(%error, "a listener of the new configuration cannot accept");
        }
    });
}

impl Common {
    fn now(&self) -> std::sync::MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn generation(&self) -> Arc<Generation> {
        Arc::clone(&self.now().generation)
    }

    fn watch_names(&self, control: &Control) {
        let (checked, generation) = {
            let now = self.now();
            (Arc::clone(&now.checked), Arc::clone(&now.generation))
        };
        let listeners = match checked.listeners.is_empty() {
            true => Listeners::None,
            false => Listeners::Some,
        };
        let places = match &self.captured {
            Some(captured) => captured.name_places(listeners),
            None => Places::own(&self.names),
        };
        let capture = checked.capture.as_ref().filter(|_| self.captured.is_some());
        let watched = names::watched(&generation, capture, &places);
        control.watch_names(watched, places.services());
    }

    fn extras(&self) -> Extras {
        let captured = self.captured.as_ref();
        Extras {
            captured_connects: captured.map(Captured::verdicts).unwrap_or_default(),
            capture_slots: captured.and_then(Captured::slots),
            memory: memory::figures(&self.memory),
            backend: match self.backend {
                Backend::Ring => "io_uring",
                Backend::Epoll => "epoll",
            },
        }
    }
}

fn open_log(log: &AccessLog, registry: &Arc<Registry>) -> Result<access_log::AccessLog, Failure> {
    let settings = access_log::Settings {
        target: match &log.target {
            LogTarget::Stdout => access_log::Target::Stdout,
            LogTarget::Stderr => access_log::Target::Stderr,
            LogTarget::File(path) => access_log::Target::File(path.clone()),
        },
        open: named::append_to,
        sample: log.sample,
    };
    access_log::AccessLog::start(&settings, Arc::clone(registry))
        .map_err(unavailable("cannot open the access log"))
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

fn is_empty(cgroup: &std::path::Path) -> bool {
    let events = std::fs::read_to_string(cgroup.join("cgroup.events"));
    events.is_ok_and(|events| events.lines().any(|line| line == "populated 0"))
}
