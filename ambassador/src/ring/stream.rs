//! Streams and listeners as tasks see them.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::Core;
use super::chunk::{Chunk, Gather};
use super::keep_alive::{self, Liveness};
use super::send_op::SendError;
use super::sockets::{self, Departure};
use super::table::{Connecting, End, Key, Role, SendGoal, StreamId};
use super::timer::Elapsed;
use super::waiting::keep;
use super::wheel;
use crate::clock::Instant;

/// What [`Stream::post`] does not wait for. More would let every stalled peer
/// hold as much once more.
const POST_MAX: usize = 16 * 1024;

/// A connected socket. One task reads and one writes at a time; both may be
/// the same. Dropping it closes it, after what is under way was cancelled.
#[derive(Debug)]
pub struct Stream {
    pub(super) key: Key,
    /// The timer of whoever receives with a limit. It stays armed, so that the
    /// next wait costs nothing; it may wake a task that no longer waits.
    alarm: Cell<Option<wheel::Key>>,
    /// It belongs to its thread.
    _not_send: std::marker::PhantomData<*const ()>,
}

/// A send; see [`Stream::send`] and [`Stream::post`]. A struct, not an `async
/// fn`: whoever waits for it moves it, bytes and all.
#[derive(Debug)]
pub struct Sending<'a> {
    stream: &'a Stream,
    unsent: Option<Gather>,
    until: SendGoal,
}

impl Future for Sending<'_> {
    type Output = Result<(), SendError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if this.unsent.as_ref().is_some_and(Gather::is_empty) {
            return Poll::Ready(Ok(()));
        }
        let (key, until, waker) = (this.stream.key, this.until, context.waker());
        super::with(|core| core.driver.poll_send(key, &mut this.unsent, until, waker))
    }
}

impl Sending<'_> {
    /// Replaces bytes of which none was handed to the kernel.
    pub fn replace(&mut self, by: impl FnOnce(Gather) -> Gather) {
        self.unsent = self.unsent.take().map(by);
    }
}

impl Stream {
    pub(super) fn new(fd: OwnedFd, role: Role) -> io::Result<Self> {
        let key = super::with(|core| core.driver.add(fd, role))?;
        Ok(Self {
            key,
            alarm: Cell::new(None),
            _not_send: std::marker::PhantomData,
        })
    }

    /// Takes over a socket that is connected already, such as one that has left
    /// another shard.
    pub fn from_connected(socket: OwnedFd) -> io::Result<Self> {
        suit(&socket)?;
        Self::new(socket, Role::Connected)
    }

