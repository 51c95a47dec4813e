//! One version of the configuration on the request path: the route table and the
//! shared state of its upstreams. A reload replaces it as a whole; a request in
//! flight keeps the one that it started with.

use std::sync::Arc;

use crate::clock::{self, Instant};
use crate::policy::concurrency::Sample;
use crate::policy::rate_limit::RateLimit;
use crate::proxy::adopted::{self, Adopted, AdoptedView, Adoption, Hold, Version};
use crate::route::settings::{Endpoints, Settings, Upstream};
use crate::route::{AdoptKey, MatchSource, Matched, Table};
use crate::telemetry::{Registry, UpstreamIndex};
use crate::tls::Client;
use crate::upstream::credential::UpstreamCredential;
use crate::upstream::dial::Namespace;
use crate::upstream::health::UpstreamHealth;
use crate::upstream::in_flight::Entered;
use crate::upstream::limits::{Limits, Opening};
use crate::upstream::placeholders::UpstreamPlaceholders;
use crate::upstream::secrets::UpstreamSecrets;
use crate::upstream::server::Server;
use crate::upstream::shared::Shared;

/// One version of the configuration.
pub struct Generation {
    /// Finds upstreams.
    pub table: Table,
    /// How many there were before.
    number: u64,
    /// By the place of the upstream in the table's settings.
    shared: Vec<Arc<Shared>>,
    /// By the place of the upstream: what its connections are encrypted with.
    tls: Vec<Option<Arc<Client>>>,
    /// By the same place: of those that have any.
    secrets: Vec<Option<Arc<UpstreamSecrets>>>,
    /// By the place of the route: those that override the rate limit of their
    /// upstream.
    route_limits: Vec<Option<Arc<RateLimit>>>,
    unmatched: Target,
    adopted: Arc<Adopted>,
}

/// An upstream with the policies of one request.
#[derive(Clone)]
pub struct Target {
    /// Its definition.
    pub upstream: Arc<Upstream>,
    /// What all shards share of it.
    pub shared: Arc<Shared>,
    /// What its requests carry that programs do not have.
    secrets: Option<Arc<UpstreamSecrets>>,
    /// That of a route which has its own.
    route_limit: Option<Arc<RateLimit>>,
    /// Keeps it while someone has this, where it is adopted.
    hold: Option<Hold>,
}

/// A request that waits for its response, until this is dropped.
pub struct Awaiting<'a> {
    /// `None`: they are not counted.
    _entered: Option<Entered<'a>>,
}

impl Generation {
    /// Builds a generation; upstreams that `previous` knows by the same name
    /// keep their connections and counts. For those it changes nothing yet:
    /// [`Generation::put_in_force`] does.
    pub fn new(settings: Settings, registry: &Registry, previous: Option<&Self>) -> Self {
        let table = Table::new(settings);
        let shared = table
            .settings()
            .upstreams
            .iter()
            .map(|upstream| {
                let known = previous.and_then(|previous| previous.shared_of(&upstream.name));
                known.unwrap_or_else(|| {
                    let label = registry.upstream(&upstream.name);
                    let shared = Shared::new(label, Arc::new(Limits::default()));
                    settle(upstream, &shared);
                    Arc::new(shared)
                })
            })
            .collect();
        let secrets = table.settings().upstreams.iter();
        let secrets = secrets.map(|upstream| secrets_of(upstream, previous));
        let secrets = secrets.collect();
        let policies = &table.settings().adopted;
        let adopted = previous.map_or_else(
            || Arc::new(Adopted::new(policies)),
            |previous| Arc::clone(&previous.adopted),
        );
        let unmatched = Target {
            upstream: Arc::new(adopted::as_upstream("unmatched", &policies.passing_on())),
            shared: previous.map_or_else(
                || Arc::new(adopted.shared_as(UpstreamIndex::UNMATCHED)),
                |previous| Arc::clone(&previous.unmatched.shared),
            ),
            secrets: None,
            route_limit: None,
            hold: None,
        };
        Self {
            route_limits: route_limits(table.settings()),
            tls: Vec::new(),
            number: previous.map_or(0, |previous| previous.number + 1),
            table,
            shared,
            secrets,
            unmatched,
            adopted,
        }
    }

