//! Names in bpffs: a private mount through which the workloads' programs share
//! their maps, and the pins of links that must outlive the proxy.
#![expect(unsafe_code, reason = "unshare may end what others rely on")]

use std::cell::RefCell;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::bpf;
use super::table::SharedPage;

const BPFFS: &str = "/sys/fs/bpf";
const BPF_FS_MAGIC: rustix::fs::FsWord = 0xcafe_4a11;
/// The mode bits of all but the owner.
const OF_OTHERS: u32 = 0o077;
const PIN_ROOT: &str = "/sys/fs/bpf/ambassador";
/// The name of the shared page beside the links: whether their proxy lives is
/// read from its heartbeats.
pub(super) const PAGE: &str = "SHARED";

/// The directory of our pinned links, open, so that it can be reached when
/// another mount lies over it.
pub(super) struct Directory {
    root: Root,
    /// Whether links are to outlive this proxy. If not, those of an earlier
    /// one are taken over and lose their names.
    keep: bool,
    /// Pins made by this process.
    new: RefCell<Vec<PathBuf>>,
}

/// [`PIN_ROOT`], open.
struct Root(File);

impl Root {
    /// Opens it, if it is ours alone: in most bpffs everybody may make a
    /// directory, and whoever has this one says what is behind our names.
    fn open() -> io::Result<Self> {
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let file = File::options()
            .read(true)
            .custom_flags(flags)
            .open(PIN_ROOT)
            .map_err(|error| match error.raw_os_error() {
                Some(libc::ENOTDIR | libc::ELOOP) => not_ours(NO_DIRECTORY),
                _ => error,
            })?;
        let owner = rustix::process::geteuid().as_raw();
        match flaw(&file.metadata()?, is_bpffs(&file)?, owner) {
            None => Ok(Self(file)),
            Some(flaw) => Err(not_ours(&flaw)),
        }
    }

    /// The same; none where nothing was ever pinned.
    fn existing() -> io::Result<Option<Self>> {
        match Self::open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        }
    }

    fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }

    fn path_of(&self, cgroup_id: u64, name: &str) -> PathBuf {
        self.path().join(pin_name(cgroup_id, name))
    }

    /// What has been pinned for a cgroup.
    fn names_of(&self, cgroup_id: u64) -> io::Result<Vec<String>> {
        let prefix = pin_name(cgroup_id, "");
        let mut names = Vec::new();
        for entry in fs::read_dir(self.path())? {
            let name = entry?.file_name();
            names.extend(
                name.to_str()
                    .and_then(|name| name.strip_prefix(&prefix))
                    .map(str::to_owned),
            );
        }
        Ok(names)
    }
}

const NO_DIRECTORY: &str = "no directory";

/// Why pins are not to be trusted to what is there.
fn flaw(is: &Metadata, in_bpffs: bool, owner: u32) -> Option<String> {
    if !is.is_dir() {
        Some(NO_DIRECTORY.into())
    } else if is.uid() != owner {
        Some(format!("owned by user {}", is.uid()))
    } else if is.mode() & OF_OTHERS != 0 {
        Some(format!("open to others (mode {:o})", is.mode() & 0o7777))
    } else {
        (!in_bpffs).then(|| "not in a bpffs".into())
    }
}

fn not_ours(flaw: &str) -> io::Error {
    let text = format!("{PIN_ROOT} is {flaw}: remove it, and whatever made it");
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}

/// What stands where pins are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PinDirectory {
    /// Nothing yet.
    None,
    /// What an ambassador has made.
    Ours,
    /// Something else, and what is wrong with it. Nothing is captured with that
    /// in the way.
    NotOurs(String),
}

/// Looks at it, without the privilege to open it.
pub(crate) fn pin_directory() -> io::Result<PinDirectory> {
    directory_at(Path::new(PIN_ROOT))
}

fn directory_at(path: &Path) -> io::Result<PinDirectory> {
    let is = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(PinDirectory::None),
        is => is?,
    };
    let in_bpffs = rustix::fs::statfs(path)?.f_type == BPF_FS_MAGIC;
    let own = rustix::process::geteuid().as_raw();
    // Whoever asks, it is mostly root who captures.
    let owner = if is.uid() == 0 { 0 } else { own };
    Ok(match flaw(&is, in_bpffs, owner) {
        None => PinDirectory::Ours,
        Some(flaw) => PinDirectory::NotOurs(format!("{} is {flaw}", path.display())),
    })
}

fn is_bpffs(file: &impl AsFd) -> io::Result<bool> {
    Ok(rustix::fs::fstatfs(file)?.f_type == BPF_FS_MAGIC)
}

impl Directory {
    /// Opens or makes it, mounting bpffs at /sys/fs/bpf where nobody has, and
    /// removes the pins of cgroups that are gone.
    pub(super) fn open() -> io::Result<Self> {
        let mounted = File::open(BPFFS).and_then(|place| is_bpffs(&place));
        if !mounted.unwrap_or(false) {
            mount("bpf", BPFFS, "bpf", MountFlags::empty(), None)?;
        }
        match fs::DirBuilder::new().mode(0o700).create(PIN_ROOT) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        Self::at(Root::open()?, true)
    }

    /// Opens it where an earlier proxy has left it.
    pub(super) fn existing() -> io::Result<Option<Self>> {
        let root = Root::existing()?;
        root.map(|root| Self::at(root, false)).transpose()
    }

    fn at(root: Root, keep: bool) -> io::Result<Self> {
        for pinned in all()? {
            if pinned.is_gone() {
                remove(pinned.cgroup_id, &[])?;
            }
        }
        let new = RefCell::default();
        Ok(Self { root, keep, new })
    }

