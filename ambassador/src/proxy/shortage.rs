//! Recognises shortages of this machine (descriptors, ports, memory), which are
//! no failure of an endpoint.

use std::io;

/// Whether something failed for what this machine lacks: descriptors, ports,
/// memory, or places in an epoll instance. Of a peer none of these tells, be its
/// connection yet to be made or established.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EMFILE
                | libc::ENFILE
                | libc::ENOMEM
                | libc::ENOBUFS
                | libc::ENOSPC
                | libc::EADDRNOTAVAIL
                | libc::EAGAIN
        )
    )
}
