//! One socket of a shard, and what is under way on it.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd};
use std::task::Waker;

use rustix::net::SocketAddrAny;

use super::super::RECEIVED_MAX;
use super::super::chunk::Chunk;
use super::super::send_op::{SendError, SendOp};

/// Accepted sockets that wait for their listener's owner at most; the rest
/// stays in the kernel's backlog.
pub(crate) const ACCEPTED_MAX: usize = 256;

/// One socket and what is under way on it.
pub(crate) struct Socket {
    /// Its descriptor; closed when the entry is dropped.
    pub fd: OwnedFd,
    /// Tells this socket from earlier ones under the same key.
    pub generation: u32,
    /// Received and not consumed: the first chunk, and what came after it. Most
    /// of the time there is one at most, and then nothing is allocated.
    pub(super) received: Option<Chunk>,
    pub(super) received_more: VecDeque<Chunk>,
    pub(super) received_bytes: usize,
    /// Bytes that have come, counted round and round.
    pub(super) came: u32,
    /// Bytes that the kernel has taken.
    pub(super) gone: u64,
    /// Accepted and not taken.
    pub(super) accepted: VecDeque<OwnedFd>,
    /// How receiving (or accepting) ended.
    pub end: Option<End>,
    /// Who waits for bytes, the end, or an accepted socket.
    pub reader: Option<Waker>,
    /// Who waits for the end, whatever is still to be read.
    pub watcher: Option<Waker>,
    /// Who waits for a send or a connect.
    pub writer: Option<Waker>,
    /// What is being sent.
    pub sending: Sending,
    /// How the connect went.
    pub connecting: Connecting,
    /// Listens instead of carrying bytes.
    pub listens: bool,
    /// The engine is reading, or will be told of bytes.
    pub reading: bool,
    /// The read is being stopped, because too much waits.
    pub stopping: bool,
    /// epoll only: the kernel has said that there is something to read, and
    /// not yet that there is no more.
    pub readable: bool,
    /// epoll only: the kernel has said that there is an end to read.
    pub hung_up: bool,
    /// It is in the table's `to_read`.
    pub(super) to_read: bool,
    /// It is in the table's `starved`.
    pub(super) starved: bool,
    /// The error that a send has taken from the socket, so that the read finds
    /// an end where there was a failure.
    pub(super) send_failure: Option<i32>,
    /// Operations whose completions are still to come: at most one that reads
    /// and one that sends or connects.
    pub in_flight: u8,
    /// Its owner is gone: close it after the last completion.
    pub abandoned: bool,
    /// It is to leave this shard: nothing is started on it any more.
    pub leaving: bool,
}

/// The activity of a stream, for those who judge it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamActivity {
    /// Bytes that have come or gone, counted round and round.
    pub moved: u32,
    /// Bytes that wait here: received and not consumed, or not yet sent.
    pub held: usize,
    /// More of its peer's bytes is waited for.
    pub owes_bytes: bool,
    /// Its peer does not take what it is sent.
    pub leaves_unread: bool,
    /// More may wait in the kernel: it is not sent, or not received, for the
    /// time being.
    pub is_backed_up: bool,
}

/// How receiving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The peer's FIN.
    Fin,
    /// An error, by its number.
    Error(i32),
}

/// The sending direction of a socket.
pub(crate) enum Sending {
    /// Nothing.
    Idle,
    /// Under way.
    Busy(Box<SendOp>),
    /// Over.
    Done,
    /// Over, by this error.
    Failed(i32, Box<SendOp>),
}

/// A connect.
pub(crate) enum Connecting {
    /// None was started, or it has been taken note of.
    No,
    /// Under way; the address must not move.
    Busy(Box<SocketAddrAny>),
    /// Over.
    Done(Result<(), i32>),
}

