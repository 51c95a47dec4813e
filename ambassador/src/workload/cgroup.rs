//! Groups of processes in the unified hierarchy (cgroup v2): finding it,
//! making a group, knowing when it is empty, removing it.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};

/// What the name of a cgroup that `exec` makes begins with; the pid of the
/// proxy follows.
pub(crate) const EXEC_PREFIX: &str = "ambassador-exec-";

/// What statfs(2) says of the unified hierarchy (linux/magic.h).
const CGROUP2_SUPER_MAGIC: rustix::fs::FsWord = 0x6367_7270;

/// Why this process has no group of the unified hierarchy that it can use.
#[derive(Debug)]
pub(crate) enum CgroupError {
    /// No cgroup2 file system is mounted.
    NotMounted,
    /// The process's group is not below the mounted part of the hierarchy.
    OutsideMount(PathBuf),
    /// /proc could not be read.
    Unreadable(io::Error),
}

impl fmt::Display for CgroupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotMounted => f.write_str(
                "no cgroup2 file system is mounted; mount one: mount -t cgroup2 none /sys/fs/cgroup",
            ),
            Self::OutsideMount(group) => write!(
                f,
                "the cgroup {} of this process is not under the cgroup2 mount it can see",
                group.display()
            ),
            Self::Unreadable(_) => f.write_str("cannot read /proc/self"),
        }
    }
}

impl std::error::Error for CgroupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable(error) => Some(error),
            _ => None,
        }
    }
}

/// Where the unified hierarchy is mounted: /sys/fs/cgroup, or elsewhere on
/// hybrid systems.
pub(crate) fn find_cgroup2() -> Result<PathBuf, CgroupError> {
    mount(Hierarchy::Unified).map(|mount| mount.point)
}

/// Whether a path names a group of a unified hierarchy.
pub(crate) fn is_cgroup(path: &Path) -> bool {
    Cgroup::open(path).is_ok()
}

/// The group of this process, as a directory.
pub(crate) fn own_cgroup() -> Result<PathBuf, CgroupError> {
    own_in(Hierarchy::Unified).map(|(own, _)| own)
}

/// The group of this process in a hierarchy, and those that it is in, as far as
/// they can be seen.
pub(crate) fn own_and_above(hierarchy: Hierarchy) -> Result<Vec<PathBuf>, CgroupError> {
    let (own, mount) = own_in(hierarchy)?;
    let groups = own
        .ancestors()
        .take_while(|group| group.starts_with(&mount));
    Ok(groups.map(Path::to_owned).collect())
}

/// The group of this process in a hierarchy, and where that is mounted.
fn own_in(hierarchy: Hierarchy) -> Result<(PathBuf, PathBuf), CgroupError> {
    let mount = mount(hierarchy)?;
    let text = fs::read_to_string("/proc/self/cgroup").map_err(CgroupError::Unreadable)?;
    let group = text
        .lines()
        .find_map(|line| hierarchy.group(line))
        .ok_or(CgroupError::NotMounted)?;
    let group = PathBuf::from(group);
    let own = match group.strip_prefix(&mount.root) {
        // Joining an empty path would add a slash.
        Ok(below) if below.as_os_str().is_empty() => mount.point.clone(),
        Ok(below) => mount.point.join(below),
        Err(_) => return Err(CgroupError::OutsideMount(group)),
    };
    match own.is_dir() {
        true => Ok((own, mount.point)),
        false => Err(CgroupError::OutsideMount(group)),
    }
}

/// A tree of groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hierarchy {
    /// That of cgroup v2.
    Unified,
    /// That of the memory controller, on systems that are still of version 1, or
    /// of both.
    Memory,
}

impl Hierarchy {
    /// Whether a mount of this type, with these options of its own, shows it.
    fn is_shown_by(self, kind: &str, options: &str) -> bool {
        match self {
            Self::Unified => kind == "cgroup2",
            Self::Memory => kind == "cgroup" && options.split(',').any(|name| name == "memory"),
        }
    }

    /// The group that a line of /proc/self/cgroup names, where it is of this one.
    fn group(self, line: &str) -> Option<&str> {
        let (_, rest) = line.split_once(':')?;
        let (controllers, group) = rest.split_once(':')?;
        let is_meant = match self {
            Self::Unified => line.starts_with("0::"),
            Self::Memory => controllers.split(',').any(|name| name == "memory"),
        };
        is_meant.then_some(group)
    }
}

struct Mount {
    point: PathBuf,
    /// The part of the hierarchy that the mount shows.
    root: PathBuf,
}

fn mount(hierarchy: Hierarchy) -> Result<Mount, CgroupError> {
    let text = fs::read_to_string("/proc/self/mountinfo").map_err(CgroupError::Unreadable)?;
    // A mount may be hidden under a later one: then its files are not there.
    mounts(&text, hierarchy)
        .find(|m| m.point.join("cgroup.procs").exists())
        .ok_or(CgroupError::NotMounted)
}

