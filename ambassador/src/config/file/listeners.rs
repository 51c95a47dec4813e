//! `listeners`: checks that each address is bound once and each upstream exists.

use std::sync::Arc;

use serde_json::Value as Json;

use super::listener_tls::{self, ListenerTls};
use super::{File, identity, name_mistake, overlap, upstream_named};
use crate::addr::{BindAddr, EndpointAddr};
use crate::config::checked::{self, Admin, Checked, ListenerProtocol as Spoken};
use crate::config::findings::Findings;
use crate::config::read::Spanned;
use crate::config::setting::{Layer, Setting, View, grouped, settings};
use crate::config::values::{Bind, Count, OrNone, Text, choice};
use crate::route::settings::{Endpoint, Endpoints, Settings, Upstream};

settings! {
    /// An explicit listener.
    #[schemars(extend("required" = ["name", "bind"]))]
    Listener for checked::Listener as listener {
        /// Its name in metrics and logs. Required.
        name: Text,
        /// Where it listens: an address and port, or `unix:/path`. Required.
        bind: Bind,
        /// The protocol of its clients.
        protocol: ListenerProtocol = listener.protocol,
        /// The upstream of its connections. Required for `tcp`, not for `http`.
        upstream: Text,
        /// Its connections at most. Further ones are reset and counted.
        max_connections: OrNone<Count<1>> = listener.max_connections,
        /// How its connections are encrypted. Default: they are in clear.
        tls: ListenerTls,
    }
}

choice! {
    /// What is spoken on a listener.
    ListenerProtocol: Spoken {
        /// Requests, routed by `X-Upstream-Host`, by routes, by their
        /// authority, then by the path prefix `/<upstream>/`, which is removed.
        Http = "http" => Spoken::Http,
        /// Opaque bytes for one upstream.
        Tcp = "tcp" => Spoken::Tcp,
    }
}

pub(super) fn check(
    file: &File,
    upstreams: &[Arc<Upstream>],
    admin: &Admin,
    layer: &mut Layer<'_>,
) -> Vec<checked::Listener> {
    let mut listeners: Vec<checked::Listener> = Vec::new();
    for raw in file.listeners.items() {
        let mut listener = checked::Listener::default();
        raw.value.lay(&raw.place, &mut listener, "", layer);
        listener.upstream = upstream(raw, listener.protocol, upstreams, layer.findings);
        if let Some(tls) = raw.tls.as_ref() {
            let mut written = listener_tls::Written::default();
            tls.value.lay(&tls.place, &mut written, "tls", layer);
            let settings = written.settings();
            if settings.needs_identity() && file.identity.as_ref().is_none() {
                layer.findings.mistake(&tls.place, identity::MISSING);
            }
            listener.tls = Some(Arc::new(settings));
            listener.tls_line = tls.place.line;
        }
        listener.name = name(raw, &listeners, layer.findings).unwrap_or_default();
        let Some(bind) = raw.bind.as_ref() else {
            layer
                .findings
                .mistake(&raw.place, "must have a bind address");
            continue;
        };
        if let Some((who, other)) = bound_before(&bind.value.0, &listeners, admin) {
            let what = format!("is bound twice, {who} has {other}");
            layer.findings.mistake_at(bind, what);
        }
        if !bind.value.0.is_local() {
            layer.findings.warn_at(bind, "is open to other machines");
        }
        listener.bind = bind.value.0.clone();
        listeners.push(listener);
    }
    listeners
}

/// As the file would write them.
pub(in crate::config) fn shown(checked: &Checked) -> Json {
    let listeners = checked.listeners.iter().map(|listener| {
        let mut shown = vec![
            ("name".to_owned(), listener.name.as_str().into()),
            ("bind".to_owned(), listener.bind.to_string().into()),
        ];
        if let Some(index) = listener.upstream {
            let name = &*checked.routes.upstreams[index].name;
            shown.push(("upstream".to_owned(), name.into()));
        }
        Listener::show(listener, "", View::WHOLE, &mut shown);
        if let Some(tls) = &listener.tls {
            let written = listener_tls::Written::from(&**tls);
            ListenerTls::show(&written, "tls", View::WHOLE, &mut shown);
        }
        grouped(shown)
    });
    listeners.collect()
}

