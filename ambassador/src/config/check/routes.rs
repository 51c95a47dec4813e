//! Routes: conditions that can hold, upstreams that exist, and what they
//! change of their policies.

use std::sync::Arc;

use super::upstream_named;
use super::upstreams::Upstreams;
use crate::config::checked::{Origin, Policy};
use crate::config::found::Found;
use crate::config::policies::Layers;
use crate::config::raw::{self, File};
use crate::config::read::{Read, Spanned};
use crate::config::setting::Value;
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
            Some(matches) => conditions(matches),
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
                policies: policies.settings().clone(),
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
    inherited: Option<&Layers>,
    found: &mut Found,
) -> Option<Layers> {
    let own = &raw.policies.0;
    let mut marked = Vec::new();
    own.marked(&mut marked);
    if marked.is_empty() {
        return None;
    }
    for key in marked {
        if let Some(why) = key.marks.not_in_routes {
            found.mistake_of(key.place, key.text, why);
        }
    }
    // Without an upstream its mistakes are looked for all the same.
    let inherited = inherited.cloned().unwrap_or_default();
    let origin = |line| Origin::Route { number, line };
    Some(inherited.with(own, &origin, found))
}

fn conditions(raw: &raw::Match) -> RouteMatch {
    let methods = raw.methods.as_ref();
    RouteMatch {
        host: raw.host.as_ref().map(|host| host.value.0.clone()),
        path_prefix: raw.path_prefix.as_ref().map(|path| path.value.meaning()),
        methods: methods.map_or_else(Vec::new, |methods| methods.value.0.clone()),
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
