//! The io_uring engine: multishot accept and receive, one `enter` per turn of
//! the loop.

mod probe;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use io_uring::squeue::Entry;
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

pub(super) use self::probe::probe;
use super::buffers::{Buffers, COUNT};
use super::chunk::Chunk;
use super::mailbox;
use super::send_op::SendOp;
use super::table::{Connecting, End, Key, SendGoal, Sending, Table, raw};
use crate::clock;

/// Operations started per turn without an extra system call.
const SUBMISSIONS: u32 = 256;

/// Completions that fit before the kernel has to queue them elsewhere.
const COMPLETIONS: u32 = 2_048;

/// The one group of provided buffers.
const BUFFER_GROUP: u16 = 0;

/// A ring and its provided buffers.
pub(super) struct Uring {
    ring: IoUring,
    event: OwnedFd,
    event_armed: bool,
    /// What the submission queue had no room for.
    late: VecDeque<Entry>,
    /// Whose sends the kernel tells nothing of unless they fail.
    quiet: Vec<Key>,
    /// A multishot receive may have a limit (Linux 6.18), as far as is known.
    limits_receives: bool,
    /// Keeps the registered memory alive as long as the ring.
    buffers: Rc<Buffers>,
}

/// What an operation was; part of its `user_data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Op {
    Event = 1,
    Cancel = 2,
    Receive = 3,
    Accept = 4,
    Connect = 5,
    Send = 6,
}

