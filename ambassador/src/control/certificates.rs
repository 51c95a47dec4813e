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

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use zeroize::Zeroizing;

use super::reading::Reader;
use crate::route::tls::{Ca, ListenerTls, Tls};
use crate::telemetry::Registry;
use crate::tls::{Client, FileError, Files, Server};
use crate::workload::named;

/// More than a bundle of all public authorities has.
const BYTES_MAX: usize = 4 << 20;

/// A key is much shorter.
const KEY_BYTES_MAX: usize = 64 << 10;

const LOOK_EVERY: Duration = Duration::from_secs(1);

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

/// The state of the files of one upstream; `None`: it cannot be told of one.
type Stamps = Vec<Option<Stamp>>;

/// What has become of the files of one upstream.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct FileState {
    stamps: Stamps,
    /// They did not go together when they were read.
    is_bad: bool,
    /// That was told.
    is_told: bool,
}

/// The files of an upstream; relative paths begin in `directory`.
pub(crate) fn of_upstream(settings: &Tls, directory: &Path) -> FileSet {
    let ca = match &settings.ca {
        Ca::System => None,
        Ca::File(path) => Some(path),
    };
    let at = |path: Option<&PathBuf>| path.map(|path| directory.join(path));
    FileSet {
        ca: ("ca", at(ca)),
        cert: ("cert", at(settings.cert.as_ref())),
        key: ("key", at(settings.key.as_ref())),
        crl: ("crl", at(settings.crl.as_ref())),
    }
}

/// The files of a listener; relative paths begin in `directory`.
pub(crate) fn of_listener(settings: &ListenerTls, directory: &Path) -> FileSet {
    let at = |path: Option<&PathBuf>| path.map(|path| directory.join(path));
    FileSet {
        ca: ("client_ca", at(settings.client_ca.as_ref())),
        cert: ("cert", at(Some(&settings.cert))),
        key: ("key", at(Some(&settings.key))),
        crl: ("crl", at(settings.crl.as_ref())),
    }
}

impl FileSet {
    /// Reads them.
    ///
    /// # Errors
    /// Which one cannot be read, and why.
    pub(crate) fn read(&self) -> Result<Files, FileError> {
        let read = |(key, path): &(&'static str, Option<PathBuf>), most| match path {
            None => Ok(None),
            Some(path) => named::read(path, most)
                .map(Some)
                .map_err(|error| FileError::unreadable(key, &error)),
        };
        Ok(Files {
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

    fn stamps(&self) -> Stamps {
        let stamp = |path: &PathBuf| {
            let file = named::metadata(path).ok()?;
            Some(Stamp {
                place: (file.dev(), file.ino()),
                size: file.size(),
                modified: (file.mtime(), file.mtime_nsec()),
                changed: (file.ctime(), file.ctime_nsec()),
            })
        };
        self.paths().map(stamp).collect()
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
            Self::Upstream(client) => client.in_force().not_after,
            Self::Listener(server) => server.in_force().not_after,
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

/// Follows the files of what it is told to watch, until nobody tells it any more.
pub(super) async fn run(
    mut watched_in: mpsc::Receiver<Vec<WatchedCertificates>>,
    registry: &Registry,
) {
    let reader = Reader::default();
    let mut watched = Vec::new();
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
                }
                None => return,
            },
            _ = look.tick(), if !watched.is_empty() => {
                for one in &watched {
                    let before = states.entry(one.holder.id()).or_default();
                    follow(one, before, &reader, registry).await;
                }
            }
        }
    }
}

/// Puts files in force where they have changed.
async fn follow(
    one: &WatchedCertificates,
    state: &mut FileState,
    reader: &Reader,
    registry: &Registry,
) {
    let files = one.holder.files(&one.directory);
    let looked_at = files.clone();
    // A file system that does not answer says nothing of a change.
    let Ok(now) = reader.read(move || Ok(looked_at.stamps())).await else {
        return;
    };
    let is_same = now == state.stamps;
    if is_same && (!state.is_bad || state.is_told) {
        return;
    }
    let holder = one.holder.clone();
    let renew = move || Ok(files.read().and_then(|files| holder.renew(&files)));
    let renewed = match reader.read(renew).await {
        Ok(renewed) => renewed,
        Err(error) => Err(FileError::unreadable("cert", &error)),
    };
    state.stamps = now;
    match renewed {
        Ok(()) => (state.is_bad, state.is_told) = (false, false),
        Err(_) if !state.is_bad || !is_same => (state.is_bad, state.is_told) = (true, false),
        Err(error) => {
            state.is_told = true;
            registry.control.certificate_refused();
            let (name, FileError { key, what }) = (&one.name, error);
            tracing::error!("{name}.{key}: {what}; what was in force before stays");
        }
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
