//! Reads the certificates, keys and lists that the configuration names, and puts what
//! they say in force when they change.
//!
//! Once a second one thread looks at every such file as its path leads now, so a
//! directory that is swapped as a whole is seen too. Files of one upstream that do not
//! go together yet, as one was written before the other, have a second to do so.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};
use zeroize::Zeroizing;

use super::reading::Reader;
use crate::route::tls::{Ca, CertificateSource, ListenerTls, Tls};
use crate::telemetry::Registry;
use crate::tls::x509_context::X509Context;
use crate::tls::{Client, FileError, Files, Server};
use crate::workload::named;

/// More than a bundle of all public authorities has.
pub(super) const BYTES_MAX: usize = 4 << 20;

/// A key is much shorter.
pub(super) const KEY_BYTES_MAX: usize = 64 << 10;

/// How often files are looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Certificates that are followed.
#[derive(Debug, Clone)]
pub(crate) struct WatchedCertificates {
    /// What they are called in metrics and log.
    pub name: String,
    /// Where they are in force.
    pub holder: CertificateHolder,
    /// Where relative paths begin.
    pub directory: PathBuf,
}

/// Where certificates are in force.
#[derive(Debug, Clone)]
pub(crate) enum CertificateHolder {
    /// For connections to an upstream.
    Upstream(Arc<Client>),
    /// For connections to a listener.
    Listener(Arc<Server>),
}

/// The files of one upstream or listener, each with the key that names it.
#[derive(Debug, Clone)]
pub(crate) struct FileSet {
    ca: (&'static str, Option<PathBuf>),
    cert: (&'static str, Option<PathBuf>),
    key: (&'static str, Option<PathBuf>),
    crl: (&'static str, Option<PathBuf>),
}

/// What tells one state of a file from another, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    place: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The state of files that go together; `None`: it cannot be told of one.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Stamps(Vec<Option<Stamp>>);

/// What has become of files that go together.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct FileState {
    stamps: Stamps,
    /// They are to be read, whether they have changed or not.
    is_outdated: bool,
    /// They did not go together when they were read.
    is_bad: bool,
    /// That was told.
    is_told: bool,
}

/// The files of an upstream; relative paths begin in `directory`.
pub(crate) fn of_upstream(settings: &Tls, directory: &Path) -> FileSet {
    let ca = match &settings.ca {
        Ca::System | Ca::Identity => None,
        Ca::File(path) => Some(path),
    };
    let at = |path: Option<&PathBuf>| path.map(|path| directory.join(path));
    FileSet {
        ca: ("ca", at(ca)),
        cert: ("cert", at(file_of(&settings.cert))),
        key: ("key", at(settings.key.as_ref())),
        crl: ("crl", at(settings.crl.as_ref())),
    }
}

/// The files of a listener; relative paths begin in `directory`.
pub(crate) fn of_listener(settings: &ListenerTls, directory: &Path) -> FileSet {
    let at = |path: Option<&PathBuf>| path.map(|path| directory.join(path));
    FileSet {
        ca: ("client_ca", at(file_of(&settings.client_ca))),
        cert: ("cert", at(file_of(&settings.cert))),
        key: ("key", at(settings.key.as_ref())),
        crl: ("crl", at(settings.crl.as_ref())),
    }
}

fn file_of(source: &Option<CertificateSource>) -> Option<&PathBuf> {
    match source {
        None | Some(CertificateSource::Identity) => None,
        Some(CertificateSource::File(path)) => Some(path),
    }
}

impl FileSet {
    /// Reads them. `identity` is that of the proxy.
    ///
    /// # Errors
    /// Which one cannot be read, and why.
    pub(crate) fn read(&self, identity: Option<Arc<X509Context>>) -> Result<Files, FileError> {
        let read = |(key, path): &(&'static str, Option<PathBuf>), most| match path {
            None => Ok(None),
            Some(path) => named::read(path, most)
                .map(Some)
                .map_err(|error| FileError::unreadable(key, &error)),
        };
        Ok(Files {
            identity,
            ca: read(&self.ca, BYTES_MAX)?,
            cert: read(&self.cert, BYTES_MAX)?,
            key: read(&self.key, KEY_BYTES_MAX)?.map(Zeroizing::new),
            crl: read(&self.crl, BYTES_MAX)?,
        })
    }

    /// Each of them.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        let all = [&self.ca, &self.cert, &self.key, &self.crl];
        all.into_iter().filter_map(|(_, path)| path.as_ref())
    }
}

impl Stamps {
    /// Of these files, as their paths lead now; waits for the file system.
    pub(super) fn of<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Self {
        let stamp = |path: &PathBuf| {
            let file = named::metadata(path).ok()?;
            Some(Stamp {
                place: (file.dev(), file.ino()),
                size: file.size(),
                modified: (file.mtime(), file.mtime_nsec()),
                changed: (file.ctime(), file.ctime_nsec()),
            })
        };
        Self(paths.map(stamp).collect())
    }

    /// Whether one has changed later than this, in seconds since 1970.
    pub(super) fn are_newer_than(&self, then: u64) -> bool {
        let mut stamps = self.0.iter().flatten();
        stamps.any(|stamp| stamp.changed.0 > then.cast_signed())
    }
}

impl FileState {
    /// Whether the files are to be read, as they are now.
    pub(super) fn is_due(&self, now: &Stamps) -> bool {
        self.stamps != *now || self.is_outdated || (self.is_bad && !self.is_told)
    }

    /// Notes what came of reading them; says what is to be told of it.
    pub(super) fn note<E>(&mut self, now: Stamps, read: Result<(), E>) -> Option<E> {
        let is_same = self.stamps == now;
        self.stamps = now;
        self.is_outdated = false;
        match read {
            Ok(()) => {
                (self.is_bad, self.is_told) = (false, false);
                None
            }
            Err(_) if !self.is_bad || !is_same => {
                (self.is_bad, self.is_told) = (true, false);
                None
            }
            Err(error) => {
                self.is_told = true;
                Some(error)
            }
        }
    }
}

impl CertificateHolder {
    fn id(&self) -> u32 {
        match self {
            Self::Upstream(client) => client.id(),
            Self::Listener(server) => server.id(),
        }
    }

    /// When the certificate in force ends, in seconds since 1970; `None`: there is none.
    pub(crate) fn not_after(&self) -> Option<u64> {
        match self {
            Self::Upstream(client) => client.in_force()?.not_after,
            Self::Listener(server) => server.in_force()?.not_after,
        }
    }

    /// Whether it needs the proxy's own identity.
    fn needs_identity(&self) -> bool {
        match self {
            Self::Upstream(client) => client.settings().needs_identity(),
            Self::Listener(server) => server.settings().needs_identity(),
        }
    }

    fn files(&self, directory: &Path) -> FileSet {
        match self {
            Self::Upstream(client) => of_upstream(client.settings(), directory),
            Self::Listener(server) => of_listener(server.settings(), directory),
        }
    }

    fn renew(&self, files: &Files) -> Result<(), FileError> {
        match self {
            Self::Upstream(client) => client.renew(files),
            Self::Listener(server) => server.renew(files),
        }
    }
}

/// Follows the files of what it is told to watch, and the identity of the proxy,
/// until nobody tells it any more.
pub(super) async fn run(
    mut watched_in: mpsc::Receiver<Vec<WatchedCertificates>>,
    mut identity: watch::Receiver<Option<Arc<X509Context>>>,
    registry: &Registry,
) {
    let reader = Reader::default();
    let mut watched: Vec<WatchedCertificates> = Vec::new();
    let mut states: HashMap<u32, FileState> = HashMap::new();
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            told = watched_in.recv() => match told {
                Some(told) => {
                    watched = told;
                    let stays = |id| watched.iter().any(|one: &WatchedCertificates| one.holder.id() == id);
                    states.retain(|id, _| stays(*id));
                    // The identity may be another than the one that they were made with.
                    for one in watched.iter().filter(|one| one.holder.needs_identity()) {
                        states.entry(one.holder.id()).or_default().is_outdated = true;
                    }
                }
                None => return,
            },
            changed = identity.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = identity.borrow_and_update().clone();
                for one in watched.iter().filter(|one| one.holder.needs_identity()) {
                    let before = states.entry(one.holder.id()).or_default();
                    before.is_outdated = true;
                    follow(one, now.clone(), before, &reader, registry).await;
                }
            }
            _ = look.tick(), if !watched.is_empty() => {
                for one in &watched {
                    let before = states.entry(one.holder.id()).or_default();
                    let now = identity.borrow().clone();
                    follow(one, now, before, &reader, registry).await;
                }
            }
        }
    }
}

