//! Policies: built in, then `defaults`, then the upstream, then the route, and
//! which of them each value came from. Each group of keys has a file.

mod circuit_breaker;
mod concurrency;
mod fault;
mod headers;
mod hedge;
mod load_balancing;
mod outlier;
mod pool;
mod rate_limit;
mod retry;
mod timeouts;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::config::checked::{Origin, Policy};
use crate::config::effective::policies;
use crate::config::found::Found;
use crate::config::raw;
use crate::config::read::{Either, Field, Place, Spanned};
use crate::config::secrets;
use crate::config::values::{CountOrOff, KeepAlive, Off, Propagation, Text, Time};
use crate::policy::balance::{Key, LoadBalancing};
use crate::route::settings::{self as settings, HeaderRules, Protocol};

pub(in crate::config) use fault::{DELAY_MAX, STATUSES};
pub(in crate::config) use retry::ATTEMPTS_MAX;

/// The policies as they stand in `defaults`, an upstream or a route.
pub(super) struct Layer<'a> {
    pub(super) protocol: Option<&'a Spanned<raw::Protocol>>,
    pub(super) pool: Option<&'a Spanned<raw::Pool>>,
    pub(super) timeouts: Option<&'a Spanned<raw::Timeouts>>,
    pub(super) tcp_keepalive: Option<&'a Spanned<KeepAlive>>,
    pub(super) retry: Option<&'a Spanned<raw::Retry>>,
    pub(super) circuit_breaker: Option<&'a Spanned<raw::CircuitBreaker>>,
    pub(super) rate_limit: Option<&'a Spanned<Either<Off, raw::RateLimit>>>,
    pub(super) load_balancing: Option<&'a Spanned<Either<raw::LoadBalancing, raw::Hashing>>>,
    pub(super) zone: Option<&'a Spanned<Text>>,
    pub(super) outlier: Option<&'a Spanned<raw::Outlier>>,
    pub(super) hedge: Option<&'a Spanned<raw::Hedge>>,
    pub(super) concurrency: Option<&'a Spanned<raw::Concurrency>>,
    pub(super) headers: Option<&'a Spanned<raw::Headers>>,
    pub(super) max_hops: Option<&'a Spanned<CountOrOff>>,
    pub(super) fault: Option<&'a Spanned<Either<Off, raw::Fault>>>,
    pub(super) propagate: Option<&'a Spanned<Propagation>>,
    /// Who the layer is, given the line of a key.
    pub(super) origin: &'a dyn Fn(usize) -> Origin,
}

/// What the layers so far say together.
#[derive(Debug, Clone, Default)]
pub(super) struct Policies {
    pub(super) protocol: Protocol,
    pub(super) settings: settings::Policies,
    /// `settings.circuit_breaker.trip` is made from these,
    thresholds: circuit_breaker::Thresholds,
    /// and `settings.rate_limit` from this; a layer may say a part of it only.
    rate_limit: Option<rate_limit::RateLimit>,
    /// Where the values of keys came from that are not built in.
    origins: BTreeMap<String, Origin>,
}

/// One layer while it is read: takes note of the keys that it has.
struct Reading<'a> {
    origins: &'a mut BTreeMap<String, Origin>,
    origin: &'a dyn Fn(usize) -> Origin,
    found: &'a mut Found,
}

impl Layer<'_> {
    /// Whether it says anything.
    pub(super) fn is_empty(&self) -> bool {
        self.protocol.is_none()
            && self.pool.is_none()
            && self.timeouts.is_none()
            && self.tcp_keepalive.is_none()
            && self.retry.is_none()
            && self.circuit_breaker.is_none()
            && self.rate_limit.is_none()
            && self.load_balancing.is_none()
            && self.zone.is_none()
            && self.outlier.is_none()
            && self.hedge.is_none()
            && self.concurrency.is_none()
            && self.headers.is_none()
            && self.max_hops.is_none()
            && self.fault.is_none()
            && self.propagate.is_none()
    }
}

impl Policies {
    /// Those that are built in, and the traces of requests as the file has them.
    pub(super) fn built_in(file: &raw::File) -> Self {
        let mut policies = Self::default();
        policies.settings.tracing = super::tracing(file);
        let telemetry = file.telemetry.as_ref();
        let tracing = telemetry.and_then(|telemetry| telemetry.tracing.as_ref());
        if let Some(propagate) = tracing.and_then(|tracing| tracing.propagate.as_ref()) {
            let origin = Origin::Telemetry(propagate.place.line);
            policies.origins.insert("propagate".to_owned(), origin);
        }
        policies
    }

