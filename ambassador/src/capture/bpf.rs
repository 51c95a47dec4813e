//! The few bpf() commands the proxy itself needs, on descriptors it was given.
//! Map commands need no privilege; the link and query commands are the
//! loader's. Layouts are those of `union bpf_attr`, linux/bpf.h of 6.1.
#![expect(unsafe_code, reason = "bpf() takes pointers")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const MAP_DELETE_ELEM: libc::c_int = 3;
const OBJ_PIN: libc::c_int = 6;
const OBJ_GET: libc::c_int = 7;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const MAP_GET_FD_BY_ID: libc::c_int = 14;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const PROG_QUERY: libc::c_int = 16;
const LINK_CREATE: libc::c_int = 28;
const LINK_UPDATE: libc::c_int = 29;

/// Programs that are asked for on one hook; the kernel allows 64 for each group.
const PROGRAMS_MAX: usize = 256;
/// Maps that are asked for of one program; the kernel allows 64.
const MAPS_MAX: usize = 64;
/// `BPF_F_QUERY_EFFECTIVE`: ancestors' programs too.
const QUERY_EFFECTIVE: u32 = 1;

/// Attach types of cgroup socket-address programs (`enum bpf_attach_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Hook {
    Connect4 = 10,
    Connect6 = 11,
    Sendmsg4 = 14,
    Sendmsg6 = 15,
    Getpeername4 = 29,
    Getpeername6 = 30,
}

#[repr(C)]
struct ElemAttr {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ObjAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

#[repr(C)]
struct LinkCreateAttr {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
struct LinkUpdateAttr {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

#[repr(C)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    pad: u32,
}

#[repr(C)]
struct IdAttr {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

#[repr(C)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: attr is a live, fully initialised prefix of union bpf_attr whose
    // pointers the callers below keep valid for the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: the command returned a new descriptor, which nobody else owns.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd() as u32
}

/// Plain data with no padding that matters: any bytes the kernel writes are a
/// value.
///
/// # Safety
/// The type must be `repr(C)` and valid for every bit pattern.
pub(super) unsafe trait Plain: Copy {}
// SAFETY: integers and repr(C) structs of integers.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for ambassador_ebpf::Slot {}

/// Reads the element of `key` into `value`. `false`: there is none.
pub(super) fn read<K: Copy, V: Plain>(
    map: BorrowedFd<'_>,
    key: &K,
    value: &mut [V],
) -> io::Result<bool> {
    let mut attr = ElemAttr {
        map_fd: raw(map),
        pad: 0,
        key: std::ptr::from_ref(key) as u64,
        value: value.as_mut_ptr() as u64,
        flags: 0,
    };
    match bpf(MAP_LOOKUP_ELEM, &mut attr) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

// SAFETY: as above.
unsafe impl Plain for u64 {}

/// Writes an element.
pub(super) fn write<K: Copy, V: Copy>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    let mut attr = ElemAttr {
        map_fd: raw(map),
        pad: 0,
        key: std::ptr::from_ref(key) as u64,
        value: std::ptr::from_ref(value) as u64,
        flags: 0,
    };
    bpf(MAP_UPDATE_ELEM, &mut attr).map(drop)
}

/// Appends to a queue.
pub(super) fn push<V: Copy>(queue: BorrowedFd<'_>, value: &V) -> io::Result<()> {
    let mut attr = ElemAttr {
        map_fd: raw(queue),
        pad: 0,
        // It has none.
        key: 0,
        value: std::ptr::from_ref(value) as u64,
        flags: 0,
    };
    bpf(MAP_UPDATE_ELEM, &mut attr).map(drop)
}

/// Removes an element; one that is not there is no error.
pub(super) fn remove<K: Copy>(map: BorrowedFd<'_>, key: &K) -> io::Result<()> {
    let mut attr = ElemAttr {
        map_fd: raw(map),
        pad: 0,
        key: std::ptr::from_ref(key) as u64,
        value: 0,
        flags: 0,
    };
    match bpf(MAP_DELETE_ELEM, &mut attr) {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
        _ => Ok(()),
    }
}

/// Attaches a program to a cgroup; it stays as long as the link is held.
pub(super) fn attach(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    hook: Hook,
) -> io::Result<OwnedFd> {
    let mut attr = LinkCreateAttr {
        prog_fd: raw(program),
        target_fd: raw(cgroup),
        attach_type: hook as u32,
        flags: 0,
    };
    bpf(LINK_CREATE, &mut attr).map(owned)
}

/// Puts another program behind a link, in one step.
pub(super) fn relink(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdateAttr {
        link_fd: raw(link),
        new_prog_fd: raw(program),
        flags: 0,
        old_prog_fd: 0,
    };
    bpf(LINK_UPDATE, &mut attr).map(drop)
}

/// Gives an object a name in bpffs, which keeps it alive.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = ObjAttr {
        pathname: path.as_ptr() as u64,
        bpf_fd: raw(object),
        file_flags: 0,
    };
    bpf(OBJ_PIN, &mut attr).map(drop)
}

