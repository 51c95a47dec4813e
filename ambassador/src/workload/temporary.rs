//! Private directories in places where others may write, too.
//!
//! The name is known before it is used, so others may have put a directory or a
//! link there. Nothing of others is used, followed or removed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// Whom the mode of a directory lets write besides its owner.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// Only the owner of a file renames or removes it (S_ISVTX).
const STICKY: u32 = 0o1000;
const PRIVATE: u32 = 0o700;

/// A directory in which private ones are made.
#[derive(Debug)]
pub(crate) struct Base {
    path: PathBuf,
    directory: OwnedFd,
}

impl Base {
    /// The first of these that nobody else can change what we make in.
    ///
    /// # Errors
    /// What is wrong with the last of them.
    pub(crate) fn first_of(paths: impl IntoIterator<Item = PathBuf>) -> io::Result<Self> {
        let mut last = Err(io::ErrorKind::NotFound.into());
        for path in paths {
            last = Self::open(&path);
            if last.is_ok() {
                break;
            }
        }
        last
    }

    fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
        let is = rustix::fs::fstat(&directory)?;
        let others_write = is.st_mode & WRITABLE_BY_OTHERS != 0 && is.st_mode & STICKY == 0;
        if !(is.st_uid == 0 || is_ours(&is)) || others_write {
            return Err(refused(path, "others may change what is in it"));
        }
        Ok(Self {
            path: path.to_owned(),
            directory,
        })
    }

    /// Makes a directory of this name that only we may enter. One that we left
    /// behind earlier, with nothing but `file` in it, is replaced.
    pub(crate) fn make(&self, name: &str, file: &str) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        let make = || rustix::fs::mkdirat(&self.directory, name, Mode::from_raw_mode(PRIVATE));
        match make() {
            Err(Errno::EXIST) => {
                self.remove_ours(name, file, &path)?;
                make()?;
            }
            made => made?,
        }
        let made = self.open_inside(name)?;
        let is = rustix::fs::fstat(&made)?;
        match is_ours(&is) && is.st_mode & 0o777 == PRIVATE {
            true => Ok(path),
            false => Err(refused(&path, "it is not as it was made")),
        }
    }

    fn remove_ours(&self, name: &str, file: &str, path: &Path) -> io::Result<()> {
        let is = rustix::fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(is.st_mode) != FileType::Directory || !is_ours(&is) {
            return Err(refused(path, "somebody else has taken the name"));
        }
        let left = self.open_inside(name)?;
        match rustix::fs::unlinkat(&left, file, AtFlags::empty()) {
            Err(Errno::NOENT) => {}
            removed => removed?,
        }
        Ok(rustix::fs::unlinkat(
            &self.directory,
            name,
            AtFlags::REMOVEDIR,
        )?)
    }

    fn open_inside(&self, name: &str) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.directory, name, flags, Mode::empty())
    }
}

impl AsFd for Base {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

fn is_ours(is: &Stat) -> bool {
    is.st_uid == rustix::process::geteuid().as_raw()
}

fn refused(path: &Path, why: &str) -> io::Error {
    let text = format!("{} is not used: {why}", path.display());
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    fn scratch(what: &str) -> PathBuf {
        let name = format!("amb-B-temporary-{what}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        path
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_squatter_is_refused_and_keeps_what_is_his() {
        let base = scratch("squatter");
        mode(&base, 0o1777);
        let place = Base::first_of([base.clone()]).unwrap();
        let theirs = base.join("theirs");
        fs::create_dir(&theirs).unwrap();
        fs::write(theirs.join("file"), "precious").unwrap();
        chown(&theirs, Some(12_345), None).expect("this test needs root");
        symlink(&theirs, base.join("link")).unwrap();
        for name in ["theirs", "link"] {
            let error = place.make(name, "file").unwrap_err();
            assert!(error.to_string().contains("somebody else"), "{error}");
        }
        assert_eq!(fs::read(theirs.join("file")).unwrap(), b"precious");
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn what_we_left_is_replaced_unless_there_is_more_in_it() {
        let base = scratch("own");
        let place = Base::first_of([base.clone()]).unwrap();
        let path = place.make("run", "socket").unwrap();
        fs::write(path.join("socket"), "").unwrap();
        place.make("run", "socket").unwrap();
        assert!(!path.join("socket").exists());
        let made = path.metadata().unwrap();
        assert_eq!(made.permissions().mode() & 0o777, 0o700);
        fs::write(path.join("more"), "").unwrap();
        assert!(place.make("run", "socket").is_err());
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn a_place_where_others_rename_is_passed_over() {
        let (open, theirs, good) = (scratch("open"), scratch("theirs"), scratch("good"));
        mode(&open, 0o777);
        chown(&theirs, Some(12_345), None).expect("this test needs root");
        let all = [open.clone(), theirs.clone(), good.clone()];
        assert_eq!(Base::first_of(all.clone()).unwrap().path, good);
        let error = Base::first_of([open.clone()]).unwrap_err();
        assert!(error.to_string().contains("others may change"), "{error}");
        for path in all {
            fs::remove_dir(path).unwrap();
        }
    }
}
