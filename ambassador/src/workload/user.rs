//! Who the proxy is after the start: a user of its own, who owns nothing.
//!
//! Users are looked up in /etc/passwd alone: the name services of a machine are
//! libraries and daemons, and this process is root when it asks.

#![expect(
    unsafe_code,
    reason = "only the C library changes the user of all threads"
)]

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self as file, AtFlags, CWD};
use rustix::process::{Gid, Uid, getegid, geteuid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use serde::{Deserialize, Serialize};

use super::capabilities::{self, Capability};

/// Who `auto` is, where there is such a user.
pub(crate) const USER: &str = "ambassador";

/// What the setting `user` says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum User {
    /// [`USER`], else a number that nobody has. Without root: who it is already.
    #[default]
    Auto,
    /// A name in /etc/passwd.
    Named(String),
    /// A user and a group by number.
    Ids(Ids),
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Named(name) => f.write_str(name),
            Self::Ids(ids) => ids.fmt(f),
        }
    }
}

/// A user and a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

impl fmt::Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

/// Whom this process becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UserChange {
    /// `None`: it stays who it is.
    to: Option<Ids>,
    /// Why that is less than it could be.
    pub remark: Option<String>,
}

/// A user that the proxy cannot become, in words.
#[derive(Debug)]
pub(crate) struct UserError(String);

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UserError {}

impl UserChange {
    /// Looks up whom to become, from who this process is now.
    pub(crate) fn plan(user: &User) -> Result<Self, UserError> {
        let now = Ids {
            uid: geteuid().as_raw(),
            gid: getegid().as_raw(),
        };
        let missing: Vec<&str> = [Capability::SetUid, Capability::SetGid]
            .into_iter()
            .filter(|needed| !capabilities::has(*needed))
            .map(Capability::name)
            .collect();
        let wanted = match user {
            User::Auto if now.uid != 0 => return Ok(Self::staying(None)),
            User::Auto if !missing.is_empty() => {
                let missing = missing.join(" and ");
                return Ok(Self::staying(Some(format!("{missing} is missing"))));
            }
            User::Auto => match passwd(USER).or_else(unused) {
                Some(ids) => ids,
                None => {
                    let why = "this user namespace has no number to spare";
                    return Ok(Self::staying(Some(why.to_owned())));
                }
            },
            User::Named(name) => passwd(name)
                .ok_or_else(|| UserError(format!("there is no user {name} in /etc/passwd")))?,
            User::Ids(ids) => *ids,
        };
        if wanted == now {
            return Ok(Self::staying(None));
        }
        match missing.is_empty() {
            true => Ok(Self {
                to: Some(wanted),
                remark: None,
            }),
            false => Err(UserError(format!(
                "cannot become {wanted} without {}: run as root, or with that capability",
                missing.join(" and ")
            ))),
        }
    }

    /// That of these numbers; `None`: it stays who it is.
    pub(super) fn of(to: Option<Ids>) -> Self {
        Self { to, remark: None }
    }

    /// Whom to become; `None`: it stays who it is.
    pub(super) fn ids(&self) -> Option<Ids> {
        self.to
    }

    fn staying(remark: Option<String>) -> Self {
        Self { to: None, remark }
    }

    /// Which of these files it cannot open as this process could, and as the
    /// reader or writer that it is to them.
    pub(crate) fn out_of_reach(&self, files: &[(PathBuf, Access)]) -> io::Result<bool> {
        let Some(ids) = self.to else {
            return Ok(false);
        };
        // A thread of its own may be another user, for as long as it lives.
        std::thread::scope(|scope| {
            let look = || -> io::Result<bool> {
                this_thread_becomes(ids)?;
                Ok(files.iter().any(|(path, access)| !access.is_granted(path)))
            };
            let looked = scope.spawn(look).join();
            looked.unwrap_or_else(|_| Err(io::Error::other("the look at files panicked")))
        })
    }

    /// Becomes it, for good, and leaves every group behind. Capabilities that are
    /// not of the bounding set alone go with the user, where that changes.
    pub(super) fn assume(&self) -> io::Result<()> {
        if capabilities::has(Capability::SetGid) && may_leave_groups() {
            // SAFETY: an empty list is read.
            checked(unsafe { libc::setgroups(0, std::ptr::null()) })?;
        }
        let Some(Ids { uid, gid }) = self.to else {
            return Ok(());
        };
        // SAFETY: they take numbers.
        unsafe {
            checked(libc::setresgid(gid, gid, gid))?;
            checked(libc::setresuid(uid, uid, uid))
        }
    }
}

/// How a file is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Read, whole.
    Read,
    /// Appended to, and made anew when it was moved away.
    Append,
    /// A socket, removed at the end.
    Remove,
}

impl Access {
    /// Whether this thread may. What is not there is in nobody's reach.
    fn is_granted(self, path: &Path) -> bool {
        let parent = path.parent().unwrap_or(Path::new("/"));
        match self {
            Self::Read => may(path, file::Access::READ_OK),
            Self::Append => {
                may(parent, file::Access::WRITE_OK | file::Access::EXEC_OK)
                    && (!path.exists() || may(path, file::Access::WRITE_OK))
            }
            // Where the directory is sticky, only its owner may.
            Self::Remove => {
                let sticky = |directory: fs::Metadata| directory.mode() & libc::S_ISVTX != 0;
                may(parent, file::Access::WRITE_OK | file::Access::EXEC_OK)
                    && !parent.metadata().is_ok_and(sticky)
            }
        }
    }
}

