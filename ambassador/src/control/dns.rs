//! Names resolved again whenever their answers expire.
//!
//! What was resolved last stays in force while resolution fails: a name server
//! that is away must not take its names with it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::net::NetError;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::addr::EndpointAddr;
use crate::clock;
use crate::telemetry::{Registry, UpstreamIndex};

/// A name to keep resolved.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Watched {
    /// The name, looked up with the search list of resolv.conf and in the hosts
    /// file, as the system's own resolver does.
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

/// Resolves the newest list of names that came in, until the sender is gone.
pub(super) async fn run(
    mut names: mpsc::Receiver<Vec<Watched>>,
    registry: Arc<Registry>,
    publish: Publish,
) {
    let mut tasks: HashMap<Watched, Task> = HashMap::new();
    while let Some(wanted) = names.recv().await {
        tasks.retain(|watched, _| wanted.contains(watched));
        for watched in wanted {
            tasks.entry(watched).or_insert_with_key(|watched| {
                let keep = keep_resolved(
                    watched.clone(),
                    system_resolver,
                    Arc::clone(&registry),
                    Arc::clone(&publish),
                );
                Task(tokio::spawn(keep))
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

/// A resolver set up as /etc/resolv.conf and /etc/hosts say.
fn system_resolver() -> Result<TokioResolver, NetError> {
    let mut builder = TokioResolver::builder_tokio()?;
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    // This module is the cache; a second one would hold failures back.
    options.cache_size = 0;
    builder.build()
}

async fn keep_resolved(
    watched: Watched,
    make_resolver: impl Fn() -> Result<TokioResolver, NetError>,
    registry: Arc<Registry>,
    publish: Publish,
) {
    let mut resolver = None;
    let mut last: Option<Arc<[EndpointAddr]>> = None;
    let mut retry = RETRY_MIN;
    loop {
        match resolve(&watched, &mut resolver, &make_resolver).await {
            Ok((endpoints, ttl)) => {
                if last.as_deref() != Some(&*endpoints) {
                    publish(&watched, Arc::clone(&endpoints));
                    last = Some(endpoints);
                }
                retry = RETRY_MIN;
                tokio::time::sleep(ttl.clamp(TTL_MIN, TTL_MAX)).await;
            }
            Err(error) => {
                registry.dns_failure(watched.upstream);
                tracing::warn!(name = watched.name, %error, "cannot resolve");
                // The next try reads resolv.conf anew: it may be what changed.
                resolver = None;
                tokio::time::sleep(retry).await;
                retry = (retry * 2).min(RETRY_MAX);
            }
        }
    }
}

async fn resolve(
    watched: &Watched,
    resolver: &mut Option<TokioResolver>,
    make_resolver: impl Fn() -> Result<TokioResolver, NetError>,
) -> Result<(Arc<[EndpointAddr]>, Duration), NetError> {
    let resolver = match resolver {
        Some(resolver) => resolver,
        None => resolver.insert(make_resolver()?),
    };
    let answer = resolver.lookup_ip(watched.name.as_str()).await?;
    let ttl = answer.valid_until().saturating_duration_since(clock::now());
    let mut addresses: Vec<IpAddr> = answer.iter().collect();
    if addresses.is_empty() {
        return Err(NetError::Message("the answer holds no address"));
    }
    addresses.sort_unstable();
    addresses.dedup();
    let endpoint = |ip| EndpointAddr(SocketAddr::new(ip, watched.port));
    Ok((addresses.into_iter().map(endpoint).collect(), ttl))
}

#[cfg(test)]
mod tests;
