//! One send: its bytes, what describes them to the kernel, and how it failed.

use std::io;

use super::chunk::{GATHER_MAX, Gather};

/// Bytes on their way out and the structures that describe them to the kernel;
/// boxed, so that neither moves while an operation is in flight.
pub(super) struct SendOp {
    /// What is left to send.
    pub gather: Gather,
    /// Bytes taken so far.
    pub sent: usize,
    /// The first try does not wait.
    pub may_wait: bool,
    /// The kernel tells only of a failure, or of less than all that was taken.
    pub quiet: bool,
    parts: [libc::iovec; GATHER_MAX],
    message: libc::msghdr,
}

/// Why a send failed.
#[derive(Debug)]
pub struct SendError {
    /// What the kernel said.
    pub source: io::Error,
    /// Bytes it had taken before: none of the rest has left this process.
    pub sent: usize,
    /// All that was to be sent, where the kernel took none of it. Boxed, so that
    /// what goes well is told in few words.
    pub unsent: Option<Box<Gather>>,
}

impl SendError {
    /// A send that failed before any of `unsent` was handed over.
    pub(super) fn before(error: i32, unsent: Option<Gather>) -> Self {
        Self {
            source: io::Error::from_raw_os_error(error),
            sent: 0,
            unsent: unsent.map(Box::new),
        }
    }
}

impl SendOp {
    #[expect(unsafe_code, reason = "all-zero kernel structures")]
    /// One without bytes.
    pub(super) fn boxed() -> Box<Self> {
        // SAFETY: both are plain C structures for which zeroes are valid.
        let (parts, message) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        Box::new(Self {
            gather: Gather::default(),
            sent: 0,
            may_wait: false,
            quiet: false,
            parts,
            message,
        })
    }

    /// Takes note of a failure. What was to be sent is kept where none of it
    /// was, but off the shared buffers, as its owner may be late or gone.
    pub(super) fn fail(&mut self) {
        match self.sent {
            0 => self.gather.detach(),
            _ => self.gather = Gather::default(),
        }
    }

    /// The error of a send that has failed.
    pub(super) fn into_error(self, error: i32) -> SendError {
        let unsent = (self.sent == 0).then_some(self.gather);
        SendError {
            sent: self.sent,
            ..SendError::before(error, unsent)
        }
    }

    /// The message for what is left, valid until the operation is changed.
    pub(super) fn message(&mut self) -> *const libc::msghdr {
        let mut count = 0;
        for (part, chunk) in self.parts.iter_mut().zip(self.gather.chunks()) {
            part.iov_base = chunk.as_ptr().cast_mut().cast();
            part.iov_len = chunk.len();
            count += 1;
        }
        self.message.msg_iov = self.parts.as_mut_ptr();
        self.message.msg_iovlen = count;
        &raw const self.message
    }

    /// The flags of this try. For io_uring, MSG_WAITALL makes a failure of
    /// taking a part only; with MSG_DONTWAIT nothing is waited for all the same.
    pub(super) fn flags(&self) -> i32 {
        match (self.may_wait, self.quiet) {
            (true, _) => libc::MSG_NOSIGNAL,
            (false, false) => libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
            (false, true) => libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | libc::MSG_WAITALL,
        }
    }
}
