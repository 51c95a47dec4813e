//! Notices that the configuration file has changed.
//!
//! Not the file is watched but the directories that lead to it: editors and
//! Kubernetes replace files, they do not write into them. A ConfigMap is a link
//! to a link, `config.yaml -> ..data/config.yaml` and `..data -> ..2026_11_20`,
//! and an update renames a new `..data` into place: an event in the directory of
//! the name. What counts in the end is whether the content is another.

use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::io::unix::AsyncFd;

use super::reading::Reader;
use super::{Event, raise};
use crate::workload::named;

/// Several events of one change are taken together.
const SETTLE: Duration = Duration::from_millis(20);

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
    inotify: File,
    directories: HashMap<i32, PathBuf>,
}

pub(super) struct Watch {
    file: WatchedFile,
    reader: Reader,
    inotify: AsyncFd<File>,
    /// Directories by watch descriptor.
    directories: HashMap<i32, PathBuf>,
}

impl Prepared {
    /// Starts watching.
    pub(super) fn new(file: WatchedFile) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?.into();
        let directories = follow(&inotify, &file.path)?;
        Ok(Self {
            file,
            inotify,
            directories,
        })
    }

    /// Must run inside the runtime.
    pub(super) fn start(self) -> io::Result<Watch> {
        Ok(Watch {
            file: self.file,
            reader: Reader::default(),
            inotify: registered(self.inotify)?,
            directories: self.directories,
        })
    }
}

impl Watch {
    pub(super) async fn run(mut self, events: &SyncSender<Event>) {
        loop {
            self.raise_if_changed(events).await;
            if let Err(error) = self.next_change().await {
                tracing::error!(%error, "the configuration file is no longer watched");
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(SETTLE).await;
            // The links may lead elsewhere now; a directory that is missing for a
            // moment comes back with an event in its parent.
            match follow(self.inotify.get_ref(), &self.file.path) {
                // Watches of directories left behind cost a wake-up and no more;
                // the kernel drops them with the directory.
                Ok(directories) => self.directories = directories,
                // Opened by who this process was at the start, they are still
                // watched.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot watch the configuration's directory");
                }
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

    /// Waits for an event that can mean a new content, and takes all that wait.
    async fn next_change(&mut self) -> io::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        loop {
            let mut ready = self.inotify.readable().await?;
            let mut relevant = false;
            let read = ready.try_io(|inotify| {
                let mut events = inotify::Reader::new(inotify.get_ref(), &mut buffer);
                relevant |= self.is_relevant(&events.next()?);
                while !events.is_buffer_empty() {
                    relevant |= self.is_relevant(&events.next()?);
                }
                Ok(())
            });
            if let Ok(read) = read {
                read?;
            }
            if relevant {
                return Ok(());
            }
        }
    }

    fn is_relevant(&self, event: &inotify::Event<'_>) -> bool {
        // A plain file that was just made is still empty; its writer's close
        // follows. A link is whole at once.
        !event.events().contains(ReadFlags::CREATE)
            || self.directories.get(&event.wd()).is_some_and(|at| {
                let name = event.file_name().map_or(&[][..], CStr::to_bytes);
                let path = at.join(OsStr::from_bytes(name));
                path.symlink_metadata().is_ok_and(|it| !it.is_file())
            })
    }
}

/// Watches the directory of the name and that of every link on the way.
fn follow(inotify: &File, path: &Path) -> io::Result<HashMap<i32, PathBuf>> {
    /// As many links as the kernel follows.
    const LINKS_MAX: usize = 40;
    let events =
        WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::CREATE | WatchFlags::ONLYDIR;
    let mut path = path.to_owned();
    let mut directories = HashMap::new();
    for _ in 0..LINKS_MAX {
        let directory = parent(&path);
        directories.insert(inotify::add_watch(inotify, &directory, events)?, directory);
        if let Ok(real) = parent(&path).canonicalize() {
            directories.insert(inotify::add_watch(inotify, &real, events)?, real);
        }
        match path.read_link() {
            Ok(target) => path = parent(&path).join(target),
            Err(_) => break,
        }
    }
    Ok(directories)
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[expect(unsafe_code, reason = "tokio cannot know that the file stays as it is")]
fn registered(inotify: File) -> io::Result<AsyncFd<File>> {
    // SAFETY: the file is open, and only read through a shared reference until
    // the AsyncFd that owns it is dropped.
    Ok(unsafe { AsyncFd::register(inotify) }?)
}

#[cfg(test)]
mod tests;
