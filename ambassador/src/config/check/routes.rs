//! Routes: conditions that can hold, upstreams that exist, and what they
//! change of their policies.

use std::sync::Arc;

use super::policies::{Layer, Policies};
use super::upstreams::Upstreams;
use super::{method, upstream_named};
use crate::config::checked::{Origin, Policy};
use crate::config::found::Found;
use crate::config::raw::{self, File};
use crate::config::read::Spanned;
use crate::config::values::Text;
use crate::route::settings::{Protocol, Route, RouteMatch, Upstream};

/// Routes, and where the policies of those came from that change some.
#[derive(Default)]
pub(super) struct Routes {
    pub(super) list: Vec<Route>,
    pub(super) policies: Vec<Option<Vec<Policy>>>,
}

pub(super) fn check(file: &File, upstreams: &Upstreams, found: &mut Found) -> Routes {
    let mut routes = Routes::default();
    let list = file.routes.as_ref();
    let list = list.map_or(&[][..], |routes| &routes.value);
    for (number, raw) in list.iter().enumerate() {
        let matches = match raw.r#match.as_ref() {
            Some(matches) => conditions(matches, found),
            None => RouteMatch::default(),
        };
        let mut earlier = routes.list.iter();
        if let Some(earlier) = earlier.position(|route| covers(&route.matches, &matches)) {
            found.note_warning(crate::config::Mistake {
                line: raw.place.line,
                path: raw.place.path.clone(),
                what: format!("is never reached: routes[{earlier}] takes all it matches"),
                got: None,
            });
        }
        let upstream = upstream(raw, &upstreams.list, found);
        let inherited = upstream.and_then(|index| upstreams.policies.get(index));
        let policies = policies(number, raw, inherited, found);
        let upstream = upstream.unwrap_or_default();
        let overridden = match (&policies, upstreams.list.get(upstream)) {
            (Some(policies), Some(upstream)) => Some(Arc::new(Upstream {
                policies: policies.settings.clone(),
                ..Upstream::clone(upstream)
            })),
            _ => None,
        };
        routes.list.push(Route {
            matches,
            upstream,
            overridden,
        });
        routes
            .policies
            .push(policies.map(|policies| policies.list()));
    }
    routes
}

fn upstream(
    raw: &Spanned<raw::Route>,
    upstreams: &[Arc<Upstream>],
    found: &mut Found,
) -> Option<usize> {
    let Some(name) = raw.upstream.as_ref() else {
        found.mistake(&raw.place, "must have an upstream");
        return None;
    };
    let index = upstream_named(name, upstreams, found)?;
    if upstreams[index].protocol == Protocol::Tcp {
        let what = "routes are for requests, and this upstream is protocol tcp";
        found.mistake_at(name, what);
    }
    Some(index)
}

/// Those of the upstream with what the route changes; `None`: nothing.
fn policies(
    number: usize,
    raw: &raw::Route,
    inherited: Option<&Policies>,
    found: &mut Found,
) -> Option<Policies> {
    let origin = |line| Origin::Route { number, line };
    let layer = Layer {
        protocol: None,
        pool: None,
        timeouts: raw.timeouts.as_ref(),
        tcp_keepalive: None,
        retry: raw.retry.as_ref(),
        circuit_breaker: raw.circuit_breaker.as_ref(),
        rate_limit: raw.rate_limit.as_ref(),
        load_balancing: raw.load_balancing.as_ref(),
        zone: None,
        outlier: raw.outlier.as_ref(),
        hedge: raw.hedge.as_ref(),
        concurrency: None,
        headers: raw.headers.as_ref(),
        fault: raw.fault.as_ref(),
        propagate: None,
        max_hops: None,
        origin: &origin,
    };
    if layer.is_empty() {
        return None;
    }
    let breaker = raw.circuit_breaker.as_ref();
    if let Some(fail_fast) = breaker.and_then(|breaker| breaker.kernel_fail_fast.as_ref()) {
        let what = "is for a whole upstream: connects come before there is a request to route";
        found.mistake_at(fail_fast, what);
    }
    let timeouts = raw.timeouts.as_ref();
    if let Some(head) = timeouts.and_then(|timeouts| timeouts.value.head.as_ref()) {
        found.mistake_at(head, "is over before there is a request to route");
    }
    // Without an upstream its mistakes are looked for all the same.
    let inherited = inherited.cloned().unwrap_or_default();
    Some(inherited.with(&layer, found))
}

fn conditions(raw: &raw::Match, found: &mut Found) -> RouteMatch {
    let path_prefix = raw.path_prefix.as_ref().map(|prefix| {
        check_path(prefix, found);
        prefix.value.0.clone()
    });
    let methods = raw.methods.as_ref();
    let methods = methods.map_or(&[][..], |methods| &methods.value);
    RouteMatch {
        host: raw.host.as_ref().map(|host| host.value.0.clone()),
        path_prefix,
        methods: method::list(methods, found),
    }
}

fn check_path(prefix: &Spanned<Text>, found: &mut Found) {
    let text = &prefix.value.0;
    if !text.starts_with('/') {
        found.mistake_at(prefix, "must start with a slash");
    } else if !text
        .bytes()
        .all(|b| !b.is_ascii() || b.is_ascii_graphic() && b != b'?' && b != b'#')
    {
        found.mistake_at(
            prefix,
            "must be a path as requests carry it, without a query",
        );
    }
}

/// Whether every request that `later` matches is matched by `earlier`, as far
/// as equal or absent conditions tell.
fn covers(earlier: &RouteMatch, later: &RouteMatch) -> bool {
    let host = earlier.host.is_none() || earlier.host == later.host;
    let path = earlier.path_prefix.is_none() || earlier.path_prefix == later.path_prefix;
    let methods = earlier.methods.is_empty()
        || (!later.methods.is_empty() && later.methods.iter().all(|m| earlier.methods.contains(m)));
    host && path && methods
}
