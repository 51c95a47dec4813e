//! Keeps the identity of the proxy, wherever it comes from.

use std::future::pending;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::files::{FilesError, IdentityFiles};
use super::workload_api::{Publish, WorkloadApi};
use crate::clock;
use crate::control::certificates::{FileState, LOOK_EVERY, Stamps};
use crate::control::reading::Reader;
use crate::credential::workload_endpoint::Endpoint;
use crate::telemetry::Registry;

/// Where the identity of the proxy comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IdentitySource {
    /// An agent.
    WorkloadApi(Endpoint),
    /// Files.
    Files(IdentityFiles),
}

impl IdentitySource {
    /// The files that it is.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        let files = match self {
            Self::WorkloadApi(_) => None,
            Self::Files(files) => Some(files),
        };
        files.into_iter().flat_map(IdentityFiles::paths)
    }
}

/// Publishes the identity of the newest source, until nobody can name another. What
/// stands there before the first one stays.
pub(crate) async fn keep(
    mut sources: watch::Receiver<Option<IdentitySource>>,
    publish: Publish,
    registry: &Registry,
) {
    if sources.changed().await.is_err() {
        return;
    }
    loop {
        let source = sources.borrow_and_update().clone();
        let keep = async {
            match source {
                Some(IdentitySource::WorkloadApi(endpoint)) => {
                    WorkloadApi::new(endpoint, publish.clone()).keep().await;
                }
                Some(IdentitySource::Files(files)) => follow(&files, &publish, registry).await,
                None => {
                    publish.send_if_modified(|identity| identity.take().is_some());
                    pending().await
                }
            }
        };
        tokio::select! {
            () = keep => {}
            changed = sources.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

/// Publishes what the files say, when they change.
async fn follow(files: &IdentityFiles, publish: &Publish, registry: &Registry) {
    let reader = Reader::default();
    let mut state = FileState::default();
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let looked_at = files.clone();
        let stamps = reader.read(move || Ok(Stamps::of(looked_at.paths()))).await;
        // A file system that does not answer says nothing of a change.
        let Some(now) = stamps.ok().filter(|now| state.is_due(now)) else {
            continue;
        };
        let named = files.clone();
        let read = reader
            .read(move || Ok(named.read(clock::unix_ms() / 1_000)))
            .await;
        let published = match read {
            Ok(Ok(identity)) => {
                let (id, not_after) = (&identity.id, identity.not_after);
                tracing::info!(%id, not_after, "new identity from files");
                publish.send_replace(Some(Arc::new(identity)));
                Ok(())
            }
            Ok(Err(error)) => Err(error),
            Err(source) => Err(FilesError::Read {
                path: files.cert.clone(),
                source,
            }),
        };
        if let Some(error) = state.note(now, published) {
            registry.control.certificate_refused();
            tracing::error!("identity: {error}; what was in force before stays");
        }
    }
}