/// Puts files in force where they have changed.
async fn follow(
    one: &WatchedCertificates,
    identity: Option<Arc<X509Context>>,
    state: &mut FileState,
    reader: &Reader,
    registry: &Registry,
) {
    let files = one.holder.files(&one.directory);
    let looked_at = files.clone();
    // A file system that does not answer says nothing of a change.
    let stamps = reader.read(move || Ok(Stamps::of(looked_at.paths()))).await;
    let Some(now) = stamps.ok().filter(|now| state.is_due(now)) else {
        return;
    };
    let holder = one.holder.clone();
    let renew = move || Ok(files.read(identity).and_then(|files| holder.renew(&files)));
    let renewed = match reader.read(renew).await {
        Ok(renewed) => renewed,
        Err(error) => Err(FileError::unreadable("cert", &error)),
    };
    if let Some(FileError { key, what }) = state.note(now, renewed) {
        registry.control.certificate_refused();
        let name = &one.name;
        tracing::error!("{name}.{key}: {what}; what was in force before stays");
    }
}

impl FileError {
    /// A file that cannot be read.
    fn unreadable(key: &'static str, error: &io::Error) -> Self {
        let what = match error.kind() {
            io::ErrorKind::NotFound => "there is no such file".to_owned(),
            io::ErrorKind::PermissionDenied => "the proxy's user may not read it".to_owned(),
            _ => format!("can't be read: {error}"),
        };
        Self { key, what }
    }
}
