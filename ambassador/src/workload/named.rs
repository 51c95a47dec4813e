//! Files named at the start by the command line and the configuration: read or
//! appended to as long as the proxy runs.
//!
//! The proxy may have been root at the start and is not any more. The helper
//! opens what the proxy cannot open itself, by the paths named at the start.
//! Files that a reload names in addition must be readable by the proxy's user.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

pub(crate) use super::user::Access;

use super::{Helper, small_file};

/// The mode of a file that is appended to, where it is made.
pub(super) const MODE: u32 = 0o640;

/// Those of this process, known to its helper.
static NAMED: OnceLock<NamedFiles> = OnceLock::new();

struct NamedFiles {
    helper: Arc<Helper>,
    /// As they were named; the helper knows them by their position.
    files: Vec<(PathBuf, Access)>,
}

/// Has the helper open these files from now on, where this process cannot. Once,
/// while the proxy starts.
pub(crate) fn remember(helper: &Arc<Helper>, files: &[(PathBuf, Access)]) -> io::Result<()> {
    let mut known = Vec::new();
    for (path, access) in files {
        // One whose directory is not there cannot be told by a link later.
        let Ok(place) = place_of(path) else {
            continue;
        };
        helper.remember_file(&place, *access)?;
        known.push((path.clone(), *access));
    }
    let named = NamedFiles {
        helper: Arc::clone(helper),
        files: known,
    };
    NAMED
        .set(named)
        .map_err(|_| io::ErrorKind::AlreadyExists.into())
}

/// The directory with its links followed, as they lead now, and the name in it.
fn place_of(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let directory = match path.parent() {
        Some(directory) if directory != Path::new("") => directory,
        _ => Path::new("."),
    };
    Ok(directory.canonicalize()?.join(name))
}

/// Reads a file; see [`small_file::read`].
///
/// # Errors
/// As those of it, and what the helper says.
pub(crate) fn read(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    small_file::read(path, bytes_max).or_else(|error| {
        let file = by_the_helper(path, Access::Read, error)?;
        small_file::read_open(file, bytes_max)
    })
}

/// What is known of a file that is to be read; see [`small_file::read`].
///
/// # Errors
/// As those of [`read`].
pub(crate) fn metadata(path: &Path) -> io::Result<Metadata> {
    fs::metadata(path).or_else(|error| by_the_helper(path, Access::Read, error)?.metadata())
}

/// Opens a file to append to it; makes it where it is missing. A FIFO that nobody
/// reads is an error: who opens it would wait.
pub(crate) fn append_to(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(MODE)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .or_else(|error| by_the_helper(path, Access::Append, error))?;
    // Who writes may wait for a reader that is slow.
    let flags = fcntl_getfl(&file)?;
    fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
    Ok(file)
}

fn by_the_helper(path: &Path, access: Access, error: io::Error) -> io::Result<File> {
    let named = match NAMED.get() {
        Some(named) if error.kind() == io::ErrorKind::PermissionDenied => named,
        _ => return Err(error),
    };
    let known = |(known, how): &(PathBuf, Access)| known == path && *how == access;
    match named.files.iter().position(known) {
        Some(at) => named.helper.open_file(at).map(File::from),
        None => Err(error),
    }
}
