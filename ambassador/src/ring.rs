//! A single-threaded executor and its I/O: io_uring, or epoll where that is
//! not to be had, behind the same interface of owned chunks.
//!
//! Everything here belongs to one thread. Only [`Remote`] and wakers may be
//! used from others. The rules that keep one slow peer from stopping the rest:
//!
//! - A read is armed on every stream, so a close is seen when it happens.
//! - Received bytes arrive in a few buffers that all streams of the shard
//!   share. Between two turns of the loop none of them is held: what nobody
//!   has consumed is copied to the heap, and above [`RECEIVED_MAX`] per stream
//!   the read is stopped until its owner catches up.
//! - A send first tries without waiting. Only what the socket does not take is
//!   copied off the shared buffers and waits.
//! - An operation owns its buffers until it completes, whatever becomes of the
//!   future that started it. A socket is closed after its last completion.

mod buffers;
mod chunk;
mod driver;
mod epoll;
mod executor;
pub(crate) mod growth;
mod keep_alive;
mod listener;
mod mailbox;
mod send_op;
pub(crate) mod slack;
mod sockets;
mod spare;
mod spin;
mod stream;
mod table;
mod task;
pub(crate) mod timer;
mod uring;
mod waiting;
mod wheel;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::Duration;

pub(crate) use chunk::Chunk;
pub use chunk::Gather;
pub(crate) use keep_alive::{Liveness, look_every};
pub use listener::Listener;
pub(crate) use mailbox::{Remote, Reserved, SendError as MailboxError};
pub(crate) use send_op::SendError;
pub(crate) use sockets::Departure;
pub use sockets::dial_socket;
pub(crate) use sockets::{is_quiet, local_address, steer_by_cpu};
pub(crate) use spare::{drop_all as drop_spares, take as spare_buffer};
pub use spin::Spin;
pub(crate) use stream::Sending;
pub use stream::Stream;
pub(crate) use table::{PendingBytes, StreamActivity, StreamId};

use crate::clock::{self, Instant};
use driver::Driver;
use executor::Executor;
use mailbox::Mailbox;
use spin::WaitHistory;
use wheel::Wheel;

/// Bytes kept of a stream that nobody reads; from there on the read is stopped.
/// The last of them may have come with a whole buffer, 8 KiB. Where io_uring
/// knows no limit for a multishot receive (before Linux 6.18), it may have
/// filled every shared buffer, 256 KiB, before the stop took effect. Together
/// with what one send gathers ([`SENT_AT_ONCE`](chunk::SENT_AT_ONCE)) a stalled
/// transfer holds 64 KiB.
pub(crate) const RECEIVED_MAX: usize = 24 * 1024;

/// Tasks polled at most between two looks at the kernel, so that tasks which
/// keep waking each other cannot keep I/O waiting.
const POLLS_PER_TURN: usize = 256;

/// What carries the I/O of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// io_uring, Linux 6.0 and later.
    Ring,
    /// epoll.
    Epoll,
}

/// How a shard runs.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// What carries its I/O.
    pub backend: Backend,
    /// Its number, for log lines.
    pub shard: u16,
    /// Whether it may spin.
    pub spin: Spin,
}

/// Everything of one running shard.
struct Core {
    executor: Executor,
    wheel: RefCell<Wheel>,
    driver: Driver,
    mailbox: Mailbox,
    turns: Cell<u64>,
    waits: RefCell<WaitHistory>,
}

thread_local! {
    static CORE: RefCell<Option<Rc<Core>>> = const { RefCell::new(None) };
    /// When this turn of the loop began. Beside the core, because it is asked for
    /// some twenty times by every request.
    static NOW: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The backend to use, and why it is not the ring where it is not.
/// `AMBASSADOR_BACKEND=epoll` or `=ring` forces one.
pub fn probe() -> (Backend, Option<String>) {
    match std::env::var("AMBASSADOR_BACKEND").as_deref() {
        Ok("epoll") => (Backend::Epoll, Some("AMBASSADOR_BACKEND=epoll".into())),
        Ok("ring") => (Backend::Ring, None),
        _ => match uring::probe() {
            Ok(()) => (Backend::Ring, None),
            Err(error) => (Backend::Epoll, Some(error.to_string())),
        },
    }
}

/// Runs `main` and what it spawns on this thread until `main` is done; then
/// drops the tasks that are left, takes the completions of what they had in
/// flight and closes their sockets.
///
/// # Errors
/// When the ring or the epoll instance cannot be made or entered.
pub fn run<T: 'static>(options: Options, main: impl Future<Output = T> + 'static) -> io::Result<T> {
    let mailbox = Mailbox::new()?;
    let core = Rc::new(Core {
        executor: Executor::new(mailbox.shared()),
        wheel: RefCell::new(Wheel::new(clock::now())),
        driver: Driver::new(options.backend, mailbox.event())?,
        mailbox,
        turns: Cell::new(0),
        waits: RefCell::new(WaitHistory::new(options.spin)),
    });
    CORE.with_borrow_mut(|slot| {
        assert!(slot.is_none(), "a thread runs one shard at a time");
        *slot = Some(Rc::clone(&core));
    });
    NOW.set(Some(clock::now()));
    let result = core.run(main);
    // Tasks own streams, and dropping those needs the core.
    core.executor.clear();
    core.mailbox.close();
    core.driver.finish();
    CORE.with_borrow_mut(|slot| *slot = None);
    NOW.set(None);
    tracing::debug!(shard = options.shard, backend = %options.backend, "the shard has ended");
    result
}

