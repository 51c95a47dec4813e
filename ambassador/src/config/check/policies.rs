//! Policies: built in, then `defaults`, then the upstream, and which of them
//! each value came from.

use std::time::Duration;

use super::headers;
use crate::config::checked::{Origin, Policy};
use crate::config::effective::time;
use crate::config::raw::{self, Headers, Pool, Timeouts};
use crate::config::read::{Field, Found, Spanned};
use crate::config::values::{Count, Time};
use crate::policy::limits;
use crate::route::settings::{self as settings, Protocol};

/// The keys that `defaults` and an upstream share, as they stand in one of them.
pub(super) struct Layer<'a> {
    pub(super) protocol: &'a Field<raw::Protocol>,
    pub(super) pool: &'a Field<Pool>,
    pub(super) timeouts: &'a Field<Timeouts>,
    pub(super) headers: &'a Field<Headers>,
    /// Who the layer is, given the line of a key.
    pub(super) origin: fn(usize) -> Origin,
}

/// What an upstream ends up with.
#[derive(Debug, Clone, Default)]
pub(super) struct Policies {
    pub(super) protocol: Protocol,
    pub(super) policies: settings::Policies,
    pub(super) list: Vec<Policy>,
}

impl Policies {
    /// What the program itself sets.
    pub(super) fn built_in() -> Self {
        let mut policies = Self::default();
        policies.list = policies
            .values()
            .into_iter()
            .map(|(key, value)| Policy {
                key,
                value,
                origin: Origin::BuiltIn,
            })
            .collect();
        policies
    }

    /// These with what a layer says on top.
    pub(super) fn with(&self, layer: &Layer<'_>, found: &mut Found) -> Self {
        let mut result = self.clone();
        let policies = &mut result.policies;
        let mut lines: Vec<(String, usize)> = Vec::new();
        if let Some(protocol) = layer.protocol.as_ref() {
            result.protocol = protocol.value.meaning();
            lines.push(("protocol".to_owned(), protocol.place.line));
        }
        if let Some(pool) = layer.pool.as_ref() {
            policies.pool = check_pool(pool, &self.policies.pool, &mut lines, found);
        }
        if let Some(timeouts) = layer.timeouts.as_ref() {
            let mut set = |field: &Field<Time>, key, value: &mut Duration| {
                positive_time(field, key, value, &mut lines, found);
            };
            set(
                &timeouts.connect,
                "timeouts.connect",
                &mut policies.timeouts.connect,
            );
            set(&timeouts.idle, "timeouts.idle", &mut policies.timeouts.idle);
        }
        if let Some(raw) = layer.headers.as_ref() {
            policies.headers = headers::check(raw, &self.policies.headers, found);
            let set = raw.set.as_ref().map_or(&[][..], |set| &set.value.0);
            for (name, _) in set {
                lines.push((format!("headers.set.{}", name.value), name.place.line));
            }
            for name in raw.remove.as_ref().map_or(&[][..], |remove| &remove.value) {
                lines.push((format!("headers.remove.{}", name.value.0), name.place.line));
            }
        }
        result.list = self.origins(&result, &lines, layer.origin);
        result
    }

    /// The list of the result: what the layer has no line for keeps its origin.
    fn origins(
        &self,
        result: &Self,
        lines: &[(String, usize)],
        origin: fn(usize) -> Origin,
    ) -> Vec<Policy> {
        let place = |key: &str| {
            let line = lines.iter().find(|(name, _)| name == key);
            let before = || self.list.iter().find(|policy| policy.key == key);
            match line {
                Some((_, line)) => origin(*line),
                None => before().map_or(Origin::BuiltIn, |policy| policy.origin),
            }
        };
        let values = result.values().into_iter();
        values
            .map(|(key, value)| Policy {
                origin: place(&key),
                key,
                value,
            })
            .collect()
    }

    fn values(&self) -> Vec<(String, String)> {
        let settings::Policies {
            pool,
            timeouts,
            headers,
            ..
        } = &self.policies;
        let cap = pool.max_connections;
        let mut values: Vec<(String, String)> = [
            ("protocol", raw::Protocol::word(self.protocol).to_owned()),
            (
                "pool.max_connections",
                cap.map_or("none".to_owned(), |cap| cap.to_string()),
            ),
            ("pool.max_pending", pool.max_pending.to_string()),
            ("pool.max_idle", pool.max_idle.to_string()),
            ("pool.min_idle", pool.min_idle.to_string()),
            ("pool.idle_timeout", time(pool.idle_timeout)),
            ("pool.max_lifetime", time(pool.max_lifetime)),
            ("timeouts.connect", time(timeouts.connect)),
            ("timeouts.idle", time(timeouts.idle)),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        for (name, value) in &headers.set {
            let shown = crate::config::effective::masked(name, value).to_owned();
            values.push((format!("headers.set.{name}"), shown));
        }
        for name in &headers.remove {
            values.push((format!("headers.remove.{name}"), "removed".to_owned()));
        }
        values
    }
}

fn check_pool(
    raw: &Spanned<Pool>,
    inherited: &limits::Pool,
    lines: &mut Vec<(String, usize)>,
    found: &mut Found,
) -> limits::Pool {
    let mut pool = inherited.clone();
    let mut count = |field: &Field<Count>, key: &str, value: &mut u32| {
        if let Some(count) = field.as_ref() {
            *value = count.value.0;
            lines.push((format!("pool.{key}"), count.place.line));
        }
    };
    let mut cap = pool.max_connections.unwrap_or(u32::MAX);
    count(&raw.max_connections, "max_connections", &mut cap);
    count(&raw.max_pending, "max_pending", &mut pool.max_pending);
    count(&raw.max_idle, "max_idle", &mut pool.max_idle);
    count(&raw.min_idle, "min_idle", &mut pool.min_idle);
    pool.max_connections = Some(cap);
    let mut time = |field, key, value| positive_time(field, key, value, lines, found);
    time(
        &raw.idle_timeout,
        "pool.idle_timeout",
        &mut pool.idle_timeout,
    );
    time(
        &raw.max_lifetime,
        "pool.max_lifetime",
        &mut pool.max_lifetime,
    );

    if let Some(zero) = raw
        .max_connections
        .as_ref()
        .filter(|count| count.value.0 == 0)
    {
        found.mistake_at(zero, "must be at least 1");
    }
    // Said where it was written: the upstream may set only one of the two.
    let min = raw.min_idle.as_ref();
    let max = raw.max_idle.as_ref();
    if let Some(at) = min.or(max).filter(|_| pool.min_idle > pool.max_idle) {
        found.mistake_at(
            at,
            format!(
                "min_idle {} is over max_idle {}",
                pool.min_idle, pool.max_idle
            ),
        );
    }
    if let Some(at) = min
        .or(raw.max_connections.as_ref())
        .filter(|_| pool.min_idle > cap)
    {
        found.mistake_at(
            at,
            format!("min_idle {} is over max_connections {cap}", pool.min_idle),
        );
    }
    pool
}

fn positive_time(
    field: &Field<Time>,
    key: &str,
    value: &mut Duration,
    lines: &mut Vec<(String, usize)>,
    found: &mut Found,
) {
    let Some(time) = field.as_ref() else { return };
    if time.value.0.is_zero() {
        found.mistake_at(time, "must be longer than nothing");
    }
    *value = time.value.0;
    lines.push((key.to_owned(), time.place.line));
}
