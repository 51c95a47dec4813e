//! Capture: programs at connect() send the connections of a cgroup here, each
//! destination behind an address of its own, the token.
//!
//! For whoever wires it (`main`):
//! 1. `main` answers the hidden subcommand [`LOADER_COMMAND`] with
//!    [`loader_main`], before anything else.
//! 2. Open the listeners first: wildcard, dual-stack, one port for all, in the
//!    namespace of each [`Target`]. The index of a target in
//!    [`Settings::targets`] is its workload's number everywhere here.
//! 3. [`Capture::start`], still with privileges. Connects are captured from
//!    the first [`Heartbeat::beat`] of the shard of their CPU (CPU number
//!    modulo shards); until then they do what `on_failure` says.
//! 4. Each shard clones [`Capture::table`], beats every 250 ms, and asks
//!    [`TokenTable::lookup`] for the local address of what it accepts.
//! 5. [`Capture::update`] on reload and when a claimed name resolves anew,
//!    [`Capture::canary`] behind `/readyz`, [`Capture::verdicts`] and
//!    [`TokenTable::slots_used`] for metrics: none needs a privilege.
//! 6. Dropping [`Capture`] detaches, unless links are pinned;
//!    [`Capture::detach`] removes pins too. What outlives the proxy and may
//!    (CAP_NET_ADMIN) calls [`unroute`] for each namespace, and [`unpin`].
//!
//! Invariants: a destination keeps its slot for the life of the process; the
//! programs decide nothing but what the rules of the current epoch say; no
//! privilege is used after `start`.

mod bpf;
mod canary;
mod handoff;
pub mod iptables;
mod kernel_log;
mod loader;
mod netns;
mod pins;
mod rules;
pub mod settings;
mod table;

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use ambassador_ebpf::{HEARTBEATS, RuleKey, Verdict};

use self::loader::{Go, Reply, Request};
use self::rules::Rule;
use self::settings::{Claims, OnFailure, Quic, Settings, Target};
use self::table::SharedPage;

pub use self::loader::{LOADER_COMMAND, loader_main};
pub use self::netns::{token_prefix, unroute};
pub use self::pins::unpin;
pub use self::rules::TooManyRules;
pub use self::table::{Accepted, Heartbeat, Token, TokenTable};

/// What [`Capture::start`] needs besides the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The port of the listeners that take captured connections.
    pub proxy_port: u16,
    /// How many shards beat.
    pub shards: u16,
    /// Where some failure policy is `refuse`, pin the links so that it holds
    /// after the proxy was killed. Off for `exec`, which leaves nothing behind.
    pub may_pin: bool,
    /// Write what the programs log to standard error. The loader then stays.
    pub kernel_log: bool,
}

/// The programs, attached. Dropped: detached, unless pinned.
#[derive(Debug)]
pub struct Capture {
    maps: Maps,
    table: TokenTable,
    page: Arc<SharedPage>,
    attached: Vec<Attached>,
    guard: Result<Vec<OwnedFd>, String>,
    installed: Mutex<Generations>,
    /// The loader that stayed to print what the programs log, and the socket
    /// whose end is the sign to go.
    logger: Option<(Child, OwnedFd)>,
}

/// The maps that the proxy uses, besides the slots.
#[derive(Debug)]
struct Maps {
    rules: OwnedFd,
    verdicts: OwnedFd,
}

/// One target's share.
#[derive(Debug)]
struct Attached {
    target: Target,
    cgroup_id: u64,
    pinned: bool,
    canary: OwnedFd,
    /// Held for their effect: a link detaches when its last holder lets go.
    _links: Vec<OwnedFd>,
    others: Vec<String>,
    no_v6: Option<String>,
}

/// The rules in force and those before them, which a program that has just
/// read the old epoch may still be looking for.
#[derive(Debug, Default)]
struct Generations {
    current: Vec<Rule>,
    previous: Vec<Rule>,
}

/// Why capture could not start or change.
#[derive(Debug)]
pub enum CaptureError {
    /// The binary holds no BPF object.
    NotBuilt,
    /// The loader could not be run or spoken to.
    Loader(io::Error),
    /// A step of the loader failed: a privilege or kernel feature is missing.
    Step {
        /// What it was doing.
        what: String,
        /// What the kernel said.
        detail: String,
    },
    /// Scope and claims do not fit the kernel's table. Nothing was changed.
    Rules(TooManyRules),
    /// A map could not be read or written.
    Map(io::Error),
}

