//! Capture: programs at connect() send the connections of a cgroup here, each
//! destination behind an address of its own, the token.
//!
//! For whoever wires it:
//! 1. `main` answers the hidden subcommand [`LOADER_COMMAND`] with
//!    [`loader_main`], before anything else; the privileged helper starts it.
//! 2. Open the listeners first: wildcard, dual-stack, one port for all, one in
//!    each namespace of the [`Workload`]s. Their numbers come back from
//!    [`TokenTable::lookup`].
//! 3. [`Capture::start`]. Connects are captured from the first
//!    [`Heartbeat::beat`] of the shard of their CPU (CPU number modulo shards);
//!    until then they do what `on_failure` says.
//! 4. Each shard clones [`Capture::table`], beats every 250 ms, and asks
//!    [`TokenTable::lookup`] for the local address of what it accepts.
//! 5. [`Capture::stage`] on reload, [`Capture::update_claims`] when a claimed
//!    name resolves anew, [`Capture::canary`] behind `/readyz`,
//!    [`Capture::verdicts`] and [`TokenTable::slots_used`] for metrics;
//!    [`Capture::take_back`] every few seconds.
//! 6. [`Capture::circuit`] opens and closes the circuit that a claim names.
//! 7. Dropping [`Capture`] detaches, unless links are pinned: those hold until
//!    the next proxy takes them over or [`Pinned::remove`]. What outlives the
//!    proxy and may (CAP_NET_ADMIN) calls [`unroute`] for each namespace.
//!
//! Invariants: a token never leads to another destination than the one that it
//! was given out for (see `reclaim`); the programs decide nothing but what the rules of the current epoch say; this
//! process uses no privilege, the loader does.

mod bpf;
mod canary;
mod circuits;
mod conversation;
mod handoff;
mod in_force;
pub(crate) mod iptables;
mod kernel_log;
mod loader;
mod mapping;
mod netns;
mod pins;
mod programs;
mod reclaim;
mod rules;
pub(crate) mod settings;
mod shares;
mod staged;
mod table;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ambassador_ebpf::{HEARTBEATS, RuleKey};
use serde::{Deserialize, Serialize};

use self::circuits::Circuits;
use self::conversation::{Conversation, unexpected};
use self::in_force::{InForce, NewAttachment, Place};
use self::loader::{Attach, Job};
use self::reclaim::{Maps, Reclaim};
use self::rules::Rule;
use self::settings::{Claims, OnFailure, Quic, Settings, Target};
use self::shares::{Assigned, Shares};
use self::table::SharedPage;
use crate::clock::Instant;
use crate::workload::Helper;

pub(crate) use ambassador_ebpf::Verdict;

pub use self::circuits::{Circuit, CircuitNumber};
pub use self::loader::{LOADER_COMMAND, is_loader_request, loader_main};
pub use self::netns::{token_prefix, unroute};
pub(crate) use self::pins::{PinDirectory, pin_directory};
pub use self::pins::{Pinned, all as all_pinned};
pub use self::programs::programs_at;
pub(crate) use self::programs::{Owner, Program};
pub(crate) use self::rules::TooManyRules;
pub(crate) use self::staged::Staged;
pub use self::table::Accepted;
pub(crate) use self::table::{Heartbeat, TokenTable};

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

/// A captured cgroup, with the number that tells its tokens from those of
/// others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// The same for as long as the cgroup is captured.
    pub number: u32,
    /// What is captured.
    pub target: Target,
}

/// The programs, attached. Dropped: detached, unless pinned.
#[derive(Debug)]
pub struct Capture {
    helper: Arc<Helper>,
    options: Options,
    /// In the order of [`loader::MAPS`].
    maps: Vec<OwnedFd>,
    table: TokenTable,
    page: Arc<SharedPage>,
    circuits: Circuits,
    guard: Result<Vec<OwnedFd>, String>,
    in_force: Mutex<InForce>,
    writable: Maps,
    /// Locked after `in_force`.
    reclaim: Mutex<Reclaim>,
    /// A loader that stayed to print what the programs log.
    logger: Option<Conversation>,
}

