//! The sockets of a shard and what is under way on each. What the two engines
//! have in common is here: queues, wakers, when a read stops and goes on, and
//! when a socket may be closed.

mod socket;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use slab::Slab;

#[cfg(test)]
pub(super) use self::socket::ACCEPTED_MAX;
pub(crate) use self::socket::StreamActivity;
pub(super) use self::socket::{Connecting, End, Sending, Socket, raw};
use super::buffers::Buffers;
use super::chunk::{Chunk, Gather};
use super::growth::Growth;
use super::send_op::SendOp;
use super::slack;
use super::waiting::wake;

/// Every open socket.
pub(super) struct Table {
    /// Streams and listeners by their key.
    pub sockets: Slab<Socket>,
    /// The shard's receive buffers.
    pub buffers: Rc<Buffers>,
    /// Streams that may hold a shared buffer in their queue.
    holding: Vec<Key>,
    /// Sockets whose read the engine is to start (again) in the next turn.
    to_read: VecDeque<Key>,
    /// Streams whose read found no buffer, in the order in which they get the
    /// next ones.
    starved: VecDeque<Key>,
    /// Send operations to use again.
    #[expect(
        clippy::vec_box,
        reason = "a send must not move while the kernel reads it"
    )]
    spare_sends: Vec<Box<SendOp>>,
    /// What went to the heap.
    pub growth: Growth,
    /// Somebody waits for the end of a quiet send: the next turn may not wait
    /// for news, as there will be none.
    pub in_a_hurry: bool,
}

/// Names a socket while it is open.
pub(super) type Key = u32;

/// Names a stream to those who do not own it, also when it is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamId {
    pub(super) key: Key,
    pub(super) generation: u32,
}

/// What a new socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Accepts connections.
    Listener,
    /// Carries bytes already.
    Connected,
    /// Is about to connect.
    Unconnected,
}

/// How far a send is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendGoal {
    /// The kernel has all bytes.
    Sent,
    /// They are on their way.
    Queued,
}

/// Bytes that are not delivered yet.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PendingBytes {
    /// In this process.
    pub here: usize,
    /// In the kernel's buffers.
    pub in_kernel: usize,
}

impl Table {
    /// No sockets.
    pub(super) fn new(buffers: Rc<Buffers>) -> Self {
        Self {
            sockets: Slab::new(),
            buffers,
            holding: Vec::new(),
            to_read: VecDeque::new(),
            starved: VecDeque::new(),
            spare_sends: Vec::new(),
            growth: Growth::default(),
            in_a_hurry: false,
        }
    }

    /// Adds a socket.
    pub(super) fn insert(&mut self, fd: OwnedFd, listens: bool) -> Key {
        thread_local! {
            static GENERATION: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
        }
        let generation = GENERATION.get();
        GENERATION.set(generation.wrapping_add(1) & 0x00ff_ffff);
        self.sockets.insert(Socket {
            fd,
            generation,
            received: None,
            received_more: VecDeque::new(),
            received_bytes: 0,
            came: 0,
            gone: 0,
            accepted: VecDeque::new(),
            end: None,
            reader: None,
            watcher: None,
            writer: None,
            sending: Sending::Idle,
            connecting: Connecting::No,
            listens,
            reading: false,
            stopping: false,
            readable: false,
            hung_up: false,
            to_read: false,
            starved: false,
            send_failure: None,
            in_flight: 0,
            abandoned: false,
            leaving: false,
        }) as Key
    }

    /// Bytes have arrived.
    #[inline(always)]
    pub(super) fn push_received(&mut self, key: Key, chunk: Chunk) {
        let socket = &mut self.sockets[key as usize];
        if socket.abandoned {
            return;
        }
        if chunk.is_shared() && self.holding.last() != Some(&key) {
            self.holding.push(key);
        }
        socket.received_bytes += chunk.len();
        socket.came = socket.came.wrapping_add(chunk.len() as u32);
        match &socket.received {
            None => socket.received = Some(chunk),
            Some(_) => socket.received_more.push_back(chunk),
        }
        wake(&mut socket.reader);
        if socket.is_full() {
            wake(&mut socket.watcher);
        }
    }

    /// The next received chunk. Most of the time there is none: that is found out
    /// in line.
    #[inline]
    pub(super) fn take_received(&mut self, key: Key) -> Option<Chunk> {
        match self.sockets[key as usize].has_received() {
            true => self.take_first_received(key),
            false => None,
        }
    }

