//! Capture by iptables: the rules of each namespace. Those of one namespace are
//! replaced in one transaction; over several there is none, so that those of
//! before are kept until all are in place.

use crate::app::{Failure, unavailable};
use crate::capture::iptables;
use crate::capture::settings::{Claims, Quic, Settings};
use crate::route::settings::Unmatched;
use crate::workload::{Helper, Netns};

use super::namespaces::{CapturedNamespace, CapturedNamespaces};

/// Whose rules they are, and where they lead.
#[derive(Clone, Copy)]
pub(super) struct Owner {
    /// The proxy's process.
    pub pid: u32,
    /// The port of its listeners.
    pub port: u16,
}

/// What rules are made of.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub settings: &'a Settings,
    pub namespaces: &'a CapturedNamespaces,
    pub claims: &'a Claims,
}

/// Rules that have replaced others. Dropped, it puts those back.
#[must_use = "dropped, it puts the old rules back"]
pub(super) struct Replaced<'a> {
    helper: &'a Helper,
    before: Vec<(Netns, iptables::Rules)>,
}

impl Owner {
    /// Replaces the rules of every namespace that something was ever captured in.
    pub(super) fn replace<'a>(
        self,
        before: Source<'_>,
        after: Source<'_>,
        helper: &'a Helper,
    ) -> Result<Replaced<'a>, Failure> {
        let mut replaced = Replaced {
            helper,
            before: Vec::new(),
        };
        for space in after.namespaces.iter().filter(|space| space.was_in_use()) {
            let new = self.rules(space, after);
            let old = match before.namespaces.find(space.namespace) {
                Some(space) => self.rules(space, before),
                None => iptables::Rules {
                    cgroups: Vec::new(),
                    ..new.clone()
                },
            };
            install(&new, &space.netns, helper)?;
            replaced.before.push((space.netns.clone(), old));
        }
        Ok(replaced)
    }

    /// The rules of one namespace.
    fn rules(self, space: &CapturedNamespace, source: Source<'_>) -> iptables::Rules {
        let Source {
            settings, claims, ..
        } = source;
        let claimed = settings.unmatched == Unmatched::Passthrough;
        let nets = claims.nets.iter().map(|claim| (claim.net, claim.port));
        iptables::Rules {
            owner: self.pid,
            cgroups: space.cgroups(),
            proxy_port: self.port,
            include: settings.include.clone(),
            exclude: settings.exclude.clone(),
            claims: claimed.then(|| nets.collect()),
            refuse_quic: settings.quic == Quic::Refuse,
            exempt_mark: space.mark,
        }
    }
}

impl Replaced<'_> {
    /// Keeps the new ones.
    pub(super) fn keep(mut self) {
        self.before.clear();
    }
}

impl Drop for Replaced<'_> {
    fn drop(&mut self) {
        for (netns, rules) in &self.before {
            if let Err(failure) = install(rules, netns, self.helper) {
                tracing::error!(%failure, "the old rules could not be put back");
            }
        }
    }
}

fn install(rules: &iptables::Rules, netns: &Netns, helper: &Helper) -> Result<(), Failure> {
    let rules = serde_json::to_value(rules).map_err(unavailable("cannot write rules down"))?;
    helper
        .install_iptables(netns, rules)
        .map_err(unavailable("cannot install iptables rules"))
}
