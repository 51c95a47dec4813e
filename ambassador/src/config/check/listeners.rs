//! Explicit listeners: each bound once, each leading somewhere.

use std::sync::Arc;

use super::{bind_of, name_mistake, overlap, upstream_named};
use crate::addr::{BindAddr, EndpointAddr};
use crate::config::checked::{Admin, Listener, ListenerProtocol};
use crate::config::found::Found;
use crate::config::raw::{self, File};
use crate::config::read::Spanned;
use crate::config::setting::Value;
use crate::route::settings::{Endpoint, Endpoints, Protocol, Settings, Upstream};

pub(super) fn check(
    file: &File,
    upstreams: &[Arc<Upstream>],
    admin: &Admin,
    found: &mut Found,
) -> Vec<Listener> {
    let mut listeners: Vec<Listener> = Vec::new();
    for raw in file.listeners.as_ref().map_or(&[][..], |list| &list.value) {
        let protocol = raw.protocol.as_ref();
        let protocol = protocol.map_or(ListenerProtocol::Http, |p| p.value.meaning());
        let upstream = upstream(raw, protocol, upstreams, found);
        let name = name(raw, &listeners, found);
        let Some(bind) = raw.bind.as_ref() else {
            found.mistake(&raw.place, "must have a bind address");
            continue;
        };
        if let Some((who, other)) = bound_before(&bind.value.0, &listeners, admin) {
            found.mistake_at(bind, format!("is bound twice, {who} has {other}"));
        }
        if !bind.value.0.is_local() {
            found.warn_at(bind, "is open to other machines");
        }
        listeners.push(Listener {
            name: name.unwrap_or_default(),
            bind: bind_of(bind),
            protocol,
            upstream,
            max_connections: raw.max_connections.as_ref().and_then(|max| max.value.0),
        });
    }
    listeners
}

fn name(raw: &Spanned<raw::Listener>, before: &[Listener], found: &mut Found) -> Option<String> {
    let Some(name) = raw.name.as_ref() else {
        found.mistake(&raw.place, "must have a name");
        return None;
    };
    let text = &name.value.0;
    if let Some(what) = name_mistake(text) {
        found.mistake_at(name, what);
    } else if before.iter().any(|other| other.name == *text) {
        found.mistake_at(name, "is the name of another listener");
    }
    Some(text.clone())
}

fn upstream(
    raw: &Spanned<raw::Listener>,
    protocol: ListenerProtocol,
    upstreams: &[Arc<Upstream>],
    found: &mut Found,
) -> Option<usize> {
    match (protocol, raw.upstream.as_ref()) {
        (ListenerProtocol::Http, None) => None,
        (ListenerProtocol::Http, Some(name)) => {
            found.mistake_at(
                name,
                "an http listener routes each request; this is for protocol tcp",
            );
            None
        }
        (ListenerProtocol::Tcp, None) => {
            found.mistake(&raw.place, "a tcp listener must have an upstream");
            None
        }
        (ListenerProtocol::Tcp, Some(name)) => {
            let index = upstream_named(name, upstreams, found)?;
            if upstreams[index].endpoints == Endpoints::Original {
                found.mistake_at(
                    name,
                    "needs endpoints or dns: a listener has no original destination to go to",
                );
            }
            if upstreams[index].protocol == Protocol::Http1 {
                found.mistake_at(name, "speaks http1, and this listener is protocol tcp");
            }
            Some(index)
        }
    }
}

fn bound_before<'a>(
    bind: &BindAddr,
    before: &'a [Listener],
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
pub(super) fn check_reach(file: &File, routes: &Settings, found: &mut Found) {
    let listeners = file.listeners.as_ref().map_or(&[][..], |list| &list.value);
    let own = |endpoint: &Endpoint| {
        listeners.iter().any(|listener| {
            let EndpointAddr(address) = endpoint.address;
            let bind = listener.bind.as_ref().map(|bind| &bind.value.0);
            bind.is_some_and(|bind| overlap(bind, &BindAddr::Tcp(address)).is_some())
        })
    };
    let http = listeners.iter().any(|listener| {
        let protocol = listener.protocol.as_ref().map(|p| p.value.meaning());
        protocol != Some(ListenerProtocol::Tcp)
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
    for (name, _) in file
        .upstreams
        .as_ref()
        .map_or(&[][..], |named| &named.value.0)
    {
        let Some(upstream) = routes.upstreams.iter().find(|u| *u.name == *name.value) else {
            continue;
        };
        if let Endpoints::Static(list) = &upstream.endpoints
            && list.iter().any(own)
        {
            found.warn_at(
                name,
                "has one of the listeners here as an endpoint, which is a loop",
            );
        }
        if upstream.claims.is_empty() && !http && !named(&name.value) {
            found.warn_at(
                name,
                "nothing leads here: it has no hosts, route or listener",
            );
        }
    }
}