    #[inline(always)]
    fn take_first_received(&mut self, key: Key) -> Option<Chunk> {
        let socket = &mut self.sockets[key as usize];
        let chunk = socket.received.take()?;
        socket.received_bytes -= chunk.len();
        socket.received = socket.received_more.pop_front();
        if socket.received_more.is_empty() && socket.received_more.capacity() > 0 {
            // An idle stream owns no buffer.
            socket.received_more = VecDeque::new();
        }
        if socket.received.is_none() {
            self.resume(key);
        }
        Some(chunk)
    }

    /// The next accepted connection.
    pub(super) fn take_accepted(&mut self, key: Key) -> Option<OwnedFd> {
        let socket = &mut self.sockets[key as usize];
        let accepted = socket.accepted.pop_front()?;
        if socket.accepted.is_empty() {
            self.resume(key);
        }
        Some(accepted)
    }

    /// Makes `gather` what is being sent.
    pub(super) fn begin_send(&mut self, key: Key, gather: Gather) {
        let mut op = self.spare_sends.pop().unwrap_or_else(SendOp::boxed);
        op.gather = gather;
        (op.sent, op.may_wait, op.quiet) = (0, false, false);
        self.sockets[key as usize].sending = Sending::Busy(op);
    }

    /// Receiving is over.
    pub(super) fn end_receiving(&mut self, key: Key, end: End) {
        let socket = &mut self.sockets[key as usize];
        let end = match (end, socket.send_failure) {
            (End::Fin, Some(error)) => End::Error(error),
            _ => end,
        };
        socket.end.get_or_insert(end);
        wake(&mut socket.reader);
        wake(&mut socket.watcher);
    }

    /// Ends a stream from outside: whoever waits on it finds it failed.
    pub(super) fn fail(&mut self, key: Key, error: i32) {
        let socket = &mut self.sockets[key as usize];
        socket.end = Some(End::Error(error));
        wake(&mut socket.reader);
        wake(&mut socket.watcher);
        wake(&mut socket.writer);
    }

    /// A send has moved on by `result` bytes, or failed. `true`: it is to be
    /// started again for what remains.
    pub(super) fn progress_send(&mut self, key: Key, result: Result<usize, i32>) -> bool {
        let socket = &mut self.sockets[key as usize];
        let Sending::Busy(mut op) = std::mem::replace(&mut socket.sending, Sending::Idle) else {
            return false;
        };
        let over = match result {
            Ok(bytes) => {
                op.sent += bytes;
                socket.gone = socket.gone.wrapping_add(bytes as u64);
                op.gather.advance(bytes);
                op.gather.is_empty().then_some(Ok(()))
            }
            Err(libc::EAGAIN | libc::EINTR) => None,
            Err(error) => {
                // EPIPE is no news to the reader, and may be our own doing.
                if !matches!(error, libc::EPIPE | libc::ECANCELED) {
                    socket.send_failure = Some(error);
                }
                Some(Err(error))
            }
        };
        match over {
            None if !socket.abandoned => {
                (op.may_wait, op.quiet) = (true, false);
                op.gather.detach();
                self.growth.add(op.gather.bytes());
                socket.sending = Sending::Busy(op);
                true
            }
            Some(Ok(())) => {
                socket.sending = Sending::Done;
                wake(&mut socket.writer);
                if self.spare_sends.len() < 16 {
                    self.spare_sends.push(op);
                }
                false
            }
            Some(Err(error)) => {
                op.fail();
                socket.sending = Sending::Failed(error, op);
                wake(&mut socket.writer);
                false
            }
            // Its owner is gone, and so is who would hear of it.
            None => false,
        }
    }

    /// A connect is over.
    pub(super) fn end_connect(&mut self, key: Key, result: Result<(), i32>) {
        let socket = &mut self.sockets[key as usize];
        socket.connecting = Connecting::Done(result);
        wake(&mut socket.writer);
        if result.is_ok() && !socket.abandoned {
            self.read_soon(key);
        }
    }

    /// The engine is to start this socket's read in the next turn.
    pub(super) fn read_soon(&mut self, key: Key) {
        let Some(socket) = self.sockets.get_mut(key as usize) else {
            return;
        };
        if !std::mem::replace(&mut socket.to_read, true) {
            self.to_read.push_back(key);
        }
    }

