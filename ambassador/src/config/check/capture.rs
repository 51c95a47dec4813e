//! Capture: cgroups, scope, and what of the upstreams it can see.

use std::collections::HashSet;

use super::path_of;
use crate::capture::settings::{Scope, Settings, Target};
use crate::config::found::Found;
use crate::config::raw::{self, File};
use crate::config::read::{Either, Field};
use crate::config::setting::Value;
use crate::route::settings::{self as route, Claim, Unmatched};
use crate::workload::cgroup::is_cgroup;

pub(super) fn check(raw: &raw::Capture, found: &mut Found) -> Settings {
    Settings {
        targets: targets(raw, found),
        mode: raw
            .mode
            .as_ref()
            .map(|mode| mode.value.meaning())
            .unwrap_or_default(),
        include: scope(&raw.include, found),
        exclude: scope(&raw.exclude, found),
        unmatched: raw
            .unmatched
            .as_ref()
            .map(|u| u.value.meaning())
            .unwrap_or_default(),
        on_failure: raw
            .on_failure
            .as_ref()
            .map(|f| f.value.meaning())
            .unwrap_or_default(),
        quic: raw
            .quic
            .as_ref()
            .map(|quic| quic.value.meaning())
            .unwrap_or_default(),
    }
}

fn targets(raw: &raw::Capture, found: &mut Found) -> Vec<Target> {
    let mut targets: Vec<Target> = Vec::new();
    let mut cgroups = HashSet::new();
    for item in raw.cgroups.as_ref().map_or(&[][..], |list| &list.value) {
        let target = match &item.value {
            Either::Short(path) => Target {
                cgroup: path.0.clone(),
                netns: None,
            },
            Either::Full(cgroup) => {
                let Some(path) = cgroup.path.as_ref() else {
                    found.mistake(&item.place, "must have a path");
                    continue;
                };
                Target {
                    cgroup: path_of(path),
                    netns: cgroup.netns.as_ref().map(path_of),
                }
            }
        };
        // One that does not exist may be made before the start.
        if target.cgroup.exists() && !is_cgroup(&target.cgroup) {
            found.mistake_at(item, "is no cgroup of a cgroup2 hierarchy");
        }
        if !cgroups.insert(target.cgroup.clone()) {
            found.mistake_at(item, "is captured twice");
        }
        targets.push(target);
    }
    targets
}

fn scope(raw: &Field<raw::Scope>, found: &mut Found) -> Scope {
    let Some(raw) = raw.as_ref() else {
        return Scope::default();
    };
    let mut scope = Scope::default();
    for port in raw.ports.as_ref().map_or(&[][..], |list| &list.value) {
        if scope.ports.contains(&port.value.0) {
            found.mistake_at(port, "stands there twice");
        }
        scope.ports.push(port.value.0);
    }
    for cidr in raw.cidrs.as_ref().map_or(&[][..], |list| &list.value) {
        if scope.cidrs.contains(&cidr.value.0) {
            found.mistake_at(cidr, "stands there twice");
        }
        scope.cidrs.push(cidr.value.0);
    }
    scope
}

/// Warns about what can never be captured as it is written.
pub(super) fn check_reach(
    file: &File,
    settings: Option<&Settings>,
    routes: &route::Settings,
    found: &mut Found,
) {
    let (Some(raw), Some(settings)) = (file.capture.as_ref(), settings) else {
        return;
    };
    check_scope(raw, settings, found);
    for (_, upstream) in file
        .upstreams
        .as_ref()
        .map_or(&[][..], |named| &named.value.0)
    {
        for host in upstream
            .hosts
            .as_ref()
            .map_or(&[][..], |hosts| &hosts.value)
        {
            let wildcard = matches!(host.value.0, Claim::Wildcard { .. });
            if wildcard && settings.unmatched == Unmatched::Passthrough {
                found.warn_at(
                    host,
                    "under unmatched: passthrough the kernel decides by address, and a wildcard \
                     has none: it captures nothing",
                );
            }
            if let Some(why) = out_of_scope(&host.value.0, settings) {
                found.warn_at(host, format!("is never captured: {why}"));
            }
        }
    }
    if settings.unmatched == Unmatched::Passthrough
        && let Some(list) = file.routes.as_ref()
        && routes
            .upstreams
            .iter()
            .all(|upstream| upstream.claims.is_empty())
        && !routes.routes.is_empty()
    {
        found.warn_at(
            list,
            "under unmatched: passthrough routes see only what the hosts of an upstream claim",
        );
    }
}

/// Why no destination of the claim is in scope.
fn out_of_scope(claim: &Claim, settings: &Settings) -> Option<&'static str> {
    let (include, exclude) = (&settings.include, &settings.exclude);
    let (net, port) = match claim {
        Claim::Name { port, .. } | Claim::Wildcard { port, .. } => (None, port),
        Claim::Net { net, port } => (Some(net), port),
    };
    if let Some(port) = port {
        if exclude.ports.contains(port) {
            return Some("capture.exclude.ports has its port");
        }
        if !include.ports.is_empty() && !include.ports.contains(port) {
            return Some("capture.include.ports does not have its port");
        }
    }
    let net = net?;
    if exclude.cidrs.iter().any(|out| out.contains(net)) {
        return Some("capture.exclude.cidrs has it");
    }
    if include.cidrs.is_empty() {
        let loopback = |ip: std::net::IpAddr| ip.is_loopback();
        let inside = loopback(net.network()) && loopback(net.broadcast());
        return inside.then_some("loopback is out of scope unless capture.include.cidrs has it");
    }
    let meets = |other: &ipnet::IpNet| other.contains(net) || net.contains(other);
    let outside = !include.cidrs.iter().any(meets);
    outside.then_some("capture.include.cidrs does not have it")
}

fn check_scope(raw: &raw::Capture, settings: &Settings, found: &mut Found) {
    let Some(include) = raw.include.as_ref() else {
        return;
    };
    for cidr in include.cidrs.as_ref().map_or(&[][..], |list| &list.value) {
        let out = settings.exclude.cidrs.iter();
        if out.clone().any(|out| out.contains(&cidr.value.0)) {
            found.mistake_at(cidr, "is excluded as a whole by capture.exclude.cidrs");
        }
    }
    for port in include.ports.as_ref().map_or(&[][..], |list| &list.value) {
        if settings.exclude.ports.contains(&port.value.0) {
            found.mistake_at(port, "is included and excluded");
        }
    }
}
