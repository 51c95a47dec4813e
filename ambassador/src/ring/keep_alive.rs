//! TCP keep-alive: a peer that has vanished without a word is found out.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use super::sockets::{is_window_closed, set_int};

/// Probes that may stay without an answer, a quarter of the silence apart: the
/// peer has failed after five times the silence.
const PROBES: i32 = 16;
/// The silence in quarters, all probes included.
const PATIENCE: u32 = 5;

/// What is expected of the peer of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// That its kernel answers probes. It may pause reading for as long as it
    /// likes.
    Answers,
    /// That it takes what it is sent as well (TCP_USER_TIMEOUT).
    Progress,
}

/// Sets when a socket asks its silent peer for a sign of life; `None`: never.
/// An accepted socket inherits all of it from its listener.
pub(super) fn set(
    socket: &impl AsRawFd,
    silence: Option<Duration>,
    expected: Liveness,
) -> io::Result<()> {
    const TCP: i32 = libc::IPPROTO_TCP;
    let on = i32::from(silence.is_some());
    set_int(socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE, on)?;
    let Some(silence) = silence else {
        return set_int(socket, TCP, libc::TCP_USER_TIMEOUT, 0);
    };
    let seconds = |time: Duration| i32::try_from(time.as_secs().max(1)).unwrap_or(i32::MAX);
    set_int(socket, TCP, libc::TCP_KEEPIDLE, seconds(silence))?;
    set_int(socket, TCP, libc::TCP_KEEPINTVL, seconds(silence / 4))?;
    set_int(socket, TCP, libc::TCP_KEEPCNT, PROBES)?;
    expect(socket, silence, expected)
}

fn expect(socket: &impl AsRawFd, silence: Duration, expected: Liveness) -> io::Result<()> {
    let patience = match expected {
        Liveness::Answers => 0,
        Liveness::Progress => i32::try_from((silence * PATIENCE).as_millis()).unwrap_or(i32::MAX),
    };
    set_int(socket, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, patience)
}

/// How often to look for a pause of a peer of which progress is expected: before
/// the kernel gives it up.
pub(crate) fn look_every(silence: Duration) -> Duration {
    silence * PATIENCE / 2
}

/// The kernel takes a peer that has closed its window, and answers its probes,
/// for one that has failed, once TCP_USER_TIMEOUT is over. It only pauses: no
/// progress is expected of it until the next look.
pub(super) fn allow_pause(socket: &impl AsRawFd, silence: Duration) -> io::Result<()> {
    let expected = match is_window_closed(socket)? {
        true => Liveness::Answers,
        false => Liveness::Progress,
    };
    expect(socket, silence, expected)
}
