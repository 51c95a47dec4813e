//! Waiting for sockets, to the microsecond.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll;
use rustix::io::{Errno, Result};

pub use rustix::event::epoll::{Event, EventFlags};

/// Sockets taken per wait. More would make those at the end of a turn wait for
/// the answers of those before them to be counted.
pub const EVENTS: usize = 256;

/// What epoll says when the peer sends nothing more.
pub const ENDED: EventFlags = EventFlags::RDHUP
    .union(EventFlags::HUP)
    .union(EventFlags::ERR);

/// An epoll instance.
pub struct Poller(OwnedFd);

impl Poller {
    /// An instance that watches nothing.
    pub fn new() -> Result<Self> {
        epoll::create(epoll::CreateFlags::CLOEXEC).map(Self)
    }

    /// Watches `socket`, edge-triggered, until it is closed.
    pub fn watch(&self, socket: impl AsFd, token: usize) -> Result<()> {
        let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        let data = epoll::EventData::new_u64(token as u64);
        epoll::add(&self.0, socket, data, interest)
    }

    /// Watches `listener` for as long as connections wait there.
    pub fn watch_listener(&self, listener: impl AsFd, token: usize) -> Result<()> {
        let data = epoll::EventData::new_u64(token as u64);
        epoll::add(&self.0, listener, data, EventFlags::IN)
    }

    /// Replaces `ready` by what is ready, waiting for at most `timeout` (without
    /// one, for ever) and for nothing else: a signal ends the wait early.
    pub fn wait(&self, ready: &mut Vec<Event>, timeout: Option<Duration>) -> Result<()> {
        ready.clear();
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        ready.reserve(EVENTS);
        let room = rustix::buffer::spare_capacity(ready);
        match epoll::wait(&self.0, room, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