    /// Connects `socket`, which [`dial_socket`](super::dial_socket) or a helper
    /// made. Dropping the future abandons the attempt.
    pub async fn connect(socket: OwnedFd, address: &SocketAddr) -> io::Result<Self> {
        suit(&socket)?;
        let stream = Self::new(socket, Role::Unconnected)?;
        super::with(|core| core.driver.connect(stream.key, (*address).into()));
        let connected = poll_fn(|context| {
            super::with(|core| {
                let mut socket = core.driver.socket(stream.key);
                if let Connecting::Done(result) = socket.connecting {
                    socket.connecting = Connecting::No;
                    return Poll::Ready(result);
                }
                keep(&mut socket.writer, context.waker());
                Poll::Pending
            })
        });
        match connected.await {
            Ok(()) => Ok(stream),
            Err(error) => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// Its name, for [`standing`](super::standing) and [`fail`](super::fail).
    pub fn id(&self) -> StreamId {
        let generation = super::with(|core| core.driver.socket(self.key).generation);
        let key = self.key;
        StreamId { key, generation }
    }

    /// The next bytes; `None`: the peer has ended its direction. Cancelling it
    /// loses nothing.
    #[inline(always)]
    pub fn poll_recv(&self, context: &Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        super::with(|core| core.driver.poll_recv(self.key, context.waker()))
    }

    /// Tells when it is too late to wait any longer.
    pub fn poll_elapsed(&self, deadline: Instant, context: &Context<'_>) -> Poll<Elapsed> {
        super::with(|core| self.poll_deadline(core, deadline, context.waker()))
    }

    /// The same as [`Stream::poll_recv`], but not past `deadline`. What is here
    /// already comes even then.
    #[inline(always)]
    pub fn poll_recv_by(
        &self,
        deadline: Instant,
        context: &Context<'_>,
    ) -> Poll<Result<io::Result<Option<Chunk>>, Elapsed>> {
        let waker = context.waker();
        super::with(|core| match core.driver.poll_recv(self.key, waker) {
            Poll::Ready(received) => Poll::Ready(Ok(received)),
            Poll::Pending => self.poll_deadline(core, deadline, waker).map(Err),
        })
    }

    #[inline(always)]
    fn poll_deadline(&self, core: &Core, deadline: Instant, waker: &Waker) -> Poll<Elapsed> {
        if deadline <= super::now() {
            return Poll::Ready(Elapsed);
        }
        let mut wheel = core.wheel.borrow_mut();
        let alarm = wheel.keep(self.alarm.get(), deadline, waker);
        self.alarm.set(Some(alarm));
        Poll::Pending
    }

    /// The same as [`Stream::poll_readable`], but not past `deadline`.
    #[inline(always)]
    pub fn poll_readable_by(
        &self,
        deadline: Instant,
        context: &Context<'_>,
    ) -> Poll<Result<(), Elapsed>> {
        let waker = context.waker();
        super::with(|core| match self.readable_in(core, waker) {
            Poll::Ready(()) => Poll::Ready(Ok(())),
            Poll::Pending => self.poll_deadline(core, deadline, waker).map(Err),
        })
    }

    /// [`Stream::poll_recv`] as a future.
    pub fn recv(&self) -> impl Future<Output = io::Result<Option<Chunk>>> + '_ {
        poll_fn(|context| self.poll_recv(context))
    }

    /// Bytes that have arrived already.
    #[inline]
    pub fn try_recv(&self) -> Option<Chunk> {
        super::with(|core| core.driver.take_received(self.key))
    }

    /// Whether bytes, the end or an error wait to be received, or something is
    /// still being sent: any of them means that a pooled connection cannot be
    /// used.
    #[inline]
    pub fn is_closed_or_busy(&self) -> bool {
        super::with(|core| core.driver.socket(self.key).is_closed_or_busy())
    }

    /// Leaves this shard, so that another can go on with the socket. `None`, and
    /// closed: bytes, the end or an error have come meanwhile, or something is
    /// still being sent. What comes after that waits in the socket. Dropping the
    /// future closes it.
    pub async fn leave(self) -> Option<OwnedFd> {
        let left = poll_fn(|context| {
            let (key, waker) = (self.key, context.waker());
            super::with(|core| core.driver.poll_leave(key, waker))
        });
        let socket = left.await?;
        self.disarm();
        // Its key is somebody else's from now on.
        std::mem::forget(self);
        Some(socket)
    }

    /// Whether the peer has ended its direction in order, and all before it
    /// was received.
    pub fn ended_with_fin(&self) -> bool {
        super::with(|core| {
            let socket = core.driver.socket(self.key);
            socket.end == Some(End::Fin) && !socket.has_received()
        })
    }

    /// Ready when bytes, the end or an error wait; takes nothing.
    #[inline(always)]
    pub fn poll_readable(&self, context: &Context<'_>) -> Poll<()> {
        super::with(|core| self.readable_in(core, context.waker()))
    }

    #[inline(always)]
    fn readable_in(&self, core: &Core, waker: &Waker) -> Poll<()> {
        let mut socket = core.driver.socket(self.key);
        if socket.has_news() {
            return Poll::Ready(());
        }
        keep(&mut socket.reader, waker);
        Poll::Pending
    }

    /// [`Stream::poll_readable`] as a future.
    pub fn readable(&self) -> impl Future<Output = ()> + '_ {
        poll_fn(|context| self.poll_readable(context))
    }

