//! `routes`: checks that conditions can match and upstreams exist, and applies
//! the routes' changes to policies.

use std::sync::Arc;

use serde_json::Value as Json;

use super::auth;
use super::upstreams::Upstreams;
use super::{File, upstream_named};
use crate::config::checked::{Checked, Origin, Policy};
use crate::config::findings::Findings;
use crate::config::mistakes::Mistake;
use crate::config::policies::{self, Layers, Policies};
use crate::config::read::{Read, Spanned, object};
use crate::config::restrictions::Section;
use crate::config::setting::{Layer, Setting, View, grouped, settings};
use crate::config::values::{Distinct, Method, PathPrefix, RouteHost, Text};
use crate::route::settings::{self, Protocol, RouteMatch};

object! {
    /// One route. Its policies are changed key by key.
    #[schemars(extend("required" = ["upstream"]))]
    Route {
        /// What a request must match; every given part counts. Absent: any
        /// request.
        r#match: Match,
        /// The upstream that it goes to. Required.
        upstream: Text,
        ..policies: Policies as Section::Route
    }
}

settings! {
    /// The conditions of a route.
    Match for RouteMatch as matches {
        /// The authority of the request: a name, `*.suffix` or address; a port
        /// only matters where given.
        host: RouteHost = matches.host,
        /// The path is this or below it; compared byte by byte.
        path_prefix: PathPrefix = matches.path_prefix,
        /// One of these methods.
        methods: Distinct<Method> = matches.methods,
    }
}

/// Routes, and where the policies of those came from that change some.
#[derive(Default)]
pub(super) struct Routes {
    pub(super) list: Vec<settings::Route>,
    pub(super) policies: Vec<Option<Vec<Policy>>>,
}

pub(super) fn check(file: &File, upstreams: &Upstreams, layer: &mut Layer<'_>) -> Routes {
    let mut routes = Routes::default();
    for (number, raw) in file.routes.items().iter().enumerate() {
        let mut matches = RouteMatch::default();
        if let Some(written) = raw.r#match.as_ref() {
            written.value.lay(&written.place, &mut matches, "", layer);
        }
        let mut earlier = routes.list.iter();
        if let Some(earlier) = earlier.position(|route| covers(&route.matches, &matches)) {
            layer.findings.note_warning(Mistake {
                line: raw.place.line,
                path: raw.place.path.clone(),
                what: format!("is never reached: routes[{earlier}] takes all it matches"),
                got: None,
            });
        }
        let upstream = upstream(raw, &upstreams.list, layer.findings);
        let inherited = upstream.and_then(|index| upstreams.policies.get(index));
        let policies = policies(number, raw, inherited, layer.findings);
        let upstream = upstream.unwrap_or_default();
        let overridden = match (&policies, upstreams.list.get(upstream)) {
            (Some(policies), Some(upstream)) => Some(Arc::new(settings::Upstream {
                policies: policies.settings().clone(),
                ..settings::Upstream::clone(upstream)
            })),
            _ => None,
        };
        if let Some(upstream) = upstreams.list.get(upstream)
            && matches.host.is_none()
            && auth::goes_where_a_host_says(upstream)
        {
            let what = "match must have a host: this upstream has credentials and no endpoints, so \
                        they would go wherever a program says";
            layer.findings.mistake(&raw.place, what);
        }
        routes.list.push(settings::Route {
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

/// As the file would write them.
pub(in crate::config) fn shown(checked: &Checked) -> Json {
    let routes = checked.routes.routes.iter().map(|route| {
        let mut shown = Vec::new();
        Match::show(&route.matches, "match", View::WHOLE, &mut shown);
        let upstream = &*checked.routes.upstreams[route.upstream].name;
        shown.push(("upstream".to_owned(), upstream.into()));
        let mut shown = grouped(shown);
        if let Some(overridden) = &route.overridden {
            shown.extend(policies::shown(overridden, Section::Route));
        }
        shown
    });
    routes.collect()
}

fn upstream(
    raw: &Spanned<Route>,
    upstreams: &[Arc<settings::Upstream>],
    findings: &mut Findings,
) -> Option<usize> {
    let Some(name) = raw.upstream.as_ref() else {
        findings.mistake(&raw.place, "must have an upstream");
        return None;
    };
    let index = upstream_named(name, upstreams, findings)?;
    if upstreams[index].protocol == Protocol::Tcp {
        let what = "routes are for requests, and this upstream is protocol tcp";
        findings.mistake_at(name, what);
    }
    Some(index)
}

/// Those of the upstream with what the route changes; `None`: nothing.
fn policies(
    number: usize,
    raw: &Route,
    inherited: Option<&Layers>,
    findings: &mut Findings,
) -> Option<Layers> {
    let own = &raw.policies;
    let mut restricted_keys = Vec::new();
    own.restricted_keys(&mut restricted_keys);
    if restricted_keys.is_empty() {
        return None;
    }
    for key in restricted_keys {
        if let Some(why) = key.restrictions.not_in_routes {
            findings.mistake_of(key.place, key.text, why);
        }
    }
    // Without an upstream its mistakes are looked for all the same.
    let inherited = inherited.cloned().unwrap_or_default();
    let origin = |line| Origin::Route { number, line };
    Some(inherited.with(own, &origin, findings))
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