fn name(
    raw: &Spanned<Listener>,
    before: &[checked::Listener],
    findings: &mut Findings,
) -> Option<String> {
    let Some(name) = raw.name.as_ref() else {
        findings.mistake(&raw.place, "must have a name");
        return None;
    };
    let text = &name.value.0;
    if let Some(what) = name_mistake(text) {
        findings.mistake_at(name, what);
    } else if before.iter().any(|other| other.name == *text) {
        findings.mistake_at(name, "is the name of another listener");
    }
    Some(text.clone())
}

fn upstream(
    raw: &Spanned<Listener>,
    protocol: Spoken,
    upstreams: &[Arc<Upstream>],
    findings: &mut Findings,
) -> Option<usize> {
    match (protocol, raw.upstream.as_ref()) {
        (Spoken::Http, None) => None,
        (Spoken::Http, Some(name)) => {
            findings.mistake_at(
                name,
                "an http listener routes each request; this is for protocol tcp",
            );
            None
        }
        (Spoken::Tcp, None) => {
            findings.mistake(&raw.place, "a tcp listener must have an upstream");
            None
        }
        (Spoken::Tcp, Some(name)) => {
            let index = upstream_named(name, upstreams, findings)?;
            if upstreams[index].endpoints == Endpoints::Original {
                findings.mistake_at(
                    name,
                    "needs endpoints or dns: a listener has no original destination to go to",
                );
            }
            if upstreams[index].protocol.is_http() {
                findings.mistake_at(name, "speaks HTTP, and this listener is protocol tcp");
            }
            Some(index)
        }
    }
}

fn bound_before<'a>(
    bind: &BindAddr,
    before: &'a [checked::Listener],
    admin: &'a Admin,
) -> Option<(String, &'a BindAddr)> {
    let admin_listen = overlap(bind, &admin.listen).map(|a| ("admin.listen".to_owned(), a));
    let metrics = || {
        let other = overlap(bind, admin.metrics_listen.as_ref()?)?;
        Some(("admin.metrics_listen".to_owned(), other))
    };
    let listener = || {
        before.iter().find_map(|listener| {
            let other = overlap(bind, &listener.bind)?;
            Some((format!("listener {}", listener.name), other))
        })
    };
    admin_listen.or_else(metrics).or_else(listener)
}

/// Warns about endpoints that are our own listeners, and about upstreams
/// that nothing leads to.
pub(super) fn check_reach(file: &File, routes: &Settings, findings: &mut Findings) {
    let listeners = file.listeners.items();
    let own = |endpoint: &Endpoint| {
        listeners.iter().any(|listener| {
            let EndpointAddr(address) = endpoint.address;
            let bind = listener.bind.as_ref().map(|bind| &bind.value.0);
            bind.is_some_and(|bind| overlap(bind, &BindAddr::Tcp(address)).is_some())
        })
    };
    let http = listeners.iter().any(|listener| {
        let protocol = listener.protocol.as_ref();
        !protocol.is_some_and(|protocol| matches!(protocol.value, ListenerProtocol::Tcp))
    });
    let named = |name: &str| {
        let by_listener = listeners
            .iter()
            .any(|l| l.upstream.as_ref().is_some_and(|u| u.value.0 == name));
        by_listener
            || routes.routes.iter().any(|r| {
                routes
                    .upstreams
                    .get(r.upstream)
                    .is_some_and(|u| &*u.name == name)
            })
    };
    for (name, _) in file.upstreams.items() {
        let Some(upstream) = routes.upstreams.iter().find(|u| *u.name == *name.value) else {
            continue;
        };
        if let Endpoints::Static(list) = &upstream.endpoints
            && list.iter().any(own)
        {
            findings.warn_at(
                name,
                "has one of the listeners here as an endpoint, which is a loop",
            );
        }
        if upstream.claims.is_empty() && !http && !named(&name.value) {
            findings.warn_at(
                name,
                "nothing leads here: it has no hosts, route or listener",
            );
        }
    }
}