/// What was found where programs were attached.
#[derive(Debug)]
pub struct AttachReport {
    /// The cgroup.
    pub cgroup: PathBuf,
    /// Programs of others that ran at our hooks when we came.
    pub others: Vec<Program>,
    /// Why IPv6 destinations get v4-mapped tokens, where they do.
    pub no_v6: Option<String>,
}

/// Positions in [`loader::MAPS`].
const SLOT_TABLE: usize = 0;
const RULES: usize = 1;
const SHARED: usize = 2;
const VERDICTS: usize = 3;
const CIRCUITS: usize = 4;
const INTERNED: usize = 5;
const RETURNED: usize = 6;
const SHARES: usize = 7;

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
    /// the caller's to look at. The helper's loader needs CAP_BPF,
    /// CAP_NET_ADMIN and CAP_SYS_ADMIN, and writes `cgroup.procs` of the
    /// targets. The calling process is the one whose own connects are left
    /// alone.
    pub fn start(
        settings: &Settings,
        claims: &Claims,
        workloads: &[Workload],
        options: Options,
        helper: &Arc<Helper>,
    ) -> Result<(Self, Vec<AttachReport>), CaptureError> {
        if !loader::built_with_capture() {
            return Err(CaptureError::NotBuilt);
        }
        let rules = rules::compile(settings, claims).map_err(CaptureError::Rules)?;
        let pinned = options.may_pin && wants_pins(settings, claims);
        let datagrams = settings.quic == Quic::Refuse;
        let mut assigned = Assigned::default();
        let jobs = workloads.iter().map(|workload| Job {
            workload: workload.clone(),
            share: assigned.assign(workload.number),
            connects: true,
            datagrams,
        });
        let request = attach(jobs.collect(), &options, pinned);
        let targets = workloads.iter().map(|workload| workload.target.clone());
        let conversation = Conversation::start(helper, targets)?;
        // The rules are in force before anything is attached.
        let prepare = |maps| Self::prepare(maps, rules, options, helper);
        let (mut capture, made, guard) = conversation.attach_first(request, prepare)?;
        capture.guard = guard;
        capture.reclaim().assigned = assigned;
        capture.logger = options.kernel_log.then_some(conversation);
        let mut found = Vec::new();
        {
            let mut in_force = capture.in_force();
            in_force.pinned = pinned;
            for made in made {
                let (fresh, new) = NewAttachment::of(made)?;
                in_force.add(fresh);
                found.extend(new);
            }
        }
        // Tells the programs which process this is. Before the first heartbeat
        // it is refused, which is no failure yet.
        let _ = capture.canary();
        Ok((capture, found))
    }

    fn prepare(
        maps: Vec<OwnedFd>,
        rules: Vec<Rule>,
        options: Options,
        helper: &Arc<Helper>,
    ) -> Result<Self, CaptureError> {
        if maps.len() != loader::MAPS.len() {
            return Err(unexpected());
        }
        let own = |map: usize| maps[map].try_clone().map_err(CaptureError::Map);
        let slots = own(SLOT_TABLE)?;
        let writable = Maps {
            slots: own(SLOT_TABLE)?,
            interned: own(INTERNED)?,
            returned: own(RETURNED)?,
            shares: Shares::map(maps[SHARES].as_fd()).map_err(CaptureError::Map)?,
        };
        let page = SharedPage::map(maps[SHARED].as_fd()).map_err(CaptureError::Map)?;
        let page = Arc::new(page);
        let circuits = Circuits::map(maps[CIRCUITS].as_fd()).map_err(CaptureError::Map)?;
        let capture = Self {
            helper: Arc::clone(helper),
            options,
            maps,
            table: TokenTable::new(slots, page.clone(), options.proxy_port),
            page,
            circuits,
            guard: Err("the loader did not say".into()),
            in_force: Mutex::default(),
            writable,
            reclaim: Mutex::default(),
            logger: None,
        };
        // Slot 0 is the canary's.
        capture.page.slots_touched().store(1, Ordering::Release);
        capture.install(rules)?;
        Ok(capture)
    }

    /// The token table; clone it into each shard.
    pub fn table(&self) -> TokenTable {
        self.table.clone()
    }

    /// The circuit that claims with this number have. Closed at first; it stays
    /// as it is when claims change.
    pub fn circuit(&self, number: CircuitNumber) -> Circuit {
        self.circuits.circuit(number)
    }

    /// Puts new claims in force for every later connect. On an error the old
    /// ones hold.
    pub fn update_claims(&self, settings: &Settings, claims: &Claims) -> Result<(), CaptureError> {
        let rules = rules::compile(settings, claims).map_err(CaptureError::Rules)?;
        self.install(rules)
    }

    /// Writes a generation of rules beside the one in force, then turns the
    /// epoch to it.
    fn install(&self, rules: Vec<Rule>) -> Result<(), CaptureError> {
        let mut in_force = self.in_force();
        if let Some(rules) = self.stage_rules(&mut in_force, rules)? {
            self.turn_to(&mut in_force, rules);
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
                bpf::read(self.maps[VERDICTS].as_fd(), &(verdict as u32), &mut words)?;
                Ok((verdict, words.iter().sum()))
            })
            .collect()
    }

    /// Connects from every captured cgroup to an address that nobody has;
    /// succeeds only where the programs, the listener and the heartbeat work.
    /// One that was removed does not count; one that was made anew and is not
    /// captured yet fails. May take a second for each target that fails.
    pub fn canary(&self) -> Result<(), String> {
        let mut canaries = Vec::new();
        for attached in &self.in_force().attached {
            let cgroup = attached.workload.target.cgroup.clone();
            match attached.place() {
                Place::Here => canaries.push((Arc::clone(&attached.canary), cgroup)),
                Place::Gone => {}
                Place::MadeAnew => {
                    let cgroup = cgroup.display();
                    return Err(format!("{cgroup} was made anew and is not captured yet"));
                }
            }
        }
        for (canary, cgroup) in canaries {
            canary::sing(canary.as_fd(), self.options.proxy_port).map_err(|error| {
                let cgroup = cgroup.display();
                format!("a connect in {cgroup} was not captured: {error}")
            })?;
        }
        Ok(())
    }

    /// Takes back slots that nobody uses any more. To be called every few seconds:
    /// it costs a system call for each slot that was ever in use.
    pub fn take_back(&self, now: Instant) -> io::Result<()> {
        let in_force = self.in_force();
        let mut reclaim = self.reclaim();
        let shares = &self.writable.shares;
        reclaim
            .assigned
            .retain(|workload, share| in_force.has(workload) || shares.held(share) > 0);
        if !self.page.all_beat(self.options.shards, reclaim::HANGS) {
            reclaim.wait(now);
            return Ok(());
        }
        reclaim.sweep(&self.writable, &self.page, now)
    }

    /// Slots that were taken back so far.
    pub fn slots_taken_back(&self) -> u64 {
        self.reclaim().freed
    }

    /// Who holds the most slots, and how many; the number of a workload.
    pub fn holds_most(&self) -> Option<(u32, u32)> {
        let reclaim = self.reclaim();
        let held = |(workload, share)| (workload, self.writable.shares.held(share));
        reclaim
            .assigned
            .iter()
            .map(held)
            .max_by_key(|(_, held)| *held)
    }

    /// Whether the programs stay attached when the proxy ends.
    pub fn is_pinned(&self) -> bool {
        let in_force = self.in_force();
        in_force.pinned && !in_force.attached.is_empty()
    }

    /// Whether tokens are kept from sockets that were not given one. Without
    /// it, captured traffic must not be given credentials; the text says why.
    pub fn guarded(&self) -> Result<(), &str> {
        match &self.guard {
            Ok(_) => Ok(()),
            Err(why) => Err(why),
        }
    }

    /// A panic elsewhere leaves what was in force before it.
    fn in_force(&self) -> MutexGuard<'_, InForce> {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reclaim(&self) -> MutexGuard<'_, Reclaim> {
        self.reclaim.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn attach(jobs: Vec<Job>, options: &Options, pinned: bool) -> Attach {
    Attach {
        jobs,
        proxy_port: options.proxy_port,
        shards: options.shards.clamp(1, HEARTBEATS as u16),
        pinned,
        kernel_log: options.kernel_log,
    }
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
            .any(|claim| claim.on_failure == Some(OnFailure::Refuse))
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
