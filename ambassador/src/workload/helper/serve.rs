//! The helper's own side.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::process::{ExitCode, Stdio};

use rustix::fs::{Mode, OFlags};

use super::files::Files;
use super::journal::{self, Mark};
use super::keeper::{self, Keeper};
use super::loaders::Loaders;
use super::message::{Answer, Question, Reply, Request};
use super::registry::{Registry, refused};
use super::undo::Undo;
use super::{Duties, Licence};
use crate::workload::capabilities::Capability;
use crate::workload::confinement::confine_helper;
use crate::workload::memory::MappedFiles;
use crate::workload::{BindSpec, Netns, Reach, SocketSpec, Target, descriptors, sockets};

/// The hidden subcommand that makes this binary a helper.
pub const SUBCOMMAND: &str = "privileged-helper";

/// What the helper's requests and undoing take; all else is given up.
const KEPT: [Capability; 9] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Kill,
    Capability::NetBindService,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::SysPtrace,
    Capability::SysAdmin,
    Capability::Bpf,
];

/// The same where nothing is captured.
const KEPT_FOR_FILES: [Capability; 1] = [Capability::DacOverride];
/// The word behind the subcommand that says so.
pub(super) const FILES_ONLY: &str = "files";

/// Sockets of one listener at most: one per shard.
const LISTENERS_MAX: u16 = 1_024;

/// The life of the helper process: serves the pair on its standard input
/// until the other end is closed, then undoes what it was told to.
pub fn serve(duties: Duties) -> ExitCode {
    close_inherited();
    outlive_the_proxy();
    let owner = rustix::process::getppid().map_or(0, |proxy| proxy.as_raw_nonzero().get() as u32);
    let kept = match std::env::args_os().nth(2) {
        Some(word) if word == FILES_ONLY => &KEPT_FOR_FILES[..],
        _ => &KEPT,
    };
    let served = confine_helper(kept)
        .and_then(|()| take_news())
        .and_then(|news| serve_on(io::stdin().as_fd(), Some(news.as_fd()), duties, owner));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The pipe to the proxy: what is started from here has no part in it.
fn take_news() -> io::Result<OwnedFd> {
    let news = io::stdout().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdout(std::fs::File::options().write(true).open("/dev/null")?)?;
    Ok(news)
}

/// Descriptors that our caller's caller meant for the command: a pipe among
/// them would stay open for as long as we live.
#[expect(unsafe_code, reason = "std has no close_range")]
fn close_inherited() {
    // SAFETY: at the start of the process nothing above the standard streams
    // is open that anything in it knows of.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
}

/// A service manager, or a terminal that goes away, signals all processes at
/// once; the proxy finishes its work then, and what it set up is undone after
/// that.
#[expect(unsafe_code, reason = "std ignores no signals")]
fn outlive_the_proxy() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: ignoring a signal installs no handler.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// `owner`: the process of the proxy. With `news` of the end of one of them there
/// are two processes from the seal on.
pub(super) fn serve_on(
    channel: BorrowedFd<'_>,
    news: Option<BorrowedFd<'_>>,
    duties: Duties,
    owner: u32,
) -> io::Result<()> {
    let mut serving = Serving::new(duties, owner)?;
    loop {
        match (serving.converse(channel, None), news) {
            (Ok(ConversationEnd::Sealed), Some(news)) => {
                return keeper::serve_in_two(serving, channel, news);
            }
            (Ok(ConversationEnd::Sealed), None) => {}
            // However the conversation ends, what was set up is undone.
            (Ok(ConversationEnd::Ended), _) => return serving.undo(),
            (Err(error), _) => return serving.undo().and(Err(error)),
        }
    }
}

/// Why a conversation does not go on as it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConversationEnd {
    /// The proxy has ended, or the keeper.
    Ended,
    /// What the proxy says may be somebody else's words from now on.
    Sealed,
}

fn reply(
    channel: BorrowedFd<'_>,
    number: Option<u64>,
    answer: io::Result<Vec<OwnedFd>>,
) -> io::Result<()> {
    let send = |reply: Reply, fds: &[BorrowedFd<'_>]| {
        let answer = Answer { number, reply };
        descriptors::send(channel, &serde_json::to_vec(&answer)?, fds)
    };
    match answer {
        Ok(fds) => {
            let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            let mut rest = &fds[..];
            while rest.len() > descriptors::FDS_MAX {
                let (now, later) = rest.split_at(descriptors::FDS_MAX);
                send(Reply::More, now)?;
                rest = later;
            }
            send(Reply::Done, rest)
        }
        Err(error) => {
            let (code, text) = (error.raw_os_error(), error.to_string());
            send(Reply::Failed { code, text }, &[])
        }
    }
}