    /// Resolves when the peer has ended its direction or the connection has
    /// failed; never for bytes. It takes nothing, so that it can be watched
    /// beside whoever receives.
    pub fn departure(&self) -> impl Future<Output = Departure> + '_ {
        poll_fn(|context| {
            super::with(|core| {
                let mut socket = core.driver.socket(self.key);
                let departure = match socket.end {
                    Some(End::Error(_)) => Departure::Failed,
                    Some(End::Fin) => Departure::Fin,
                    None if socket.is_full() => Departure::Unseen,
                    None => {
                        keep(&mut socket.watcher, context.waker());
                        return Poll::Pending;
                    }
                };
                Poll::Ready(departure)
            })
        })
    }

    /// How the connection has failed, where it has.
    pub fn failure(&self) -> Option<io::Error> {
        let end = super::with(|core| core.driver.socket(self.key).end);
        match end {
            Some(End::Error(error)) => Some(io::Error::from_raw_os_error(error)),
            Some(End::Fin) | None => None,
        }
    }

    /// Resolves when the connection has failed, be it after the peer had ended
    /// its direction.
    pub fn failed(&self) -> impl Future<Output = ()> + '_ {
        poll_fn(|context| {
            super::with(|core| {
                let mut socket = core.driver.socket(self.key);
                if matches!(socket.end, Some(End::Error(_))) {
                    return Poll::Ready(());
                }
                keep(&mut socket.watcher, context.waker());
                Poll::Pending
            })
        })
    }

    /// The same as of now, by asking the kernel; `None`: the peer is there.
    pub fn departure_now(&self) -> Option<Departure> {
        sockets::departure(&self.as_fd())
    }

    /// Sends all of `gather`. Dropping the future does not stop what is under
    /// way, and nobody learns how much was taken: the stream is good for little
    /// but closing then. Another send waits until the first is over, and fails
    /// if that has failed.
    pub fn send(&self, gather: Gather) -> Sending<'_> {
        self.send_until(gather, SendGoal::Sent)
    }

    /// Sends like [`Stream::send`], but does not wait for the kernel to take a
    /// `gather` of 16 KiB or less; that saves a system call where the sender
    /// waits for news next, such as an answer. How it went is told by the next
    /// send, [`Stream::flush`] or [`Stream::send_failure`]. A stream must be
    /// flushed before it is closed or shut down, or the bytes may be lost.
    pub fn post(&self, gather: Gather) -> Sending<'_> {
        let until = match gather.bytes() {
            ..=POST_MAX => SendGoal::Queued,
            _ => SendGoal::Sent,
        };
        self.send_until(gather, until)
    }

    fn send_until(&self, gather: Gather, until: SendGoal) -> Sending<'_> {
        Sending {
            stream: self,
            unsent: Some(gather),
            until,
        }
    }

    /// Waits until the kernel has taken everything that was posted.
    pub async fn flush(&self) -> Result<(), SendError> {
        poll_fn(|context| super::with(|core| core.driver.poll_flush(self.key, context.waker())))
            .await
    }

    /// How a post has failed, if it has; told once.
    #[inline]
    pub fn send_failure(&self) -> Option<SendError> {
        super::with(|core| core.driver.socket(self.key).take_failure())
    }

    /// Bytes that the peer has taken so far, as far as the kernel can tell. For
    /// unix sockets that is a measure to compare with itself, and may be negative.
    pub fn taken(&self) -> i64 {
        let gone = super::with(|core| core.driver.socket(self.key).gone());
        let waiting = sockets::outgoing_bytes(&self.as_fd()).unwrap_or(0);
        gone.wrapping_sub(waiting) as i64
    }

    /// Whether the peer leaves unread what it is sent: the kernel takes no more.
    pub fn leaves_unread(&self) -> bool {
        super::with(|core| core.driver.socket(self.key).standing().leaves_unread)
    }

    /// Sends the last bytes of this direction without waiting, as far as the socket
    /// takes them and nothing else is under way. For what the peer can do without.
    pub fn send_last(&self, bytes: &[u8]) {
        super::send_last(self.id(), bytes);
    }

    /// Ends the sending direction: the peer sees a FIN.
    pub fn shutdown_write(&self) {
        sockets::shutdown_write(&self.as_fd());
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        self.reset_on_close();
    }

    /// Makes a reset of the close to come.
    pub fn reset_on_close(&self) {
        sockets::reset_on_close(&self.as_fd());
    }

    /// Has it ask a silent peer for a sign of life; a failure leaves it as it was.
    pub fn keep_alive(&self, silence: Option<Duration>, expected: Liveness) {
        let _ = keep_alive::set(&self.as_fd(), silence, expected);
    }

    /// Bears with a peer of which progress is expected and that pauses; to be
    /// called again after [`look_every`](super::look_every).
    pub fn allow_pause(&self, silence: Duration) {
        let _ = keep_alive::allow_pause(&self.as_fd(), silence);
    }

    /// The address of this end.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        sockets::local_address(&self.as_fd())
    }

    /// The address of the other end; an error for unix sockets.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        sockets::peer_address(&self.as_fd())
    }

    /// The socket, for what only the kernel knows of it.
    #[expect(unsafe_code, reason = "the descriptor is owned by the driver's table")]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the table keeps the descriptor open until this stream, which
        // the result borrows, is dropped, or until all tasks have ended.
        unsafe { BorrowedFd::borrow_raw(self.raw()) }
    }

    fn disarm(&self) {
        if let Some(alarm) = self.alarm.take() {
            super::try_with(|core| core.wheel.borrow_mut().remove(alarm));
        }
    }

    /// The descriptor, open while this stream and its shard live.
    pub(super) fn raw(&self) -> RawFd {
        super::with(|core| core.driver.socket(self.key).fd.as_raw_fd())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.disarm();
        super::try_with(|core| core.driver.close(self.key));
    }
}

/// Blocking or not, as the backend wants it; accepted sockets are so already.
pub(super) fn suit(socket: &OwnedFd) -> io::Result<()> {
    let backend = super::with(|core| core.driver.backend());
    sockets::suit(socket, backend)
}
