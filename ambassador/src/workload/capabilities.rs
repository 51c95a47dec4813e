//! Gives capabilities up for good.
//!
//! Capabilities belong to threads, so this runs before threads are started, and
//! checks every thread afterwards.

use std::fs;
use std::io;
use std::path::Path;

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// Capabilities by number, as in capability.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Capability {
    /// Gives files and sockets to another user.
    Chown = 0,
    /// Acts on files of other users: cgroups that were delegated.
    DacOverride = 1,
    /// Signals programs of other users.
    Kill = 5,
    /// Becomes another group.
    SetGid = 6,
    /// Becomes another user.
    SetUid = 7,
    /// Has programs started from here do without capabilities.
    SetPcap = 8,
    /// Binds ports below 1024.
    NetBindService = 10,
    /// Changes packet filters, routes and socket marks.
    NetAdmin = 12,
    /// Opens the raw socket by which the older iptables speaks to the kernel.
    NetRaw = 13,
    /// Opens namespaces of processes of other users.
    SysPtrace = 19,
    /// Enters namespaces; attaches BPF programs to cgroups before 5.8.
    SysAdmin = 21,
    /// Loads BPF programs (5.8).
    Bpf = 39,
}

impl Capability {
    /// Its name in capabilities(7).
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Chown => "CAP_CHOWN",
            Self::DacOverride => "CAP_DAC_OVERRIDE",
            Self::Kill => "CAP_KILL",
            Self::SetGid => "CAP_SETGID",
            Self::SetUid => "CAP_SETUID",
            Self::SetPcap => "CAP_SETPCAP",
            Self::NetBindService => "CAP_NET_BIND_SERVICE",
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::NetRaw => "CAP_NET_RAW",
            Self::SysPtrace => "CAP_SYS_PTRACE",
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::Bpf => "CAP_BPF",
        }
    }
}

/// Gives up every capability of this process: effective, permitted,
/// inheritable, ambient and bounding, and sets no_new_privs, so that no program
/// it starts can regain one. Call it before threads are started; it fails when
/// some thread still holds a capability afterwards.
pub(crate) fn drop_all_capabilities() -> io::Result<()> {
    keep_only(&[])?;
    for task in fs::read_dir("/proc/self/task")? {
        let status = match fs::read_to_string(task?.path().join("status")) {
            Ok(status) => status,
            // The thread ended meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if ["CapEff", "CapPrm", "CapInh", "CapAmb"]
            .iter()
            .any(|set| mask(&status, set) != Some(0))
        {
            return Err(io::Error::other(
                "a thread started before the capabilities were dropped still holds some",
            ));
        }
    }
    Ok(())
}

/// Whether the calling thread may use a capability.
pub(crate) fn has(capability: Capability) -> bool {
    fs::read_to_string(Path::new("/proc/thread-self/status"))
        .ok()
        .and_then(|status| mask(&status, "CapEff"))
        .is_some_and(|mask| mask & (1 << capability as u32) != 0)
}

/// Reduces the calling thread to those of its capabilities that are named,
/// in every set, and sets no_new_privs.
pub(crate) fn keep_only(kept: &[Capability]) -> io::Result<()> {
    shrink_bounding_set(kept)?;
    clear_ambient_capability_set()?;
    let remaining = capabilities(None)?.permitted & set_of(kept);
    let sets = CapabilitySets {
        effective: remaining,
        permitted: remaining,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets)?;
    Ok(set_no_new_privs(true)?)
}

/// Reduces what programs started from here can have to those that are named,
/// where this thread may.
pub(super) fn shrink_bounding_set(kept: &[Capability]) -> io::Result<()> {
    if !capabilities(None)?
        .effective
        .contains(CapabilitySet::SETPCAP)
    {
        return Ok(());
    }
    let all = (0..u64::BITS).map(|number| CapabilitySet::from_bits_retain(1 << number));
    for dropped in all.filter(|one| !set_of(kept).contains(*one)) {
        match remove_capability_from_bounding_set(dropped) {
            // Above the last capability that this kernel knows.
            Err(Errno::INVAL) => break,
            removed => removed?,
        }
    }
    Ok(())
}

fn set_of(capabilities: &[Capability]) -> CapabilitySet {
    let bits = capabilities.iter().map(|&one| 1 << one as u32);
    CapabilitySet::from_bits_retain(bits.fold(0, |all, one| all | one))
}

fn mask(status: &str, name: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gives_up_all_it_had_and_the_process_notices_the_others() {
        assert!(has(Capability::SysAdmin), "this test needs root");
        std::thread::spawn(|| {
            // The thread that runs the test keeps its own.
            assert!(drop_all_capabilities().is_err());
            let status = fs::read_to_string("/proc/thread-self/status").unwrap();
            for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                assert_eq!(mask(&status, set), Some(0), "{set}");
            }
            assert!(status.contains("NoNewPrivs:\t1"));
            assert!(!has(Capability::SysAdmin));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn what_is_kept_stays_usable() {
        std::thread::spawn(|| {
            keep_only(&[Capability::NetAdmin]).unwrap();
            assert!(has(Capability::NetAdmin));
            assert!(!has(Capability::SysAdmin));
        })
        .join()
        .unwrap();
    }
}
