//! Notices that the configuration file has changed. What counts is whether the
//! content is another.

mod directories;

pub(super) use directories::{Directories, PreparedDirectories};

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;

use super::reading::Reader;
use super::{Event, raise};
use crate::workload::named;

/// More than a configuration file may have: all that are longer are alike.
const CONTENT_BYTES_MAX: usize = 8 << 20;

/// What a file held, in 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint(Option<u64>);

/// A file, and what it held when it was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WatchedFile {
    /// The path as the user gave it.
    pub path: PathBuf,
    /// Taken before it was loaded, so that no change is lost in between.
    pub loaded: Fingerprint,
}

impl Fingerprint {
    /// Of the file as it is now; one that cannot be read has a fingerprint too.
    pub(crate) fn of(path: &Path) -> Self {
        use io::ErrorKind::{FileTooLarge, InvalidInput, IsADirectory};
        let content = match named::read(path, CONTENT_BYTES_MAX) {
            // Something stands there, and whoever put it there is to be told.
            Err(error) if matches!(error.kind(), FileTooLarge | InvalidInput | IsADirectory) => {
                Some(error.to_string().into_bytes())
            }
            content => content.ok(),
        };
        Self(content.map(|content| {
            let mut hasher = DefaultHasher::new();
            content.hash(&mut hasher);
            hasher.finish()
        }))
    }
}

/// A watch that nobody waits for yet; it needs no runtime.
#[derive(Debug)]
pub(super) struct Prepared {
    file: WatchedFile,
    directories: PreparedDirectories,
}

pub(super) struct Watch {
    file: WatchedFile,
    reader: Reader,
    directories: Directories,
}

impl Prepared {
    /// Starts watching.
    pub(super) fn new(file: WatchedFile) -> io::Result<Self> {
        let directories = PreparedDirectories::of(&file.path)?;
        Ok(Self { file, directories })
    }

    /// Must run inside the runtime.
    pub(super) fn start(self) -> io::Result<Watch> {
        Ok(Watch {
            file: self.file,
            reader: Reader::default(),
            directories: self.directories.start()?,
        })
    }
}

impl Watch {
    pub(super) async fn run(mut self, events: &SyncSender<Event>) {
        loop {
            self.raise_if_changed(events).await;
            if let Err(error) = self.directories.change().await {
                tracing::error!(%error, "the configuration file is no longer watched");
                std::future::pending::<()>().await;
            }
        }
    }

    async fn raise_if_changed(&mut self, events: &SyncSender<Event>) {
        let path = self.file.path.clone();
        let read = self.reader.read(move || Ok(Fingerprint::of(&path)));
        let now = read.await.unwrap_or(Fingerprint(None));
        // A file that is gone for a moment is not a new configuration.
        if now != self.file.loaded && now != Fingerprint(None) {
            self.file.loaded = now;
            tracing::info!(path = %self.file.path.display(), "configuration file changed");
            raise(events, Event::Reload);
        }
    }
}

#[cfg(test)]
mod tests;
