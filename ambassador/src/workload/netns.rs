//! A network namespace, held by an open descriptor so that it stays the same
//! one, and stays alive, whatever becomes of the path it was named by.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// `NS_GET_NSTYPE` of nsfs.h (Linux 4.11): the CLONE_NEW* of a namespace.
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

/// What statfs(2) says of the file system of namespaces (linux/magic.h).
const NSFS_MAGIC: rustix::fs::FsWord = 0x6e73_6673;

/// An open network namespace; clones share the descriptor.
#[derive(Debug, Clone)]
pub struct Netns {
    fd: Arc<OwnedFd>,
    identity: (u64, u64),
}

impl Netns {
    /// The namespace of the calling thread.
    pub fn own() -> io::Result<Self> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// The namespace that a path names: `/proc/PID/ns/net` or
    /// `/run/netns/NAME`.
    pub fn open(path: &Path) -> io::Result<Self> {
        // What else may be there is looked at before it is opened: to open a
        // device does things.
        let place = File::from(rustix::fs::open(
            path,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
        )?);
        is_of_nsfs(&place)?;
        let again = format!("/proc/self/fd/{}", place.as_raw_fd());
        Self::from_fd(File::open(again)?.into())
    }

    /// The namespace behind a descriptor; InvalidInput where there is none.
    #[expect(unsafe_code, reason = "std has no ioctl")]
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        is_of_nsfs(&fd)?;
        // SAFETY: this ioctl has no argument; files of nsfs know it.
        if unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) } != libc::CLONE_NEWNET {
            return Err(no_namespace());
        }
        let file = File::from(fd);
        let metadata = file.metadata()?;
        Ok(Self {
            fd: Arc::new(file.into()),
            identity: (metadata.dev(), metadata.ino()),
        })
    }

    /// Whether the calling thread is in this namespace.
    pub fn is_own(&self) -> bool {
        Self::own().is_ok_and(|own| own == *self)
    }

    /// Moves the calling thread into this namespace; its other threads stay.
    /// Needs CAP_SYS_ADMIN.
    pub fn enter(&self) -> io::Result<()> {
        let kind = Some(LinkNameSpaceType::Network);
        Ok(move_into_link_name_space(self.fd.as_fd(), kind)?)
    }

    /// Runs `work` in this namespace: here where the caller is in it already,
    /// else on a thread of its own, so that the caller's namespace never
    /// changes.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        if self.is_own() {
            return Ok(work());
        }
        std::thread::scope(|scope| {
            let worker = std::thread::Builder::new()
                .name("netns".into())
                .spawn_scoped(scope, || self.enter().map(|()| work()))?;
            match worker.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

fn is_of_nsfs(file: &impl AsFd) -> io::Result<()> {
    match rustix::fs::fstatfs(file)?.f_type == NSFS_MAGIC {
        true => Ok(()),
        false => Err(no_namespace()),
    }
}

fn no_namespace() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a network namespace")
}

impl PartialEq for Netns {
    fn eq(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

impl Eq for Netns {}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_network_namespaces_are_taken() {
        assert!(Netns::own().unwrap().is_own());
        for other in ["/proc/self/ns/mnt", "/dev/null", "/"] {
            let error = Netns::open(Path::new(other)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{other}");
        }
    }
}
