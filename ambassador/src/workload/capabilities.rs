//! Giving privileges away for good.
//!
//! Capabilities belong to threads, so this runs before threads are started,
//! and looks at every thread afterwards.

use std::fs;
use std::io;
use std::path::Path;

/// `CAP_SETPCAP` of capability.h: what dropping from the bounding set takes.
const SETPCAP: u32 = 8;
/// `_LINUX_CAPABILITY_VERSION_3`: two words of 32 bits per set.
const VERSION_3: u32 = 0x2008_0522;

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

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
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
#[expect(unsafe_code, reason = "std has no capset and no prctl")]
pub(crate) fn keep_only(kept: &[Capability]) -> io::Result<()> {
    shrink_bounding_set(kept)?;
    let status = fs::read_to_string("/proc/thread-self/status")?;
    let wanted = set_of(kept);
    // SAFETY: prctl with integer arguments touches no memory.
    if unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL,
            0,
            0,
            0,
        )
    } != 0
    {
        return Err(io::Error::last_os_error());
    }
    let remaining = mask(&status, "CapPrm").unwrap_or(0) & wanted;
    let sets = [0, 32].map(|shift| {
        let word = (remaining >> shift) as u32;
        Sets {
            effective: word,
            permitted: word,
            inheritable: 0,
        }
    });
    let header = Header {
        version: VERSION_3,
        pid: 0,
    };
    // SAFETY: version 3 reads one header and two words of sets, which live
    // until the call returns.
    if unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: prctl with integer arguments touches no memory.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Reduces what programs started from here can have to those that are named,
/// where this thread may.
#[expect(unsafe_code, reason = "std has no prctl")]
pub(super) fn shrink_bounding_set(kept: &[Capability]) -> io::Result<()> {
    let status = fs::read_to_string("/proc/thread-self/status")?;
    if mask(&status, "CapEff").unwrap_or(0) & (1 << SETPCAP) == 0 {
        return Ok(());
    }
    let wanted = set_of(kept);
    for capability in (0..64).filter(|c| wanted & (1 << c) == 0) {
        // SAFETY: prctl with integer arguments touches no memory.
        let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        if dropped != 0 {
            let error = io::Error::last_os_error();
            // EINVAL: above the last capability that this kernel knows.
            match error.raw_os_error() {
                Some(libc::EINVAL) => break,
                _ => return Err(error),
            }
        }
    }
    Ok(())
}

fn set_of(capabilities: &[Capability]) -> u64 {
    capabilities
        .iter()
        .fold(0, |mask, &capability| mask | 1 << capability as u32)
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