impl Socket {
    /// Bytes that wait in shared buffers.
    pub(super) fn shared_bytes(&self) -> usize {
        let waiting = self.received.iter().chain(&self.received_more);
        let shared = waiting.filter(|chunk| chunk.is_shared());
        shared.map(|chunk| chunk.len()).sum()
    }

    /// Moves what waits to the heap, in as few chunks as it needs.
    pub(super) fn detach_received(&mut self) {
        if self.received_more.is_empty() {
            if let Some(only) = &mut self.received {
                only.detach();
            }
            return;
        }
        let more = std::mem::take(&mut self.received_more);
        let mut packed = VecDeque::new();
        let mut last = self.received.take();
        for next in more {
            let left = match &mut last {
                Some(last) => last.absorb(next),
                None => Some(next),
            };
            if let Some(next) = left {
                packed.extend(last.replace(next));
            }
        }
        packed.extend(last);
        packed.iter_mut().for_each(Chunk::detach);
        self.received = packed.pop_front();
        self.received_more = packed;
    }

    /// What it is doing.
    pub(crate) fn standing(&self) -> StreamActivity {
        let (unsent, leaves_unread) = match &self.sending {
            Sending::Busy(op) => (op.gather.bytes(), op.may_wait),
            _ => (0, false),
        };
        StreamActivity {
            moved: self.came.wrapping_add(self.gone as u32),
            held: self.received_bytes + unsent,
            owes_bytes: self.reader.is_some() && self.received.is_none(),
            leaves_unread,
            is_backed_up: leaves_unread || self.received_bytes >= RECEIVED_MAX,
        }
    }

    /// All that was to be sent was taken at once.
    pub(crate) fn is_sent(&mut self, bytes: usize) {
        self.gone = self.gone.wrapping_add(bytes as u64);
        self.sending = Sending::Done;
    }

    /// How what was sent last has failed, if it has; told once.
    #[inline(always)]
    pub(crate) fn take_failure(&mut self) -> Option<SendError> {
        if !matches!(self.sending, Sending::Failed(..)) {
            return None;
        }
        match std::mem::replace(&mut self.sending, Sending::Idle) {
            Sending::Failed(error, op) => Some(op.into_error(error)),
            _ => None,
        }
    }

    /// Bytes that the kernel has taken so far.
    pub(crate) fn gone(&self) -> u64 {
        self.gone
    }

    /// How many bytes may still come before it is full.
    pub(crate) fn room(&self) -> usize {
        RECEIVED_MAX.saturating_sub(self.received_bytes)
    }

    /// Whether more waits than may.
    pub(crate) fn is_full(&self) -> bool {
        self.received_bytes >= RECEIVED_MAX || self.accepted.len() >= ACCEPTED_MAX
    }

    /// Whether nothing may be started on it any more.
    pub(crate) fn has_no_future(&self) -> bool {
        self.abandoned || self.leaving
    }

    /// Whether bytes, the end or an error wait, or something is still being sent.
    pub(crate) fn is_closed_or_busy(&self) -> bool {
        self.has_news() || self.is_sending()
    }

    /// Whether something is being sent, or was not.
    pub(crate) fn is_sending(&self) -> bool {
        matches!(self.sending, Sending::Busy(_) | Sending::Failed(..))
    }

    /// Whether bytes or the end wait.
    pub(crate) fn has_news(&self) -> bool {
        self.received.is_some() || self.end.is_some()
    }

    /// Bytes that wait.
    #[cfg(test)]
    pub(crate) fn received_bytes(&self) -> usize {
        self.received_bytes
    }

    /// Chunks that wait.
    #[cfg(test)]
    pub(crate) fn received_chunks(&self) -> usize {
        usize::from(self.received.is_some()) + self.received_more.len()
    }

    /// Whether bytes wait.
    pub(crate) fn has_received(&self) -> bool {
        self.received.is_some()
    }
}

/// The raw descriptor of a socket.
pub(crate) fn raw(socket: &Socket) -> i32 {
    socket.fd.as_raw_fd()
}
