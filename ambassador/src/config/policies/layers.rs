//! Layers of policies: built in, then `defaults`, then the upstream, then the route,
//! and which of them each value came from.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Policies, circuit_breaker, rate_limit};
use crate::config::checked::{Origin, Policy};
use crate::config::findings::Findings;
use crate::config::read::Place;
use crate::config::secrets;
use crate::config::setting::{Layer, Setting, Shown, View, in_one_line};
use crate::message::trace;
use crate::policy::fault;
use crate::route::settings::{self, HeaderRules, Protocol};
use crate::route::tls::Tls;

/// What the layers so far write. Settings of the areas that hold less than that are
/// made at the end.
#[derive(Debug, Clone, Default)]
pub(in crate::config) struct Written {
    pub(super) protocol: Protocol,
    pub(super) tls: Option<Tls>,
    pub(super) settings: settings::Policies,
    pub(super) circuit_breaker: circuit_breaker::Written,
    pub(super) rate_limit: Option<rate_limit::Written>,
    pub(super) fault: Option<fault::Settings>,
}

/// What the layers so far say together.
#[derive(Debug, Clone, Default)]
pub(in crate::config) struct Layers {
    written: Written,
    /// Where the values of keys came from that are not built in.
    origins: BTreeMap<String, Origin>,
}

impl Written {
    /// As a file would write them that means the same.
    pub(in crate::config) fn of(
        protocol: Protocol,
        tls: Option<&Tls>,
        settings: &settings::Policies,
    ) -> Self {
        Self {
            protocol,
            tls: tls.cloned(),
            circuit_breaker: (&settings.circuit_breaker).into(),
            rate_limit: settings.rate_limit.map(Into::into),
            fault: settings.fault.as_deref().cloned(),
            settings: settings.clone(),
        }
    }

    /// Every key but those of headers, in the order of the reference. Those that
    /// mean nothing there are left out.
    pub(in crate::config) fn shown(&self, view: View) -> Vec<Shown> {
        let mut shown = Vec::new();
        Policies::show(self, "", view, &mut shown);
        shown.retain(|(key, _)| !self.circuit_breaker.hides(key));
        shown
    }
}

impl Layers {
    /// Those that are built in, and how the file has traces carried on, and where it
    /// says so.
    pub(in crate::config) fn built_in(
        tracing: Option<trace::Settings>,
        propagate: Option<Origin>,
    ) -> Self {
        let mut layers = Self::default();
        layers.written.settings.tracing = tracing;
        let origin = propagate.map(|origin| ("propagate".to_owned(), origin));
        layers.origins.extend(origin);
        layers
    }

    /// These with what a layer says on top; `origin` is who that is, given the line
    /// of a key.
    pub(in crate::config) fn with(
        &self,
        policies: &Policies,
        origin: &dyn Fn(usize) -> Origin,
        findings: &mut Findings,
    ) -> Self {
        let mut result = self.clone();
        let layer = &mut Layer {
            origins: &mut result.origins,
            origin,
            findings,
        };
        let written = &mut result.written;
        policies.lay(&Place::default(), written, "", layer);
        written.settings.circuit_breaker = written.circuit_breaker.settings();
        written.settings.rate_limit = written.rate_limit.and_then(|limit| limit.settings());
        written.settings.fault = written.fault.clone().map(Box::new);
        result
    }

    pub(in crate::config) fn protocol(&self) -> Protocol {
        self.written.protocol
    }

    pub(in crate::config) fn tls(&self) -> Option<Arc<Tls>> {
        self.written.tls.clone().map(Arc::new)
    }

    pub(in crate::config) fn settings(&self) -> &settings::Policies {
        &self.written.settings
    }

    /// Takes away what opaque bytes have no use for; it may be inherited.
    pub(in crate::config) fn without_requests(&mut self) {
        self.written.settings = self.written.settings.of_connections();
    }

    /// Takes away what needs somewhere to dial ahead of a request.
    pub(in crate::config) fn without_min_idle(&mut self) {
        self.written.settings.pool.min_idle = 0;
    }

    /// Takes away what the kernel cannot do for this upstream.
    pub(in crate::config) fn without_kernel_fail_fast(&mut self) {
        self.written.settings.circuit_breaker.kernel_fail_fast = false;
        self.written.circuit_breaker.kernel_fail_fast = false;
    }

    /// Every value with where it came from.
    pub(in crate::config) fn list(&self) -> Vec<Policy> {
        let Written {
            protocol,
            tls,
            settings,
            ..
        } = &self.written;
        let view = View {
            protocol: *protocol,
            ..View::WHOLE
        };
        let shown = Written::of(*protocol, tls.as_ref(), settings).shown(view);
        let shown = shown.into_iter();
        let shown = shown.map(|(key, value)| (key, in_one_line(&value)));
        let HeaderRules { set, remove } = &settings.headers;
        let set = set.iter();
        let set = set.map(|(name, _)| (format!("headers.set.{name}"), secrets::MASK.to_owned()));
        let remove = remove.iter();
        let remove = remove.map(|name| (format!("headers.remove.{name}"), "removed".to_owned()));
        let policy = |(key, value)| {
            let origin = self.origins.get(&key).copied();
            let origin = origin.unwrap_or(Origin::BuiltIn);
            Policy { key, value, origin }
        };
        shown.chain(set).chain(remove).map(policy).collect()
    }
}
