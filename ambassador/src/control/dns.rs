//! Keeps names resolved: resolves them again when their answers expire.
//!
//! What was resolved last stays in force while resolution fails: a name server
//! that is away must not take its names with it.

pub(crate) mod files;
mod service;

pub(super) use service::LookUpError;
pub(crate) use service::{Files, NameService, Transport};

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::addr::EndpointAddr;
use crate::clock;
use crate::telemetry::{Registry, UpstreamIndex};
use crate::upstream::dial::Namespace;

/// A name to keep resolved.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct WatchedName {
    /// The name, looked up in the hosts file and with the search list of
    /// resolv.conf, as the system's own resolver does.
    pub name: String,
    /// The port of the endpoints.
    pub port: u16,
    /// Whose failures are counted.
    pub upstream: UpstreamIndex,
    /// Whose callers the answer is for.
    pub namespace: Namespace,
}

/// How names are looked up in each namespace.
pub(crate) type NameServices = HashMap<Namespace, Arc<NameService>>;

/// Takes a resolution: never empty, IPv4 first, sorted, and called only when it
/// differs from the last one of that name. Runs on the control thread.
pub(crate) type Publish = Arc<dyn Fn(&WatchedName, Arc<[EndpointAddr]>) + Send + Sync>;

/// An answer is kept at least this long, whatever its TTL.
const TTL_MIN: Duration = Duration::from_secs(1);
/// And at most this long.
const TTL_MAX: Duration = Duration::from_secs(5 * 60);
/// After a failure, and while there is no answer, it is asked again this often:
/// a good one is to be used soon after there is one.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Questions without an answer at once. Together with [`ASK_AGAIN`] it bounds
/// what a name server is sent that is slow.
const UNANSWERED_MAX: usize = 5;
/// Addresses of one name that are used; more do not fit an answer by UDP.
const ADDRESSES_MAX: usize = 256;
/// How often the log says that a name cannot be resolved.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The names to keep resolved, and how they are looked up.
pub(super) struct WatchedNames {
    pub names: Vec<WatchedName>,
    /// One for the namespace of each of them.
    pub services: NameServices,
}

/// Resolves the newest list of names that came in, until the sender is gone.
pub(super) async fn run(
    mut wanted: mpsc::Receiver<WatchedNames>,
    registry: Arc<Registry>,
    publish: Publish,
) {
    let mut tasks: HashMap<WatchedName, Task> = HashMap::new();
    let mut known = NameServices::new();
    while let Some(WatchedNames { names, services }) = wanted.recv().await {
        let is_same = |namespace: Namespace| match (known.get(&namespace), services.get(&namespace))
        {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            _ => false,
        };
        let wanted: HashSet<&WatchedName> = names.iter().collect();
        tasks.retain(|watched, _| is_same(watched.namespace) && wanted.contains(watched));
        for watched in names {
            let Some(service) = services.get(&watched.namespace) else {
                continue;
            };
            tasks.entry(watched).or_insert_with_key(|watched| {
                let resolution = Resolution {
                    watched: watched.clone(),
                    service: Arc::clone(service),
                    server_port: service::DNS_PORT,
                    registry: Arc::clone(&registry),
                    publish: Arc::clone(&publish),
                };
                Task(tokio::spawn(resolution.keep()))
            });
        }
        known = services;
    }
}

/// Ends with its handle.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Endpoints, and how long they may be used.
type Answered = Result<(Arc<[EndpointAddr]>, Duration), LookUpError>;

/// One name being kept resolved.
struct Resolution {
    watched: WatchedName,
    service: Arc<NameService>,
    server_port: u16,
    registry: Arc<Registry>,
    publish: Publish,
}

impl Resolution {
    async fn keep(self) {
        let this = Arc::new(self);
        let mut last: Option<Arc<[EndpointAddr]>> = None;
        let mut next_warning = None;
        loop {
            match this.ask().await {
                Ok((endpoints, ttl)) => {
                    if last.as_deref() != Some(&*endpoints) {
                        (this.publish)(&this.watched, Arc::clone(&endpoints));
                        last = Some(endpoints);
                    }
                    next_warning = None;
                    tokio::time::sleep(ttl.clamp(TTL_MIN, TTL_MAX)).await;
                }
                Err(error) => {
                    this.registry.dns_failure(this.watched.upstream);
                    let now = clock::now();
                    if next_warning.is_none_or(|at| at <= now) {
                        let WatchedName {
                            name, namespace, ..
                        } = &this.watched;
                        let namespace = namespace.0;
                        tracing::warn!(name, namespace, %error, "cannot resolve");
                        next_warning = Some(now + WARN_EVERY);
                    }
                    tokio::time::sleep(ASK_AGAIN).await;
                }
            }
        }
    }

    /// The first answer. A question that a name server was too busy, or away,
    /// to take is not waited for to its end: others go out behind it.
    async fn ask(self: &Arc<Self>) -> Answered {
        let question = || {
            let this = Arc::clone(self);
            async move { this.resolve().await }
        };
        let mut asked = JoinSet::new();
        asked.spawn(question());
        let mut again = interval_at(Instant::now() + ASK_AGAIN, ASK_AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(answered) = asked.join_next() => match answered {
                    Ok(Ok(answer)) => return Ok(answer),
                    Ok(Err(error)) if asked.is_empty() => return Err(error),
                    Ok(Err(_)) | Err(_) => {}
                },
                _ = again.tick(), if asked.len() < UNANSWERED_MAX => {
                    asked.spawn(question());
                }
            }
        }
    }

    async fn resolve(&self) -> Answered {
        let looked_up = self
            .service
            .look_up(&self.watched.name, self.server_port)
            .await;
        let (mut addresses, ttl) = looked_up?;
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(ADDRESSES_MAX);
        let endpoint = |ip| EndpointAddr(SocketAddr::new(ip, self.watched.port));
        Ok((addresses.into_iter().map(endpoint).collect(), ttl))
    }
}

#[cfg(test)]
mod tests;