impl Capture {
    /// Loads and attaches the programs, whatever `settings.mode` says: that is
    /// the caller's to look at. Needs CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN,
    /// and writes `cgroup.procs` of the targets. The calling process is the one
    /// whose own connects are left alone.
    pub fn start(
        settings: &Settings,
        claims: &Claims,
        options: &Options,
    ) -> Result<Self, CaptureError> {
        if !loader::built_with_capture() {
            return Err(CaptureError::NotBuilt);
        }
        let rules = rules::compile(settings, claims).map_err(CaptureError::Rules)?;
        let pinned = options.may_pin && wants_pins(settings, claims);
        let request = Request {
            targets: settings.targets.clone(),
            proxy_port: options.proxy_port,
            shards: options.shards.clamp(1, HEARTBEATS as u16),
            refuse_quic: settings.quic == Quic::Refuse,
            pinned,
            kernel_log: options.kernel_log,
        };
        let (socket, theirs) = handoff::pair().map_err(CaptureError::Loader)?;
        let mut loader = Command::new("/proc/self/exe")
            .arg(LOADER_COMMAND)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .map_err(CaptureError::Loader)?;
        let started = Self::negotiate(&socket, &request, rules);
        if options.kernel_log && started.is_ok() {
            return started.map(|mut capture| {
                capture.logger = Some((loader, socket));
                capture
            });
        }
        // An end it waits for, where the start failed on this side.
        drop(socket);
        loader.wait().map_err(CaptureError::Loader)?;
        started
    }

    /// Asks the loader, puts the rules in force before anything is attached,
    /// and takes over what it made.
    fn negotiate(
        socket: &OwnedFd,
        request: &Request,
        rules: Vec<Rule>,
    ) -> Result<Self, CaptureError> {
        handoff::send(socket.as_fd(), request, &[]).map_err(CaptureError::Loader)?;
        let Some((Reply::Maps, maps)) = next(socket)? else {
            return Err(unexpected());
        };
        let [slots, rule_map, shared, verdicts] =
            <[OwnedFd; loader::MAPS_HANDED]>::try_from(maps).map_err(|_| unexpected())?;
        let page = Arc::new(SharedPage::map(shared.as_fd()).map_err(CaptureError::Map)?);
        let mut capture = Self {
            maps: Maps {
                rules: rule_map,
                verdicts,
            },
            table: TokenTable::new(slots, page.clone(), request.proxy_port),
            page,
            attached: Vec::new(),
            guard: Err("the loader did not say".into()),
            installed: Mutex::default(),
            logger: None,
        };
        // Slot 0 is the canary's.
        capture.page.slots_used().store(1, Ordering::Release);
        capture.install(rules)?;
        handoff::send(socket.as_fd(), &Go {}, &[]).map_err(CaptureError::Loader)?;
        capture.take_links(socket, request)?;
        // Tells the programs which process this is. Before the first heartbeat
        // it is refused, which is no failure yet.
        let _ = capture.canary();
        Ok(capture)
    }

    fn take_links(&mut self, socket: &OwnedFd, request: &Request) -> Result<(), CaptureError> {
        let mut targets = request.targets.iter();
        loop {
            match next(socket)?.ok_or_else(unexpected)? {
                (Reply::Attached { others, no_v6 }, mut fds) if !fds.is_empty() => {
                    let target = targets.next().ok_or_else(unexpected)?;
                    let canary = fds.remove(0);
                    self.attached.push(Attached {
                        target: target.clone(),
                        cgroup_id: target
                            .cgroup
                            .metadata()
                            .map_err(CaptureError::Loader)?
                            .ino(),
                        pinned: request.pinned,
                        canary,
                        _links: fds,
                        others,
                        no_v6,
                    });
                }
                (Reply::Guard { error: None }, links) => self.guard = Ok(links),
                (Reply::Guard { error: Some(error) }, _) => self.guard = Err(error),
                (Reply::Done, _) => return Ok(()),
                _ => return Err(unexpected()),
            }
        }
    }

    /// The token table; clone it into each shard.
    pub fn table(&self) -> TokenTable {
        self.table.clone()
    }

    /// Puts a new scope, policy and new claims in force for every later
    /// connect, all at once. Connections that were captured stay so. Targets,
    /// mode and `quic` are fixed at start. On an error the old rules hold.
    pub fn update(&self, settings: &Settings, claims: &Claims) -> Result<(), CaptureError> {
        self.install(rules::compile(settings, claims).map_err(CaptureError::Rules)?)
    }

    /// Writes a generation of rules beside the one in force, then turns the
    /// epoch to it in one store.
    fn install(&self, rules: Vec<Rule>) -> Result<(), CaptureError> {
        let mut installed = self
            .installed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let epoch = self.page.epoch().load(Ordering::Relaxed);
        if epoch != 0 && rules == installed.current {
            return Ok(());
        }
        // The table has room for two generations.
        self.remove(epoch.wrapping_sub(1), &installed.previous)?;
        installed.previous.clear();
        let next = epoch + 1;
        for (written, rule) in rules.iter().enumerate() {
            if let Err(error) = bpf::write(self.maps.rules.as_fd(), &key(rule, next), &rule.value) {
                self.remove(next, &rules[..written])?;
                return Err(CaptureError::Map(error));
            }
        }
        self.page.epoch().store(next, Ordering::Release);
        installed.previous = std::mem::replace(&mut installed.current, rules);
        Ok(())
    }

    fn remove(&self, epoch: u32, rules: &[Rule]) -> Result<(), CaptureError> {
        for rule in rules {
            bpf::remove(self.maps.rules.as_fd(), &key(rule, epoch)).map_err(CaptureError::Map)?;
        }
        Ok(())
    }