    /// The engine is to start this stream's read when there are buffers. One
    /// that is full is resumed by its owner instead.
    pub(super) fn read_when_fed(&mut self, key: Key) {
        let socket = &mut self.sockets[key as usize];
        let waits = socket.is_full() || socket.has_no_future() || socket.starved;
        if !waits {
            socket.starved = true;
            self.starved.push_back(key);
        }
    }

    /// Its owner has caught up: a read that was stopped goes on.
    fn resume(&mut self, key: Key) {
        let socket = &self.sockets[key as usize];
        if !socket.reading && !socket.starved && socket.end.is_none() {
            self.read_soon(key);
        }
    }

    /// How many reads are to be started now: first of those that have found no
    /// buffer, as many as there are buffers now.
    #[inline]
    pub(super) fn reads_due(&mut self) -> usize {
        if !self.starved.is_empty() {
            self.feed();
        }
        self.to_read.len()
    }

    fn feed(&mut self) {
        let fed = self.starved.len().min(self.buffers.free());
        for key in self.starved.drain(..fed).rev() {
            let socket = &mut self.sockets[key as usize];
            (socket.starved, socket.to_read) = (false, true);
            self.to_read.push_front(key);
        }
    }

    /// The next of them; `None`: it is gone.
    pub(super) fn next_to_read(&mut self) -> Option<Key> {
        let key = self.to_read.pop_front()?;
        self.sockets.get_mut(key as usize)?.to_read = false;
        Some(key)
    }

    /// Whether the next turn has reads to start, so that this one may not wait.
    /// Buffers that are free after as many starved streams were tried mean that
    /// some of those had nothing to read.
    pub(super) fn has_reads_due(&self) -> bool {
        !self.to_read.is_empty() || !self.starved.is_empty() && self.buffers.free() > 0
    }

    /// Whether a stream waits for a buffer.
    pub(super) fn has_starved(&self) -> bool {
        !self.starved.is_empty()
    }

    /// A connection was accepted.
    pub(super) fn push_accepted(&mut self, key: Key, fd: OwnedFd) {
        let socket = &mut self.sockets[key as usize];
        if !socket.abandoned {
            socket.accepted.push_back(fd);
            wake(&mut socket.reader);
        }
    }

    /// The owner is gone; `false`: so is the socket.
    pub(super) fn abandon(&mut self, key: Key) -> bool {
        let Some(socket) = self.sockets.get_mut(key as usize) else {
            return false;
        };
        socket.abandoned = true;
        (socket.reader, socket.watcher, socket.writer) = (None, None, None);
        self.no_longer_starved(key);
        true
    }

    /// Starts nothing more on a socket that is to leave this shard.
    pub(super) fn begin_to_leave(&mut self, key: Key) {
        self.sockets[key as usize].leaving = true;
        self.no_longer_starved(key);
    }

    fn no_longer_starved(&mut self, key: Key) {
        if std::mem::take(&mut self.sockets[key as usize].starved) {
            self.starved.retain(|starved| *starved != key);
        }
    }

    /// The read of a socket is over that is to leave this shard.
    pub(super) fn may_leave(&mut self, key: Key) {
        wake(&mut self.sockets[key as usize].reader);
    }

    /// Forgets a socket on which nothing is under way, without closing it.
    pub(super) fn take_out(&mut self, key: Key) -> OwnedFd {
        let socket = self.sockets.remove(key as usize);
        slack::shrink(&mut self.sockets);
        socket.fd
    }

    /// Forgets a socket whose owner is gone and whose operations are over;
    /// that closes it.
    pub(super) fn remove_if_over(&mut self, key: Key) {
        let socket = &self.sockets[key as usize];
        if socket.abandoned && socket.in_flight == 0 {
            drop(self.sockets.remove(key as usize));
            slack::shrink(&mut self.sockets);
        }
    }

    /// Frees the shared buffers that queues still hold.
    #[inline(always)]
    pub(super) fn detach_received(&mut self) {
        while let Some(key) = self.holding.pop() {
            // The socket may be gone, or its key used again; then nothing of
            // it is shared, or it is detached a turn early.
            if let Some(socket) = self.sockets.get_mut(key as usize)
                && socket.received.is_some()
            {
                self.growth.add(socket.shared_bytes());
                socket.detach_received();
            }
        }
    }
}
