//! The file as it is written, and from there to [`Checked`]: references resolved,
//! what contradicts itself found.
//!
//! A part that is wrong is noted and replaced by something harmless, so that the rest
//! of the file is still looked at; with one mistake noted the result is thrown away.

mod admin;
mod auth;
mod capture;
mod fail_fast;
mod identity;
mod listener_tls;
mod listeners;
mod placeholders;
mod routes;
mod telemetry;
mod upstreams;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;

use super::checked::{self, Checked, Origin};
use super::findings::Findings;
use super::policies::{Layers, Policies};
use super::read::{Named, Place, Read, Spanned};
use super::setting::{Layer, Setting, Shown, View, grouped, settings};
use super::values::{
    Count, MemoryLimit, Optional, OrNone, Text, Time, User, Workers, choice, size,
};
use super::yaml::Node;
use crate::addr::BindAddr;
use crate::proxy::memory;
use crate::ring;
use crate::route;

use admin::Admin;
use capture::Capture;
use identity::Identity;
use listeners::Listener;
use placeholders::Placeholder;
use routes::Route;
use telemetry::Telemetry;
use upstreams::Upstream;

/// Names that metrics use for what is no upstream of the file.
const RESERVED_NAMES: [&str; 2] = ["unmatched", "adopted"];
/// Names stand in metric labels and paths.
const NAME_BYTES_MAX: usize = 63;

/// The whole file.
pub(super) fn document(root: &Node, findings: &mut Findings) -> Option<File> {
    File::read(root, &Place::default(), findings)
}

settings! {
    /// The configuration of an ambassador.
    File for Checked as checked, checked by has_memory_to_start {
        /// Data-plane threads. `auto`: one for each CPU that the process may use,
        /// within the quota of its cgroup.
        workers: Workers [needs_restart] = checked.workers,
        /// Whether an idle thread polls for work before it sleeps.
        spin: Spin [needs_restart] = checked.spin,
        /// The user that the proxy becomes after it has started as root: a user
        /// in /etc/passwd with its group, or `uid:gid`. `auto`: `ambassador`
        /// where that user exists, else a number that no other process has. A
        /// proxy that another user starts stays that user with `auto`.
        user: User [needs_restart] = checked.user,
        /// The admin API.
        admin: Admin [needs_restart] = checked.admin,
        /// Connections of applications at most, on all listeners and captured
        /// together. Further ones are reset and counted. `none`: as many as the
        /// limit of open files allows.
        max_connections: OrNone<Count<1>> = checked.max_connections,
        /// Memory of the process at most: resident memory, and bytes that the
        /// kernel buffers for stalled connections. Above it the proxy ends the
        /// stalled connections that hold the most, and resets new ones when no
        /// stalled one is left. `auto`: 80 % of the memory limit of its cgroup or
        /// of a parent; no limit where those have none.
        memory_limit: MemoryLimit = checked.memory_limit,
        /// How long requests in flight may take to finish after SIGTERM or
        /// `drain`. After that they are cut off.
        drain_timeout: Time = checked.drain_timeout,
        /// How long to keep serving after SIGTERM before the drain starts. It
        /// ends early when the captured cgroups are empty.
        drain_delay: Time = checked.drain_delay,
        /// Who the proxy is, for upstreams and listeners with `tls: { cert: identity }`.
        /// Absent: nobody.
        identity: Optional<Identity> = checked.identity,
        /// Interception of connect(). Absent: only the listeners are served.
        capture: Optional<Capture> = checked.capture,
        /// Explicit listeners, for programs that call localhost.
        listeners: Vec<Spanned<Listener>>,
        /// Policies for all upstreams. An upstream's own keys come first.
        defaults: Policies,
        /// Destinations by name. A name has letters, digits, `.`, `_` and `-`;
        /// metrics, logs and the path prefix `/<name>/` use it.
        upstreams: Named<Upstream>,
        /// Secrets that programs have a word for: they send `amb-placeholder-NAME`, and the
        /// proxy puts the secret in its place, for one upstream. A name has letters,
        /// digits, `.`, `_` and `-`.
        placeholders: Named<Placeholder>,
        /// Requests mapped to an upstream by host, path and method. The first
        /// match wins, also over the `hosts` of upstreams.
        routes: Vec<Spanned<Route>>,
        /// The access log and traces.
        telemetry: Telemetry = *checked,
    }
}

choice! {
    /// What an idle thread does.
    Spin: ring::Spin {
        /// It sleeps at once.
        Never = "never" => ring::Spin::Never,
        /// It polls for up to 100 us before it sleeps, as long as work has come
        /// within that time lately. For a shard with a CPU of its own: latency
        /// falls by the cost of a wake-up, and the CPU is busy at medium load.
        Adaptive = "adaptive" => ring::Spin::Adaptive,
    }
}

