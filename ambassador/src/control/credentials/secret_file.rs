//! A file that holds a secret: read when it is asked for, and watched for changes.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::control::reading::Reader;
use crate::control::watch::{Directories, PreparedDirectories};
use crate::credential::Secret;
use crate::workload::named;

/// How often a file is read again whose directory is watched: not every file system
/// tells of changes.
const CHECK_EVERY: Duration = Duration::from_secs(60);
/// The same where it cannot be watched.
const CHECK_UNWATCHED_EVERY: Duration = Duration::from_secs(1);

/// A file that holds a secret.
pub(super) struct SecretFile {
    path: PathBuf,
    reader: Reader,
    /// `None`: they cannot be watched, or are not yet.
    directories: Option<Directories>,
    /// How much of it is read at most, and what was.
    bytes_max: usize,
    content: Fingerprint,
}

/// What a file held, in 64 bits; `None`: it could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fingerprint(Option<u64>);

impl SecretFile {
    /// The file at this path; nothing is read yet.
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            reader: Reader::default(),
            directories: None,
            bytes_max: 0,
            content: Fingerprint(None),
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What it holds, `bytes_max` bytes at most.
    ///
    /// # Errors
    /// As those of [`named::read`], and `TimedOut`.
    pub(super) async fn read(&mut self, bytes_max: usize) -> io::Result<Secret> {
        self.bytes_max = bytes_max;
        let read = self.content().await;
        self.content = Fingerprint::of(&read);
        read
    }

    async fn content(&mut self) -> io::Result<Secret> {
        // Watched before it is read, so that no change is lost in between.
        if self.directories.is_none() {
            let watched = PreparedDirectories::of(&self.path);
            self.directories = watched.and_then(PreparedDirectories::start).ok();
        }
        let (path, bytes_max) = (self.path.clone(), self.bytes_max);
        let read = move || named::read(&path, bytes_max).map(Secret::from);
        self.reader.read(read).await
    }

    /// Until it holds something else than what was read.
    pub(super) async fn change(&mut self) {
        while Fingerprint::of(&self.content().await) == self.content {
            self.next_event().await;
        }
    }

    /// Until it may hold something else: other files of its directory change too.
    async fn next_event(&mut self) {
        let Some(directories) = &mut self.directories else {
            return tokio::time::sleep(CHECK_UNWATCHED_EVERY).await;
        };
        if let Ok(Err(error)) = tokio::time::timeout(CHECK_EVERY, directories.change()).await {
            let path = self.path.display();
            tracing::warn!(%path, %error, "this file is no longer watched, but read every second");
            self.directories = None;
        }
    }
}

impl Fingerprint {
    fn of(read: &io::Result<Secret>) -> Self {
        Self(read.as_ref().ok().map(|content| {
            let mut hasher = DefaultHasher::new();
            content.expose().hash(&mut hasher);
            hasher.finish()
        }))
    }
}
