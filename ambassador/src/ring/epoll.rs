//! The epoll engine, for kernels and containers without io_uring: the same
//! queues, filled by reads when the kernel says that there is something.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use super::buffers::SIZE;
use super::chunk::Chunk;
use super::table::{Connecting, End, Key, Sending, Socket, Table, raw};
use super::{mailbox, sockets};
use crate::clock;

/// Events taken per turn.
const EVENTS: usize = 256;

/// Reads of one socket per turn, so that a fast peer leaves room for others.
const READS_PER_TURN: usize = 8;

/// Connections accepted per turn: a burst must not fill the backlog.
const ACCEPTS_PER_TURN: usize = 64;

/// The key of the eventfd.
const EVENT_KEY: u64 = u64::MAX;

/// An epoll instance.
pub(super) struct Epoll {
    epoll: OwnedFd,
    event: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    /// An instance that `event` wakes.
    #[expect(unsafe_code, reason = "epoll_create1")]
    pub(super) fn new(event: OwnedFd) -> io::Result<Self> {
        // SAFETY: no pointers are passed.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if epoll < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        add(&epoll, event.as_raw_fd(), libc::EPOLLIN as u32, EVENT_KEY)?;
        Ok(Self {
            epoll,
            event,
            events: Vec::with_capacity(EVENTS),
        })
    }

    /// Watches a new socket, edge-triggered, until it is closed.
    pub(super) fn watch(&mut self, socket: &Socket, key: Key) -> io::Result<()> {
        let interest = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
        let data = u64::from(socket.generation) << 32 | u64::from(key);
        add(&self.epoll, raw(socket), interest as u32, data)
    }

    /// Watches a socket no more.
    #[expect(unsafe_code, reason = "epoll_ctl")]
    pub(super) fn unwatch(&mut self, socket: &Socket) {
        let (epoll, fd) = (self.epoll.as_raw_fd(), raw(socket));
        // SAFETY: deleting takes no event. It fails only for what is not watched.
        unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut()) };
    }

    /// Starts to connect.
    #[expect(unsafe_code, reason = "connect with a raw address")]
    pub(super) fn connect(&mut self, table: &mut Table, key: Key) {
        let socket = &mut table.sockets[key as usize];
        let Connecting::Busy(address) = &socket.connecting else {
            return;
        };
        let place = (&raw const address.storage).cast();
        // SAFETY: the address is live and as long as it says.
        let connected = unsafe { libc::connect(raw(socket), place, address.length) };
        let error = if connected == 0 { 0 } else { last_error() };
        match error {
            0 => table.end_connect(key, Ok(())),
            libc::EINPROGRESS | libc::EINTR => {}
            error => table.end_connect(key, Err(error)),
        }
    }

    /// Sends what the socket takes now; the rest when it takes more.
    #[expect(unsafe_code, reason = "sendmsg")]
    pub(super) fn send(&mut self, table: &mut Table, key: Key) {
        loop {
            let socket = &mut table.sockets[key as usize];
            let fd = raw(socket);
            let Sending::Busy(op) = &mut socket.sending else {
                return;
            };
            let (message, flags) = (op.message(), op.flags());
            // SAFETY: the message and what it points to are boxed in the
            // socket and not touched during the call.
            let sent = unsafe { libc::sendmsg(fd, message, flags) };
            let outcome = match sent {
                0.. => Ok(sent as usize),
                _ => Err(last_error()),
            };
            let again = table.progress_send(key, outcome);
            if !again || outcome == Err(libc::EAGAIN) {
                return;
            }
        }
    }

    /// Waits for events and acts on them.
    pub(super) fn turn(
        &mut self,
        table: &mut Table,
        wait: Option<Duration>,
        spin: Duration,
    ) -> io::Result<()> {
        // What could not be read in the last turn.
        let mut busy = false;
        for _ in 0..table.reads_due() {
            if let Some(key) = table.next_to_read() {
                busy |= table.sockets[key as usize].readable;
                read(table, key);
            }
        }
        let milliseconds = match wait {
            _ if busy || table.has_reads_due() => 0,
            None => -1,
            Some(wait) => wait.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as i32,
        };
        let mut found = false;
        if milliseconds != 0 && !spin.is_zero() {
            let until = clock::now() + spin;
            while !found && clock::now() < until {
                found = self.wait(0)?;
            }
        }
        if !found {
            self.wait(milliseconds)?;
        }
        // Taken out and put back: its memory is used again.
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            self.handle(table, event.u64, event.events as i32);
        }
        self.events = events;
        Ok(())
    }

    /// Waits for events; whether there are some.
    #[expect(unsafe_code, reason = "epoll_wait")]
    fn wait(&mut self, milliseconds: i32) -> io::Result<bool> {
        // SAFETY: the vector has room for EVENTS, and its length is set to
        // what the kernel has filled in.
        let count = unsafe {
            let place = self.events.as_mut_ptr();
            let epoll = self.epoll.as_raw_fd();
            let count = libc::epoll_wait(epoll, place, EVENTS as i32, milliseconds);
            self.events.set_len(count.max(0) as usize);
            count
        };
        match count {
            0.. => Ok(count > 0),
            _ => match last_error() {
                libc::EINTR => Ok(false),
                error => Err(io::Error::from_raw_os_error(error)),
            },
        }
    }

    fn handle(&mut self, table: &mut Table, data: u64, events: i32) {
        if data == EVENT_KEY {
            return mailbox::silence(&self.event);
        }
        let (key, generation) = (data as Key, (data >> 32) as u32);
        let known = table.sockets.get_mut(key as usize);
        let Some(socket) = known.filter(|socket| socket.generation == generation) else {
            return;
        };
        let failed = events & (libc::EPOLLERR | libc::EPOLLHUP) != 0;
        if events & libc::EPOLLOUT != 0 || failed {
            if matches!(socket.connecting, Connecting::Busy(_)) {
                let result = sockets::pending_error(&socket.fd);
                let result = result.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO));
                table.end_connect(key, result);
            }
            self.send(table, key);
        }
        let hung_up = failed || events & libc::EPOLLRDHUP != 0;
        if events & libc::EPOLLIN != 0 || hung_up {
            let socket = &mut table.sockets[key as usize];
            socket.readable = true;
            socket.hung_up |= hung_up;
            read(table, key);
        }
    }
}