/// proc(5): id, parent, device, root, mount point, options, optional fields,
/// "-", type, source, options of the file system.
fn mounts(mountinfo: &str, hierarchy: Hierarchy) -> impl Iterator<Item = Mount> {
    mountinfo.lines().filter_map(move |line| {
        let (left, right) = line.split_once(" - ")?;
        let mut of_mount = right.split(' ');
        let (kind, _, options) = (of_mount.next()?, of_mount.next()?, of_mount.next()?);
        if !hierarchy.is_shown_by(kind, options) {
            return None;
        }
        let mut fields = left.split(' ').skip(3);
        let root = unescape(fields.next()?);
        let point = unescape(fields.next()?);
        Some(Mount { point, root })
    })
}

/// Space, tab, newline and backslash are written as octal escapes.
fn unescape(field: &str) -> PathBuf {
    let mut path = String::with_capacity(field.len());
    let mut rest = field;
    while let Some((before, after)) = rest.split_once('\\') {
        path.push_str(before);
        let digits = after
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match digits {
            Some(byte) => {
                path.push(byte as char);
                rest = &after[3..];
            }
            None => {
                path.push('\\');
                rest = after;
            }
        }
    }
    path.push_str(rest);
    PathBuf::from(path)
}

/// A directory of the unified hierarchy.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    directory: File,
}

