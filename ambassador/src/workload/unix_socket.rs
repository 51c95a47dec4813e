//! Unix listeners in the file system, for their owner alone.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, fchmod};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

/// Connections that wait to be accepted; the kernel caps it at
/// net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// Listens at a path, mode 0600: private before it has a name, and moved into
/// place. A socket that nobody listens on is replaced by that.
///
/// # Errors
/// `AddrInUse` where one is listened on, or a file of another kind is there;
/// `PermissionDenied` where it is another user who listens.
pub(crate) fn listen_privately(path: &Path) -> io::Result<UnixListener> {
    if let Ok(found) = path.symlink_metadata() {
        if !found.file_type().is_socket() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        if !is_dead(path)? {
            return Err(in_use(found.uid()));
        }
    }
    let mut private = path.as_os_str().to_owned();
    private.push(format!(".{}", std::process::id()));
    let private = Unfinished(private.into());
    let listener = bound(&private.0)?;
    listen(&listener, BACKLOG)?;
    fs::rename(&private.0, path)?;
    Ok(listener.into())
}

/// A socket of mode 0600 at a path. The kernel gives the file the mode that the
/// socket has.
fn bound(path: &Path) -> io::Result<OwnedFd> {
    let socket = stream(SocketFlags::CLOEXEC)?;
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Whether nobody listens. One with a full queue, or that we may not connect to,
/// is alive.
fn is_dead(path: &Path) -> io::Result<bool> {
    let socket = stream(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    match connect(&socket, &SocketAddrUnix::new(path)?) {
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(true),
        _ => Ok(false),
    }
}

fn stream(flags: SocketFlags) -> rustix::io::Result<OwnedFd> {
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

fn in_use(owner: u32) -> io::Error {
    if owner == rustix::process::geteuid().as_raw() {
        return io::ErrorKind::AddrInUse.into();
    }
    let text = format!("user {owner} listens there; end that, or name another path");
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}

/// A file that is to be moved: removed if it is not.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Moved, as a rule.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::os::unix::net::UnixStream;

    use rustix::thread::{UnshareFlags, unshare_unsafe};
    use tempfile::tempdir;

    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    #[expect(unsafe_code, reason = "unshare may end what others rely on")]
    fn it_is_private_from_the_moment_it_has_a_name() {
        let scratch = tempdir().unwrap();
        let path = scratch.path().join("socket");
        // A thread of its own has a mask of its own.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // SAFETY: no pointers; the thread alone gets a mask of its own.
                unsafe { unshare_unsafe(UnshareFlags::FS) }.unwrap();
                rustix::process::umask(Mode::empty());
                let _socket = bound(&path).unwrap();
                assert_eq!(mode(&path), 0o600);
            });
        });
    }

    #[test]
    fn a_dead_socket_is_replaced_and_what_lives_is_not() {
        let scratch = tempdir().unwrap();
        let path = scratch.path().join("socket");
        drop(UnixListener::bind(&path).unwrap());
        let listener = listen_privately(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        UnixStream::connect(&path).unwrap();
        listener.accept().unwrap();
        let error = listen_privately(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        chown(&path, Some(12_345), None).expect("this test needs root");
        let error = listen_privately(&path).unwrap_err();
        assert!(error.to_string().contains("user 12345"), "{error}");

        let file = scratch.path().join("file");
        fs::write(&file, "precious").unwrap();
        let error = listen_privately(&file).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(fs::read(&file).unwrap(), b"precious");
        // Nothing but the socket and the file: the private name is gone.
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 2);
    }

    #[test]
    fn one_that_does_not_accept_is_alive_and_keeps_nobody() {
        let scratch = tempdir().unwrap();
        let path = scratch.path().join("socket");
        let socket = bound(&path).unwrap();
        listen(&socket, 0).unwrap();
        let _queued = UnixStream::connect(&path).unwrap();
        let error = listen_privately(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
