//! The files that the helper opens for the proxy: only those named at the start.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, open, openat2};

use crate::workload::named::{Access, MODE};

/// A configuration names a handful; each upstream some at most.
const FILES_MAX: usize = 4_096;

/// Device and inode.
type Inode = (u64, u64);

#[derive(Debug, Default)]
pub(super) struct Files {
    known: Vec<(PathBuf, Access)>,
    /// The sockets among them, as they were found.
    sockets: Vec<(PathBuf, Inode)>,
    /// The proxy may be somebody else by now.
    sealed: bool,
}

impl Files {
    pub(super) fn remember(&mut self, path: PathBuf, access: Access) -> io::Result<()> {
        if self.sealed || self.known.len() >= FILES_MAX || !path.is_absolute() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if access == Access::Remove
            && let Some(inode) = socket_at(&path)
        {
            self.sockets.push((path.clone(), inode));
        }
        self.known.push((path, access));
        Ok(())
    }

    /// Removes the sockets, unless others are in their place by now.
    pub(super) fn remove_sockets(&self) {
        for (path, inode) in &self.sockets {
            if socket_at(path) == Some(*inode) {
                // At worst the next start finds that nobody answers there.
                let _ = fs::remove_file(path);
            }
        }
    }

    pub(super) fn seal(&mut self) {
        self.sealed = true;
    }

    pub(super) fn open(&self, number: usize) -> io::Result<OwnedFd> {
        match self.known.get(number) {
            Some((path, Access::Read)) => open_to_read(path),
            Some((path, Access::Append)) => open_to_append(path),
            Some((_, Access::Remove)) | None => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

fn socket_at(path: &Path) -> Option<Inode> {
    let found = fs::symlink_metadata(path).ok()?;
    let is_socket = found.file_type().is_socket();
    is_socket.then(|| (found.dev(), found.ino()))
}

/// Whatever is there must not block, or become our terminal.
const FLAGS: OFlags = OFlags::CLOEXEC
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

/// The directory is the one of the start, no link on its way. In it a link may
/// lead to what is in the directory too, and not out of it: so does Kubernetes
/// replace the files of a volume.
fn open_to_read(path: &Path) -> io::Result<OwnedFd> {
    let (directory, name) = directory_of(path)?;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    // What is no file is found, and not opened: to open a device does things.
    let found = openat2(
        directory,
        name,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        beneath,
    )?;
    let found = only(File::from(found), |kind| kind.is_file())?;
    let again = format!("/proc/self/fd/{}", found.as_raw_fd());
    Ok(open(again, FLAGS | OFlags::RDONLY, Mode::empty())?)
}

/// No link at all. It is made where it is missing, as after it was moved away.
/// A file may be read as well: who appends looks how it ends.
fn open_to_append(path: &Path) -> io::Result<OwnedFd> {
    let (directory, name) = directory_of(path)?;
    let open = |access: OFlags| {
        openat2(
            &directory,
            name,
            FLAGS | access | OFlags::APPEND | OFlags::CREATE,
            Mode::from_raw_mode(MODE),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        )
    };
    let as_it_is = File::from(open(OFlags::WRONLY)?);
    match as_it_is.metadata()?.is_file() {
        true => only(File::from(open(OFlags::RDWR)?), fs::FileType::is_file),
        false => only(as_it_is, |kind| kind.is_fifo()),
    }
}

fn directory_of(path: &Path) -> io::Result<(OwnedFd, &std::ffi::OsStr)> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let directory = openat2(
        CWD,
        path.parent().ok_or_else(invalid)?,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )?;
    Ok((directory, path.file_name().ok_or_else(invalid)?))
}

fn only(file: File, wanted: impl Fn(&fs::FileType) -> bool) -> io::Result<OwnedFd> {
    match wanted(&file.metadata()?.file_type()) {
        true => Ok(file.into()),
        false => Err(io::ErrorKind::InvalidInput.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::fs::symlink;

    use tempfile::tempdir;

    use super::*;

    fn read(files: &Files, number: usize) -> Option<String> {
        let mut text = String::new();
        let mut file = File::from(files.open(number).ok()?);
        file.read_to_string(&mut text).unwrap();
        Some(text)
    }

    #[test]
    fn a_link_leads_to_nothing_outside_the_directory() {
        let scratch = tempdir().unwrap();
        let (inside, outside) = (scratch.path().join("inside"), scratch.path().join("secret"));
        fs::create_dir(&inside).unwrap();
        fs::write(&outside, "secret").unwrap();
        fs::write(inside.join("token"), "one").unwrap();
        let mut files = Files::default();
        files.remember(inside.join("token"), Access::Read).unwrap();
        assert_eq!(read(&files, 0).as_deref(), Some("one"));
        let replace = |target: &Path| {
            fs::remove_file(inside.join("token")).unwrap();
            symlink(target, inside.join("token")).unwrap();
        };
        for target in [&outside, Path::new("../secret"), Path::new("/etc/passwd")] {
            replace(target);
            assert_eq!(read(&files, 0), None, "{}", target.display());
        }
        // As Kubernetes does it.
        fs::create_dir(inside.join("..2")).unwrap();
        fs::write(inside.join("..2/token"), "two").unwrap();
        symlink("..2", inside.join("..data")).unwrap();
        replace(Path::new("..data/token"));
        assert_eq!(read(&files, 0).as_deref(), Some("two"));
        // The directory itself is a link now.
        fs::rename(&inside, scratch.path().join("moved")).unwrap();
        symlink("moved", &inside).unwrap();
        assert_eq!(read(&files, 0), None);
    }

    #[test]
    fn what_is_no_file_is_not_opened_and_blocks_nobody() {
        let scratch = tempdir().unwrap();
        let path = scratch.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        let mut files = Files::default();
        files.remember(path, Access::Read).unwrap();
        files
            .remember(scratch.path().to_owned(), Access::Read)
            .unwrap();
        files.remember("/dev/null".into(), Access::Append).unwrap();
        for number in 0..3 {
            assert!(files.open(number).is_err(), "{number}");
        }
    }

    #[test]
    fn a_log_is_made_anew_and_never_through_a_link() {
        let scratch = tempdir().unwrap();
        let path = scratch.path().join("log");
        let mut files = Files::default();
        files.remember(path.clone(), Access::Append).unwrap();
        let write = || File::from(files.open(0).unwrap()).write_all(b"line\n");
        write().unwrap();
        write().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "line\nline\n");
        fs::remove_file(&path).unwrap();
        symlink(scratch.path().join("other"), &path).unwrap();
        assert!(files.open(0).is_err());
        assert!(!scratch.path().join("other").exists());
    }

    #[test]
    fn nothing_is_added_after_the_start() {
        let mut files = Files::default();
        files.seal();
        let late = files.remember("/etc/shadow".into(), Access::Read);
        assert!(late.is_err());
        assert!(files.open(0).is_err());
    }
}
