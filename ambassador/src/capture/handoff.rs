//! Messages with descriptors between the proxy and its loader.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::workload::descriptors::{self, BYTES_MAX};

/// Sends one message.
pub(super) fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    if text.len() > BYTES_MAX {
        return Err(io::Error::other("too many capture targets at once"));
    }
    descriptors::send(socket, &text, fds)
}

/// Takes one message. `None`: the other end is gone.
pub(super) fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let Some((text, fds)) = descriptors::receive(socket)? else {
        return Ok(None);
    };
    Ok(Some((serde_json::from_slice(&text)?, fds)))
}
