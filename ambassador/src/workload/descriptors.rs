//! Datagrams with descriptors over a SOCK_SEQPACKET pair (unix(7),
//! SCM_RIGHTS).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

/// Descriptors in one datagram at most; the kernel takes 253 (SCM_MAX_FD).
pub(crate) const FDS_MAX: usize = 64;
/// Bytes in one datagram at most: a JSON text that names a thousand cgroups or
/// some thousand networks. A socket's default buffer takes 208 KiB.
pub(crate) const BYTES_MAX: usize = 128 * 1024;

/// Room for the control message that holds [`FDS_MAX`] descriptors.
const CONTROL: usize = rustix::cmsg_space!(ScmRights(FDS_MAX));

/// A connected pair, both ends close-on-exec.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
    Ok(net::socketpair(AddressFamily::UNIX, kind, flags, None)?)
}

/// Sends one datagram; `bytes` is not empty, since an empty one would read as
/// the end.
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if bytes.is_empty() || bytes.len() > BYTES_MAX || fds.len() > FDS_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut room = [MaybeUninit::uninit(); CONTROL];
    let mut control = SendAncillaryBuffer::new(&mut room);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    let data = [IoSlice::new(bytes)];
    retry_on_intr(|| net::sendmsg(socket, &data, &mut control, SendFlags::NOSIGNAL))?;
    Ok(())
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
    let mut room = [MaybeUninit::uninit(); CONTROL];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let received = retry_on_intr(|| {
        let mut data = [IoSliceMut::new(&mut bytes)];
        net::recvmsg(socket, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    if received
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(io::ErrorKind::InvalidData.into());
    }
    bytes.truncate(received.bytes);
    Ok(Some((bytes, fds)))
}

/// Waits for a datagram and says how long it is; None when the other end is
/// closed.
fn next_length(socket: BorrowedFd<'_>) -> io::Result<Option<usize>> {
    let flags = RecvFlags::PEEK | RecvFlags::TRUNC;
    match retry_on_intr(|| net::recv(socket, &mut [0; 0], flags)) {
        // The other end is closed, or died with datagrams unread.
        Ok((_, 0)) | Err(Errno::CONNRESET) => Ok(None),
        length => Ok(Some(length?.1)),
    }
}