impl Cgroup {
    /// Opens an existing group. Its path leads over no symbolic link: whoever
    /// may change one would say which group is meant.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Step by step: openat2 is what services under `RestrictSUIDSGID` lack.
        let step = |at: OwnedFd, name: Component<'_>| {
            rustix::fs::openat(at, name.as_os_str(), flags | OFlags::PATH, Mode::empty())
        };
        let here = rustix::fs::open(".", flags | OFlags::PATH, Mode::empty())?;
        let found = path.components().try_fold(here, step)?;
        let directory = rustix::fs::openat(found, ".", flags | OFlags::RDONLY, Mode::empty())?;
        Self::of(path, directory)
    }

    /// The group behind a descriptor, which is called by this path.
    pub fn of(path: &Path, directory: OwnedFd) -> io::Result<Self> {
        if rustix::fs::fstatfs(&directory)?.f_type != CGROUP2_SUPER_MAGIC {
            let error = "not a cgroup of a cgroup2 hierarchy";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        Ok(Self {
            path: path.to_owned(),
            directory: directory.into(),
        })
    }

    /// Makes a group in `parent`. One of the same name that a process which is
    /// gone left behind, empty, is replaced.
    pub fn create(parent: &Path, name: &str) -> io::Result<Self> {
        let path = parent.join(name);
        match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                remove(&path)?;
                fs::create_dir(&path)?;
            }
            other => other?,
        }
        Self::open(&path)
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its id: its inode, which the kernel does not use twice.
    pub fn id(&self) -> io::Result<u64> {
        self.directory.metadata().map(|metadata| metadata.ino())
    }

    /// Watches for the group to become empty.
    pub fn events(&self) -> io::Result<Events> {
        Events::open(&self.within())
    }

    /// The processes of this group and of those below it, in the numbers of
    /// the caller's pid namespace; one that is invisible there is left out.
    pub fn processes(&self) -> io::Result<Vec<i32>> {
        processes(&self.within())
    }

    /// Kills what is in it or below it, that which is being forked too (5.14).
    pub fn kill(&self) -> io::Result<()> {
        fs::write(self.within().join("cgroup.kill"), "1")
    }

    /// Removes it and those below it, unless another has its name by now.
    /// Fails with EBUSY where a process is left in one; one that is gone
    /// already is no error.
    pub fn remove(&self) -> io::Result<()> {
        let name = self.path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = self.path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = match Self::open(parent) {
            Err(error) if gone(&error) => return Ok(()),
            parent => parent?.directory,
        };
        let found = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW);
        if found.is_err() || found.is_ok_and(|found| self.id().ok() != Some(found.st_ino)) {
            return Ok(());
        }
        for child in children(&self.within())? {
            remove(&child)?;
        }
        match rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR).map_err(io::Error::from) {
            Err(error) if !gone(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// A path that leads to this group whatever has its name.
    fn within(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.directory.as_raw_fd()).into()
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// The `cgroup.events` file of a group: readable by poll(2) as POLLPRI when
/// it changed since it was last read.
#[derive(Debug)]
pub struct Events {
    file: File,
}

impl Events {
    fn open(group: &Path) -> io::Result<Self> {
        File::open(group.join("cgroup.events")).map(|file| Self { file })
    }

    /// Whether the group or one below it has a living process. A group that
    /// has been removed has none.
    pub fn populated(&self) -> io::Result<bool> {
        let mut buffer = [0; 128];
        match self.file.read_at(&mut buffer, 0) {
            Ok(length) => Ok(buffer[..length].windows(11).any(|w| w == b"populated 1")),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// See [`Cgroup::processes`].
pub(crate) fn processes(group: &Path) -> io::Result<Vec<i32>> {
    let text = fs::read_to_string(group.join("cgroup.procs"))?;
    let mut all: Vec<i32> = text
        .lines()
        .filter_map(|line| line.parse().ok())
        .filter(|&pid| pid != 0)
        .collect();
    for child in children(group)? {
        match processes(&child) {
            Ok(more) => all.extend(more),
            // A group below may be removed while we look.
            Err(error) if gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// Whether a living process is in the group or below it; false where the
/// group does not exist.
pub(crate) fn populated(group: &Path) -> io::Result<bool> {
    match Events::open(group) {
        Ok(events) => events.populated(),
        Err(error) if gone(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes a group and those below it. Fails with EBUSY where a process is
/// left in one; a group that is gone already is no error.
pub(crate) fn remove(group: &Path) -> io::Result<()> {
    match fs::remove_dir(group) {
        Ok(()) => return Ok(()),
        Err(error) if gone(&error) => return Ok(()),
        Err(error) if error.raw_os_error() != Some(libc::EBUSY) => return Err(error),
        Err(_) => {}
    }
    for child in children(group)? {
        remove(&child)?;
    }
    match fs::remove_dir(group) {
        Err(error) if !gone(&error) => Err(error),
        _ => Ok(()),
    }
}

/// The groups directly below.
pub(crate) fn children(group: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Whether a group was removed meanwhile.
pub(super) fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_system_mounts_it_elsewhere() {
        let text = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                    37 31 0:34 / /sys/fs/cgroup/systemd rw,relatime shared:5 - cgroup cgroup rw,name=systemd\n\
                    38 31 0:38 /machine\\040a /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let text =
            text.to_owned() + "39 31 0:39 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let found: Vec<Mount> = mounts(&text, Hierarchy::Unified).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].point, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(found[0].root, Path::new("/machine a"));
        let found: Vec<Mount> = mounts(&text, Hierarchy::Memory).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].point, Path::new("/sys/fs/cgroup/memory"));
    }

    #[test]
    fn a_process_has_a_group_in_each_hierarchy() {
        let group = |hierarchy: Hierarchy, line| hierarchy.group(line);
        assert_eq!(group(Hierarchy::Unified, "0::/a:b"), Some("/a:b"));
        assert_eq!(group(Hierarchy::Memory, "4:memory:/a"), Some("/a"));
        assert_eq!(group(Hierarchy::Memory, "4:cpu,memory:/a"), Some("/a"));
        for line in ["0::/a", "5:name=memory:/a", "4:cpu:/memory"] {
            assert_eq!(group(Hierarchy::Memory, line), None, "{line}");
        }
    }

    #[test]
    fn no_link_leads_to_a_group() {
        let own = own_cgroup().unwrap();
        let opened = Cgroup::open(&own).unwrap();
        assert_eq!(opened.id().unwrap(), own.metadata().unwrap().ino());
        let directory = std::env::temp_dir().join(format!("amb-B-way-{}", std::process::id()));
        std::os::unix::fs::symlink(own.parent().unwrap_or(&own), &directory).unwrap();
        let name = own.file_name().unwrap_or_default();
        for path in [directory.clone(), directory.join(name), "/tmp".into()] {
            assert!(Cgroup::open(&path).is_err(), "{}", path.display());
        }
        fs::remove_file(directory).unwrap();
    }

    #[test]
    fn a_group_is_made_watched_and_removed_with_those_below() {
        let name = format!("amb-B-group-{}", std::process::id());
        let group = Cgroup::create(&own_cgroup().unwrap(), &name).unwrap();
        fs::create_dir(group.path().join("below")).unwrap();
        assert!(!group.events().unwrap().populated().unwrap());

        let mut sleeper = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        fs::write(
            group.path().join("below/cgroup.procs"),
            sleeper.id().to_string(),
        )
        .unwrap();
        assert!(group.events().unwrap().populated().unwrap());
        assert_eq!(group.processes().unwrap(), [sleeper.id() as i32]);
        assert_eq!(
            remove(group.path()).unwrap_err().raw_os_error(),
            Some(libc::EBUSY)
        );

        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        assert!(!populated(group.path()).unwrap());
        let path = group.path().to_owned();
        // What was left empty is taken over, and what is open stays usable.
        drop(Cgroup::create(path.parent().unwrap(), &name).unwrap());
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
    }
}
