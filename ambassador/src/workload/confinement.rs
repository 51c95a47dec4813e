//! Confines the proxy before it serves.
//!
//! It becomes a user of its own without groups and capabilities, cannot regain
//! any, and no process of that user can read its memory. It must be called before
//! threads are started.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use super::capabilities::{Capability, drop_all_capabilities, keep_only, shrink_bounding_set};
use super::user::{Access, UserChange};
use super::{file_access, seccomp};

static CONFINED: AtomicBool = AtomicBool::new(false);

/// Gives everything up that serving does not take. Of files, it goes on writing
/// those that are named.
pub(crate) fn confine(user: &UserChange, named: &[(PathBuf, Access)]) -> io::Result<()> {
    // Takes a capability, which goes with the user.
    shrink_bounding_set(&[])?;
    user.assume()?;
    drop_all_capabilities()?;
    keep_memory_private()?;
    file_access::restrict(named)?;
    match seccomp::restrict_proxy() {
        Err(error) if seccomp::is_missing(&error) => {
            tracing::warn!(%error, "system calls are not restricted: this kernel has no filters");
        }
        restricted => restricted?,
    }
    CONFINED.store(true, Ordering::Relaxed);
    Ok(())
}

/// Whether this process has given up what it had at its start.
pub(crate) fn is_confined() -> bool {
    CONFINED.load(Ordering::Relaxed)
}

/// What a process that runs commands for the proxy does without: everything but that.
pub(super) fn confine_runner(user: &UserChange) -> io::Result<()> {
    shrink_bounding_set(&[])?;
    user.assume()?;
    drop_all_capabilities()?;
    keep_memory_private()
}

/// What a process does without that starts those: it becomes another user in them, and
/// reads the configuration.
pub(super) fn confine_keeper_of_runners() -> io::Result<()> {
    use Capability::{DacOverride, SetGid, SetPcap, SetUid};
    keep_only(&[DacOverride, SetGid, SetPcap, SetUid])?;
    keep_memory_private()
}

/// What a process that keeps some privileges for the proxy does without.
pub(crate) fn confine_helper(kept: &[Capability]) -> io::Result<()> {
    keep_only(kept)?;
    keep_memory_private()?;
    match seccomp::restrict_helper() {
        // The proxy has said so.
        Err(error) if seccomp::is_missing(&error) => Ok(()),
        restricted => restricted,
    }
}

/// No core dump, and no ptrace or look at /proc/PID/{mem,fd,environ} by a process
/// without CAP_SYS_PTRACE, be it of the same user.
fn keep_memory_private() -> io::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}