    /// What became of connects so far, counted in the kernel.
    pub fn verdicts(&self) -> io::Result<Vec<(Verdict, u64)>> {
        // The kernel writes one word for every CPU that could exist.
        let mut words = vec![0_u64; possible_cpus()?];
        Verdict::ALL
            .into_iter()
            .map(|verdict| {
                bpf::read(self.maps.verdicts.as_fd(), &(verdict as u32), &mut words)?;
                Ok((verdict, words.iter().sum()))
            })
            .collect()
    }

    /// Connects from every captured cgroup to an address that nobody has;
    /// succeeds only where the programs, the listener and the heartbeat work.
    /// May take a second for each target that fails.
    pub fn canary(&self) -> Result<(), String> {
        for attached in &self.attached {
            canary::sing(attached.canary.as_fd(), self.table.proxy_port()).map_err(|error| {
                let cgroup = attached.target.cgroup.display();
                format!("a connect in {cgroup} was not captured: {error}")
            })?;
        }
        Ok(())
    }

    /// Programs of others that ran at our hooks when we came, by cgroup.
    pub fn others_attached(&self) -> Vec<(&Path, &[String])> {
        self.attached
            .iter()
            .filter(|attached| !attached.others.is_empty())
            .map(|attached| (attached.target.cgroup.as_path(), &attached.others[..]))
            .collect()
    }

    /// Whether tokens are kept from sockets that were not given one. Without
    /// it, captured traffic must not be given credentials; the text says why.
    pub fn guarded(&self) -> Result<(), &str> {
        match &self.guard {
            Ok(_) => Ok(()),
            Err(why) => Err(why),
        }
    }

    /// Namespaces in which IPv6 destinations get v4-mapped tokens, and why.
    pub fn without_v6(&self) -> impl Iterator<Item = (&Target, &str)> {
        self.attached
            .iter()
            .filter_map(|attached| Some((&attached.target, attached.no_v6.as_deref()?)))
    }

    /// Detaches for good: removes the pins too, where there are any.
    pub fn detach(self) -> io::Result<()> {
        for attached in self.attached.iter().filter(|attached| attached.pinned) {
            pins::unpin_id(attached.cgroup_id)?;
        }
        Ok(())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if let Some((mut logger, socket)) = self.logger.take() {
            drop(socket);
            // It has printed what there was; its exit status says nothing more.
            let _ = logger.wait();
        }
    }
}

/// The programs at the connect hooks of a cgroup and its ancestors, whoever
/// attached them. Needs CAP_NET_ADMIN or CAP_BPF, and CAP_SYS_ADMIN for names.
pub fn programs_at(cgroup: &Path) -> io::Result<Vec<String>> {
    loader::others(File::open(cgroup)?.as_fd())
}

/// Whether this binary holds the programs.
pub fn built_with_capture() -> bool {
    loader::built_with_capture()
}

fn wants_pins(settings: &Settings, claims: &Claims) -> bool {
    settings.on_failure == OnFailure::Refuse
        || claims
            .nets
            .iter()
            .any(|(_, _, on_failure)| *on_failure == Some(OnFailure::Refuse))
}

/// The next answer of the loader; its failure is an error here.
fn next(socket: &OwnedFd) -> Result<Option<(Reply, Vec<OwnedFd>)>, CaptureError> {
    match handoff::receive::<Reply>(socket.as_fd()).map_err(CaptureError::Loader)? {
        Some((Reply::Failed { what, detail }, _)) => Err(CaptureError::Step { what, detail }),
        other => Ok(other),
    }
}

fn unexpected() -> CaptureError {
    CaptureError::Loader(io::Error::other("the loader ended before it was done"))
}

/// `struct bpf_lpm_trie_key` with our data, unpadded.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct TrieKey {
    prefix_len: u32,
    data: RuleKey,
}

fn key(rule: &Rule, epoch: u32) -> TrieKey {
    let (prefix_len, addr) = rule.key_parts();
    TrieKey {
        prefix_len,
        data: RuleKey {
            epoch,
            port: rule.port.unwrap_or(0).to_be(),
            pad: 0,
            addr,
        },
    }
}

/// CPUs that could exist: the ends of the ranges in `0-3,8-11`, plus one.
fn possible_cpus() -> io::Result<usize> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
    text.trim()
        .rsplit([',', '-'])
        .next()
        .and_then(|last| last.parse::<usize>().ok())
        .map(|last| last + 1)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

impl fmt::Display for CaptureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBuilt => f.write_str(
                "this binary was built without capture; build it with `cargo xtask build`",
            ),
            Self::Loader(_) => f.write_str("capture: the loader could not be run"),
            Self::Step { what, detail } => write!(f, "capture: {what}: {detail}"),
            Self::Rules(TooManyRules { needed, available }) => write!(
                f,
                "capture: scope and claims need {needed} kernel rules, there are {available}"
            ),
            Self::Map(_) => f.write_str("capture: a BPF map could not be used"),
        }
    }
}

impl std::error::Error for CaptureError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Loader(error) | Self::Map(error) => Some(error),
            Self::NotBuilt | Self::Step { .. } | Self::Rules(_) => None,
        }
    }
}
