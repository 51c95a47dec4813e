//! Watches the directories that lead to a file: editors and Kubernetes replace files,
//! they do not write into them.
//!
//! A ConfigMap is a link to a link, `config.yaml -> ..data/config.yaml` and
//! `..data -> ..2026_11_20`, and an update renames a new `..data` into place: an event
//! in the directory of the name.

use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::io::unix::AsyncFd;

/// Several events of one change are taken together.
const SETTLE: Duration = Duration::from_millis(20);

/// Those of a file, which nobody waits for yet; it needs no runtime.
#[derive(Debug)]
pub(in crate::control) struct PreparedDirectories {
    path: PathBuf,
    inotify: File,
    directories: HashMap<i32, PathBuf>,
}

/// Those of a file.
pub(in crate::control) struct Directories {
    path: PathBuf,
    inotify: AsyncFd<File>,
    /// By watch descriptor.
    directories: HashMap<i32, PathBuf>,
}

impl PreparedDirectories {
    /// Starts watching what leads to `path`.
    ///
    /// # Errors
    /// A directory is missing, or this user may not read it.
    pub(in crate::control) fn of(path: &Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?.into();
        let directories = follow(&inotify, path)?;
        Ok(Self {
            path: path.to_owned(),
            inotify,
            directories,
        })
    }

    /// Must run inside the runtime.
    pub(in crate::control) fn start(self) -> io::Result<Directories> {
        Ok(Directories {
            path: self.path,
            inotify: registered(self.inotify)?,
            directories: self.directories,
        })
    }
}

impl Directories {
    /// Waits until the file may have another content.
    ///
    /// # Errors
    /// They can no longer be watched.
    pub(in crate::control) async fn change(&mut self) -> io::Result<()> {
        self.next_change().await?;
        tokio::time::sleep(SETTLE).await;
        // The links may lead elsewhere now; a directory that is missing for a
        // moment comes back with an event in its parent.
        match follow(self.inotify.get_ref(), &self.path) {
            // Watches of directories left behind cost a wake-up and no more;
            // the kernel drops them with the directory.
            Ok(directories) => self.directories = directories,
            // Opened by who this process was at the start, they are still
            // watched.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => {
                let path = self.path.display();
                tracing::warn!(%path, %error, "cannot watch the directory of this file");
            }
        }
        Ok(())
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