pub(super) struct Serving {
    home: Netns,
    duties: Duties,
    pub(super) registry: Registry,
    pub(super) loaders: Loaders,
    files: Files,
    pub(super) steps: Undo,
    /// The process of the proxy.
    owner: u32,
    /// Let go of before each wait: the next request may be hours away.
    pub(super) code: MappedFiles,
}

impl Serving {
    fn new(duties: Duties, owner: u32) -> io::Result<Self> {
        let home = Netns::own()?;
        Ok(Self {
            registry: Registry::new(home.clone(), duties.targets_in),
            home,
            duties,
            loaders: Loaders::default(),
            files: Files::default(),
            steps: Undo::new(duties, owner),
            owner,
            code: MappedFiles::find(),
        })
    }

    /// Answers until the proxy has ended. Before the seal there is no keeper.
    pub(super) fn converse(
        &mut self,
        channel: BorrowedFd<'_>,
        keeper: Option<&Keeper>,
    ) -> io::Result<ConversationEnd> {
        loop {
            self.code.unmap();
            if keeper.is_some_and(|keeper| !keeper.waits_along(channel)) {
                return Ok(ConversationEnd::Ended);
            }
            let Some((text, fds)) = descriptors::receive(channel)? else {
                return Ok(ConversationEnd::Ended);
            };
            let question = serde_json::from_slice::<Question>(&text);
            let number = question.as_ref().ok().map(|question| question.number);
            let is_seal = matches!(&question, Ok(asked) if matches!(asked.request, Request::Seal));
            if let Some(keeper) = keeper {
                keeper.begin(number);
            }
            let answer = match question {
                Ok(Question { request, .. }) => self.carry_out_with(keeper, request, fds),
                Err(error) => Err(error.into()),
            };
            // The proxy may be gone by now: the next receive says so.
            let _ = reply(channel, number, answer);
            match keeper {
                Some(keeper) => keeper.end(),
                None if is_seal => return Ok(ConversationEnd::Sealed),
                None => {}
            }
        }
    }

