//! Messages with descriptors between the proxy and its loader.
#![expect(unsafe_code, reason = "SCM_RIGHTS is built from raw parts")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Descriptors one message carries at most: those of one target.
const FDS_MAX: usize = 16;
/// The longest message: a request that names some thousand targets.
const MESSAGE_MAX: usize = 128 * 1024;

/// Two connected ends, close-on-exec, keeping message boundaries.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: the array has room for the two descriptors.
    let result = unsafe {
        libc::socketpair(
            libc::AF_UNIX,
            libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC,
            0,
            fds.as_mut_ptr(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both are new and owned by nobody else.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

#[repr(align(8))]
struct Control([u8; 128]);

/// Sends one message.
pub(super) fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    assert!(
        fds.len() <= FDS_MAX,
        "a message carries one target's descriptors"
    );
    let body = serde_json::to_vec(message)?;
    if body.len() > MESSAGE_MAX {
        return Err(io::Error::other("too many capture targets for one start"));
    }
    let mut part = libc::iovec {
        iov_base: body.as_ptr().cast_mut().cast(),
        iov_len: body.len(),
    };
    let mut control = Control([0; 128]);
    // SAFETY: zero is a valid msghdr; every pointer put into it outlives the
    // call; CMSG_SPACE(16 descriptors) is 80 bytes, within the buffer.
    let sent = unsafe {
        let mut header: libc::msghdr = MaybeUninit::zeroed().assume_init();
        header.msg_iov = &mut part;
        header.msg_iovlen = 1;
        if !fds.is_empty() {
            let bytes = size_of_val(fds) as u32;
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = libc::CMSG_SPACE(bytes) as usize;
            let first = libc::CMSG_FIRSTHDR(&header);
            (*first).cmsg_level = libc::SOL_SOCKET;
            (*first).cmsg_type = libc::SCM_RIGHTS;
            (*first).cmsg_len = libc::CMSG_LEN(bytes) as usize;
            let data = libc::CMSG_DATA(first).cast::<i32>();
            for (i, fd) in fds.iter().enumerate() {
                data.add(i).write_unaligned(fd.as_raw_fd());
            }
        }
        libc::sendmsg(socket.as_raw_fd(), &header, libc::MSG_NOSIGNAL)
    };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Takes one message. `None`: the other end is gone.
pub(super) fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut body = vec![0_u8; MESSAGE_MAX];
    let mut part = libc::iovec {
        iov_base: body.as_mut_ptr().cast(),
        iov_len: body.len(),
    };
    let mut control = Control([0; 128]);
    let mut fds = Vec::new();
    // SAFETY: as in `send`; the kernel fills whole descriptors only, each new.
    let received = unsafe {
        let mut header: libc::msghdr = MaybeUninit::zeroed().assume_init();
        header.msg_iov = &mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = control.0.len();
        let received = loop {
            let received = libc::recvmsg(socket.as_raw_fd(), &mut header, libc::MSG_CMSG_CLOEXEC);
            let interrupted =
                received < 0 && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted;
            if !interrupted {
                break received;
            }
        };
        if received >= 0 {
            let mut next = libc::CMSG_FIRSTHDR(&header);
            while !next.is_null() {
                if (*next).cmsg_level == libc::SOL_SOCKET && (*next).cmsg_type == libc::SCM_RIGHTS {
                    let bytes = (*next).cmsg_len - libc::CMSG_LEN(0) as usize;
                    let data = libc::CMSG_DATA(next).cast::<i32>();
                    for i in 0..bytes / size_of::<i32>() {
                        fds.push(OwnedFd::from_raw_fd(data.add(i).read_unaligned()));
                    }
                }
                next = libc::CMSG_NXTHDR(&header, next);
            }
        }
        received
    };
    if received < 0 {
        let error = io::Error::last_os_error();
        return match error.kind() {
            io::ErrorKind::ConnectionReset => Ok(None),
            _ => Err(error),
        };
    }
    if received == 0 {
        return Ok(None);
    }
    let message = serde_json::from_slice(&body[..received as usize])?;
    Ok(Some((message, fds)))
}
