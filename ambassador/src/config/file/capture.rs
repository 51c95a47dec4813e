//! `capture`: cgroups and scope. Warns of upstreams that the scope cannot reach.

use std::collections::HashSet;

use serde_json::json;

use super::File;
use crate::capture::settings::{self, Settings, Target};
use crate::config::findings::Findings;
use crate::config::read::{Either, Place, Spanned, object};
use crate::config::setting::{Layer, Setting, Shown, View, settings};
use crate::config::values::{AbsolutePath, Cidr, Distinct, Port, choice};
use crate::route::settings::{self as route, Claim};
use crate::workload::cgroup::is_cgroup;

settings! {
    /// Interception of connect().
    Capture for Settings as capture, checked by reaches_something {
        /// The cgroups whose programs are captured: a directory in cgroup2,
        /// or that and a network namespace. `run --cgroup` adds to them.
        cgroups: Vec<Spanned<Either<AbsolutePath, Cgroup>>> = capture.targets,
        /// By which means.
        mode: Mode [needs_restart] = capture.mode,
        /// What is in scope. Absent, or without `cidrs`: everything but loopback.
        include: Scope = capture.include,
        /// What is out of scope. The kernel connects straight to it, always.
        exclude: Scope = capture.exclude,
        /// What happens to a destination in scope that no upstream claims.
        unmatched: Unmatched = capture.unmatched,
        /// What captured connects do while the proxy is dead, hung (for 1 s) or
        /// without a slot for the destination. Slots are limited for each
        /// captured cgroup.
        on_failure: OnFailure = capture.on_failure,
        /// What happens to QUIC (UDP port 443), which is not captured.
        quic: Quic = capture.quic,
    }
}

object! {
    /// A cgroup whose programs live in another network namespace.
    #[schemars(extend("required" = ["path"]))]
    Cgroup {
        /// Its directory in cgroup2. Required.
        path: AbsolutePath,
        /// The network namespace, as `/proc/123/ns/net`. Absent: the proxy's own.
        netns: AbsolutePath,
    }
}

settings! {
    /// A set of destinations.
    Scope for settings::Scope as scope {
        /// Ports. Under `include`, absent or empty means all ports.
        ports: Distinct<Port> = scope.ports,
        /// Addresses and CIDRs.
        cidrs: Distinct<Cidr> = scope.cidrs,
    }
}

choice! {
    /// How connects are captured.
    Mode: settings::Mode {
        /// BPF programs at connect().
        Ebpf = "ebpf" => settings::Mode::Ebpf,
        /// REDIRECT rules: for comparison and for kernels without the hooks.
        Iptables = "iptables" => settings::Mode::Iptables,
    }
}

choice! {
    /// What happens to unclaimed destinations.
    Unmatched: route::Unmatched {
        /// It is captured, counted and relayed to the original destination.
        Proxy = "proxy" => route::Unmatched::Proxy,
        /// Each authority or address becomes an upstream of its own with the
        /// defaults; 1,024 at most, the least recently used is dropped.
        Adopt = "adopt" => route::Unmatched::Adopt,
        /// The kernel connects straight; only claimed destinations are captured.
        Passthrough = "passthrough" => route::Unmatched::Passthrough,
        /// The connect is refused, or the request is answered `no-route`.
        Refuse = "refuse" => route::Unmatched::Refuse,
    }
}

choice! {
    /// What connects do while the proxy can't serve them.
    OnFailure: settings::OnFailure {
        /// The kernel connects straight.
        Bypass = "bypass" => settings::OnFailure::Bypass,
        /// The connect is refused.
        Refuse = "refuse" => settings::OnFailure::Refuse,
    }
}

choice! {
    /// What happens to UDP port 443.
    Quic: settings::Quic {
        /// The kernel sends it straight to its destination.
        Leave = "leave" => settings::Quic::Leave,
        /// It is refused, so that clients fall back to TCP.
        Refuse = "refuse" => settings::Quic::Refuse,
    }
}

/// A layer replaces the whole list.
impl Setting<Vec<Target>> for Vec<Spanned<Either<AbsolutePath, Cgroup>>> {
    fn lay(&self, place: &Place, over: &mut Vec<Target>, key: &str, layer: &mut Layer<'_>) {
        layer.note(key, place.line);
        let mut cgroups = HashSet::new();
        over.clear();
        for item in self {
            let Some(target) = target(item, layer.findings) else {
                continue;
            };
            // One that does not exist may be made before the start.
            if target.cgroup.exists() && !is_cgroup(&target.cgroup) {
                let what = "is no cgroup of a cgroup2 hierarchy";
                layer.findings.mistake_at(item, what);
            }
            if !cgroups.insert(target.cgroup.clone()) {
                layer.findings.mistake_at(item, "is captured twice");
            }
            over.push(target);
        }
    }

    fn show(targets: &Vec<Target>, key: &str, view: View, shown: &mut Vec<Shown>) {
        let cgroups = targets.iter().map(|target| match &target.netns {
            None => json!(target.cgroup),
            Some(netns) => json!({ "path": target.cgroup, "netns": netns }),
        });
        view.put(key, cgroups.collect(), shown);
    }
}

fn target(item: &Spanned<Either<AbsolutePath, Cgroup>>, findings: &mut Findings) -> Option<Target> {
    let path = |path: &Spanned<AbsolutePath>| path.value.0.clone();
    match &item.value {
        Either::Short(AbsolutePath(path)) => Some(Target {
            cgroup: path.clone(),
            netns: None,
        }),
        Either::Full(cgroup) => {
            let Some(cgroup_path) = cgroup.path.as_ref() else {
                findings.mistake(&item.place, "must have a path");
                return None;
            };
            Some(Target {
                cgroup: path(cgroup_path),
                netns: cgroup.netns.as_ref().map(path),
            })
        }
    }
}

/// What is in scope must not be out of it as a whole.
fn reaches_something(written: &Capture, _: &Place, capture: &mut Settings, layer: &mut Layer<'_>) {
    let Some(include) = written.include.as_ref() else {
        return;
    };
    for cidr in include.cidrs.items() {
        let mut out = capture.exclude.cidrs.iter();
        if out.any(|out| out.contains(&cidr.value.0)) {
            let what = "is excluded as a whole by capture.exclude.cidrs";
            layer.findings.mistake_at(cidr, what);
        }
    }
    for port in include.ports.items() {
        if capture.exclude.ports.contains(&port.value.0) {
            layer.findings.mistake_at(port, "is included and excluded");
        }
    }
}

/// Warns about what can never be captured as it is written.
pub(super) fn check_reach(
    file: &File,
    settings: Option<&Settings>,
    routes: &route::Settings,
    findings: &mut Findings,
) {
    let Some(settings) = settings else {
        return;
    };
    for (_, upstream) in file.upstreams.items() {
        for host in upstream.hosts.items() {
            let wildcard = matches!(host.value.0, Claim::Wildcard { .. });
            if wildcard && settings.unmatched == route::Unmatched::Passthrough {
                findings.warn_at(
                    host,
                    "under unmatched: passthrough the kernel decides by address, and a wildcard \
                     has none: it captures nothing",
                );
            }
            if let Some(why) = out_of_scope(&host.value.0, settings) {
                findings.warn_at(host, format!("is never captured: {why}"));
            }
        }
    }
    if settings.unmatched == route::Unmatched::Passthrough
        && let Some(list) = file.routes.as_ref()
        && routes
            .upstreams
            .iter()
            .all(|upstream| upstream.claims.is_empty())
        && !routes.routes.is_empty()
    {
        findings.warn_at(
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