/// What became of one read.
#[derive(PartialEq, Eq)]
enum Read {
    /// It was tried, and the socket knows how it went.
    Tried,
    /// Every buffer is held.
    Starved,
}

/// Reads or accepts until there is no more, no room, or others must have a
/// turn.
fn read(table: &mut Table, key: Key) {
    let Some(socket) = table.sockets.get_mut(key as usize) else {
        return;
    };
    if matches!(socket.connecting, Connecting::Busy(_)) {
        return;
    }
    // "reading" means here: news will come by an event, nothing has to ask.
    socket.reading = true;
    let tries = match socket.listens {
        true => ACCEPTS_PER_TURN,
        false => READS_PER_TURN,
    };
    for _ in 0..tries {
        let socket = &mut table.sockets[key as usize];
        if !socket.readable || socket.end.is_some() || socket.has_no_future() {
            return;
        }
        if socket.is_full() {
            // Goes on when the owner has caught up.
            socket.reading = false;
            return;
        }
        let read = match socket.listens {
            true => accept_one(table, key),
            false => receive_one(table, key),
        };
        if read == Read::Starved {
            table.sockets[key as usize].reading = false;
            return table.read_when_fed(key);
        }
    }
    table.read_soon(key);
}

#[expect(unsafe_code, reason = "recv into a shared buffer")]
fn receive_one(table: &mut Table, key: Key) -> Read {
    let buffers = Rc::clone(&table.buffers);
    let buffer = buffers.take().or_else(|| {
        // The queues give theirs back, unless that is much already: then whoever
        // looks at memory has a turn first.
        if !table.growth.is_much() {
            table.detach_received();
        }
        buffers.take()
    });
    let Some(buffer) = buffer else {
        return Read::Starved;
    };
    let socket = &mut table.sockets[key as usize];
    // SAFETY: the buffer is SIZE bytes, free, and held by nobody but us.
    let received = unsafe { libc::recv(raw(socket), buffers.address(buffer).cast(), SIZE, 0) };
    let error = if received < 0 { last_error() } else { 0 };
    let length = received.max(0) as usize;
    let chunk = Chunk::of_buffer(buffers, buffer, length);
    match (received, error) {
        (1.., _) => {
            // Less than was asked for: that was all, and what comes later is
            // told by another event (epoll(7)). Only an end that was told
            // already is still to be read.
            socket.readable = length == SIZE || socket.hung_up;
            table.push_received(key, chunk);
        }
        (0, _) => table.end_receiving(key, End::Fin),
        (_, libc::EAGAIN) => socket.readable = false,
        (_, libc::EINTR) => {}
        (_, error) => table.end_receiving(key, End::Error(error)),
    }
    Read::Tried
}

#[expect(unsafe_code, reason = "accept4")]
fn accept_one(table: &mut Table, key: Key) -> Read {
    let socket = &mut table.sockets[key as usize];
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no address is asked for.
    let fd = unsafe {
        libc::accept4(
            raw(socket),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            flags,
        )
    };
    let error = if fd < 0 { last_error() } else { 0 };
    match error {
        0 => {
            // SAFETY: the descriptor is new and nobody else's.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            table.push_accepted(key, fd);
        }
        libc::EAGAIN => socket.readable = false,
        libc::EINTR | libc::ECONNABORTED => {}
        error => table.end_receiving(key, End::Error(error)),
    }
    Read::Tried
}

#[expect(unsafe_code, reason = "epoll_ctl")]
fn add(epoll: &OwnedFd, fd: i32, events: u32, data: u64) -> io::Result<()> {
    let mut event = libc::epoll_event { events, u64: data };
    // SAFETY: the event is live; the kernel copies it.
    let added =
        unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) };
    if added == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn last_error() -> i32 {
    io::Error::last_os_error()
        .raw_os_error()
        .unwrap_or(libc::EIO)
}
