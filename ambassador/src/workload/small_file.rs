//! Reads files that another party may replace at any time: those of a workload,
//! the configuration, tokens.
//!
//! A name may lead to anything by then. So a file is found first, without being
//! opened, and only a regular one is opened: a FIFO would wait for a writer, and
//! opening a device can have effects (a watchdog resets the machine). No more is
//! read than the caller asks for. A file system may still never answer, so
//! callers read on threads that nothing waits for.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat, fstat, open, openat2};

/// As much as is read of a token, or of a file of a workload.
pub(crate) const BYTES_MAX: usize = 64 << 10;

/// Reads a file. Symbolic links are followed: the path is that of somebody who
/// may choose it.
///
/// # Errors
/// `InvalidInput` for what is no regular file, `FileTooLarge` for one that is
/// longer than `bytes_max`, and what the kernel says.
pub(crate) fn read(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    read_if(path, bytes_max, |_| true)
}

/// The same, of a file whose owner and mode are as they must be.
///
/// # Errors
/// As those of [`read`], and `PermissionDenied` for another file.
pub(crate) fn read_if(
    path: &Path,
    bytes_max: usize,
    is_right: impl FnOnce(&Stat) -> bool,
) -> io::Result<Vec<u8>> {
    let found = open(path, found(), Mode::empty())?;
    match is_right(&fstat(&found)?) {
        true => read_found(&found, bytes_max),
        false => Err(io::ErrorKind::PermissionDenied.into()),
    }
}

/// Reads a file of a workload, whose root directory is `root`: links lead where
/// they lead for the workload, and never out of it.
///
/// # Errors
/// As those of [`read`].
pub(crate) fn read_in(root: &impl AsFd, path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    // No magic links: those of its /proc lead to whatever a process has open.
    let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let found = openat2(root, path, found(), Mode::empty(), within)?;
    read_found(&found, bytes_max)
}

/// A name is looked up, and nothing opened.
fn found() -> OFlags {
    OFlags::PATH | OFlags::CLOEXEC
}

fn read_found(found: &OwnedFd, bytes_max: usize) -> io::Result<Vec<u8>> {
    let status = fstat(found)?;
    match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(io::ErrorKind::IsADirectory.into()),
        _ => {
            let error = "is no regular file";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let again = format!("/proc/self/fd/{}", found.as_raw_fd());
    read_open(open(again, flags, Mode::empty())?.into(), bytes_max)
}

/// Reads a regular file that another opened.
pub(super) fn read_open(file: File, bytes_max: usize) -> io::Result<Vec<u8>> {
    let expected = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    let mut bytes = Vec::with_capacity(expected.min(bytes_max) + 1);
    // One more tells that there is more.
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max {
        let error = format!("is longer than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, error));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::mpsc;
    use std::time::Duration;

    use tempfile::{TempDir, tempdir};

    use super::*;

    struct Scratch(TempDir);

    impl Scratch {
        fn new() -> Self {
            let directory = tempdir().unwrap();
            fs::create_dir_all(directory.path().join("root/etc")).unwrap();
            Self(directory)
        }

        fn put(&self, name: &str, text: &str) {
            fs::write(self.0.path().join(name), text).unwrap();
        }

        fn link(&self, name: &str, target: &str) {
            symlink(target, self.0.path().join(name)).unwrap();
        }

        fn fifo(&self, name: &str) {
            let path = self.0.path().join(name);
            let made = std::process::Command::new("mkfifo").arg(path).status();
            assert!(made.unwrap().success());
        }

        /// What reading both ways says, which must not take long.
        fn read(&self, name: &str) -> [Result<String, io::ErrorKind>; 2] {
            let (sender, answer) = mpsc::channel();
            let (all, name) = (self.0.path().to_owned(), name.to_owned());
            std::thread::spawn(move || {
                let text = |read: io::Result<Vec<u8>>| {
                    let read = read.map_err(|error| error.kind());
                    read.map(|bytes| String::from_utf8(bytes).unwrap())
                };
                let root = File::open(all.join("root")).unwrap();
                let outside = text(read(&all.join("root").join(&name), 16));
                let inside = text(read_in(&root, Path::new(&name), 16));
                sender.send([outside, inside]).unwrap();
            });
            let waited = answer.recv_timeout(Duration::from_secs(10));
            waited.expect("nothing that is read blocks")
        }
    }

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let scratch = Scratch::new();
        scratch.put("root/etc/short", "sixteen letters.");
        let text = "sixteen letters.".to_owned();
        assert_eq!(scratch.read("etc/short"), [Ok(text.clone()), Ok(text)]);
        scratch.put("root/etc/long", "seventeen letters");
        let too_large = Err(io::ErrorKind::FileTooLarge);
        assert_eq!(
            scratch.read("etc/long"),
            [too_large.clone(), too_large.clone()]
        );
        // It says that it is empty.
        let error = read(Path::new("/proc/self/status"), 16).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn only_regular_files_are_opened() {
        let scratch = Scratch::new();
        scratch.fifo("root/etc/fifo");
        let socket = scratch.0.path().join("root/etc/socket");
        let _listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
        let refused = Err(io::ErrorKind::InvalidInput);
        for name in ["etc/fifo", "etc/socket"] {
            assert_eq!(
                scratch.read(name),
                [refused.clone(), refused.clone()],
                "{name}"
            );
        }
        let directory = Err(io::ErrorKind::IsADirectory);
        assert_eq!(scratch.read("etc"), [directory.clone(), directory]);
        let error = read(Path::new("/dev/zero"), 16).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn links_lead_out_of_no_root() {
        let scratch = Scratch::new();
        scratch.put("secret", "outside");
        scratch.put("root/secret", "inside");
        scratch.link("root/etc/up", "../../secret");
        scratch.link("root/etc/beside", "../secret");
        scratch.link("root/etc/absolute", "/secret");
        let (outside, inside) = (Ok("outside".to_owned()), Ok("inside".to_owned()));
        assert_eq!(scratch.read("etc/up"), [outside, inside.clone()]);
        assert_eq!(scratch.read("etc/beside"), [inside.clone(), inside.clone()]);
        let missing = Err(io::ErrorKind::NotFound);
        assert_eq!(scratch.read("etc/absolute"), [missing, inside]);
        scratch.link("root/etc/round", "round");
        let [_, round] = scratch.read("etc/round");
        assert!(round.is_err());
    }

    /// A link in /proc leads to what a process has open, wherever that is.
    #[test]
    fn magic_links_are_not_followed_in_a_root() {
        let root = File::open("/").unwrap();
        let secret = Scratch::new();
        secret.put("open", "open");
        let open = File::open(secret.0.path().join("open")).unwrap();
        let link = format!("/proc/self/fd/{}", open.as_raw_fd());
        assert_eq!(read(Path::new(&link), 16).unwrap(), b"open");
        let error = read_in(&root, Path::new(&link), 16).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
    }
}
