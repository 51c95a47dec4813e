//! A file that privileged processes read again later, as long as nobody else may have
//! written it.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::small_file;

/// Bytes of a configuration at most, as everywhere.
const BYTES_MAX: usize = 4 << 20;
/// Whom the mode of a file lets write that does not own it.
const WRITABLE_BY_ALL: u32 = 0o002;

/// A file, and whose it was at the start.
#[derive(Debug)]
pub(super) struct OwnedFile {
    path: PathBuf,
    owner: u32,
}

impl OwnedFile {
    /// The one at this path, as it is now.
    ///
    /// # Errors
    /// It is not there.
    pub(super) fn at(path: PathBuf) -> io::Result<Self> {
        let owner = path.metadata()?.uid();
        Ok(Self { path, owner })
    }

    /// Its text.
    ///
    /// # Errors
    /// It cannot be read, or somebody else may have written it.
    pub(super) fn read(&self) -> io::Result<String> {
        let text = small_file::read_if(&self.path, BYTES_MAX, |is| {
            is.st_uid == self.owner && is.st_mode & WRITABLE_BY_ALL == 0
        })?;
        String::from_utf8(text).map_err(io::Error::other)
    }
}
