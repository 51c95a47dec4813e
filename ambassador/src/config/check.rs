//! From the raw layer to [`Checked`]: defaults filled in, references
//! resolved, what contradicts itself found.
//!
//! A part that is wrong is noted and replaced by something harmless, so that
//! the rest of the file is still looked at; with one mistake noted the result
//! is thrown away.

mod capture;
mod fail_fast;
mod listeners;
mod routes;
mod upstreams;

use std::path::PathBuf;
use std::time::Duration;

use super::checked::{AccessLog, Admin, Checked, LogFormat, LogTarget, Workers};
use super::found::Found;
use super::mistakes::Mistakes;
use super::policies::Layers;
use super::raw::File;
use super::read::{Field, Spanned};
use super::setting::Value;
use super::values::{AbsolutePath, Bind, Text, size};
use crate::addr::BindAddr;
use crate::http::trace;
use crate::proxy::memory;
use crate::route;

/// Where the admin API listens unless the file says otherwise.
pub(crate) const ADMIN_LISTEN: std::net::SocketAddr =
    std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 15000);

/// Names that metrics use for what is no upstream of the file.
const RESERVED_NAMES: [&str; 2] = ["unmatched", "adopted"];
/// Names stand in metric labels and paths.
const NAME_BYTES_MAX: usize = 63;

pub(super) fn check(file: &File, found: &mut Found) -> Checked {
    let admin = admin(file, found);
    let capture = file.capture.as_ref().map(|raw| capture::check(raw, found));
    let mut upstreams = upstreams::check(file, found);
    fail_fast::check(file, capture.as_ref(), &mut upstreams, found);
    let listeners = listeners::check(file, &upstreams.list, &admin, found);
    let checked_routes = routes::check(file, &upstreams, found);
    let unmatched = capture.as_ref().map(|capture| capture.unmatched);
    let routes = route::settings::Settings {
        routes: checked_routes.list,
        upstreams: upstreams.list,
        unmatched: unmatched.unwrap_or_default(),
        adopted: upstreams.adopted,
    };
    capture::check_reach(file, capture.as_ref(), &routes, found);
    listeners::check_reach(file, &routes, found);
    let workers = file.workers.as_ref();
    let workers = workers.map_or(Workers::Auto, |workers| workers.value.0);
    let time = |field: &Field<super::values::Time>, default| {
        field.as_ref().map_or(default, |time| time.value.0)
    };
    Checked {
        workers,
        spin: file
            .spin
            .as_ref()
            .map(|spin| spin.value.meaning())
            .unwrap_or_default(),
        user: file
            .user
            .as_ref()
            .map(|user| user.value.meaning())
            .unwrap_or_default(),
        admin,
        max_connections: file.max_connections.as_ref().and_then(|max| max.value.0),
        memory_limit: memory_limit(file, workers, found),
        drain_timeout: time(&file.drain_timeout, Duration::from_secs(30)),
        drain_delay: time(&file.drain_delay, Duration::ZERO),
        capture,
        listeners,
        routes,
        policies: upstreams.policies.iter().map(Layers::list).collect(),
        route_policies: checked_routes.policies,
        access_log: access_log(file, found),
        tracing: tracing(file),
        warnings: Mistakes::default(),
    }
}

fn admin(file: &File, found: &mut Found) -> Admin {
    let raw = file.admin.as_ref().map(|raw| raw.value.clone());
    let raw = raw.unwrap_or_default();
    let token_file = raw.token_file.as_ref().map(|path| path.value.0.clone());
    let listen = match raw.listen.as_ref() {
        None => BindAddr::Tcp(ADMIN_LISTEN),
        Some(listen) => {
            if !listen.value.0.is_local() && token_file.is_none() {
                found.mistake_at(
                    listen,
                    "must be on loopback or a unix socket; off loopback it needs token_file \
                     (for health and metrics alone use metrics_listen)",
                );
            }
            listen.value.0.clone()
        }
    };
    let metrics_listen = raw.metrics_listen.as_ref().map(|bind| {
        if let Some(other) = overlap(&bind.value.0, &listen) {
            found.mistake_at(bind, format!("is bound twice, admin.listen has {other}"));
        }
        bind.value.0.clone()
    });
    Admin {
        listen,
        metrics_listen,
        token_file,
    }
}

/// How much memory the process may hold: enough to start with. `auto` workers
/// count as one here, as there may be more where the file is used.
fn memory_limit(file: &File, workers: Workers, found: &mut Found) -> memory::Limit {
    let Some(raw) = file.memory_limit.as_ref() else {
        return memory::Limit::default();
    };
    let needed = memory::needed(match workers {
        Workers::Auto => 1,
        Workers::Count(count) => count,
    });
    if let memory::Limit::Bytes(bytes) = raw.value.0
        && bytes < needed
    {
        let needed = size(needed);
        found.mistake_at(
            raw,
            format!("is too little to start with: the proxy needs {needed}"),
        );
    }
    raw.value.0
}

fn access_log(file: &File, found: &mut Found) -> Option<AccessLog> {
    let telemetry = file.telemetry.as_ref()?;
    let raw = telemetry.access_log.as_ref()?;
    let format = raw.format.as_ref().map(|format| format.value.meaning());
    let target = match raw.path.as_ref() {
        None => LogTarget::Stdout,
        Some(path) => match path.value.0.as_str() {
            // Only who made what is behind them may open these paths.
            "stdout" | "/dev/stdout" => LogTarget::Stdout,
            "stderr" | "/dev/stderr" => LogTarget::Stderr,
            text if text.starts_with('/') => LogTarget::File(PathBuf::from(text)),
            _ => {
                found.mistake_at(path, "must be stdout, stderr or a path from the root");
                LogTarget::Stdout
            }
        },
    };
    let sample = raw.sample.as_ref().map_or(1.0, |sample| sample.value.0);
    Some(AccessLog {
        target,
        format: format.unwrap_or(LogFormat::Json),
        sample,
    })
}

/// How the traces of requests are carried on; `None`: they are left alone.
fn tracing(file: &File) -> Option<trace::Settings> {
    let raw = file.telemetry.as_ref()?.tracing.as_ref()?;
    let mut settings = trace::Settings::default();
    if let Some(sample) = raw.sample.as_ref() {
        settings.sample = sample.value.0;
    }
    if let Some(propagate) = raw.propagate.as_ref() {
        settings.formats = propagate.value.meaning();
    }
    Some(settings)
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
    upstreams: &[std::sync::Arc<route::settings::Upstream>],
    found: &mut Found,
) -> Option<usize> {
    let wanted = name.value.0.as_str();
    let index = upstreams.iter().position(|u| &*u.name == wanted);
    if index.is_none() {
        let names = upstreams.iter().map(|u| &*u.name);
        let names = names.filter(|_| found.tells_more());
        found.mistake_at(
            name,
            match super::read::nearest(wanted, names) {
                Some(meant) => format!("no such upstream, did you mean {meant}?"),
                None => "no such upstream".to_owned(),
            },
        );
    }
    index
}

fn path_of(path: &Spanned<AbsolutePath>) -> PathBuf {
    path.value.0.clone()
}

fn bind_of(bind: &Spanned<Bind>) -> BindAddr {
    bind.value.0.clone()
}
