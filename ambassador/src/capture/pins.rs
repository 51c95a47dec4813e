//! Names in bpffs: a private mount through which the workloads' programs share
//! their maps, and the pins of links that must outlive the proxy.
#![expect(unsafe_code, reason = "mount() and statfs() are raw calls")]

use std::cell::RefCell;
use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::bpf;
use super::table::SharedPage;

const BPFFS: &CStr = c"/sys/fs/bpf";
const BPF_FS_MAGIC: libc::__fsword_t = 0xcafe_4a11;
const PIN_ROOT: &str = "/sys/fs/bpf/ambassador";
/// The name of the shared page beside the links: whether their proxy lives is
/// read from its heartbeats.
pub(super) const PAGE: &str = "SHARED";

/// The directory of our pinned links, open, so that it can be reached when
/// another mount lies over it.
pub(super) struct Directory {
    file: File,
    /// Whether links are to outlive this proxy. If not, those of an earlier
    /// one are taken over and lose their names.
    keep: bool,
    /// Pins made by this process.
    new: RefCell<Vec<PathBuf>>,
}

impl Directory {
    /// Opens or makes it, mounting bpffs at /sys/fs/bpf where nobody has, and
    /// removes the pins of cgroups that are gone.
    pub(super) fn open() -> io::Result<Self> {
        // SAFETY: zero is a valid statfs; both pointers live through the call.
        let mounted = unsafe {
            let mut info: libc::statfs = std::mem::zeroed();
            libc::statfs(BPFFS.as_ptr(), &mut info) == 0 && info.f_type == BPF_FS_MAGIC
        };
        if !mounted {
            mount(c"bpf", BPFFS, Some(c"bpf"), 0)?;
        }
        match fs::DirBuilder::new().mode(0o700).create(PIN_ROOT) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        Self::at_root(true)
    }

    /// Opens it where an earlier proxy has left it.
    pub(super) fn existing() -> io::Result<Option<Self>> {
        match Self::at_root(false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        }
    }

    fn at_root(keep: bool) -> io::Result<Self> {
        let file = File::open(PIN_ROOT)?;
        for pinned in all()? {
            if pinned.is_gone() {
                remove(pinned.cgroup_id, &[])?;
            }
        }
        let new = RefCell::default();
        Ok(Self { file, keep, new })
    }

    /// Puts a program behind the link that an earlier proxy has pinned, in one
    /// step. `None`: there is none.
    pub(super) fn take_over(
        &self,
        cgroup_id: u64,
        name: &str,
        program: BorrowedFd<'_>,
    ) -> io::Result<Option<OwnedFd>> {
        let path = self.path_of(cgroup_id, name);
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
        let path = self.path_of(cgroup_id, name);
        absent_is_fine(fs::remove_file(&path))?;
        bpf::pin(object, &path)?;
        self.new.borrow_mut().push(path);
        Ok(())
    }

    /// Removes what an earlier proxy has pinned for a cgroup, but for `names`.
    pub(super) fn remove_others(&self, cgroup_id: u64, names: &[String]) -> io::Result<()> {
        let known = |name: &String| self.keep && (names.contains(name) || name == PAGE);
        for name in names_of(&self.path(), cgroup_id)? {
            if !known(&name) {
                fs::remove_file(self.path_of(cgroup_id, &name))?;
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

    fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }

    fn path_of(&self, cgroup_id: u64, name: &str) -> PathBuf {
        self.path().join(pin_name(cgroup_id, name))
    }
}

/// The id of a cgroup: its inode, which the kernel does not use twice.
pub(super) fn id_of(cgroup: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(File::from(cgroup.try_clone_to_owned()?).metadata()?.ino())
}

fn pin_name(cgroup_id: u64, name: &str) -> String {
    format!("{cgroup_id:x}_{name}")
}

/// What has been pinned for a cgroup under `root`.
fn names_of(root: &Path, cgroup_id: u64) -> io::Result<Vec<String>> {
    let prefix = pin_name(cgroup_id, "");
    let mut names = Vec::new();
    for entry in fs::read_dir(root)? {
        let name = entry?.file_name();
        names.extend(
            name.to_str()
                .and_then(|name| name.strip_prefix(&prefix))
                .map(str::to_owned),
        );
    }
    Ok(names)
}

/// The pins of one cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pinned {
    /// The cgroup's inode.
    pub cgroup_id: u64,
}

/// The cgroups that have pins.
pub fn all() -> io::Result<Vec<Pinned>> {
    let entries = match fs::read_dir(PIN_ROOT) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut ids = Vec::new();
    for entry in entries {
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
        let names = names_of(Path::new(PIN_ROOT), self.cgroup_id).unwrap_or_default();
        let mut links = names.iter().filter(|name| *name != PAGE);
        !links.any(|name| {
            let link = bpf::open_pin(&Path::new(PIN_ROOT).join(pin_name(self.cgroup_id, name)));
            // What cannot be opened is left alone.
            link.and_then(|link| bpf::linked_cgroup(link.as_fd()))
                .map_or(true, |cgroup| cgroup != 0)
        })
    }

    /// Whether no shard of the proxy has given a sign of life for `limit`.
    pub fn is_abandoned(self, limit: Duration) -> bool {
        let page = bpf::open_pin(&Path::new(PIN_ROOT).join(pin_name(self.cgroup_id, PAGE)))
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
    let root = Path::new(PIN_ROOT);
    let all;
    let names = match names {
        [] => {
            all = match names_of(root, cgroup_id) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                names => names?,
            };
            &all
        }
        names => names,
    };
    for name in names {
        absent_is_fine(fs::remove_file(root.join(pin_name(cgroup_id, name))))?;
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
    // SAFETY: no pointers; affects this process, which has one thread.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } < 0 {
        return Err(io::Error::last_os_error());
    }
    mount(c"none", c"/", None, libc::MS_REC | libc::MS_PRIVATE)?;
    mount(c"bpf", BPFFS, Some(c"bpf"), 0)?;
    Ok(PathBuf::from("/sys/fs/bpf"))
}

fn mount(source: &CStr, at: &CStr, kind: Option<&CStr>, flags: libc::c_ulong) -> io::Result<()> {
    let kind = kind.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: all are nul-terminated and live through the call.
    let result =
        unsafe { libc::mount(source.as_ptr(), at.as_ptr(), kind, flags, std::ptr::null()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
