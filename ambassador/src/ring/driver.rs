//! The sockets of a shard and what is under way on each. What the two engines
//! have in common is here: queues, wakers, when a read stops and goes on, and
//! when a socket may be closed.

use std::cell::{RefCell, RefMut};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use slab::Slab;

use super::buffers::Buffers;
use super::chunk::{Chunk, Gather};
use super::epoll::Epoll;
use super::sockets::RawAddress;
use super::uring::Uring;
use super::{Backend, RECEIVED_MAX};

/// Accepted sockets that wait for their listener's owner at most; the rest
/// stays in the kernel's backlog.
pub const ACCEPTED_MAX: usize = 256;

/// The I/O of one shard.
pub struct Driver {
    table: RefCell<Table>,
    engine: RefCell<Engine>,
    backend: Backend,
}

enum Engine {
    Ring(Box<Uring>),
    Epoll(Epoll),
}

/// Every open socket.
pub struct Table {
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
}

/// Names a socket while it is open.
pub type Key = u32;

/// One socket and what is under way on it.
pub struct Socket {
    /// Its descriptor; closed when the entry is dropped.
    pub fd: OwnedFd,
    /// Tells this socket from earlier ones under the same key.
    pub generation: u32,
    /// Received and not consumed: the first chunk, and what came after it. Most
    /// of the time there is one at most, and then nothing is allocated.
    received: Option<Chunk>,
    received_more: VecDeque<Chunk>,
    received_bytes: usize,
    /// Accepted and not taken.
    accepted: VecDeque<OwnedFd>,
    /// How receiving (or accepting) ended.
    pub end: Option<End>,
    /// Who waits for bytes, the end, or an accepted socket.
    pub reader: Option<Waker>,
    /// Who waits for a failure.
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
    to_read: bool,
    /// It is in the table's `starved`.
    starved: bool,
    /// The error that a send has taken from the socket, so that the read finds
    /// an end where there was a failure.
    send_failure: Option<i32>,
    /// Operations whose completions are still to come: at most one that reads
    /// and one that sends or connects.
    pub in_flight: u8,
    /// Its owner is gone: close it after the last completion.
    pub abandoned: bool,
}

/// How receiving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The peer's FIN.
    Fin,
    /// An error, by its number.
    Error(i32),
}

/// The sending direction of a socket.
pub enum Sending {
    /// Nothing.
    Idle,
    /// Under way.
    Busy(Box<SendOp>),
    /// Over; what happened and how many bytes the kernel took.
    Done(Result<(), i32>, usize),
}

/// Bytes on their way out and the structures that describe them to the kernel;
/// boxed, so that neither moves while an operation is in flight.
pub struct SendOp {
    /// What is left to send.
    pub gather: Gather,
    /// Bytes taken so far.
    pub sent: usize,
    /// The first try does not wait.
    pub may_wait: bool,
    parts: [libc::iovec; super::chunk::GATHER_MAX],
    message: libc::msghdr,
}

/// A connect.
pub enum Connecting {
    /// None was started, or it has been taken note of.
    No,
    /// Under way; the address must not move.
    Busy(Box<RawAddress>),
    /// Over.
    Done(Result<(), i32>),
}

impl Driver {
    /// A driver without sockets; `event` ends its wait when readable.
    pub fn new(backend: Backend, event: OwnedFd) -> io::Result<Self> {
        let (engine, buffers) = match backend {
            Backend::Ring => {
                let buffers = Rc::new(Buffers::provided()?);
                (
                    Engine::Ring(Box::new(Uring::new(&buffers, event)?)),
                    buffers,
                )
            }
            Backend::Epoll => {
                let buffers = Rc::new(Buffers::listed()?);
                (Engine::Epoll(Epoll::new(event)?), buffers)
            }
        };
        Ok(Self {
            table: RefCell::new(Table {
                sockets: Slab::new(),
                buffers,
                holding: Vec::new(),
                to_read: VecDeque::new(),
                starved: VecDeque::new(),
                spare_sends: Vec::new(),
            }),
            engine: RefCell::new(engine),
            backend,
        })
    }