    /// These with what a layer says on top.
    pub(super) fn with(&self, layer: &Layer<'_>, found: &mut Found) -> Self {
        let mut result = self.clone();
        let settings = &mut result.settings;
        let reading = &mut Reading {
            origins: &mut result.origins,
            origin: layer.origin,
            found,
        };
        if let Some(protocol) = layer.protocol {
            result.protocol = protocol.value.meaning();
            reading.note("protocol", protocol.place.line);
        }
        if let Some(raw) = layer.pool {
            pool::read(raw, &mut settings.pool, reading);
        }
        if let Some(raw) = layer.timeouts {
            timeouts::read(raw, &mut settings.timeouts, reading);
        }
        if let Some(keep_alive) = layer.tcp_keepalive {
            settings.timeouts.keep_alive = keep_alive.value.0;
            reading.note("tcp_keepalive", keep_alive.place.line);
        }
        if let Some(raw) = layer.retry {
            retry::read(raw, &mut settings.retry, reading);
        }
        if let Some(raw) = layer.circuit_breaker {
            let breaker = &mut settings.circuit_breaker;
            circuit_breaker::read(raw, breaker, &mut result.thresholds, reading);
        }
        if let Some(raw) = layer.rate_limit {
            settings.rate_limit = rate_limit::read(raw, &mut result.rate_limit, reading);
        }
        if let Some(raw) = layer.load_balancing
            && let Some(load_balancing) = load_balancing::read(raw, reading)
        {
            settings.load_balancing = load_balancing;
        }
        if let Some(raw) = layer.zone {
            reading.note("zone", raw.place.line);
            settings.zone = zone(raw, reading.found);
        }
        if let Some(raw) = layer.outlier {
            outlier::read(raw, &mut settings.outlier, reading);
        }
        if let Some(raw) = layer.hedge {
            hedge::read(raw, &mut settings.hedge, reading);
        }
        if let Some(raw) = layer.concurrency {
            concurrency::read(raw, &mut settings.concurrency, reading);
        }
        if let Some(raw) = layer.headers {
            headers::read(raw, &mut settings.headers, reading);
        }
        if let Some(raw) = layer.max_hops {
            settings.hops.max = raw.value.0;
            reading.note("max_hops", raw.place.line);
        }
        if let Some(raw) = layer.fault {
            settings.fault = fault::read(raw, settings.fault.take(), reading);
        }
        if let Some(raw) = layer.propagate {
            reading.note("propagate", raw.place.line);
            match &mut settings.tracing {
                Some(tracing) => tracing.formats = raw.value.0,
                None => reading.found.mistake(&raw.place, "needs telemetry.tracing"),
            }
        }
        result
    }

    /// Takes away what opaque bytes have no use for; it may be inherited.
    pub(super) fn without_requests(&mut self) {
        let settings = &mut self.settings;
        settings.timeouts.first_byte = None;
        settings.timeouts.per_try = None;
        settings.timeouts.request = None;
        settings.timeouts.min_rate = None;
        settings.retry = settings.retry.clone().of_connects();
        settings.rate_limit = None;
        settings.hedge = Default::default();
        if let LoadBalancing::RingHash(Key::Header(_)) = settings.load_balancing {
            settings.load_balancing = LoadBalancing::default();
        }
        settings.concurrency.adaptive = false;
        settings.headers = HeaderRules::default();
        settings.hops.max = None;
        settings.tracing = None;
        let fault = settings.fault.take();
        settings.fault = fault.and_then(|fault| fault.of_connections().map(Box::new));
    }

    /// Every value with where it came from.
    pub(super) fn list(&self) -> Vec<Policy> {
        let protocol = raw::Protocol::word(self.protocol).to_owned();
        let mut values = vec![("protocol".to_owned(), protocol)];
        let entries = policies::entries(self.protocol, &self.settings).into_iter();
        values.extend(entries.map(|(key, value)| (key.to_owned(), policies::text(&value))));
        for (name, _) in &self.settings.headers.set {
            let shown = secrets::MASK.to_owned();
            values.push((format!("headers.set.{name}"), shown));
        }
        for name in &self.settings.headers.remove {
            values.push((format!("headers.remove.{name}"), "removed".to_owned()));
        }
        let policy = |(key, value)| {
            let origin = self.origins.get(&key).copied();
            let origin = origin.unwrap_or(Origin::BuiltIn);
            Policy { key, value, origin }
        };
        values.into_iter().map(policy).collect()
    }
}

/// The name of a zone.
pub(super) fn zone(raw: &Spanned<Text>, found: &mut Found) -> Option<Arc<str>> {
    if raw.value.0.is_empty() {
        found.mistake_at(raw, "must be the name of a zone");
    }
    Some(raw.value.0.as_str().into())
}

impl Reading<'_> {
    /// Notes that something is missing in the mapping at this place, unless
    /// what is there was wrong, has been noted and left out.
    fn mistake_unless_inside(&mut self, place: &Place, what: &str) {
        let inside = format!("{}.", place.path);
        let mut mistakes = self.found.mistakes.iter();
        if !mistakes.any(|mistake| mistake.path.starts_with(&inside)) {
            self.found.mistake(place, what);
        }
    }

    /// The value of this key is what the layer says on this line.
    fn note(&mut self, key: impl Into<String>, line: usize) {
        self.origins.insert(key.into(), (self.origin)(line));
    }

    /// What the layer says under a key.
    fn get<'r, T>(&mut self, key: &str, field: &'r Field<T>) -> Option<&'r Spanned<T>> {
        let value = field.as_ref()?;
        self.note(key, value.place.line);
        Some(value)
    }

    fn set_time(&mut self, key: &str, field: &Field<Time>, value: &mut Duration) {
        let Some(time) = self.get(key, field) else {
            return;
        };
        if time.value.0.is_zero() {
            self.found.mistake_at(time, "must be longer than nothing");
        }
        *value = time.value.0;
    }
}
