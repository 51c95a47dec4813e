//! The first line that `run` logs: what runs here, and where.

use std::fmt::Write as _;

use super::open_listeners::OpenListener;
use crate::addr::BindAddr;
use crate::capture::settings::{Mode, Settings};
use crate::config::checked::{Listener, ListenerProtocol};
use crate::ring::Backend;
use crate::route::settings::Unmatched;

/// What an empty list is shown as.
const NONE: &str = "none";

/// What is said of a proxy that serves.
pub(super) struct Introduction {
    /// Who carries the I/O.
    pub backend: Backend,
    /// Why that is not io_uring.
    pub why_not_ring: Option<String>,
    /// Data-plane threads.
    pub shards: u16,
    /// See [`listeners`].
    pub listeners: String,
    /// See [`captured`].
    pub captured: String,
    /// Where the admin API listens.
    pub admin: BindAddr,
    /// Where health and metrics alone are served.
    pub metrics: Option<BindAddr>,
}

impl Introduction {
    /// Logs it.
    pub(super) fn log(&self) {
        let mut admin = self.admin.to_string();
        if let Some(metrics) = &self.metrics {
            // Writing to a String cannot fail.
            let _ = write!(admin, ", metrics {metrics}");
        }
        tracing::info!(
            "ambassador {} serves: backend {}, shards {}, listeners {}, captured {}, admin {admin}",
            env!("CARGO_PKG_VERSION"),
            self.backend(),
            self.shards,
            self.listeners,
            self.captured,
        );
        if self.listeners == NONE && self.captured == NONE {
            tracing::warn!(
                "nothing is served: the file has no `listeners`, and no cgroup is captured"
            );
        }
    }

    fn backend(&self) -> String {
        match &self.why_not_ring {
            None => self.backend.to_string(),
            Some(why) => format!("{} ({why})", self.backend),
        }
    }
}

/// Each with its address; `opened` has those of the same places.
pub(super) fn listeners(listeners: &[Listener], opened: &[OpenListener]) -> String {
    let each = listeners.iter().zip(opened).map(|(listener, opened)| {
        let protocol = match listener.protocol {
            ListenerProtocol::Http => "http",
            ListenerProtocol::Tcp => "tcp",
        };
        let name = &listener.name;
        match opened.address {
            Some(address) => format!("{name} {address} ({protocol})"),
            None => format!("{name} {} ({protocol})", listener.bind),
        }
    });
    or_none(each.collect())
}

/// The cgroups, by what means, and what becomes of what nobody claims.
pub(super) fn captured(capture: Option<&Settings>, unmatched: Unmatched) -> String {
    let Some(settings) = capture else {
        return or_none(Vec::new());
    };
    let cgroups = settings.targets.iter();
    let cgroups: Vec<_> = cgroups
        .map(|target| target.cgroup.display().to_string())
        .collect();
    if cgroups.is_empty() {
        return or_none(cgroups);
    }
    let mode = match settings.mode {
        Mode::Ebpf => "ebpf",
        Mode::Iptables => "iptables",
    };
    let unmatched = match unmatched {
        Unmatched::Proxy => "proxy",
        Unmatched::Adopt => "adopt",
        Unmatched::Passthrough => "passthrough",
        Unmatched::Refuse => "refuse",
    };
    format!("{} ({mode}, unmatched: {unmatched})", cgroups.join(", "))
}

fn or_none(each: Vec<String>) -> String {
    match each.is_empty() {
        true => NONE.into(),
        false => each.join(", "),
    }
}