/// Opens a pinned object.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = ObjAttr {
        pathname: path.as_ptr() as u64,
        bpf_fd: 0,
        file_flags: 0,
    };
    bpf(OBJ_GET, &mut attr).map(owned)
}

/// The cgroup that a cgroup link holds on to (`struct bpf_link_info`, offset
/// 16); 0 once that has been removed.
pub(super) fn linked_cgroup(link: BorrowedFd<'_>) -> io::Result<u64> {
    let mut info = [0_u64; 4];
    let mut attr = InfoAttr {
        bpf_fd: raw(link),
        info_len: size_of_val(&info) as u32,
        info: info.as_mut_ptr() as u64,
    };
    bpf(OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info[2])
}

/// The ids of the programs that run for a cgroup at a hook, ancestors' too.
pub(super) fn effective(cgroup: BorrowedFd<'_>, hook: Hook) -> io::Result<Vec<u32>> {
    let mut ids = [0_u32; PROGRAMS_MAX];
    let mut attr = QueryAttr {
        target_fd: raw(cgroup),
        attach_type: hook as u32,
        query_flags: QUERY_EFFECTIVE,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: ids.len() as u32,
        pad: 0,
    };
    bpf(PROG_QUERY, &mut attr)?;
    Ok(ids[..(attr.prog_cnt as usize).min(ids.len())].to_vec())
}

/// The name of a loaded program (`struct bpf_prog_info`, offset 64, 16 bytes).
pub(super) fn program_name(id: u32) -> io::Result<String> {
    let program = by_id(PROG_GET_FD_BY_ID, id)?;
    let mut info = [0_u64; 10];
    info_of(program.as_fd(), &mut info)?;
    Ok(name_in([info[8], info[9]]))
}

/// The names of the maps that a loaded program uses (`nr_map_ids` at offset 52
/// of `struct bpf_prog_info`, `map_ids` at 56; `name` at 24 of `struct
/// bpf_map_info`).
pub(super) fn program_maps(id: u32) -> io::Result<Vec<String>> {
    let program = by_id(PROG_GET_FD_BY_ID, id)?;
    let mut ids = [0_u32; MAPS_MAX];
    let mut info = [0_u64; 10];
    set_half(&mut info[6], 1, MAPS_MAX as u32);
    info[7] = ids.as_mut_ptr() as u64;
    info_of(program.as_fd(), &mut info)?;
    let count = half(info[6], 1) as usize;
    let mut names = Vec::new();
    for &id in &ids[..count.min(MAPS_MAX)] {
        let map = by_id(MAP_GET_FD_BY_ID, id)?;
        let mut info = [0_u64; 5];
        info_of(map.as_fd(), &mut info)?;
        names.push(name_in([info[3], info[4]]));
    }
    Ok(names)
}

fn by_id(command: libc::c_int, id: u32) -> io::Result<OwnedFd> {
    let mut attr = IdAttr {
        id,
        next_id: 0,
        open_flags: 0,
    };
    bpf(command, &mut attr).map(owned)
}

/// What the kernel says of an object, as far as it fits in `info`; pointers in
/// there are to live arrays of the length given beside them.
fn info_of(object: BorrowedFd<'_>, info: &mut [u64]) -> io::Result<()> {
    let mut attr = InfoAttr {
        bpf_fd: raw(object),
        info_len: size_of_val(info) as u32,
        info: info.as_mut_ptr() as u64,
    };
    bpf(OBJ_GET_INFO_BY_FD, &mut attr).map(drop)
}

/// One of the two 32-bit numbers in eight bytes, in the order of memory.
fn half(bytes: u64, at: usize) -> u32 {
    let bytes = bytes.to_ne_bytes();
    let half = bytes[4 * at..4 * at + 4].try_into();
    half.map_or(0, u32::from_ne_bytes)
}

fn set_half(bytes: &mut u64, at: usize, value: u32) {
    let mut all = bytes.to_ne_bytes();
    all[4 * at..4 * at + 4].copy_from_slice(&value.to_ne_bytes());
    *bytes = u64::from_ne_bytes(all);
}

/// A name of at most 16 bytes, padded with zeros.
fn name_in(words: [u64; 2]) -> String {
    let bytes = words.map(u64::to_ne_bytes);
    let name = bytes.as_flattened();
    let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
    String::from_utf8_lossy(&name[..end]).into_owned()
}
