//! Names in bpffs: a private mount through which the workloads' programs share
//! their maps, and the pins of links that must outlive the proxy.
#![expect(unsafe_code, reason = "mount() and statfs() are raw calls")]

use std::cell::RefCell;
use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::bpf;

const BPFFS: &CStr = c"/sys/fs/bpf";
const BPF_FS_MAGIC: libc::__fsword_t = 0xcafe_4a11;
const PIN_ROOT: &str = "/sys/fs/bpf/ambassador";

/// The directory of our pinned links, open, so that it can be reached when
/// another mount lies over it.
pub(super) struct Directory {
    file: File,
    /// Pins made by this process.
    new: RefCell<Vec<PathBuf>>,
}

impl Directory {
    /// Opens or makes it, mounting bpffs at /sys/fs/bpf where nobody has.
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
        let file = File::open(PIN_ROOT)?;
        let new = RefCell::default();
        Ok(Self { file, new })
    }

    /// Pins a new link.
    pub(super) fn pin(&self, link: BorrowedFd<'_>, path: PathBuf) -> io::Result<()> {
        bpf::pin(link, &path)?;
        self.new.borrow_mut().push(path);
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

    /// Where the link of a cgroup's hook is pinned. The cgroup's inode is its
    /// id, which the kernel does not use twice.
    pub(super) fn path_of(&self, cgroup: BorrowedFd<'_>, name: &str) -> io::Result<PathBuf> {
        let id = File::from(cgroup.try_clone_to_owned()?).metadata()?.ino();
        let directory = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        Ok(Path::new(&directory).join(pin_name(id, name)))
    }
}

fn pin_name(cgroup_id: u64, name: &str) -> String {
    format!("{cgroup_id:x}_{name}")
}

/// Removes the pinned links of a cgroup: its connects go straight again. No
/// pins is no error.
pub fn unpin(cgroup: &Path) -> io::Result<()> {
    let id = cgroup.metadata()?.ino();
    unpin_id(id)
}

pub(super) fn unpin_id(id: u64) -> io::Result<()> {
    let prefix = pin_name(id, "");
    let entries = match fs::read_dir(PIN_ROOT) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            fs::remove_file(entry.path())?;
        }
    }
    // It stays while another cgroup has pins in it.
    let _ = fs::remove_dir(PIN_ROOT);
    Ok(())
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