    /// The same with what the connections of each upstream are encrypted with, by its
    /// place in the table's settings.
    pub(crate) fn with_tls(self, tls: Vec<Option<Arc<Client>>>) -> Self {
        Self { tls, ..self }
    }

    /// Tells what all shards share of each upstream what this version says of it. The
    /// endpoints come last: who sees one knows how it is to be spoken to.
    pub fn put_in_force(&self) {
        for (index, (upstream, shared)) in self.targets().enumerate() {
            shared.in_force.store(Some(Arc::clone(upstream)));
            shared.tls.store(self.tls.get(index).cloned().flatten());
            settle(upstream, shared);
        }
        self.adopted.set_limits(&self.table.settings().adopted);
    }

    /// The upstream at a place in the table's settings.
    #[inline(always)]
    pub fn target(&self, index: usize) -> Target {
        Target {
            upstream: Arc::clone(&self.table.settings().upstreams[index]),
            shared: Arc::clone(&self.shared[index]),
            secrets: self.secrets[index].clone(),
            route_limit: None,
            hold: None,
        }
    }

    /// The upstream that the table has found, as the route sees it that led
    /// there.
    pub fn matched(&self, matched: &Matched<'_>) -> Target {
        let mut target = self.target(matched.index);
        if let MatchSource::Route(route) = matched.via
            && let Some(overridden) = &self.table.settings().routes[route].overridden
        {
            target.upstream = Arc::clone(overridden);
            target.route_limit = self.route_limits[route].clone();
        }
        target
    }

    /// The upstream of this name.
    pub fn target_by_name(&self, name: &str) -> Option<Target> {
        let upstreams = &self.table.settings().upstreams;
        let index = upstreams.iter().position(|known| &*known.name == name)?;
        Some(self.target(index))
    }

    /// Where unclaimed connections go: their original destination.
    pub fn unmatched(&self) -> Target {
        self.unmatched.clone()
    }

    /// The upstream of its own that an authority or address becomes, by way of
    /// a shard's `cache`; and the ids of those that were evicted, whose pools
    /// the shard is to forget.
    pub fn adopt(
        &self,
        cache: &mut adopted::Cache,
        key: AdoptKey<'_>,
        now: Instant,
    ) -> (Target, Vec<u32>) {
        let version = Version {
            number: self.number,
            policies: &self.table.settings().adopted,
        };
        // Beyond the limit what comes is passed on to where it was going.
        let adoption = cache.adopt(&self.adopted, version, key, now);
        let target = adoption.map_or_else(|| self.unmatched(), Target::adopted);
        (target, cache.take_evicted(&self.adopted))
    }

    /// The shared state of upstreams that are in here and no more in `newer`.
    pub fn left_behind<'a>(&'a self, newer: &'a Self) -> impl Iterator<Item = &'a Arc<Shared>> {
        let stays = |id| newer.shared.iter().any(|shared| shared.id == id);
        self.shared.iter().filter(move |shared| !stays(shared.id))
    }

    /// Every upstream of the configuration with its shared state.
    pub fn targets(&self) -> impl Iterator<Item = (&Arc<Upstream>, &Arc<Shared>)> {
        self.table.settings().upstreams.iter().zip(&self.shared)
    }

    /// Every upstream that has a credential, with its shared state and that.
    pub fn credentials(
        &self,
    ) -> impl Iterator<Item = (&Arc<Upstream>, &Arc<Shared>, &Arc<UpstreamCredential>)> {
        let of_each = self.targets().zip(&self.secrets);
        of_each.filter_map(|((upstream, shared), secrets)| {
            let credential = secrets.as_ref()?.credential.as_ref()?;
            Some((upstream, shared, credential))
        })
    }