    /// What carries the I/O.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// The socket under a key.
    pub fn socket(&self, key: Key) -> RefMut<'_, Socket> {
        RefMut::map(self.table.borrow_mut(), |table| {
            &mut table.sockets[key as usize]
        })
    }

    /// Adds a stream or listener; a read is armed on it from the next turn,
    /// unless it has yet to be connected.
    pub fn add(&self, fd: OwnedFd, role: Role) -> io::Result<Key> {
        let mut table = self.table.borrow_mut();
        let key = table.insert(fd, role == Role::Listener);
        if let Engine::Epoll(epoll) = &mut *self.engine.borrow_mut()
            && let Err(error) = epoll.watch(&table.sockets[key as usize], key)
        {
            table.sockets.remove(key as usize);
            return Err(error);
        }
        if role != Role::Unconnected {
            table.read_soon(key);
        }
        Ok(key)
    }

    /// Starts to connect.
    pub fn connect(&self, key: Key, address: RawAddress) {
        let mut table = self.table.borrow_mut();
        table.sockets[key as usize].connecting = Connecting::Busy(Box::new(address));
        match &mut *self.engine.borrow_mut() {
            Engine::Ring(ring) => ring.connect(&mut table, key),
            Engine::Epoll(epoll) => epoll.connect(&mut table, key),
        }
    }

    /// Starts to send what `unsent` has, and tells when that is over: `Err` is
    /// the error and the bytes that were taken before. A send whose future was
    /// dropped ends first; the kernel is still reading its bytes.
    pub fn poll_send(
        &self,
        key: Key,
        unsent: &mut Option<Gather>,
        waker: &Waker,
    ) -> Poll<Result<(), (i32, usize)>> {
        let mut table = self.table.borrow_mut();
        let table = &mut *table;
        loop {
            let socket = &mut table.sockets[key as usize];
            match (&socket.sending, unsent.take()) {
                (Sending::Idle, Some(gather)) => {
                    let mut op = table.spare_sends.pop().unwrap_or_else(SendOp::boxed);
                    op.gather = gather;
                    (op.sent, op.may_wait) = (0, false);
                    socket.sending = Sending::Busy(op);
                    match &mut *self.engine.borrow_mut() {
                        Engine::Ring(ring) => ring.send(table, key),
                        Engine::Epoll(epoll) => epoll.send(table, key),
                    }
                }
                (Sending::Busy(_), waiting) => {
                    *unsent = waiting;
                    if let Some(gather) = unsent {
                        gather.detach();
                    }
                    keep(&mut socket.writer, waker);
                    return Poll::Pending;
                }
                (&Sending::Done(result, sent), None) => {
                    socket.sending = Sending::Idle;
                    return Poll::Ready(result.map_err(|error| (error, sent)));
                }
                (&Sending::Done(result, _), waiting) => {
                    socket.sending = Sending::Idle;
                    if let Err(error) = result {
                        return Poll::Ready(Err((error, 0)));
                    }
                    *unsent = waiting;
                }
                // Two futures sent at once, and the other took the result.
                (Sending::Idle, None) => return Poll::Ready(Err((libc::ECANCELED, 0))),
            }
        }
    }

    /// The next received chunk.
    pub fn take_received(&self, key: Key) -> Option<Chunk> {
        let mut table = self.table.borrow_mut();
        let socket = &mut table.sockets[key as usize];
        let chunk = socket.received.take()?;
        socket.received_bytes -= chunk.len();
        socket.received = socket.received_more.pop_front();
        if socket.received_more.is_empty() && socket.received_more.capacity() > 0 {
            // An idle stream owns no buffer.
            socket.received_more = VecDeque::new();
        }
        if socket.received.is_none() {
            table.resume(key);
        }
        Some(chunk)
    }

    /// The next accepted connection.
    pub fn take_accepted(&self, key: Key) -> Option<OwnedFd> {
        let mut table = self.table.borrow_mut();
        let socket = &mut table.sockets[key as usize];
        let accepted = socket.accepted.pop_front()?;
        if socket.accepted.is_empty() {
            table.resume(key);
        }
        Some(accepted)
    }

    /// Reads or accepts again after a failure that may pass.
    pub fn read_again(&self, key: Key) {
        self.table.borrow_mut().read_soon(key);
    }

    /// The owner is gone: what is under way is cancelled, and the socket closed
    /// after its last completion.
    pub fn close(&self, key: Key) {
        let mut table = self.table.borrow_mut();
        let Some(socket) = table.sockets.get_mut(key as usize) else {
            return;
        };
        socket.abandoned = true;
        (socket.reader, socket.watcher, socket.writer) = (None, None, None);
        if std::mem::take(&mut socket.starved) {
            table.starved.retain(|starved| *starved != key);
        }
        match &mut *self.engine.borrow_mut() {
            Engine::Ring(ring) => ring.cancel(&mut table, key),
            Engine::Epoll(_) => {}
        }
        table.remove_if_over(key);
    }

    /// One look at the kernel: passes on what has been started, waits up to
    /// `wait` for something to happen, and takes note of it.
    pub fn turn(&self, wait: Option<Duration>) -> io::Result<()> {
        let mut table = self.table.borrow_mut();
        table.detach_received();
        match &mut *self.engine.borrow_mut() {
            Engine::Ring(ring) => ring.turn(&mut table, wait),
            Engine::Epoll(epoll) => epoll.turn(&mut table, wait),
        }
    }

    /// Closes what is left, and takes the completions of what is in flight.
    pub fn finish(&self) {
        let keys: Vec<Key> = {
            let table = self.table.borrow();
            table.sockets.iter().map(|(key, _)| key as Key).collect()
        };
        for key in keys {
            self.close(key);
        }
        // Every operation was cancelled, and a cancelled one completes.
        while !self.table.borrow().sockets.is_empty() {
            if let Err(error) = self.turn(Some(Duration::from_millis(10))) {
                tracing::error!(%error, "operations in flight cannot be reaped");
                // The kernel may use their memory yet: it is never freed.
                std::mem::forget(std::mem::take(&mut self.table.borrow_mut().sockets));
            }
        }
    }
}

