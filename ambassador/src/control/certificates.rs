//! Reads the certificates, keys and lists that the configuration names, and puts what
//! they say in force when they change.
//!
//! Once a second one thread looks at every such file as its path leads now, so a
//! directory that is swapped as a whole is seen too. Files of one upstream that do not
//! go together yet, as one was written before the other, have a second to do so.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use zeroize::Zeroizing;

use super::reading::Reader;
use crate::route::tls::{Ca, Tls};
use crate::telemetry::Registry;
use crate::tls::{Client, ClientFiles, FileError};
use crate::workload::named;

/// More than a bundle of all public authorities has.
const BYTES_MAX: usize = 4 << 20;

/// A key is much shorter.
const KEY_BYTES_MAX: usize = 64 << 10;

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The certificates of an upstream.
#[derive(Debug, Clone)]
pub(crate) struct WatchedCertificates {
    /// What they are called in metrics and log.
    pub name: String,
    /// Where they are in force.
    pub client: Arc<Client>,
    /// Where relative paths begin.
    pub directory: PathBuf,
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

/// Reads the files that these settings name.
///
/// # Errors
/// Which one cannot be read, and why.
pub(crate) fn read(settings: &Tls, directory: &Path) -> Result<ClientFiles, FileError> {
    let read = |key, path: &Option<PathBuf>, most| match path {
        None => Ok(None),
        Some(path) => named::read(&directory.join(path), most)
            .map(Some)
            .map_err(|error| FileError::unreadable(key, &error)),
    };
    let ca = match &settings.ca {
        Ca::System => None,
        Ca::File(path) => Some(path.clone()),
    };
    Ok(ClientFiles {
        ca: read("ca", &ca, BYTES_MAX)?,
        cert: read("cert", &settings.cert, BYTES_MAX)?,
        key: read("key", &settings.key, KEY_BYTES_MAX)?.map(Zeroizing::new),
        crl: read("crl", &settings.crl, BYTES_MAX)?,
    })
}

/// Every file that these settings name.
pub(crate) fn paths<'a>(
    settings: &'a Tls,
    directory: &'a Path,
) -> impl Iterator<Item = PathBuf> + 'a {
    let ca = match &settings.ca {
        Ca::System => None,
        Ca::File(path) => Some(path),
    };
    let named = [
        ca,
        settings.cert.as_ref(),
        settings.key.as_ref(),
        settings.crl.as_ref(),
    ];
    named.into_iter().flatten().map(|path| directory.join(path))
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
                    let stays = |id| watched.iter().any(|one: &WatchedCertificates| one.client.id() == id);
                    states.retain(|id, _| stays(*id));
                }
                None => return,
            },
            _ = look.tick(), if !watched.is_empty() => {
                for one in &watched {
                    let before = states.entry(one.client.id()).or_default();
                    follow(one, before, &reader, registry).await;
                }
            }
        }
    }
}

/// Puts the files of one upstream in force where they have changed.
async fn follow(
    one: &WatchedCertificates,
    state: &mut FileState,
    reader: &Reader,
    registry: &Registry,
) {
    let (settings, directory) = (Arc::clone(one.client.settings()), one.directory.clone());
    let look = reader.read(move || Ok(stamps(&settings, &directory)));
    // A file system that does not answer says nothing of a change.
    let Ok(now) = look.await else { return };
    let is_same = now == state.stamps;
    if is_same && (!state.is_bad || state.is_told) {
        return;
    }
    let (client, directory) = (Arc::clone(&one.client), one.directory.clone());
    let renew = reader.read(move || {
        let files = read(client.settings(), &directory);
        Ok(files.and_then(|files| client.renew(&files)))
    });
    let renewed = match renew.await {
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

fn stamps(settings: &Tls, directory: &Path) -> Stamps {
    let stamp = |path: PathBuf| {
        let file = fs::metadata(path).ok()?;
        Some(Stamp {
            place: (file.dev(), file.ino()),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        })
    };
    paths(settings, directory).map(stamp).collect()
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
