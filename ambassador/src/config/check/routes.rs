//! Routes: conditions that can hold, upstreams that exist.

use std::sync::Arc;

use super::upstream_named;
use crate::config::raw::{self, File};
use crate::config::read::{Found, Spanned};
use crate::config::values::Text;
use crate::route::settings::{Protocol, Route, RouteMatch, Upstream};

/// Longer methods than any registered one (RFC 9110 section 9.1 sets no limit).
const METHOD_BYTES_MAX: usize = 32;

pub(super) fn check(file: &File, upstreams: &[Arc<Upstream>], found: &mut Found) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::new();
    for raw in file.routes.as_ref().map_or(&[][..], |routes| &routes.value) {
        let matches = match raw.r#match.as_ref() {
            Some(matches) => conditions(matches, found),
            None => RouteMatch::default(),
        };
        if let Some(earlier) = routes
            .iter()
            .position(|route| covers(&route.matches, &matches))
        {
            found.warnings.push(crate::config::Mistake {
                line: raw.place.line,
                path: raw.place.path.clone(),
                what: format!("is never reached: routes[{earlier}] takes all it matches"),
                got: None,
            });
        }
        let upstream = match raw.upstream.as_ref() {
            Some(name) => {
                let index = upstream_named(name, upstreams, found);
                let tcp = index.is_some_and(|i| upstreams[i].protocol == Protocol::Tcp);
                if tcp {
                    found.mistake_at(
                        name,
                        "routes are for requests, and this upstream is protocol tcp",
                    );
                }
                index
            }
            None => {
                found.mistake(&raw.place, "must have an upstream");
                None
            }
        };
        routes.push(Route {
            matches,
            upstream: upstream.unwrap_or_default(),
            overridden: None,
        });
    }
    routes
}

fn conditions(raw: &raw::Match, found: &mut Found) -> RouteMatch {
    let path_prefix = raw.path_prefix.as_ref().map(|prefix| {
        check_path(prefix, found);
        prefix.value.0.clone()
    });
    let mut methods: Vec<String> = Vec::new();
    for method in raw
        .methods
        .as_ref()
        .map_or(&[][..], |methods| &methods.value)
    {
        check_method(method, found);
        if methods.contains(&method.value.0) {
            found.mistake_at(method, "stands there twice");
        }
        methods.push(method.value.0.clone());
    }
    RouteMatch {
        host: raw.host.as_ref().map(|host| host.value.0.clone()),
        path_prefix,
        methods,
    }
}

fn check_path(prefix: &Spanned<Text>, found: &mut Found) {
    let text = &prefix.value.0;
    if !text.starts_with('/') {
        found.mistake_at(prefix, "must start with a slash");
    } else if !text
        .bytes()
        .all(|b| b.is_ascii_graphic() && b != b'?' && b != b'#')
    {
        found.mistake_at(
            prefix,
            "must be a path as requests carry it, without a query",
        );
    }
}

fn check_method(method: &Spanned<Text>, found: &mut Found) {
    let text = &method.value.0;
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let sound = !text.is_empty() && text.len() <= METHOD_BYTES_MAX && text.bytes().all(token);
    if !sound {
        found.mistake_at(method, "is no request method");
    } else if text.bytes().any(|b| b.is_ascii_lowercase()) {
        let upper = text.to_ascii_uppercase();
        found.mistake_at(method, format!("methods have case, did you mean {upper}?"));
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
