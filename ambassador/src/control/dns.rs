//! Names resolved again whenever their answers expire.
//!
//! What was resolved last stays in force while resolution fails: a name server
//! that is away must not take its names with it.

mod service;

pub use service::{MakeSocket, NameService, Transport};

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::net::NetError;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::addr::EndpointAddr;
use crate::clock;
use crate::telemetry::{Registry, UpstreamIndex};

/// A name to keep resolved.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Watched {
    /// The name, looked up in the hosts file and with the search list of
    /// resolv.conf, as the system's own resolver does.
    pub name: String,
    /// The port of the endpoints.
    pub port: u16,
    /// Whose failures are counted.
    pub upstream: UpstreamIndex,
}

/// Takes a resolution: never empty, IPv4 first, sorted, and called only when it
/// differs from the last one of that name. Runs on the control thread.
pub type Publish = Arc<dyn Fn(&Watched, Arc<[EndpointAddr]>) + Send + Sync>;

/// An answer is kept at least this long, whatever its TTL.
const TTL_MIN: Duration = Duration::from_secs(1);
/// And at most this long.
const TTL_MAX: Duration = Duration::from_secs(5 * 60);
/// Waited after a first failure; doubled up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// The names to keep resolved, and how they are looked up.
pub(super) struct Wanted {
    pub names: Vec<Watched>,
    pub service: Arc<NameService>,
}

/// Resolves the newest list of names that came in, until the sender is gone.
pub(super) async fn run(
    mut wanted: mpsc::Receiver<Wanted>,
    registry: Arc<Registry>,
    publish: Publish,
) {
    let mut tasks: HashMap<Watched, Task> = HashMap::new();
    let mut known: Option<Arc<NameService>> = None;
    while let Some(Wanted { names, service }) = wanted.recv().await {
        let same = known.is_some_and(|known| Arc::ptr_eq(&known, &service));
        known = Some(Arc::clone(&service));
        tasks.retain(|watched, _| same && names.contains(watched));
        for watched in names {
            tasks.entry(watched).or_insert_with_key(|watched| {
                let resolution = Resolution {
                    watched: watched.clone(),
                    service: Arc::clone(&service),
                    server_port: service::DNS_PORT,
                    registry: Arc::clone(&registry),
                    publish: Arc::clone(&publish),
                };
                Task(tokio::spawn(resolution.keep()))
            });
        }
    }
}

/// Ends with its handle.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One name being kept resolved.
struct Resolution {
    watched: Watched,
    service: Arc<NameService>,
    server_port: u16,
    registry: Arc<Registry>,
    publish: Publish,
}

impl Resolution {
    async fn keep(self) {
        let mut last: Option<Arc<[EndpointAddr]>> = None;
        let mut retry = RETRY_MIN;
        loop {
            match self.resolve().await {
                Ok((endpoints, ttl)) => {
                    if last.as_deref() != Some(&*endpoints) {
                        (self.publish)(&self.watched, Arc::clone(&endpoints));
                        last = Some(endpoints);
                    }
                    retry = RETRY_MIN;
                    tokio::time::sleep(ttl.clamp(TTL_MIN, TTL_MAX)).await;
                }
                Err(error) => {
                    self.registry.dns_failure(self.watched.upstream);
                    tracing::warn!(name = self.watched.name, %error, "cannot resolve");
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(RETRY_MAX);
                }
            }
        }
    }

    /// Reads the files anew each time: they are small, this is rare, and a change
    /// to them needs no notice of its own.
    async fn resolve(&self) -> Result<(Arc<[EndpointAddr]>, Duration), NetError> {
        let resolver = self.service.resolver(self.server_port)?;
        let answer = resolver.lookup_ip(self.watched.name.as_str()).await?;
        let ttl = answer.valid_until().saturating_duration_since(clock::now());
        let mut addresses: Vec<IpAddr> = answer.iter().collect();
        if addresses.is_empty() {
            return Err(NetError::Message("the answer holds no address"));
        }
        addresses.sort_unstable();
        addresses.dedup();
        let endpoint = |ip| EndpointAddr(SocketAddr::new(ip, self.watched.port));
        Ok((addresses.into_iter().map(endpoint).collect(), ttl))
    }
}

#[cfg(test)]
mod tests;