    /// Every upstream that has placeholders, with its shared state and those.
    pub(crate) fn placeholders(
        &self,
    ) -> impl Iterator<Item = (&Arc<Upstream>, &Arc<Shared>, &Arc<UpstreamPlaceholders>)> {
        let of_each = self.targets().zip(&self.secrets);
        of_each.filter_map(|((upstream, shared), secrets)| {
            let placeholders = secrets.as_ref()?.placeholders.as_ref()?;
            Some((upstream, shared, placeholders))
        })
    }

    /// The shared state of those that have no name in the configuration.
    pub fn unmatched_shared(&self) -> &Arc<Shared> {
        &self.unmatched.shared
    }

    /// What has been adopted.
    pub fn adopted(&self) -> Vec<AdoptedView> {
        self.adopted.view()
    }

    /// The shared state of what has been adopted.
    pub fn adopted_shared(&self) -> Vec<Arc<Shared>> {
        self.adopted.shared()
    }

    fn shared_of(&self, name: &str) -> Option<Arc<Shared>> {
        let upstreams = &self.table.settings().upstreams;
        let index = upstreams.iter().position(|known| &*known.name == name)?;
        Some(Arc::clone(&self.shared[index]))
    }
}

/// What requests to an upstream carry that programs do not have.
fn secrets_of(upstream: &Upstream, previous: Option<&Generation>) -> Option<Arc<UpstreamSecrets>> {
    let known = previous.and_then(|previous| previous.target_by_name(&upstream.name)?.secrets);
    let credential = credential_of(upstream, known.as_deref());
    let placeholders = placeholders_of(upstream, known.as_deref());
    (credential.is_some() || placeholders.is_some()).then(|| {
        Arc::new(UpstreamSecrets {
            credential,
            placeholders,
        })
    })
}

/// The credential of an upstream: that of before, where `auth` says the same.
fn credential_of(
    upstream: &Upstream,
    known: Option<&UpstreamSecrets>,
) -> Option<Arc<UpstreamCredential>> {
    let auth = upstream.auth.as_ref()?;
    let known = known.and_then(|known| known.credential.clone());
    let known = known.filter(|known| known.auth == *auth);
    Some(known.unwrap_or_else(|| Arc::new(UpstreamCredential::new(auth))))
}

/// What stands in for the placeholders of an upstream: that of before, where they are
/// the same.
fn placeholders_of(
    upstream: &Upstream,
    known: Option<&UpstreamSecrets>,
) -> Option<Arc<UpstreamPlaceholders>> {
    let settings = &upstream.placeholders;
    let known = known.and_then(|known| known.placeholders.clone());
    let is_same = |known: &Arc<UpstreamPlaceholders>| known.iter().map(|it| &it.auth).eq(settings);
    match known {
        _ if settings.is_empty() => None,
        Some(known) if is_same(&known) => Some(known),
        known => Some(Arc::new(UpstreamPlaceholders::new(
            settings,
            known.as_deref(),
        ))),
    }
}

fn settle(upstream: &Upstream, shared: &Shared) {
    let policies = &upstream.policies;
    shared
        .limits
        .set(&policies.pool, &policies.timeouts, policies.http2);
    shared.permits.set_cap(policies.pool.max_connections);
    if let Endpoints::Static(list) = &upstream.endpoints {
        let zone = policies.zone.as_deref();
        shared.endpoints.publish(list.iter().cloned(), zone);
    }
}

fn route_limits(settings: &Settings) -> Vec<Option<Arc<RateLimit>>> {
    let limits = settings.routes.iter().map(|route| {
        let limit = route.overridden.as_ref()?.policies.rate_limit?;
        let of_upstream = settings.upstreams[route.upstream].policies.rate_limit;
        (Some(limit) != of_upstream).then(|| Arc::new(RateLimit::new(clock::now())))
    });
    limits.collect()
}