/// Starts a task on this shard. A panic in it is counted and logged, and ends it
/// alone.
pub fn spawn(future: impl Future<Output = ()> + 'static) {
    with(|core| core.executor.spawn(Box::pin(future)));
}

/// Tasks that have not ended.
#[cfg(test)]
pub(crate) fn task_count() -> usize {
    with(|core| core.executor.task_count())
}

/// Panics of tasks, and of closures that other threads sent, so far.
pub(crate) fn task_panics() -> u64 {
    with(|core| core.executor.panics())
}

/// The time at the start of this turn of the loop.
pub(crate) fn now() -> Instant {
    NOW.get().expect("called on a thread that runs a shard")
}

/// What a stream of this shard is doing; `None`: it is gone.
pub(crate) fn standing(id: StreamId) -> Option<StreamActivity> {
    with(|core| core.driver.standing(id))
}

/// What waits in all streams of this shard.
pub(crate) fn held() -> PendingBytes {
    with(|core| core.driver.held())
}

/// Bytes that wait in the kernel for a stream of this shard, either way.
pub(crate) fn queued(id: StreamId) -> usize {
    with(|core| core.driver.queued(id))
}

/// Ends a stream of this shard, whoever owns it: whoever waits on it finds it
/// failed, as after a reset.
pub(crate) fn fail(id: StreamId) {
    with(|core| core.driver.fail(id, libc::ECONNABORTED));
}

/// The same as [`Stream::send_last`] for a stream that may be gone already.
pub(crate) fn send_last(id: StreamId, bytes: &[u8]) {
    try_with(|core| core.driver.send_last(id, bytes));
}

/// Looks at the kernel so far: between two of them, tasks share the time.
pub(crate) fn turns() -> u64 {
    with(|core| core.turns.get())
}

/// A handle by which other threads run closures on this shard.
pub(crate) fn remote() -> Remote {
    with(|core| core.mailbox.remote())
}

impl Core {
    fn run<T: 'static>(&self, main: impl Future<Output = T> + 'static) -> io::Result<T> {
        let result = Rc::new(Cell::new(None));
        let slot = Rc::clone(&result);
        let main = self.executor.spawn(Box::pin(async move {
            slot.set(Some(main.await));
        }));
        loop {
            for _ in 0..POLLS_PER_TURN {
                if !self.executor.poll_one() {
                    break;
                }
            }
            if let Some(result) = result.take() {
                return Ok(result);
            }
            if !self.executor.is_running(main) {
                return Err(io::Error::other("the main task of the shard has panicked"));
            }
            if self.executor.has_ready() {
                self.driver.turn(Some(Duration::ZERO), Duration::ZERO)?;
                NOW.set(Some(clock::now()));
            } else {
                let before = clock::now();
                let wait = self.wheel.borrow().wait(before);
                #[cfg(test)]
                let wait = self.skip(wait)?;
                let spin = self.waits.borrow().spin(wait);
                self.driver.turn(wait, spin)?;
                let after = clock::now();
                NOW.set(Some(after));
                self.waits.borrow_mut().note(after - before);
            }
            self.turns.set(self.turns.get() + 1);
            self.wheel.borrow_mut().advance(now());
            let panics = self.mailbox.drain(|task| self.executor.wake(task));
            self.executor.count_panics(panics);
        }
    }
}

#[cfg(test)]
impl Core {
    /// On virtual time nobody waits: where the kernel has no news, which all comes
    /// from this thread, the clock moves on to the next timer.
    fn skip(&self, wait: Option<Duration>) -> io::Result<Option<Duration>> {
        if !clock::virtual_time::is_on() {
            return Ok(wait);
        }
        self.driver.turn(Some(Duration::ZERO), Duration::ZERO)?;
        if !self.executor.has_ready() {
            let wait = wait.ok_or_else(|| io::Error::other("nothing will ever happen"))?;
            clock::virtual_time::advance(wait);
        }
        Ok(Some(Duration::ZERO))
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ring => "io_uring",
            Self::Epoll => "epoll",
        })
    }
}

fn with<R>(use_it: impl FnOnce(&Core) -> R) -> R {
    CORE.with_borrow(|core| {
        let core = core.as_ref();
        use_it(core.expect("called on a thread that runs a shard"))
    })
}

/// As [`with`], for destructors: after the shard has ended there is nothing
/// left to tell it.
fn try_with(use_it: impl FnOnce(&Core)) {
    // The thread-local itself may be gone when a destructor runs at thread exit.
    let _ = CORE.try_with(|core| {
        if let Some(core) = &*core.borrow() {
            use_it(core);
        }
    });
}

#[cfg(test)]
mod tests;
