//! TCP keep-alive: finds peers that have vanished without a FIN.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::sockopt;

use super::sockets::is_window_closed;

/// Probes that may stay without an answer, a quarter of the silence apart: the
/// peer has failed after five times the silence.
const PROBES: u32 = 16;
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
    socket: &impl AsFd,
    silence: Option<Duration>,
    expected: Liveness,
) -> io::Result<()> {
    sockopt::set_socket_keepalive(socket, silence.is_some())?;
    let Some(silence) = silence else {
        return Ok(sockopt::set_tcp_user_timeout(socket, 0)?);
    };
    let seconds = |time: Duration| Duration::from_secs(time.as_secs().max(1));
    sockopt::set_tcp_keepidle(socket, seconds(silence))?;
    sockopt::set_tcp_keepintvl(socket, seconds(silence / 4))?;
    sockopt::set_tcp_keepcnt(socket, PROBES)?;
    expect(socket, silence, expected)
}

fn expect(socket: &impl AsFd, silence: Duration, expected: Liveness) -> io::Result<()> {
    let patience = match expected {
        Liveness::Answers => 0,
        Liveness::Progress => milliseconds(silence * PATIENCE),
    };
    Ok(sockopt::set_tcp_user_timeout(socket, patience)?)
}

/// As many as the kernel can count.
fn milliseconds(time: Duration) -> u32 {
    time.as_millis().min(i32::MAX as u128) as u32
}

/// How often to look for a pause of a peer of which progress is expected: before
/// the kernel gives it up.
pub(crate) fn look_every(silence: Duration) -> Duration {
    silence * PATIENCE / 2
}

/// The kernel takes a peer that has closed its window, and answers its probes,
/// for one that has failed, once TCP_USER_TIMEOUT is over. It only pauses: no
/// progress is expected of it until the next look.
pub(super) fn allow_pause(socket: &impl AsFd, silence: Duration) -> io::Result<()> {
    let expected = match is_window_closed(socket)? {
        true => Liveness::Answers,
        false => Liveness::Progress,
    };
    expect(socket, silence, expected)
}