impl Target {
    fn adopted(adoption: Adoption) -> Self {
        Self {
            upstream: adoption.upstream,
            shared: adoption.shared,
            secrets: None,
            route_limit: None,
            hold: Some(adoption.hold),
        }
    }

    /// The namespace whose list of endpoints is that of callers in `namespace`:
    /// a name may mean another in each. What comes of a try is known there, too.
    pub fn list_for(&self, namespace: Namespace) -> Namespace {
        match self.upstream.endpoints {
            Endpoints::Dns { .. } => namespace,
            Endpoints::Static(_) | Endpoints::Original => Namespace::default(),
        }
    }

    /// What counts towards the rate limit.
    pub fn rate_limit(&self) -> &RateLimit {
        self.route_limit
            .as_deref()
            .unwrap_or(&self.shared.rate_limit)
    }

    /// Counts a request in that will wait for its response, where the limit of
    /// those is adaptive; `None`: it is over the limit.
    pub fn enter_awaiting<'a>(&self, health: &'a UpstreamHealth) -> Option<Awaiting<'a>> {
        let settings = &self.upstream.policies.concurrency;
        match health.concurrency.limit(settings) {
            None => Some(Awaiting { _entered: None }),
            limit => {
                let entered = health.awaiting.enter(limit)?;
                Some(Awaiting {
                    _entered: Some(entered),
                })
            }
        }
    }

    /// Tells the adaptive limit, where there is one, how a try has ended.
    pub fn report_load(&self, health: &UpstreamHealth, sample: Sample, now: Instant) {
        let settings = &self.upstream.policies.concurrency;
        let awaiting = health.awaiting.count();
        health.concurrency.report(settings, sample, awaiting, now);
    }

    /// The server that connections are to lead to: the one that `host` names, else
    /// the one that the configuration does. `None`: they are in clear.
    pub(crate) fn server(&self, host: Option<&str>) -> Option<Server> {
        self.upstream.tls.as_ref()?;
        let client = self.shared.tls.load();
        let client = client.as_deref()?;
        Some(match host {
            Some(host) => Server::named(client, host),
            None => Server::default_of(client),
        })
    }

    /// Whether a reload has made of the upstream what this must not go to.
    pub fn is_outgrown(&self) -> bool {
        self.shared.has_outgrown(&self.upstream)
    }

    /// Whether its requests carry secrets that programs do not have.
    #[inline]
    pub(crate) fn has_secrets(&self) -> bool {
        self.secrets.is_some()
    }

    /// What its requests show, where it has `auth`.
    #[inline]
    pub fn credential(&self) -> Option<&Arc<UpstreamCredential>> {
        self.secrets.as_ref()?.credential.as_ref()
    }

    /// What stands in for placeholders in them, where there are any.
    #[inline]
    pub(crate) fn placeholders(&self) -> Option<&Arc<UpstreamPlaceholders>> {
        self.secrets.as_ref()?.placeholders.as_ref()
    }

    /// Whether its requests carry what there is already; with placeholders, that is for
    /// each to tell.
    #[inline]
    pub(crate) fn is_ready(&self, now: Instant) -> bool {
        let is_ready = |secrets: &UpstreamSecrets| {
            let credential = secrets.credential.as_ref();
            credential.is_none_or(|it| it.is_valid(now)) && secrets.placeholders.is_none()
        };
        self.secrets.as_deref().is_none_or(is_ready)
    }

    /// How connections to it are opened.
    pub fn opening(&self) -> Opening {
        Opening::of(&self.upstream.policies.timeouts)
    }

    /// Counts a request or connection of an adopted upstream.
    pub fn count_use(&self) {
        if let Some(hold) = &self.hold {
            hold.count_use();
        }
    }
}

#[cfg(test)]
mod tests;