/// What a new socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Accepts connections.
    Listener,
    /// Carries bytes already.
    Connected,
    /// Is about to connect.
    Unconnected,
}

impl Table {
    fn insert(&mut self, fd: OwnedFd, listens: bool) -> Key {
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
        }) as Key
    }

    /// Bytes have arrived.
    pub fn push_received(&mut self, key: Key, chunk: Chunk) {
        let socket = &mut self.sockets[key as usize];
        if socket.abandoned {
            return;
        }
        if chunk.is_shared() && self.holding.last() != Some(&key) {
            self.holding.push(key);
        }
        socket.received_bytes += chunk.len();
        match &socket.received {
            None => socket.received = Some(chunk),
            Some(_) => socket.received_more.push_back(chunk),
        }
        wake(&mut socket.reader);
    }

    /// Receiving is over.
    pub fn end_receiving(&mut self, key: Key, end: End) {
        let socket = &mut self.sockets[key as usize];
        let end = match (end, socket.send_failure) {
            (End::Fin, Some(error)) => End::Error(error),
            _ => end,
        };
        socket.end.get_or_insert(end);
        wake(&mut socket.reader);
        if matches!(end, End::Error(_)) {
            wake(&mut socket.watcher);
        }
    }

    /// A send has moved on by `result` bytes, or failed. `true`: it is to be
    /// started again for what remains.
    pub fn progress_send(&mut self, key: Key, result: Result<usize, i32>) -> bool {
        let socket = &mut self.sockets[key as usize];
        let Sending::Busy(mut op) = std::mem::replace(&mut socket.sending, Sending::Idle) else {
            return false;
        };
        let over = match result {
            Ok(bytes) => {
                op.sent += bytes;
                op.gather.advance(bytes);
                (op.gather.bytes() == 0).then_some(Ok(()))
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
                op.may_wait = true;
                op.gather.detach();
                socket.sending = Sending::Busy(op);
                true
            }
            over => {
                let result = over.unwrap_or(Err(libc::ECANCELED));
                socket.sending = Sending::Done(result, op.sent);
                op.gather = Gather::default();
                wake(&mut socket.writer);
                if self.spare_sends.len() < 16 {
                    self.spare_sends.push(op);
                }
                false
            }
        }
    }

    /// A connect is over.
    pub fn end_connect(&mut self, key: Key, result: Result<(), i32>) {
        let socket = &mut self.sockets[key as usize];
        socket.connecting = Connecting::Done(result);
        wake(&mut socket.writer);
        if result.is_ok() && !socket.abandoned {
            self.read_soon(key);
        }
    }

    /// The engine is to start this socket's read in the next turn.
    pub fn read_soon(&mut self, key: Key) {
        let Some(socket) = self.sockets.get_mut(key as usize) else {
            return;
        };
        if !std::mem::replace(&mut socket.to_read, true) {
            self.to_read.push_back(key);
        }
    }

    /// The engine is to start this stream's read when there are buffers. One
    /// that is full is resumed by its owner instead.
    pub fn read_when_fed(&mut self, key: Key) {
        let socket = &mut self.sockets[key as usize];
        let waits = socket.is_full() || socket.abandoned || socket.starved;
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
    pub fn reads_due(&mut self) -> usize {
        let fed = self.starved.len().min(self.buffers.free());
        for key in self.starved.drain(..fed).rev() {
            let socket = &mut self.sockets[key as usize];
            (socket.starved, socket.to_read) = (false, true);
            self.to_read.push_front(key);
        }
        self.to_read.len()
    }

    /// The next of them; `None`: it is gone.
    pub fn next_to_read(&mut self) -> Option<Key> {
        let key = self.to_read.pop_front()?;
        self.sockets.get_mut(key as usize)?.to_read = false;
        Some(key)
    }

    /// Whether the next turn has reads to start, so that this one may not wait.
    /// Buffers that are free after as many starved streams were tried mean that
    /// some of those had nothing to read.
    pub fn has_reads_due(&self) -> bool {
        !self.to_read.is_empty() || !self.starved.is_empty() && self.buffers.free() > 0
    }

    /// A connection was accepted.
    pub fn push_accepted(&mut self, key: Key, fd: OwnedFd) {
        let socket = &mut self.sockets[key as usize];
        if !socket.abandoned {
            socket.accepted.push_back(fd);
            wake(&mut socket.reader);
        }
    }

    /// Forgets a socket whose owner is gone and whose operations are over;
    /// that closes it.
    pub fn remove_if_over(&mut self, key: Key) {
        let socket = &self.sockets[key as usize];
        if socket.abandoned && socket.in_flight == 0 {
            drop(self.sockets.remove(key as usize));
        }
    }

    /// Frees the shared buffers that queues still hold.
    pub fn detach_received(&mut self) {
        for key in self.holding.drain(..) {
            // The socket may be gone, or its key used again; then nothing of
            // it is shared, or it is detached a turn early.
            if let Some(socket) = self.sockets.get_mut(key as usize) {
                let chunks = socket.received.iter_mut().chain(&mut socket.received_more);
                chunks.for_each(Chunk::detach);
            }
        }
    }
}

