//! What the proxy may write once it has started, where the kernel has Landlock
//! (5.13): files and sockets in the directories that were named at the start.
//!
//! It runs no program, and where the kernel can tell (6.12), it signals no process
//! and connects to no abstract socket outside. Reading is left to its user: a
//! workload's files are in mounts of its own, which may come after the start.

use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope,
};

use super::user::Access;

/// What the rules were written against; an older kernel applies what it knows.
const KNOWN: ABI = ABI::V6;

/// The version from which on all of the rules are applied.
pub(crate) const WHOLE: u32 = KNOWN as u32;

/// The version of Landlock that the kernel has in use; the error of one that has
/// none.
#[expect(unsafe_code, reason = "std has no Landlock")]
pub(crate) fn version() -> io::Result<u32> {
    const OF_THE_VERSION: u32 = 1;
    let nothing = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag the kernel reads no memory, and says a number.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            nothing,
            0_usize,
            OF_THE_VERSION,
        )
    };
    u32::try_from(version).map_err(|_| io::Error::last_os_error())
}

/// Restricts this thread, and those that it starts, to writing these.
pub(super) fn restrict(named: &[(PathBuf, Access)]) -> io::Result<()> {
    with_rules(named).map_err(io::Error::other)
}

fn with_rules(named: &[(PathBuf, Access)]) -> Result<(), RulesetError> {
    let reading = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(KNOWN) & !reading)?
        .scope(Scope::from_all(KNOWN))?
        .create()?;
    for (path, access) in named {
        let Some(rights) = rights_beside(*access) else {
            continue;
        };
        // In a directory that is not there, nothing is made.
        let directory = path.parent().unwrap_or(Path::new("/"));
        if let Ok(directory) = PathFd::new(directory) {
            rules = rules.add_rule(PathBeneath::new(directory, rights))?;
        }
    }
    rules.restrict_self().map(drop)
}

/// What a file that is used like this takes in its directory.
fn rights_beside(access: Access) -> Option<BitFlags<AccessFs>> {
    match access {
        Access::Read => None,
        Access::Append => Some(AccessFs::WriteFile | AccessFs::Truncate | AccessFs::MakeReg),
        Access::Remove => Some(AccessFs::MakeSock | AccessFs::RemoveFile),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    use super::*;

    #[test]
    fn only_what_was_named_is_written() {
        let name = format!("file-access-{}", std::process::id());
        let scratch = std::env::temp_dir().join(name);
        let root = scratch.clone();
        let at = move |name: &str| root.join(name);
        for directory in ["log", "run", "other"] {
            fs::create_dir_all(at(directory)).unwrap();
            fs::write(at(directory).join("file"), "text").unwrap();
        }
        let named = [
            (at("log/access.log"), Access::Append),
            (at("run/admin.sock"), Access::Remove),
            (at("other/token"), Access::Read),
            (at("none/access.log"), Access::Append),
        ];
        // Only the thread is restricted.
        let thread = std::thread::spawn(move || {
            restrict(&named).unwrap();
            let append = |path| OpenOptions::new().append(true).create(true).open(path);
            let file = append(at("log/access.log")).unwrap();
            file.set_len(0).unwrap();
            UnixListener::bind(at("run/admin.sock")).unwrap();
            fs::remove_file(at("run/admin.sock")).unwrap();
            assert_eq!(fs::read_to_string(at("other/file")).unwrap(), "text");
            let kept = |result: io::Result<()>| {
                let error = result.expect_err("nothing allows it");
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            };
            kept(append(at("other/file")).map(drop));
            kept(append(at("run/new")).map(drop));
            kept(fs::remove_file(at("log/file")));
            kept(fs::rename(at("log/file"), at("log/old")));
            kept(fs::create_dir(at("log/new")));
            kept(UnixListener::bind(at("log/new.sock")).map(drop));
            kept(Command::new("/bin/true").status().map(drop));
        });
        thread.join().unwrap();
        fs::remove_dir_all(scratch).unwrap();
    }
}
