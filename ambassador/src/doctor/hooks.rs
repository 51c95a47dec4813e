//! Who else has programs on the hooks that capture uses.

#![expect(unsafe_code, reason = "bpf(2) calls that only ask")]

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

/// The hooks, by `bpf_attach_type` of bpf.h.
const HOOKS: [(u32, &str); 4] = [
    (10, "connect4"),
    (11, "connect6"),
    (29, "getpeername4"),
    (30, "getpeername6"),
];

/// Commands of bpf(2).
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const PROG_QUERY: libc::c_long = 16;
/// `BPF_F_QUERY_EFFECTIVE`: those of the groups above as well.
const QUERY_EFFECTIVE: u32 = 1;
/// Programs on one hook; the kernel allows 64 for each group.
const PROGRAMS_MAX: usize = 256;
/// `offsetof(struct bpf_prog_info, name)` and its length.
const NAME: std::ops::Range<usize> = 64..80;

/// A program that runs when a program of the cgroup connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// The hook: `connect4`, `connect6`, `getpeername4` or `getpeername6`.
    pub hook: &'static str,
    /// The kernel's number of the program.
    pub id: u32,
    /// Its name, at most 15 bytes; empty when it cannot be read.
    pub name: String,
}

impl fmt::Display for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has program {} {:?}", self.hook, self.id, self.name)
    }
}

#[repr(C)]
struct Query {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

#[repr(C)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

#[repr(C)]
struct Info {
    fd: u32,
    length: u32,
    info: u64,
}

/// Everything on our hooks in a cgroup and those above it, ours included.
pub fn others_attached(cgroup: &Path) -> io::Result<Vec<Attached>> {
    let directory = File::open(cgroup)?;
    let mut attached = Vec::new();
    for (attach_type, hook) in HOOKS {
        let mut ids = [0u32; PROGRAMS_MAX];
        let mut query = Query {
            target: directory.as_raw_fd() as u32,
            attach_type,
            query_flags: QUERY_EFFECTIVE,
            attach_flags: 0,
            ids: ids.as_mut_ptr() as u64,
            count: PROGRAMS_MAX as u32,
            padding: 0,
        };
        // SAFETY: the kernel writes at most `count` ids to the array and the
        // number of them to the attributes; both live through the call.
        unsafe { bpf(PROG_QUERY, &mut query)? };
        for &id in ids.iter().take(query.count as usize) {
            attached.push(Attached {
                hook,
                id,
                name: name(id).unwrap_or_default(),
            });
        }
    }
    Ok(attached)
}

fn name(id: u32) -> io::Result<String> {
    let mut by_id = ById {
        id,
        next: 0,
        flags: 0,
    };
    // SAFETY: the attributes are plain integers; a descriptor returned is new
    // and ours.
    let program = unsafe {
        let fd = bpf(PROG_GET_FD_BY_ID, &mut by_id)?;
        OwnedFd::from_raw_fd(fd)
    };
    // Zero where the kernel reads it: no instructions, no maps are asked for.
    let mut info = [0u64; 32];
    let mut ask = Info {
        fd: program.as_raw_fd() as u32,
        length: size_of_val(&info) as u32,
        info: info.as_mut_ptr() as u64,
    };
    // SAFETY: the kernel writes at most `length` bytes to the buffer.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut ask)? };
    let bytes: Vec<u8> = info.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let name = bytes[NAME]
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// # Safety
/// The attributes are those of the command, and what they point to is alive.
unsafe fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the size given is that of the attributes; the rest is the
    // caller's promise.
    match unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) } {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result as i32),
    }
}