impl Socket {
    /// Whether more waits than may.
    pub fn is_full(&self) -> bool {
        self.received_bytes >= RECEIVED_MAX || self.accepted.len() >= ACCEPTED_MAX
    }

    /// Whether bytes or the end wait.
    pub fn has_news(&self) -> bool {
        self.received.is_some() || self.end.is_some()
    }

    /// Bytes that wait.
    #[cfg(test)]
    pub fn received_bytes(&self) -> usize {
        self.received_bytes
    }

    /// Whether bytes wait.
    pub fn has_received(&self) -> bool {
        self.received.is_some()
    }
}

impl SendOp {
    #[expect(unsafe_code, reason = "all-zero kernel structures")]
    fn boxed() -> Box<Self> {
        // SAFETY: both are plain C structures for which zeroes are valid.
        let (parts, message) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        Box::new(Self {
            gather: Gather::default(),
            sent: 0,
            may_wait: false,
            parts,
            message,
        })
    }

    /// The message for what is left, valid until the operation is changed.
    pub fn message(&mut self) -> *const libc::msghdr {
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

    /// The flags of this try.
    pub fn flags(&self) -> i32 {
        match self.may_wait {
            true => libc::MSG_NOSIGNAL,
            false => libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
        }
    }
}

/// The raw descriptor of a socket.
pub fn raw(socket: &Socket) -> i32 {
    socket.fd.as_raw_fd()
}

/// Keeps `waker` in a slot.
pub fn keep(slot: &mut Option<Waker>, waker: &Waker) {
    match slot {
        Some(kept) => kept.clone_from(waker),
        None => *slot = Some(waker.clone()),
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}