fn may(path: &Path, what: file::Access) -> bool {
    file::accessat(CWD, path, what, AtFlags::EACCESS).is_ok()
}

/// The calls of the C library change all threads; these change one.
fn this_thread_becomes(Ids { uid, gid }: Ids) -> io::Result<()> {
    if may_leave_groups() {
        set_thread_groups(&[])?;
    }
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    set_thread_res_gid(gid, gid, gid)?;
    Ok(set_thread_res_uid(uid, uid, uid)?)
}

fn checked(result: i32) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A user namespace that was made without privileges keeps its groups.
fn may_leave_groups() -> bool {
    fs::read_to_string("/proc/self/setgroups").is_ok_and(|word| word.trim() != "deny")
}

/// The user of this name in /etc/passwd.
fn passwd(name: &str) -> Option<Ids> {
    let text = fs::read_to_string("/etc/passwd").ok()?;
    ids_of(&text, name)
}

fn ids_of(passwd: &str, name: &str) -> Option<Ids> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Ids { uid, gid })
    })
}

/// Numbers that no distribution, container manager or range of subordinate users
/// gives out.
const UNUSED: u32 = 0x7000_0000;
/// Process ids are below this (PID_MAX_LIMIT).
const PIDS: u32 = 1 << 22;
/// The place of the number that no process has.
const NOBODY: u32 = 0;
/// Reserved at the upper end of a small namespace; numbers below it are used.
const RESERVED: u32 = 1_024;
const SPARE: u32 = 2_048;

/// A number that nobody has but this process: another ambassador, taken over,
/// could end one of the same user.
fn unused() -> Option<Ids> {
    let number = |file: &str| {
        let map = fs::read_to_string(file).ok()?;
        unused_in(&map, 1 + std::process::id() % PIDS)
    };
    Some(Ids {
        uid: number("/proc/self/uid_map")?,
        gid: number("/proc/self/gid_map")?,
    })
}

/// The number at this place among the unused ones that the namespace knows.
fn unused_in(map: &str, place: u32) -> Option<u32> {
    let wanted = UNUSED + place;
    let mut ends = Vec::new();
    for line in map.lines() {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let (Some(Ok(first)), _, Some(Ok(count))) =
            (numbers.next(), numbers.next(), numbers.next())
        else {
            return None;
        };
        if wanted.checked_sub(first).is_some_and(|at| at < count) {
            return Some(wanted);
        }
        if count > RESERVED + SPARE {
            ends.push(first + count);
        }
    }
    let end = ends.into_iter().max()?;
    let place = if place == 0 {
        0
    } else {
        1 + place % (SPARE - 1)
    };
    Some(end - RESERVED - 1 - place)
}

/// The owner of sockets that share a port: no process is this user, so none can
/// join them. `None` where the namespace does not know it.
pub(super) fn nobody() -> Option<u32> {
    let map = fs::read_to_string("/proc/self/uid_map").ok()?;
    unused_in(&map, NOBODY)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "         0          0 4294967295\n";

    #[test]
    fn a_user_is_found_by_the_whole_name() {
        let text =
            "root:x:0:0:root:/root:/bin/sh\nambassadors:x:7:7::/:\nambassador:x:998:997::/:\n";
        let ids = |uid, gid| Some(Ids { uid, gid });
        assert_eq!(ids_of(text, "ambassador"), ids(998, 997));
        assert_eq!(ids_of(text, "ambass"), None);
        assert_eq!(ids_of("ambassador:x:no:1::/:\n", "ambassador"), None);
    }

    #[test]
    fn each_process_has_a_number_of_its_own_that_its_namespace_knows() {
        assert_ne!(unused_in(WHOLE, 7), unused_in(WHOLE, 8));
        assert!(unused_in(WHOLE, 7).unwrap() > UNUSED);
        let rootless = "0 1000 1\n1 100000 65536\n";
        let number = unused_in(rootless, 7).unwrap();
        assert!((60_000..64_600).contains(&number), "{number}");
        assert_eq!(unused_in("0 1000 1\n", 7), None);
        assert_eq!(unused_in("", 7), None);
    }

    #[test]
    fn nobody_is_no_process() {
        for map in [WHOLE, "0 1000 65536"] {
            let nobody = unused_in(map, NOBODY).unwrap();
            for place in [1, 2, SPARE - 1, SPARE, PIDS] {
                assert_ne!(unused_in(map, place), Some(nobody), "{place}");
            }
        }
    }

    #[test]
    fn what_only_root_may_read_is_out_of_reach() {
        use std::os::unix::fs::PermissionsExt;
        let name = format!("identity-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        let file = directory.join("file");
        fs::write(&file, "").unwrap();
        let other = UserChange::plan(&User::Ids(Ids { uid: 7, gid: 7 })).unwrap();
        let reach = |mode, access| {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            !other.out_of_reach(&[(file.clone(), access)]).unwrap()
        };
        assert!(reach(0o644, Access::Read));
        assert!(!reach(0o600, Access::Read));
        // What is moved away is made anew in its directory.
        assert!(!reach(0o666, Access::Append));
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(reach(0o666, Access::Append));
        assert!(!reach(0o644, Access::Append));
        fs::remove_dir_all(directory).unwrap();
        // The thread that looked was another, and this one is who it was.
        assert!(
            capabilities::has(Capability::SetUid),
            "this test needs root"
        );
    }
}