/// `auto` workers count as one here, as there may be more where the file is used.
fn has_memory_to_start(written: &File, _: &Place, checked: &mut Checked, layer: &mut Layer<'_>) {
    let needed = memory::needed(match checked.workers {
        checked::Workers::Auto => 1,
        checked::Workers::Count(count) => count,
    });
    if let Some(limit) = written.memory_limit.as_ref()
        && let memory::Limit::Bytes(bytes) = limit.value.0
        && bytes < needed
    {
        let needed = size(needed);
        let what = format!("is too little to start with: the proxy needs {needed}");
        layer.findings.mistake_at(limit, what);
    }
}

pub(super) fn check(file: &File, findings: &mut Findings) -> Checked {
    let mut checked = Checked::default();
    let layer = &mut Layer {
        origins: &mut BTreeMap::new(),
        origin: &Origin::Telemetry,
        findings,
    };
    file.lay(&Place::default(), &mut checked, "", layer);
    let propagate = layer.origins.remove("telemetry.tracing.propagate");
    let built_in = Layers::built_in(checked.tracing, propagate);
    let capture = checked.capture.as_ref();
    let mut upstreams = upstreams::check(file, &built_in, layer.findings);
    fail_fast::check(file, capture, &mut upstreams, layer.findings);
    placeholders::check(file, &mut upstreams.list, layer.findings);
    checked.listeners = listeners::check(file, &upstreams.list, &checked.admin, layer);
    identity::check(file, &upstreams.list, &checked.listeners, layer.findings);
    let routes = routes::check(file, &upstreams, layer);
    checked.routes = route::settings::Settings {
        routes: routes.list,
        upstreams: upstreams.list,
        unmatched: capture.map_or_else(Default::default, |capture| capture.unmatched),
        adopted: upstreams.adopted,
    };
    capture::check_reach(file, capture, &checked.routes, layer.findings);
    listeners::check_reach(file, &checked.routes, layer.findings);
    checked.policies = upstreams.policies.iter().map(Layers::list).collect();
    checked.route_policies = routes.policies;
    checked
}

impl Checked {
    /// Every setting in effect, secrets masked, as JSON that is also a valid file:
    /// what `/config` answers.
    pub fn effective(&self) -> Json {
        let mut shown = Vec::new();
        File::show(self, "", View::WHOLE, &mut shown);
        let mut file = grouped(shown);
        file.insert("listeners".into(), listeners::shown(self));
        let upstreams = self.routes.upstreams.iter();
        let upstreams = upstreams.map(|it| (it.name.to_string(), upstreams::shown(it)));
        file.insert("upstreams".into(), Json::Object(upstreams.collect()));
        let placeholders = placeholders::shown(&self.routes.upstreams);
        file.insert("placeholders".into(), placeholders);
        file.insert("routes".into(), routes::shown(self));
        Json::Object(file)
    }

    /// What of it only a restart can bring into effect, key by key.
    pub(super) fn needing_restart(&self) -> Vec<Shown> {
        let mut shown = Vec::new();
        let view = View::NEEDING_RESTART;
        File::show(self, "", view, &mut shown);
        if self.capture.is_none() {
            // Where nothing is captured yet, the first does not need one.
            Capture::show(&Default::default(), "capture", view, &mut shown);
        }
        shown
    }
}

/// The second of two addresses that can't both be bound.
fn overlap<'a>(one: &BindAddr, two: &'a BindAddr) -> Option<&'a BindAddr> {
    let clash = match (one, two) {
        (BindAddr::Unix(a), BindAddr::Unix(b)) => a == b,
        (BindAddr::Tcp(a), BindAddr::Tcp(b)) => {
            let (ip_a, ip_b) = (a.ip().to_canonical(), b.ip().to_canonical());
            let any = |ip: std::net::IpAddr, other: std::net::IpAddr| {
                // A v6 wildcard takes the v4 port as well.
                ip.is_unspecified() && (ip.is_ipv6() || other.is_ipv4())
            };
            a.port() == b.port()
                && a.port() != 0
                && (ip_a == ip_b || any(ip_a, ip_b) || any(ip_b, ip_a))
        }
        _ => false,
    };
    clash.then_some(two)
}

/// What is wrong with a name that the user chose.
fn name_mistake(name: &str) -> Option<String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(allowed) {
        return Some(format!(
            "a name has 1 to {NAME_BYTES_MAX} letters, digits, '.', '_' or '-'"
        ));
    }
    if name.bytes().all(|b| b == b'.') {
        return Some("a name can't be dots alone".to_owned());
    }
    RESERVED_NAMES
        .contains(&name)
        .then(|| "this name is taken by the metrics".to_owned())
}

/// The place of the upstream of this name; notes it where there is none.
fn upstream_named(
    name: &Spanned<Text>,
    upstreams: &[Arc<route::settings::Upstream>],
    findings: &mut Findings,
) -> Option<usize> {
    let wanted = name.value.0.as_str();
    let index = upstreams.iter().position(|u| &*u.name == wanted);
    if index.is_none() {
        let names = upstreams.iter().map(|u| &*u.name);
        let names = names.filter(|_| findings.has_room());
        findings.mistake_at(
            name,
            match super::read::nearest(wanted, names) {
                Some(meant) => format!("no such upstream, did you mean {meant}?"),
                None => "no such upstream".to_owned(),
            },
        );
    }
    index
}
