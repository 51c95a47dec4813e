//! Setting capture up: listeners, then programs or rules.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use super::circuits::Circuits;
use super::namespaces::{CapturedNamespace, CapturedNamespaces};
use super::rules::{Owner, Source};
use super::{Captured, Change, Current, Method, OpenSockets, failed, kernel_claims, say};
use crate::app::{Failure, open_listeners, unavailable};
use crate::capture::settings::{Mode, Settings};
use crate::capture::{Capture, Options, Workload};
use crate::proxy::generation::Generation;
use crate::workload::capabilities::{self, Capability};
use crate::workload::helper::Reliance;
use crate::workload::{Helper, Supply};

/// How many ports are tried at the start until one is free in every namespace.
const PORTS_TRIED: usize = 8;

/// What capture is started with.
pub(crate) struct Start<'a> {
    /// What is captured.
    pub settings: Settings,
    /// What upstreams claim.
    pub generation: &'a Generation,
    /// How many shards serve.
    pub shards: u16,
    /// Who makes what takes a privilege.
    pub helper: &'a Arc<Helper>,
    /// Links may be pinned.
    pub may_pin: bool,
}

/// What the kernel does, how, and what it goes by.
struct Kernel {
    method: Method,
    circuits: Circuits,
}

impl Start<'_> {
    /// Sets it up.
    pub(crate) fn run(self) -> Result<(Captured, Change), Failure> {
        check_privileges(self.settings.mode)?;
        let helper = self.helper;
        let supply = Supply::new(helper).map_err(unavailable("cannot supply sockets"))?;
        let before = CapturedNamespaces::new()?;
        let namespaces = before.with_targets(&self.settings, helper)?;
        let (port, sockets) = listen_anywhere(&namespaces, self.shards, helper)?;
        for space in namespaces.iter().filter(|space| space.is_in_use()) {
            undo_at_end(self.settings.mode, space, port, helper)?;
        }
        let claims = self.generation.table.claims();
        let Kernel { method, circuits } = match self.settings.mode {
            Mode::Ebpf => self.programs(&namespaces, port)?,
            Mode::Iptables => self.rules((&before, &namespaces), port)?,
        };
        let claims = kernel_claims(&claims, &[], &circuits);
        let captured = Captured {
            helper: Arc::clone(helper),
            supply: Arc::new(supply),
            reliance: Arc::new(Reliance::on(helper)),
            shards: self.shards,
            method,
            port,
            now: Mutex::new(Current {
                settings: self.settings,
                namespaces,
                claims,
                resolved: Vec::new(),
                circuits,
            }),
        };
        let change = {
            let now = captured.lock();
            captured.rely_on_helper(&now.namespaces);
            captured.change(&before, &now.namespaces, sockets)?
        };
        Ok((captured, change))
    }

    fn programs(&self, namespaces: &CapturedNamespaces, port: u16) -> Result<Kernel, Failure> {
        let workloads: Vec<Workload> = namespaces.workloads().cloned().collect();
        let options = Options {
            proxy_port: port,
            shards: self.shards,
            may_pin: self.may_pin,
            kernel_log: std::env::var_os("AMBASSADOR_KERNEL_LOG").is_some(),
        };
        let none = Circuits::default();
        let mut circuits = Circuits::of(self.generation, namespaces.view_of_kernel(), &none);
        let claims = kernel_claims(&self.generation.table.claims(), &[], &circuits);
        let (programs, found) =
            Capture::start(&self.settings, &claims, &workloads, options, self.helper)
                .map_err(failed)?;
        found.iter().for_each(say);
        circuits.follow(&none, &programs);
        circuits.warn_of_contested(&claims);
        if let Err(why) = programs.guarded() {
            tracing::warn!(
                why,
                "tokens are not guarded at the root of the hierarchy: captured requests get no \
                 credentials of the proxy"
            );
        }
        Ok(Kernel {
            method: Method::Programs(Box::new(programs)),
            circuits,
        })
    }

    fn rules(
        &self,
        (before, namespaces): (&CapturedNamespaces, &CapturedNamespaces),
        port: u16,
    ) -> Result<Kernel, Failure> {
        let owner = Owner {
            pid: std::process::id(),
            port,
        };
        let circuits = Circuits::default();
        let claims = kernel_claims(&self.generation.table.claims(), &[], &circuits);
        let source = |namespaces| Source {
            settings: &self.settings,
            namespaces,
            claims: &claims,
        };
        let replaced = owner.replace(source(before), source(namespaces), self.helper)?;
        replaced.keep();
        Ok(Kernel {
            method: Method::Rules(owner),
            circuits,
        })
    }
}

fn check_privileges(mode: Mode) -> Result<(), Failure> {
    let needed = match mode {
        Mode::Ebpf => &[Capability::Bpf, Capability::NetAdmin, Capability::SysAdmin][..],
        Mode::Iptables => &[Capability::NetAdmin][..],
    };
    match needed.iter().find(|needed| !capabilities::has(**needed)) {
        None => Ok(()),
        Some(missing) => Err(Failure::Unavailable(format!(
            "capture needs {}: run as root, or with that capability",
            missing.name()
        ))),
    }
}

/// Opens a listener in every namespace, all at the same port.
fn listen_anywhere(
    namespaces: &CapturedNamespaces,
    shards: u16,
    helper: &Helper,
) -> Result<(u16, Vec<OpenSockets>), Failure> {
    let mut tried = 0;
    loop {
        tried += 1;
        let mut port = 0;
        let listen = |space: &CapturedNamespace| {
            let sockets: Vec<OwnedFd> = match port {
                0 => space.listen(0, shards, helper)?,
                port => space.try_to_listen(port, shards, helper)?,
            };
            if let Some(address) = open_listeners::local_address(&sockets) {
                port = address.port();
            }
            Ok((space.namespace, sockets))
        };
        let in_use = namespaces.iter().filter(|space| space.is_in_use());
        let result: io::Result<Vec<OpenSockets>> = in_use.map(listen).collect();
        match result {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tried < PORTS_TRIED => {}
            result => {
                let failed = unavailable("cannot listen for captured connections");
                return result.map(|opened| (port, opened)).map_err(failed);
            }
        }
    }
}

/// Has the helper remove from a namespace what capture puts there. That nothing
/// was put there is fine with it.
pub(super) fn undo_at_end(
    mode: Mode,
    space: &CapturedNamespace,
    port: u16,
    helper: &Helper,
) -> Result<(), Failure> {
    match mode {
        Mode::Ebpf => helper.remove_token_prefix_at_end(&space.netns, port),
        Mode::Iptables => helper.remove_iptables_at_end(&space.netns),
    }
    .map_err(unavailable("the privileged helper does not answer"))
}