impl Uring {
    /// A ring that `event` wakes. SINGLE_ISSUER and DEFER_TASKRUN need
    /// Linux 6.1.
    pub(super) fn new(buffers: &Rc<Buffers>, event: OwnedFd) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_coop_taskrun()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)?;
        let engine = Self {
            ring,
            event,
            event_armed: false,
            late: VecDeque::new(),
            quiet: Vec::new(),
            limits_receives: true,
            buffers: Rc::clone(buffers),
        };
        engine.register_buffers()?;
        Ok(engine)
    }

    #[expect(unsafe_code, reason = "gives the kernel memory to write to")]
    fn register_buffers(&self) -> io::Result<()> {
        let address = self.buffers.ring_address();
        let address = address.ok_or_else(|| io::Error::other("the buffers have no ring"))?;
        // SAFETY: the address is that of a page-aligned mapping for COUNT
        // entries. `self.buffers` keeps it and the buffers mapped until the
        // ring, a field declared before it, is gone.
        unsafe {
            let submitter = self.ring.submitter();
            submitter.register_buf_ring_with_flags(address, COUNT, BUFFER_GROUP, 0)?;
        }
        self.buffers.provide_all();
        Ok(())
    }

    /// Starts to connect.
    pub(super) fn connect(&mut self, table: &mut Table, key: Key) {
        let socket = &mut table.sockets[key as usize];
        let Connecting::Busy(address) = &socket.connecting else {
            return;
        };
        let (place, length) = (address.as_ptr().cast(), address.addr_len());
        let entry = opcode::Connect::new(Fd(raw(socket)), place, length).build();
        socket.in_flight += 1;
        let entry = entry.user_data(pack(Op::Connect, socket.generation, key));
        self.push(entry);
    }

    /// Starts to send what the socket's operation says. Where nobody waits for
    /// the end, the kernel does not tell of success.
    pub(super) fn send(&mut self, table: &mut Table, key: Key, until: SendGoal) {
        let socket = &mut table.sockets[key as usize];
        let fd = Fd(raw(socket));
        let Sending::Busy(op) = &mut socket.sending else {
            return;
        };
        op.quiet = until == SendGoal::Queued;
        let entry = send_entry(fd, op);
        if op.quiet {
            self.quiet.push(key);
        }
        socket.in_flight += 1;
        let entry = entry.user_data(pack(Op::Send, socket.generation, key));
        self.push(entry);
    }

    /// Cancels everything on a socket. Each operation goes by its own number,
    /// for which the kernel has a table; for a descriptor it looks at every
    /// operation of the ring.
    pub(super) fn cancel(&mut self, table: &mut Table, key: Key) {
        let socket = &table.sockets[key as usize];
        let generation = socket.generation;
        let reads = match socket.listens {
            true => Op::Accept,
            false => Op::Receive,
        };
        let under_way = [
            (socket.reading, reads),
            (matches!(socket.sending, Sending::Busy(_)), Op::Send),
            (
                matches!(socket.connecting, Connecting::Busy(_)),
                Op::Connect,
            ),
        ];
        for (_, op) in under_way.into_iter().filter(|(is, _)| *is) {
            self.cancel_one(pack(op, generation, key));
        }
    }

    /// Stops the read of a stream that is to leave.
    pub(super) fn stop_reading(&mut self, table: &mut Table, key: Key) {
        let socket = &mut table.sockets[key as usize];
        if socket.reading && !std::mem::replace(&mut socket.stopping, true) {
            let operation = pack(Op::Receive, socket.generation, key);
            self.cancel_one(operation);
        }
    }

    fn cancel_one(&mut self, operation: u64) {
        let cancel = opcode::AsyncCancel::new(operation).build();
        self.push(cancel.user_data(pack(Op::Cancel, 0, 0)));
    }

    /// Whether the kernel ends a receive when enough has come.
    #[cfg(test)]
    pub(super) fn limits_receives(&self) -> bool {
        self.limits_receives
    }

    /// Submits what was started, waits, and takes the completions.
    pub(super) fn turn(
        &mut self,
        table: &mut Table,
        mut wait: Option<Duration>,
        spin: Duration,
    ) -> io::Result<()> {
        while let Some(entry) = self.late.pop_front() {
            if !self.try_push(&entry) {
                self.late.push_front(entry);
                break;
            }
        }
        self.start_reads(table);
        if !self.event_armed {
            let poll = opcode::PollAdd::new(Fd(self.event.as_raw_fd()), libc::POLLIN as u32);
            self.push(poll.build().user_data(pack(Op::Event, 0, 0)));
            self.event_armed = true;
        }
        // Quiet sends end without news: who waits for that, or for the buffers
        // that they hold, would wait for good.
        let awaited = table.in_a_hurry || table.has_starved() && !self.quiet.is_empty();
        let may_wait = self.late.is_empty() && !table.has_reads_due() && !awaited;
        if !may_wait {
            wait = Some(Duration::ZERO);
        } else if !spin.is_zero() {
            self.spin(spin)?;
        }
        self.enter(wait)?;
        // A failure may be among the completions that did not fit.
        let overflown = self.ring.submission().cq_overflow();
        loop {
            let next = self.ring.completion().next();
            let Some(completion) = next else {
                break;
            };
            self.complete(table, &completion);
        }
        if self.late.is_empty() && self.ring.submission().is_empty() && !overflown {
            self.settle_quiet(table);
            table.in_a_hurry = false;
        }
        Ok(())
    }

    /// Ends the quiet sends. Each was done while it was submitted: with
    /// MSG_DONTWAIT the kernel never puts one off, and if it had failed, that
    /// would have been among the completions.
    fn settle_quiet(&mut self, table: &mut Table) {
        for key in self.quiet.drain(..) {
            let Some(socket) = table.sockets.get_mut(key as usize) else {
                continue;
            };
            if let Sending::Busy(op) = &socket.sending
                && op.quiet
            {
                let bytes = op.gather.bytes();
                socket.in_flight -= 1;
                table.progress_send(key, Ok(bytes));
                table.remove_if_over(key);
            }
        }
    }

    /// Submits, then stays awake until there is something to take, `limit` at
    /// most. What has happened may need an `enter` yet to complete.
    fn spin(&mut self, limit: Duration) -> io::Result<()> {
        entered(self.ring.submit())?;
        let until = clock::now() + limit;
        while !self.ring.submission().taskrun()
            && self.ring.completion().is_empty()
            && clock::now() < until
        {
            std::hint::spin_loop();
        }
        Ok(())
    }

    fn enter(&mut self, wait: Option<Duration>) -> io::Result<()> {
        let result = match wait {
            None => self.ring.submit_and_wait(1),
            Some(wait) => {
                let time = Timespec::from(wait);
                let arguments = SubmitArgs::new().timespec(&time);
                self.ring.submitter().submit_with_args(1, &arguments)
            }
        };
        entered(result)
    }

    fn start_reads(&mut self, table: &mut Table) {
        for _ in 0..table.reads_due() {
            let Some(key) = table.next_to_read() else {
                continue;
            };
            let socket = &mut table.sockets[key as usize];
            let idle = !socket.reading && !socket.has_no_future() && socket.end.is_none();
            if !idle || socket.is_full() || matches!(socket.connecting, Connecting::Busy(_)) {
                continue;
            }
            let fd = Fd(raw(socket));
            let (entry, op) = match socket.listens {
                true => (
                    opcode::AcceptMulti::new(fd)
                        .flags(libc::SOCK_CLOEXEC)
                        .build(),
                    Op::Accept,
                ),
                false => {
                    let mut entry = opcode::RecvMulti::new(fd, BUFFER_GROUP).build();
                    if self.limits_receives {
                        end_after(&mut entry, socket.room());
                    }
                    (entry, Op::Receive)
                }
            };
            socket.reading = true;
            socket.in_flight += 1;
            let entry = entry.user_data(pack(op, socket.generation, key));
            self.push(entry);
        }
    }

    fn complete(&mut self, table: &mut Table, completion: &cqueue::Entry) {
        let (op, generation, key) = unpack(completion.user_data());
        let result = completion.result();
        match op {
            Some(Op::Event) => {
                self.event_armed = false;
                return mailbox::silence(&self.event);
            }
            Some(Op::Cancel) | None => return,
            Some(_) => {}
        }
        let known = table.sockets.get_mut(key as usize);
        let Some(socket) = known.filter(|socket| socket.generation == generation) else {
            // Cannot be: a socket is kept until its last completion.
            tracing::error!(?op, key, "a completion without a socket");
            return;
        };
        let more = cqueue::more(completion.flags());
        if !more {
            socket.in_flight -= 1;
        }
        let outcome = match result {
            0.. => Ok(result as usize),
            error => Err(-error),
        };
        match op {
            Some(Op::Receive) => self.received(table, key, outcome, completion.flags()),
            Some(Op::Accept) => self.accepted(table, key, outcome, more),
            Some(Op::Connect) => table.end_connect(key, outcome.map(|_| ())),
            Some(Op::Send) => {
                if table.progress_send(key, outcome) {
                    self.send(table, key, SendGoal::Sent);
                }
            }
            Some(Op::Event | Op::Cancel) | None => {}
        }
        table.remove_if_over(key);
    }

    fn received(&mut self, table: &mut Table, key: Key, outcome: Result<usize, i32>, flags: u32) {
        if let Some(buffer) = cqueue::buffer_select(flags) {
            self.buffers.chosen(buffer);
            let length = outcome.unwrap_or(0);
            let chunk = Chunk::of_buffer(Rc::clone(&self.buffers), buffer, length);
            if length > 0 {
                table.push_received(key, chunk);
            }
        }
        if cqueue::more(flags) {
            return self.stop_if_full(table, key, Op::Receive);
        }
        let socket = &mut table.sockets[key as usize];
        (socket.reading, socket.stopping) = (false, false);
        match outcome {
            Ok(0) => table.end_receiving(key, End::Fin),
            Ok(_) | Err(libc::ENOBUFS | libc::ECANCELED | libc::EINTR | libc::EAGAIN)
                if socket.leaving =>
            {
                table.may_leave(key);
            }
            Err(libc::ENOBUFS) => table.read_when_fed(key),
            Err(libc::EINVAL) if self.limits_receives => {
                self.limits_receives = false;
                table.read_soon(key);
            }
            // Stopped, or stopped by itself: goes on when there is room.
            Ok(_) | Err(libc::ECANCELED | libc::EINTR | libc::EAGAIN) => table.read_soon(key),
            Err(error) => table.end_receiving(key, End::Error(error)),
        }
    }

    #[expect(unsafe_code, reason = "the kernel hands over a new descriptor")]
    fn accepted(&mut self, table: &mut Table, key: Key, outcome: Result<usize, i32>, more: bool) {
        match outcome {
            Ok(fd) => {
                // SAFETY: the descriptor was made by this accept and is nobody
                // else's.
                let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
                table.push_accepted(key, fd);
            }
            Err(libc::ECONNABORTED | libc::EINTR | libc::EAGAIN | libc::ECANCELED) => {}
            Err(error) => table.end_receiving(key, End::Error(error)),
        }
        if more {
            return self.stop_if_full(table, key, Op::Accept);
        }
        let socket = &mut table.sockets[key as usize];
        (socket.reading, socket.stopping) = (false, false);
        table.read_soon(key);
    }

    /// Stops what reads or accepts on a socket of which too much waits.
    fn stop_if_full(&mut self, table: &mut Table, key: Key, op: Op) {
        let socket = &mut table.sockets[key as usize];
        if socket.is_full() && !socket.stopping && !socket.abandoned {
            socket.stopping = true;
            let operation = pack(op, socket.generation, key);
            self.cancel_one(operation);
        }
    }

    /// Queues an operation. Where the queue is full it is handed over first;
    /// should the kernel not take it now, the operation waits for the next turn.
    fn push(&mut self, entry: Entry) {
        let pushed = self.late.is_empty()
            && (self.try_push(&entry) || self.ring.submit().is_ok() && self.try_push(&entry));
        if !pushed {
            self.late.push_back(entry);
        }
    }

    #[expect(unsafe_code, reason = "operations point to memory of this process")]
    fn try_push(&mut self, entry: &Entry) -> bool {
        // SAFETY: what an entry points to (the address of a connect, the
        // message of a send) is boxed in its socket, which is kept until the
        // operation's last completion; so are the bytes of a send.
        unsafe { self.ring.submission().push(entry) }.is_ok()
    }
}