    /// Puts a program behind the link that an earlier proxy has pinned, in one
    /// step. `None`: there is none.
    pub(super) fn take_over(
        &self,
        cgroup_id: u64,
        name: &str,
        program: BorrowedFd<'_>,
    ) -> io::Result<Option<OwnedFd>> {
        let path = self.root.path_of(cgroup_id, name);
        let Ok(link) = bpf::open_pin(&path) else {
            return Ok(None);
        };
        bpf::relink(link.as_fd(), program)?;
        if !self.keep {
            fs::remove_file(path)?;
        }
        Ok(Some(link))
    }

    /// Gives an object its name, in place of what had it, if links are to
    /// outlive the proxy.
    pub(super) fn pin(&self, cgroup_id: u64, name: &str, object: BorrowedFd<'_>) -> io::Result<()> {
        if !self.keep {
            return Ok(());
        }
        let path = self.root.path_of(cgroup_id, name);
        absent_is_fine(fs::remove_file(&path))?;
        bpf::pin(object, &path)?;
        self.new.borrow_mut().push(path);
        Ok(())
    }

    /// Removes what an earlier proxy has pinned for a cgroup, but for `names`.
    pub(super) fn remove_others(&self, cgroup_id: u64, names: &[String]) -> io::Result<()> {
        let known = |name: &String| self.keep && (names.contains(name) || name == PAGE);
        for name in self.root.names_of(cgroup_id)? {
            if !known(&name) {
                fs::remove_file(self.root.path_of(cgroup_id, &name))?;
            }
        }
        Ok(())
    }

    /// Removes what this process pinned: a start that failed must not leave
    /// the application cut off.
    pub(super) fn remove_new(self) {
        for path in self.new.take() {
            // A pin that is gone already is what is wanted.
            let _ = fs::remove_file(path);
        }
    }
}

/// The id of a cgroup: its inode, which the kernel does not use twice.
pub(super) fn id_of(cgroup: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(File::from(cgroup.try_clone_to_owned()?).metadata()?.ino())
}

fn pin_name(cgroup_id: u64, name: &str) -> String {
    format!("{cgroup_id:x}_{name}")
}

/// The pins of one cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pinned {
    /// The cgroup's inode.
    pub cgroup_id: u64,
}

/// The cgroups that have pins.
pub fn all() -> io::Result<Vec<Pinned>> {
    let Some(root) = Root::existing()? else {
        return Ok(Vec::new());
    };
    let mut ids = Vec::new();
    for entry in fs::read_dir(root.path())? {
        let name = entry?.file_name();
        let id = name.to_str().and_then(|name| name.split_once('_'));
        ids.extend(id.and_then(|(id, _)| u64::from_str_radix(id, 16).ok()));
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids
        .into_iter()
        .map(|cgroup_id| Pinned { cgroup_id })
        .collect())
}

impl Pinned {
    /// Whether the cgroup has been removed, with which its links let go.
    pub fn is_gone(self) -> bool {
        let Ok(root) = Root::open() else {
            return false;
        };
        let names = root.names_of(self.cgroup_id).unwrap_or_default();
        let mut links = names.iter().filter(|name| *name != PAGE);
        !links.any(|name| {
            let link = bpf::open_pin(&root.path_of(self.cgroup_id, name));
            // What cannot be opened is skipped.
            link.and_then(|link| bpf::linked_cgroup(link.as_fd()))
                .map_or(true, |cgroup| cgroup != 0)
        })
    }

    /// Whether no shard of the proxy has given a sign of life for `limit`.
    pub fn is_abandoned(self, limit: Duration) -> bool {
        let page = Root::open()
            .and_then(|root| bpf::open_pin(&root.path_of(self.cgroup_id, PAGE)))
            .and_then(|page| SharedPage::map(page.as_fd()));
        match page {
            Ok(page) => page.silence() > limit,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }

    /// Removes them: connects of the cgroup go straight, unless the proxy lives.
    pub fn remove(self) -> io::Result<()> {
        remove(self.cgroup_id, &[])
    }
}

/// Removes pins of a cgroup: those named, or all where none is. One that is
/// gone already is no error.
pub(super) fn remove(cgroup_id: u64, names: &[String]) -> io::Result<()> {
    let Some(root) = Root::existing()? else {
        return Ok(());
    };
    let all;
    let names = match names {
        [] => {
            all = root.names_of(cgroup_id)?;
            &all
        }
        names => names,
    };
    for name in names {
        absent_is_fine(fs::remove_file(root.path_of(cgroup_id, name)))?;
    }
    // The directory stays: another proxy may just have opened it.
    Ok(())
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Mounts a bpffs that only this process sees; gone with it.
pub(super) fn private_bpffs() -> io::Result<PathBuf> {
    // SAFETY: the table of descriptors stays; this process has one thread.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    mount_change(
        "/",
        MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
    )?;
    mount("bpf", BPFFS, "bpf", MountFlags::empty(), None)?;
    Ok(PathBuf::from(BPFFS))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use tempfile::tempdir;

    use super::*;

    #[track_caller]
    fn flaw_of(path: &Path) -> String {
        match directory_at(path).unwrap() {
            PinDirectory::NotOurs(flaw) => flaw,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_others_may_have_made_is_named() {
        let scratch = tempdir().unwrap();
        let path = scratch.path().join("ambassador");
        assert_eq!(directory_at(&path).unwrap(), PinDirectory::None);
        symlink("/sys/fs/bpf", &path).unwrap();
        assert!(flaw_of(&path).ends_with("no directory"));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(flaw_of(&path).ends_with("open to others (mode 1777)"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(flaw_of(&path).ends_with("not in a bpffs"));
        chown(&path, Some(12_345), None).unwrap();
        assert!(flaw_of(&path).ends_with("owned by user 12345"));
    }
}
