//! Limits the descriptors that callers may take, so that some are left to serve
//! the connections that are open.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::clock;

/// The share of all descriptors that is kept back for dials, the admin side and
/// files, with its bounds.
const KEPT_BACK: u64 = 8;
const KEPT_BACK_MIN: u64 = 16;
const KEPT_BACK_MAX: u64 = 1_024;

/// From this number on an accepted socket is one too many. The kernel gives the
/// lowest number that is free, so that it tells how many are in use.
static FIRST_TOO_MANY: AtomicI32 = AtomicI32::new(i32::MAX);

static TOLD: clock::OncePerSecond = clock::OncePerSecond::new();

/// Allows the process as many as its hard limit says: the soft one is often
/// 1,024, for programs that use select(2).
pub(crate) fn use_all() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    let set = setrlimit(Resource::Nofile, raised);
    let in_force = if set.is_ok() { raised } else { limit };
    let first = first_too_many(in_force.current.unwrap_or(u64::MAX));
    FIRST_TOO_MANY.store(first, Ordering::Relaxed);
    Ok(set?)
}

/// Whether there is one for the caller whose accepted connection is `socket`.
pub(crate) fn have_room_for(socket: &impl AsRawFd) -> bool {
    socket.as_raw_fd() < FIRST_TOO_MANY.load(Ordering::Relaxed)
}

/// Says in the log that callers are reset for want of descriptors, once a second.
pub(crate) fn tell_of_reset() {
    if TOLD.is_due() {
        let most = FIRST_TOO_MANY.load(Ordering::Relaxed);
        tracing::warn!(
            most,
            "connections are reset: the descriptors for callers are used up; \
             raise the limit of open files"
        );
    }
}

fn first_too_many(limit: u64) -> RawFd {
    let kept_back = (limit / KEPT_BACK).clamp(KEPT_BACK_MIN, KEPT_BACK_MAX);
    RawFd::try_from(limit.saturating_sub(kept_back)).unwrap_or(RawFd::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_are_kept_back() {
        for (limit, callers) in [
            (0, 0),
            (64, 48),
            (256, 224),
            (1_024, 896),
            (1 << 20, (1 << 20) - 1_024),
            (u64::MAX, i32::MAX),
        ] {
            assert_eq!(first_too_many(limit), callers, "{limit}");
        }
    }
}
