//! The I/O of one shard: its table of sockets, and the engine that moves bytes
//! for them.

use std::cell::{RefCell, RefMut};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use rustix::net::{SendFlags, SocketAddrAny};

use super::Backend;
use super::buffers::Buffers;
use super::chunk::{Chunk, Gather};
use super::epoll::Epoll;
use super::growth::Growth;
use super::send_op::SendError;
use super::sockets;
use super::table::{
    Connecting, End, Key, PendingBytes, Role, SendGoal, Sending, Socket, StreamActivity, StreamId,
    Table,
};
use super::uring::Uring;
use super::waiting::keep;

/// The I/O of one shard.
pub(super) struct Driver {
    table: RefCell<Table>,
    engine: RefCell<Engine>,
    backend: Backend,
}

enum Engine {
    Ring(Box<Uring>),
    Epoll(Epoll),
}

impl Driver {
    /// A driver without sockets; `event` ends its wait when readable.
    pub(super) fn new(backend: Backend, event: OwnedFd) -> io::Result<Self> {
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
            table: RefCell::new(Table::new(buffers)),
            engine: RefCell::new(engine),
            backend,
        })
    }

    /// What carries the I/O.
    pub(super) fn backend(&self) -> Backend {
        self.backend
    }

    /// The socket under a key.
    pub(super) fn socket(&self, key: Key) -> RefMut<'_, Socket> {
        RefMut::map(self.table.borrow_mut(), |table| {
            &mut table.sockets[key as usize]
        })
    }

    /// Adds a stream or listener; a read is armed on it from the next turn,
    /// unless it has yet to be connected.
    pub(super) fn add(&self, fd: OwnedFd, role: Role) -> io::Result<Key> {
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

    /// What a stream is doing; `None`: it is gone.
    pub(super) fn standing(&self, id: StreamId) -> Option<StreamActivity> {
        let table = self.table.borrow();
        let socket = table.sockets.get(id.key as usize);
        let socket = socket.filter(|socket| socket.generation == id.generation);
        socket.map(Socket::standing)
    }

    /// What waits in all streams.
    pub(super) fn held(&self) -> PendingBytes {
        let table = self.table.borrow();
        let mut held = PendingBytes::default();
        for (_, socket) in &table.sockets {
            let standing = socket.standing();
            held.here += standing.held;
            if standing.is_backed_up {
                held.in_kernel += sockets::queued(&socket.fd);
            }
        }
        held
    }

    /// What waits in the kernel for a stream; nothing where it is gone.
    pub(super) fn queued(&self, id: StreamId) -> usize {
        let table = self.table.borrow();
        let socket = table.sockets.get(id.key as usize);
        let socket = socket.filter(|socket| socket.generation == id.generation);
        socket.map_or(0, |socket| sockets::queued(&socket.fd))
    }

    /// Looks at what has gone to the heap, or tells of more.
    pub(super) fn growth<R>(&self, look: impl FnOnce(&mut Growth) -> R) -> R {
        look(&mut self.table.borrow_mut().growth)
    }

    /// Ends a stream as if it had failed by `error`, unless it is gone.
    pub(super) fn fail(&self, id: StreamId, error: i32) {
        let mut table = self.table.borrow_mut();
        let socket = table.sockets.get(id.key as usize);
        if socket.is_some_and(|socket| socket.generation == id.generation) {
            table.fail(id.key, error);
        }
    }

    /// Sends the last bytes of a direction, as far as the socket takes them and nothing
    /// else is under way.
    pub(super) fn send_last(&self, id: StreamId, bytes: &[u8]) {
        let table = self.table.borrow();
        let socket = table.sockets.get(id.key as usize);
        let of_stream = |socket: &&Socket| socket.generation == id.generation;
        if let Some(socket) = socket.filter(of_stream).filter(|it| !it.is_sending()) {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            // The peer can do without.
            let _ = rustix::net::send(&socket.fd, bytes, flags);
        }
    }

    /// Sockets that are open, or not yet closed.
    #[cfg(test)]
    pub(super) fn open_sockets(&self) -> usize {
        self.table.borrow().sockets.len()
    }

    /// Starts to connect.
    pub(super) fn connect(&self, key: Key, address: SocketAddrAny) {
        let mut table = self.table.borrow_mut();
        table.sockets[key as usize].connecting = Connecting::Busy(Box::new(address));
        match &mut *self.engine.borrow_mut() {
            Engine::Ring(ring) => ring.connect(&mut table, key),
            Engine::Epoll(epoll) => epoll.connect(&mut table, key),
        }
    }

    /// Starts to send what `unsent` has, and tells when that is over, or queued
    /// where that is enough. A send that is under way ends first, whether its
    /// future was dropped or never waited: the kernel is still reading its
    /// bytes.
    pub(super) fn poll_send(
        &self,
        key: Key,
        unsent: &mut Option<Gather>,
        until: SendGoal,
        waker: &Waker,
    ) -> Poll<Result<(), SendError>> {
        let mut table = self.table.borrow_mut();
        let table = &mut *table;
        loop {
            let socket = &mut table.sockets[key as usize];
            match &socket.sending {
                Sending::Idle | Sending::Done if unsent.is_some() => {
                    self.start_send(table, key, unsent, until);
                    if until == SendGoal::Queued {
                        return Poll::Ready(Ok(()));
                    }
                }
                Sending::Busy(op) => {
                    table.in_a_hurry |= op.quiet;
                    if let Some(gather) = unsent {
                        gather.detach();
                    }
                    keep(&mut socket.writer, waker);
                    return Poll::Pending;
                }
                Sending::Done => {
                    socket.sending = Sending::Idle;
                    return Poll::Ready(Ok(()));
                }
                Sending::Failed(error, _) => {
                    let waiting = unsent.take();
                    let unsent = waiting.map(|all| SendError::before(*error, Some(all)));
                    let failure = socket.take_failure();
                    return Poll::Ready(unsent.or(failure).map_or(Ok(()), Err));
                }
                // Two futures sent at once, and the other took the result.
                Sending::Idle => {
                    return Poll::Ready(Err(SendError::before(libc::ECANCELED, None)));
                }
            }
        }
    }

    fn start_send(
        &self,
        table: &mut Table,
        key: Key,
        unsent: &mut Option<Gather>,
        until: SendGoal,
    ) {
        match &mut *self.engine.borrow_mut() {
            Engine::Ring(ring) => {
                table.begin_send(key, unsent.take().unwrap_or_default());
                ring.send(table, key, until);
            }
            Engine::Epoll(epoll) => epoll.begin_send(table, key, unsent),
        }
    }

    /// Tells when nothing is being sent.
    pub(super) fn poll_flush(&self, key: Key, waker: &Waker) -> Poll<Result<(), SendError>> {
        let mut table = self.table.borrow_mut();
        let table = &mut *table;
        let socket = &mut table.sockets[key as usize];
        if let Sending::Busy(op) = &socket.sending {
            table.in_a_hurry |= op.quiet;
            keep(&mut socket.writer, waker);
            return Poll::Pending;
        }
        Poll::Ready(socket.take_failure().map_or(Ok(()), Err))
    }

    /// Takes a stream's socket out, once nothing is under way on it; `None`: it
    /// has bytes, an end or an error to tell of, or still sends.
    pub(super) fn poll_leave(&self, key: Key, waker: &Waker) -> Poll<Option<OwnedFd>> {
        let mut table = self.table.borrow_mut();
        let socket = &mut table.sockets[key as usize];
        if socket.is_closed_or_busy() {
            return Poll::Ready(None);
        }
        if !socket.leaving {
            table.begin_to_leave(key);
            match &mut *self.engine.borrow_mut() {
                Engine::Ring(ring) => ring.stop_reading(&mut table, key),
                Engine::Epoll(epoll) => epoll.unwatch(&table.sockets[key as usize]),
            }
        }
        let socket = &mut table.sockets[key as usize];
        if socket.in_flight > 0 {
            keep(&mut socket.reader, waker);
            return Poll::Pending;
        }
        Poll::Ready(Some(table.take_out(key)))
    }

    /// What a stream may hold beyond the limit at most.
    #[cfg(test)]
    pub(super) fn received_on_top(&self) -> usize {
        use super::buffers::{COUNT, SIZE};
        match &*self.engine.borrow() {
            Engine::Ring(ring) if !ring.limits_receives() => usize::from(COUNT) * SIZE,
            Engine::Ring(_) | Engine::Epoll(_) => SIZE,
        }
    }

    /// The next received chunk.
    #[inline]
    pub(super) fn take_received(&self, key: Key) -> Option<Chunk> {
        self.table.borrow_mut().take_received(key)
    }

    /// The next received chunk, or how receiving has ended: `None` by a FIN.
    #[inline(always)]
    pub(super) fn poll_recv(&self, key: Key, waker: &Waker) -> Poll<io::Result<Option<Chunk>>> {
        let mut table = self.table.borrow_mut();
        if let Some(chunk) = table.take_received(key) {
            return Poll::Ready(Ok(Some(chunk)));
        }
        let socket = &mut table.sockets[key as usize];
        match socket.end {
            Some(End::Fin) => Poll::Ready(Ok(None)),
            Some(End::Error(error)) => Poll::Ready(Err(io::Error::from_raw_os_error(error))),
            None => {
                keep(&mut socket.reader, waker);
                Poll::Pending
            }
        }
    }

    /// The next accepted connection.
    pub(super) fn take_accepted(&self, key: Key) -> Option<OwnedFd> {
        self.table.borrow_mut().take_accepted(key)
    }

    /// Reads or accepts again after a failure that may pass.
    pub(super) fn read_again(&self, key: Key) {
        self.table.borrow_mut().read_soon(key);
    }

    /// The owner is gone: what is under way is cancelled, and the socket closed
    /// after its last completion.
    pub(super) fn close(&self, key: Key) {
        let mut table = self.table.borrow_mut();
        if !table.abandon(key) {
            return;
        }
        match &mut *self.engine.borrow_mut() {
            Engine::Ring(ring) => ring.cancel(&mut table, key),
            Engine::Epoll(_) => {}
        }
        table.remove_if_over(key);
    }

    /// One look at the kernel: passes on what has been started, waits up to
    /// `wait` for something to happen, the first `spin` of it awake, and takes
    /// note of it.
    pub(super) fn turn(&self, wait: Option<Duration>, spin: Duration) -> io::Result<()> {
        let mut table = self.table.borrow_mut();
        table.detach_received();
        match &mut *self.engine.borrow_mut() {
            Engine::Ring(ring) => ring.turn(&mut table, wait, spin),
            Engine::Epoll(epoll) => epoll.turn(&mut table, wait, spin),
        }
    }

    /// Closes what is left, and takes the completions of what is in flight.
    pub(super) fn finish(&self) {
        let keys: Vec<Key> = {
            let table = self.table.borrow();
            table.sockets.iter().map(|(key, _)| key as Key).collect()
        };
        for key in keys {
            self.close(key);
        }
        // Every operation was cancelled, and a cancelled one completes.
        while !self.table.borrow().sockets.is_empty() {
            if let Err(error) = self.turn(Some(Duration::from_millis(10)), Duration::ZERO) {
                tracing::error!(%error, "operations in flight cannot be reaped");
                // The kernel may use their memory yet: it is never freed.
                std::mem::forget(std::mem::take(&mut self.table.borrow_mut().sockets));
            }
        }
    }
}
