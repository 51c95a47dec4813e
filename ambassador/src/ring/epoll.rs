//! The epoll engine, for kernels and containers without io_uring: the same
//! queues, filled by reads when the kernel says that there is something.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendAncillaryBuffer, SendFlags, SocketFlags, sockopt};

use super::buffers::SIZE;
use super::chunk::{Chunk, GATHER_MAX, Gather};
use super::mailbox;
use super::table::{Connecting, End, Key, Sending, Socket, Table};
use crate::clock;

/// Events taken per turn.
const EVENTS: usize = 256;

/// Reads of one socket per turn, so that a fast peer leaves room for others.
const READS_PER_TURN: usize = 8;

/// Connections accepted per turn: a burst must not fill the backlog.
const ACCEPTS_PER_TURN: usize = 64;

/// The longest wait. What waits longer than a day looks at the clock in between.
const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The key of the eventfd.
const EVENT_KEY: u64 = u64::MAX;

/// An epoll instance.
pub(super) struct Epoll {
    epoll: OwnedFd,
    event: OwnedFd,
    events: Vec<Event>,
}

impl Epoll {
    /// An instance that `event` wakes.
    pub(super) fn new(event: OwnedFd) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(
            &epoll,
            &event,
            EventData::new_u64(EVENT_KEY),
            EventFlags::IN,
        )?;
        Ok(Self {
            epoll,
            event,
            events: Vec::with_capacity(EVENTS),
        })
    }

    /// Watches a new socket, edge-triggered, until it is closed.
    pub(super) fn watch(&mut self, socket: &Socket, key: Key) -> io::Result<()> {
        let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        let data = u64::from(socket.generation) << 32 | u64::from(key);
        Ok(epoll::add(
            &self.epoll,
            &socket.fd,
            EventData::new_u64(data),
            interest,
        )?)
    }

    /// Watches a socket no more.
    pub(super) fn unwatch(&mut self, socket: &Socket) {
        // It fails only for what is not watched.
        let _ = epoll::delete(&self.epoll, &socket.fd);
    }

    /// Starts to connect.
    pub(super) fn connect(&mut self, table: &mut Table, key: Key) {
        let socket = &mut table.sockets[key as usize];
        let Connecting::Busy(address) = &socket.connecting else {
            return;
        };
        match net::connect(&socket.fd, &**address) {
            Ok(()) => table.end_connect(key, Ok(())),
            Err(Errno::INPROGRESS | Errno::INTR) => {}
            Err(error) => table.end_connect(key, Err(error.raw_os_error())),
        }
    }

    /// Sends what the socket takes now, which is all most of the time; the rest
    /// when it takes more.
    pub(super) fn begin_send(&mut self, table: &mut Table, key: Key, unsent: &mut Option<Gather>) {
        let Some(gather) = unsent else {
            return;
        };
        let socket = &mut table.sockets[key as usize];
        let sent = send_once(&socket.fd, gather);
        if sent == Ok(gather.bytes()) {
            socket.is_sent(gather.bytes());
            *unsent = None;
            return;
        }
        table.begin_send(key, unsent.take().unwrap_or_default());
        if goes_on(table, key, sent) {
            self.send(table, key);
        }
    }

    /// Sends what the socket takes now of what is left.
    fn send(&mut self, table: &mut Table, key: Key) {
        loop {
            let socket = &mut table.sockets[key as usize];
            let Sending::Busy(op) = &socket.sending else {
                return;
            };
            let sent = send_once(&socket.fd, &op.gather);
            if !goes_on(table, key, sent) {
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
        let wait = match busy || table.has_reads_due() {
            true => Some(Duration::ZERO),
            false => wait,
        };
        let mut found = false;
        if wait != Some(Duration::ZERO) && !spin.is_zero() {
            let until = clock::now() + spin;
            while !found && clock::now() < until {
                found = self.wait(Some(Duration::ZERO))?;
            }
        }
        if !found {
            self.wait(wait)?;
        }
        // Taken out and put back: its memory is used again.
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            self.handle(table, event.data.u64(), event.flags);
        }
        self.events = events;
        Ok(())
    }

    /// Waits for events; whether there are some.
    fn wait(&mut self, wait: Option<Duration>) -> io::Result<bool> {
        let wait = wait.map(|wait| wait.min(WAIT_MAX)).map(|wait| Timespec {
            tv_sec: wait.as_secs() as i64,
            tv_nsec: i64::from(wait.subsec_nanos()),
        });
        let place = spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, place, wait.as_ref()) {
            Ok(count) => Ok(count > 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn handle(&mut self, table: &mut Table, data: u64, events: EventFlags) {
        if data == EVENT_KEY {
            return mailbox::silence(&self.event);
        }
        let (key, generation) = (data as Key, (data >> 32) as u32);
        let known = table.sockets.get_mut(key as usize);
        let Some(socket) = known.filter(|socket| socket.generation == generation) else {
            return;
        };
        let failed = events.intersects(EventFlags::ERR | EventFlags::HUP);
        if events.contains(EventFlags::OUT) || failed {
            if matches!(socket.connecting, Connecting::Busy(_)) {
                let result = sockopt::socket_error(&socket.fd).and_then(|pending| pending);
                table.end_connect(key, result.map_err(Errno::raw_os_error));
            }
            // Of every socket that has room the kernel says so with each event.
            if matches!(table.sockets[key as usize].sending, Sending::Busy(_)) {
                self.send(table, key);
            }
        }
        let hung_up = failed || events.contains(EventFlags::RDHUP);
        if events.contains(EventFlags::IN) || hung_up {
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
#[inline(always)]
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
#[inline(always)]
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
    let place = buffers.address(buffer).cast::<MaybeUninit<u8>>();
    // SAFETY: the buffer is SIZE bytes, free, and held by nobody but us.
    let place = unsafe { std::slice::from_raw_parts_mut(place, SIZE) };
    let received = net::recv(&socket.fd, place, RecvFlags::empty());
    let received = received.map(|(_, length)| length);
    let chunk = Chunk::of_buffer(buffers, buffer, received.unwrap_or(0));
    match received {
        Ok(0) => table.end_receiving(key, End::Fin),
        Ok(length) => {
            // Less than was asked for: that was all, and what comes later is
            // told by another event (epoll(7)). Only an end that was told
            // already is still to be read.
            socket.readable = length == SIZE || socket.hung_up;
            table.push_received(key, chunk);
        }
        Err(Errno::AGAIN) => socket.readable = false,
        Err(Errno::INTR) => {}
        Err(error) => table.end_receiving(key, End::Error(error.raw_os_error())),
    }
    Read::Tried
}

fn accept_one(table: &mut Table, key: Key) -> Read {
    let socket = &mut table.sockets[key as usize];
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    match net::accept_with(&socket.fd, flags) {
        Ok(accepted) => table.push_accepted(key, accepted),
        Err(Errno::AGAIN) => socket.readable = false,
        Err(Errno::INTR | Errno::CONNABORTED) => {}
        Err(error) => table.end_receiving(key, End::Error(error.raw_os_error())),
    }
    Read::Tried
}

/// Takes note of what was sent; whether the socket may take more now.
fn goes_on(table: &mut Table, key: Key, sent: Result<usize, Errno>) -> bool {
    let again = table.progress_send(key, sent.map_err(Errno::raw_os_error));
    again && sent != Err(Errno::AGAIN)
}

/// Sends as much as the socket takes now.
#[inline(always)]
fn send_once(socket: &OwnedFd, gather: &Gather) -> Result<usize, Errno> {
    let mut parts = [IoSlice::new(&[]); GATHER_MAX];
    let mut count = 0;
    for (part, chunk) in parts.iter_mut().zip(gather.chunks()) {
        *part = IoSlice::new(chunk);
        count += 1;
    }
    match &parts[..count] {
        [part] => net::send(socket, part, SendFlags::NOSIGNAL),
        parts => {
            let mut control = SendAncillaryBuffer::default();
            net::sendmsg(socket, parts, &mut control, SendFlags::NOSIGNAL)
        }
    }
}
