//! Datagrams with descriptors over a SOCK_SEQPACKET pair (unix(7),
//! SCM_RIGHTS).

#![expect(unsafe_code, reason = "std has no SCM_RIGHTS and no SOCK_SEQPACKET")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Descriptors in one datagram at most; the kernel takes 253 (SCM_MAX_FD).
pub(crate) const FDS_MAX: usize = 64;
/// Bytes in one datagram at most: a JSON text that names a thousand cgroups or
/// some thousand networks. A socket's default buffer takes 208 KiB.
pub(crate) const BYTES_MAX: usize = 128 * 1024;

/// Room for the control message that holds [`FDS_MAX`] descriptors.
// SAFETY: CMSG_SPACE is arithmetic.
const CONTROL: usize = unsafe { libc::CMSG_SPACE((FDS_MAX * size_of::<RawFd>()) as u32) } as usize;

/// Control buffers must be aligned as cmsghdr is.
#[repr(C)]
struct Control {
    align: [libc::cmsghdr; 0],
    bytes: [MaybeUninit<u8>; CONTROL],
}

impl Control {
    const fn new() -> Self {
        Self {
            align: [],
            bytes: [MaybeUninit::uninit(); CONTROL],
        }
    }
}

/// A connected pair, both ends close-on-exec.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: socketpair writes two descriptors into the array; they are ours.
    unsafe {
        if libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])))
    }
}

/// Sends one datagram; `bytes` is not empty, since an empty one would read as
/// the end.
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if bytes.is_empty() || bytes.len() > BYTES_MAX || fds.len() > FDS_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let length = size_of_val(&*raw) as u32;
    let mut control = Control::new();
    let mut data = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: msghdr is plain data for which zero is a valid value. The header
    // and data written stay inside `control`, which has room for FDS_MAX
    // descriptors, and all buffers outlive the call.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut data;
        message.msg_iovlen = 1;
        if !raw.is_empty() {
            message.msg_control = control.bytes.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(length) as _;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(length) as _;
            std::ptr::copy_nonoverlapping(raw.as_ptr(), libc::CMSG_DATA(header).cast(), raw.len());
        }
        retried(|| libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL))
            .map(drop)
    }
}

/// Receives one datagram; None when the other end is closed. Every descriptor
/// that arrived is owned by the result, close-on-exec.
pub(crate) fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let Some(length) = next_length(socket)? else {
        return Ok(None);
    };
    if length > BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length];
    let mut control = Control::new();
    let mut data = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: msghdr is plain data for which zero is a valid value; the
    // buffers outlive the call and their sizes are given. The kernel has
    // filled msg_control up to msg_controllen when the headers are read, and
    // the descriptors in it are new and ours.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut data;
        message.msg_iovlen = 1;
        message.msg_control = control.bytes.as_mut_ptr().cast();
        message.msg_controllen = CONTROL as _;
        let length = retried(|| {
            libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC)
        })?;
        let mut fds = Vec::new();
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let bytes = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let first: *const RawFd = libc::CMSG_DATA(header).cast();
                for index in 0..bytes / size_of::<RawFd>() {
                    fds.push(OwnedFd::from_raw_fd(first.add(index).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
        if message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        bytes.truncate(length);
        Ok(Some((bytes, fds)))
    }
}

/// Waits for a datagram and says how long it is; None when the other end is
/// closed.
fn next_length(socket: BorrowedFd<'_>) -> io::Result<Option<usize>> {
    let flags = libc::MSG_PEEK | libc::MSG_TRUNC;
    // SAFETY: nothing is written to a buffer of no length.
    let length =
        retried(|| unsafe { libc::recv(socket.as_raw_fd(), std::ptr::null_mut(), 0, flags) });
    match length {
        Ok(0) => Ok(None),
        // The other end died with datagrams unread.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
        length => length.map(Some),
    }
}

/// Makes a system call again for as long as it is interrupted.
fn retried(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match call() {
            length @ 0.. => return Ok(length as usize),
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}