/// What came of an `enter`. The time has passed, a signal came, or completions
/// must be taken before more is submitted: each is followed by another turn.
fn entered(result: io::Result<usize>) -> io::Result<()> {
    const PASSING: [i32; 4] = [libc::ETIME, libc::EINTR, libc::EBUSY, libc::EAGAIN];
    match result {
        Err(error) if !error.raw_os_error().is_some_and(|e| PASSING.contains(&e)) => Err(error),
        _ => Ok(()),
    }
}

/// Has a multishot receive end by itself once so many bytes have come, and the
/// rest of a buffer; kernels that know no such limit refuse it by EINVAL.
#[expect(unsafe_code, reason = "the crate has no name for this field yet")]
fn end_after(receive: &mut Entry, bytes: usize) {
    /// `optlen` in `struct io_uring_sqe`.
    const OFFSET: usize = 44;
    const { assert!(size_of::<Entry>() == 64) };
    let limit = bytes.clamp(1, i32::MAX as usize) as u32;
    // SAFETY: an entry is the 64 bytes of a submission, plain integers all of
    // them, aligned to eight; the field lies within.
    unsafe {
        let field = (&raw mut *receive).cast::<u8>().add(OFFSET);
        field.cast::<u32>().write(limit);
    }
}

fn send_entry(fd: Fd, op: &mut SendOp) -> Entry {
    let flags = op.flags();
    let entry = match op.gather.only() {
        // The kernel copies no message, and no list of parts.
        Some(chunk) => {
            let entry = opcode::Send::new(fd, chunk.as_ptr(), chunk.len() as u32);
            entry.flags(flags).build()
        }
        None => {
            let entry = opcode::SendMsg::new(fd, op.message());
            entry.flags(flags as u32).build()
        }
    };
    match op.quiet {
        true => entry.flags(squeue::Flags::SKIP_SUCCESS),
        false => entry,
    }
}

fn pack(op: Op, generation: u32, key: Key) -> u64 {
    (op as u64) << 56 | u64::from(generation & 0x00ff_ffff) << 32 | u64::from(key)
}

fn unpack(data: u64) -> (Option<Op>, u32, Key) {
    let op = match data >> 56 {
        1 => Some(Op::Event),
        2 => Some(Op::Cancel),
        3 => Some(Op::Receive),
        4 => Some(Op::Accept),
        5 => Some(Op::Connect),
        6 => Some(Op::Send),
        _ => None,
    };
    (op, (data >> 32) as u32 & 0x00ff_ffff, data as u32)
}
