//! The proxy as a whole: started, reloaded, drained.

mod access_log;
mod commands;
mod drain;
mod housekeeping;
mod labels;
mod listeners;
mod loading;
mod prepared;
mod reload;
mod slots;
mod start;

use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use self::housekeeping::Housekeeping;
use super::captured::Captured;
use super::names::{self, Listeners, Places};
use super::{Failure, figures, memory};
use crate::clock;
use crate::config::{Certificates, Checked};
use crate::control::spiffe::{self, IdentitySource};
use crate::control::{
    CheckedUpstream, Control, Event, KeptCredential, NameService, Readiness, WatchedCertificates,
};
use crate::proxy::generation::Generation;
use crate::proxy::memory::Memory;
use crate::ring::{Backend, MailboxError, Remote};
use crate::shard::{Shard, UpdateRoom};
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::{BackendLabel, Extras, HandshakeCount, Registry};
use crate::workload::Commands;

pub(super) use self::commands::commands_of;
pub(super) use self::start::{Overrides, Start, named_files, start};

/// A running proxy.
pub(super) struct Proxy {
    shards: Vec<Shard>,
    control: Control,
    events: Receiver<Event>,
    state: Arc<ProxyState>,
    log: Option<AccessLog>,
    file: Option<(PathBuf, Checked)>,
    overrides: Overrides,
    /// Numbers of names that are in use.
    labels: labels::Labels,
    /// Runs commands that print credentials.
    commands: Arc<Commands>,
    /// Reads the file again.
    loader: loading::Loader,
    /// The file that was refused last.
    refused: Option<reload::Refused>,
    housekeeping: Housekeeping,
}

/// What callbacks of the control side share with the main thread.
struct ProxyState {
    registry: Arc<Registry>,
    readiness: Arc<Readiness>,
    captured: Option<Captured>,
    memory: Arc<Memory>,
    /// One per shard, once they run.
    remotes: OnceLock<Vec<Remote>>,
    backend: Backend,
    /// How names are looked up where nothing is captured.
    names: Arc<NameService>,
    /// Who the proxy is; the control side keeps it.
    identity: spiffe::Publish,
    current: Mutex<Current>,
}

/// What a reload replaces.
struct Current {
    checked: Arc<Checked>,
    generation: Arc<Generation>,
    listeners: listeners::ListenersByName,
    certificates: Certificates,
}

/// Keeps room in each shard's mailbox for what it will be told.
fn reserve(shards: &[Shard]) -> Result<Vec<UpdateRoom>, Failure> {
    let rooms: Result<_, _> = shards.iter().map(Shard::reserve_update).collect();
    rooms.map_err(|error| {
        let why = match error {
            MailboxError::Full => "takes no messages: its mailbox is full",
            MailboxError::Closed => "has ended",
        };
        Failure::Unavailable(format!("a shard {why}"))
    })
}

impl ProxyState {
    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn generation(&self) -> Arc<Generation> {
        Arc::clone(&self.current().generation)
    }

    fn watch_names(&self, control: &Control) {
        let (checked, generation) = {
            let now = self.current();
            (Arc::clone(&now.checked), Arc::clone(&now.generation))
        };
        let listeners = match checked.listeners.is_empty() {
            true => Listeners::None,
            false => Listeners::Some,
        };
        let places = match &self.captured {
            Some(captured) => captured.name_places(listeners),
            None => Places::own(&self.names),
        };
        let capture = checked.capture.as_ref().filter(|_| self.captured.is_some());
        let watched = names::watched(&generation, capture, &places);
        control.watch_names(watched, places.services());
    }

    /// The certificates in force.
    fn certificates(&self) -> Vec<WatchedCertificates> {
        let now = self.current();
        now.certificates.watched(&now.checked)
    }

    /// Why a listener cannot serve; `None`: all can.
    fn obstacle(&self) -> Option<String> {
        let now = self.current();
        let mut servers = now.certificates.servers();
        let (name, _) = servers.find(|(_, server)| server.in_force().is_none())?;
        Some(format!(
            "listener {name} refuses its clients: the identity of the proxy is not there"
        ))
    }

    /// How TLS handshakes went, of each upstream and listener that has had any.
    fn handshakes(&self) -> Vec<(&'static str, String, Vec<HandshakeCount>)> {
        let now = self.current();
        let upstreams = now.generation.targets().map(|(upstream, shared)| {
            (
                "upstream",
                upstream.name.to_string(),
                shared.handshakes.all(),
            )
        });
        let listeners = now
            .certificates
            .servers()
            .map(|(name, server)| ("listener", name.to_owned(), server.handshakes.all()));
        let all = upstreams.chain(listeners);
        all.filter(|(.., counts)| !counts.is_empty()).collect()
    }

    /// Has the credentials of the configuration fetched, and no others.
    fn keep_credentials(&self, control: &Control) {
        let generation = self.generation();
        let placeholders = generation.placeholders();
        let placeholders = placeholders.flat_map(|(upstream, shared, placeholders)| {
            placeholders.iter().map(move |one| (upstream, shared, one))
        });
        let credentials = generation.credentials().chain(placeholders);
        control.keep_credentials(
            credentials
                .map(|(upstream, shared, credential)| KeptCredential {
                    upstream: Arc::clone(&upstream.name),
                    label: shared.label,
                    credential: Arc::clone(credential),
                })
                .collect(),
        );
    }

    /// Has the endpoints of upstreams checked that ask for it, and no others.
    fn check_health(&self, control: &Control) {
        let generation = self.generation();
        control.check_health(
            figures::checked(&generation)
                .map(|(upstream, shared)| CheckedUpstream {
                    upstream: Arc::clone(upstream),
                    shared: Arc::clone(shared),
                })
                .collect(),
        );
    }

    /// Where the identity of the proxy comes from.
    fn identity_source(&self) -> Option<IdentitySource> {
        self.current().checked.identity_source()
    }

    fn extras(&self) -> Extras {
        let captured = self.captured.as_ref();
        let now = clock::unix_ms() / 1_000;
        let identity = self.identity.borrow().as_ref().map(|it| it.not_after);
        let identity = identity.map(|end| ("identity".to_owned(), end));
        let certificates = self.certificates().into_iter().filter_map(|one| {
            let end = one.holder.not_after()?;
            Some((one.name, end))
        });
        let left = |(name, end): (_, u64)| (name, end.cast_signed() - now.cast_signed());
        let handshakes = self.handshakes();
        Extras {
            certificates: certificates.chain(identity).map(left).collect(),
            handshakes,
            captured_connects: captured.map(Captured::verdicts).unwrap_or_default(),
            capture_slots: captured.and_then(Captured::slots),
            memory: memory::figures(&self.memory),
            credential_expiry: figures::credential_expiry(&self.generation()),
            unhealthy_endpoints: figures::unhealthy_endpoints(&self.generation()),
            backend: match self.backend {
                Backend::Ring => BackendLabel::IoUring,
                Backend::Epoll => BackendLabel::Epoll,
            },
        }
    }
}