    /// The keeper knows what is new before the proxy does. One that has ended
    /// need not: the next wait says so.
    fn carry_out_with(
        &mut self,
        keeper: Option<&Keeper>,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> io::Result<Vec<OwnedFd>> {
        let before = Mark::of(self);
        let of_loaders = matches!(request, Request::StartLoader(_) | Request::EndLoader);
        let answer = self.carry_out(request, fds);
        if let Some(keeper) = keeper {
            let _ = before.tell(self, keeper.line());
            if of_loaders {
                let _ = journal::tell_loaders(self, keeper.line());
            }
        }
        answer
    }

    fn carry_out(&mut self, request: Request, fds: Vec<OwnedFd>) -> io::Result<Vec<OwnedFd>> {
        let mut fds = fds.into_iter();
        let mut next = || {
            fds.next()
                .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
        };
        let nothing = Vec::new();
        match request {
            Request::Register(registration) => {
                self.registry.register(registration).map(|()| nothing)
            }
            Request::RememberFile(path, access) => {
                self.files.remember(path, access).map(|()| nothing)
            }
            Request::OpenFile(number) => self.files.open(number).map(|file| vec![file]),
            Request::MakeCgroup => {
                self.registry.still_open()?;
                self.steps.make_cgroup().map(|made| vec![made])
            }
            Request::RemoveAdminDirectory => {
                self.registry.still_open()?;
                self.steps.admin_directory(next()?);
                Ok(nothing)
            }
            Request::Seal => {
                self.files.seal();
                self.registry.seal();
                Ok(nothing)
            }
            Request::OpenNetns(path) => {
                self.registry.admit_netns(&path)?;
                let netns = Netns::open(&path)?;
                self.registry.know(&netns)?;
                Ok(vec![netns.as_fd().try_clone_to_owned()?])
            }
            Request::OpenRoot(netns) => {
                self.registry.admit_netns(&netns)?;
                open_root(&netns).map(|root| vec![root])
            }
            Request::Listener(spec) => self.listener(&spec, next()?),
            Request::Sockets(spec) => self.sockets(&spec, next()?),
            Request::StartLoader(targets) => self
                .start_loader(targets, next()?)
                .map(|socket| vec![socket]),
            Request::EndLoader => self.loaders.end_last().map(|()| nothing),
            Request::InstallIptables(rules) => {
                let netns = self.namespace(next()?)?;
                self.install_iptables(&netns, rules).map(|()| nothing)
            }
            Request::Signal { pid, number } => self.steps.signal(pid, number).map(|()| nothing),
            Request::RemoveIptables => {
                let netns = self.namespace(next()?)?;
                self.steps.iptables(netns);
                Ok(nothing)
            }
            Request::RemoveTokenPrefix { proxy_port } => {
                let netns = self.namespace(next()?)?;
                self.registry.admit_port(proxy_port)?;
                self.steps.token_prefix(netns, proxy_port);
                Ok(nothing)
            }
        }
    }

    /// The namespace behind a descriptor, if it is one that the proxy serves.
    fn namespace(&self, fd: OwnedFd) -> io::Result<Netns> {
        let netns = Netns::from_fd(fd)?;
        self.registry.admit_namespace(&netns)?;
        Ok(netns)
    }

    /// Listeners of others are none of the proxy's business: there is one port
    /// for captured connections, and nobody takes part in it who comes later.
    fn listener(&mut self, spec: &BindSpec, netns: OwnedFd) -> io::Result<Vec<OwnedFd>> {
        let netns = self.namespace(netns)?;
        let ip = spec.addr.ip().to_canonical();
        if !(ip.is_unspecified() || ip.is_loopback())
            || spec.reach != Reach::Loopback
            || spec.transparent
            || spec.count > LISTENERS_MAX
        {
            return Err(refused("not a listener for captured connections"));
        }
        if spec.addr.port() != 0 {
            self.registry.admit_port(spec.addr.port())?;
        } else {
            self.registry.still_open()?;
        }
        netns.enter()?;
        sockets::listen(spec)
    }

    fn sockets(&self, spec: &SocketSpec, netns: OwnedFd) -> io::Result<Vec<OwnedFd>> {
        let netns = self.namespace(netns)?;
        let marked_as_ours = spec.mark.is_none_or(|mark| mark == sockets::PROXY_MARK);
        if spec.count > SocketSpec::COUNT_MAX || !marked_as_ours {
            return Err(refused("not sockets of a proxy"));
        }
        netns.enter()?;
        sockets::make(spec)
    }

    /// What rules name is looked at here; whose they are is known.
    fn install_iptables(&mut self, netns: &Netns, rules: serde_json::Value) -> io::Result<()> {
        let named = (self.duties.named_by_iptables)(&rules)?;
        self.registry.admit_cgroups(&named.cgroups)?;
        self.registry.admit_port(named.proxy_port)?;
        if named.mark.is_some_and(|mark| mark != sockets::PROXY_MARK) {
            return Err(refused("not the mark of a proxy"));
        }
        (self.duties.install_iptables)(netns, self.owner, rules)
    }

    /// A loader that is at work when the proxy dies is waited for: it may be in
    /// the cgroup that is to be removed, or about to add a route.
    pub(super) fn undo(self) -> io::Result<()> {
        self.loaders.end_all();
        self.files.remove_sockets();
        self.steps.all()
    }

    /// The loader starts where the helper did, whatever namespace a request
    /// has led it to since. What it may touch it is told before the proxy can
    /// say a word to it. Its standard error is nobody's who came later: what
    /// is written there is written with its privileges.
    fn start_loader(&mut self, targets: Vec<Target>, error: OwnedFd) -> io::Result<OwnedFd> {
        self.registry.admit(&targets)?;
        self.loaders.admit()?;
        let error = match self.registry.still_open() {
            Ok(()) => Stdio::from(error),
            Err(_) => Stdio::null(),
        };
        self.home.enter()?;
        let (ours, theirs) = descriptors::pair()?;
        let proxy_port = self.registry.port();
        let licence = serde_json::to_vec(&Licence {
            targets,
            proxy_port,
        })?;
        descriptors::send(ours.as_fd(), &licence, &[])?;
        self.loaders.start(self.duties.loader, theirs, error)?;
        Ok(ours)
    }
}

/// The root directory of a process, to be looked up in but not to be read.
fn open_root(netns: &Path) -> io::Result<OwnedFd> {
    let root = root_of(netns).ok_or(io::ErrorKind::InvalidInput)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(root, flags, Mode::empty())?)
}

/// The root of the process of `/proc/PID/ns/net`: a link of the kernel's.
fn root_of(netns: &Path) -> Option<PathBuf> {
    let mut parts = netns.components();
    let process = match (parts.next()?, parts.next()?, parts.next()?) {
        (Component::RootDir, Component::Normal(proc), Component::Normal(process))
            if proc == "proc" && parts.as_path() == Path::new("ns/net") =>
        {
            process.to_str()?.parse::<u32>().ok()?
        }
        _ => return None,
    };
    Some(format!("/proc/{process}/root").into())
}
