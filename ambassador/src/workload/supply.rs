//! Sockets of other network namespaces, stocked ahead.
//!
//! The helper makes them, and may be slow, hang, or be gone. So one thread asks
//! it, and shards take what has come. A shard that finds nothing waits as it
//! does for bytes: its other connections go on.
//!
//! The same thread notices when the helper has ended, or has stopped to answer.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::helper::Life;
use super::{Helper, Netns, SocketSpec};
use crate::clock::{self, Instant};

/// Sockets of one family that a shard has in stock for a namespace. What lies
/// there is two small kernel objects each.
const STOCK: u16 = 16;
/// With fewer than these more are asked for: a round trip takes some 40 us.
const LOW: usize = 8;
/// Stocks that may be empty at once: more than there are shards and namespaces
/// in any use.
const ASKS: usize = 4_096;
/// Dials of a shard that may wait for a socket of one namespace.
const WAITING_MAX: usize = 4_096;
/// How soon one that does not answer, or could not, is asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(250);
/// For how long a failure is everybody's: a helper that does not answer is asked
/// within that.
const FAILED_FOR: Duration = Duration::from_millis(1_500);
/// The stack of the thread that asks.
const STACK_BYTES: usize = 128 * 1024;

/// Asks the helper for sockets on behalf of shards.
#[derive(Debug)]
pub struct Supply {
    helper: Arc<Helper>,
    asks: SyncSender<Arc<Shelf>>,
    /// Until the thread starts.
    asked: Mutex<Option<Receiver<Arc<Shelf>>>>,
    /// Rung when something was asked for, and at the end.
    bell: Arc<OwnedFd>,
}

/// Where the sockets of one kind, for one shard, are put.
#[derive(Debug)]
pub(super) struct Shelf {
    netns: Netns,
    spec: SocketSpec,
    state: Mutex<OnShelf>,
}

#[derive(Debug, Default)]
struct OnShelf {
    sockets: Vec<OwnedFd>,
    /// More are on their way.
    is_asked: bool,
    /// Why there are none, and when that was found out.
    failed: Option<(Instant, i32)>,
    waiting: Vec<Waker>,
}

impl Supply {
    /// One that asks nobody before [`Supply::start`].
    pub fn new(helper: &Arc<Helper>) -> io::Result<Self> {
        let (asks, asked) = sync_channel(ASKS);
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            helper: Arc::clone(helper),
            asks,
            asked: Mutex::new(Some(asked)),
            bell: Arc::new(bell),
        })
    }

    /// Starts its thread, which ends with this or with the helper.
    pub fn start(&self) -> io::Result<()> {
        let asked = self
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(asked) = asked else {
            return Ok(());
        };
        let thread = SupplyThread {
            helper: Arc::clone(&self.helper),
            asked,
            bell: Arc::clone(&self.bell),
        };
        std::thread::Builder::new()
            .name("helper".into())
            .stack_size(STACK_BYTES)
            .spawn(move || thread.run())
            .map(drop)
    }

    /// The helper, for those who may wait.
    pub fn helper(&self) -> &Arc<Helper> {
        &self.helper
    }

    fn ask(&self, shelf: &Arc<Shelf>) -> bool {
        let is_taken = self.asks.try_send(Arc::clone(shelf)).is_ok();
        if is_taken {
            self.ring();
        }
        is_taken
    }

    fn ring(&self) {
        // It cannot be so full that it is not readable.
        let _ = rustix::io::write(&*self.bell, &1_u64.to_ne_bytes());
    }
}

impl Drop for Supply {
    fn drop(&mut self) {
        // Nobody listens to this channel any more; the thread sees that.
        self.asks = sync_channel(0).0;
        self.ring();
    }
}

impl Shelf {
    /// One with the first sockets on it. To be called where waiting is fine.
    pub(super) fn filled(
        helper: &Helper,
        netns: &Netns,
        spec: SocketSpec,
    ) -> io::Result<Arc<Self>> {
        let shelf = Self {
            netns: netns.clone(),
            spec,
            state: Mutex::default(),
        };
        let sockets = shelf.fetch(helper)?;
        shelf.lock().sockets = sockets;
        Ok(Arc::new(shelf))
    }

    /// One that nothing could be put on yet.
    pub(super) fn empty(netns: &Netns, spec: SocketSpec) -> Arc<Self> {
        Arc::new(Self {
            netns: netns.clone(),
            spec,
            state: Mutex::default(),
        })
    }

    /// Takes a socket out of `here`, into which the shelf is emptied, and asks
    /// for more before there are none.
    pub(super) fn poll_take(
        self: &Arc<Self>,
        supply: &Supply,
        here: &mut Vec<OwnedFd>,
        context: &Context<'_>,
    ) -> Poll<io::Result<OwnedFd>> {
        if here.len() < LOW {
            let mut state = self.lock();
            here.append(&mut state.sockets);
            let now = clock::now();
            let failed = state.failed.filter(|(at, _)| now < *at + FAILED_FOR);
            if here.len() < LOW && !state.is_asked && failed.is_none() {
                state.failed = None;
                state.is_asked = supply.ask(self);
            }
            if here.is_empty() {
                let error = match failed {
                    Some((_, code)) => Some(code),
                    None if supply.helper.life() == Life::Ended => Some(libc::EPIPE),
                    None if !state.is_asked || state.waiting.len() >= WAITING_MAX => {
                        Some(libc::ENOBUFS)
                    }
                    None => None,
                };
                return match error {
                    Some(code) => Poll::Ready(Err(io::Error::from_raw_os_error(code))),
                    None => {
                        state.waiting.push(context.waker().clone());
                        Poll::Pending
                    }
                };
            }
        }
        here.pop()
            .map_or(Poll::Pending, |socket| Poll::Ready(Ok(socket)))
    }

    /// As many as there are who wait, within bounds.
    fn fetch(&self, helper: &Helper) -> io::Result<Vec<OwnedFd>> {
        let waiting = self.lock().waiting.len();
        let most = usize::from(SocketSpec::COUNT_MAX);
        let spec = SocketSpec {
            count: waiting.clamp(usize::from(STOCK), most) as u16,
            ..self.spec
        };
        helper.sockets(&self.netns, &spec)
    }

    /// Those who wait need not do so any longer; sockets are still asked for.
    fn fail(&self, code: i32) {
        let mut state = self.lock();
        state.failed = Some((clock::now(), code));
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    fn put(&self, fetched: io::Result<Vec<OwnedFd>>) {
        let waiting = {
            let mut state = self.lock();
            state.is_asked = false;
            match fetched {
                Ok(sockets) => {
                    state.failed = None;
                    state.sockets.extend(sockets);
                }
                Err(error) => {
                    let code = error.raw_os_error().unwrap_or(libc::EPIPE);
                    state.failed = Some((clock::now(), code));
                }
            }
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, OnShelf> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread's own part.
struct SupplyThread {
    helper: Arc<Helper>,
    asked: Receiver<Arc<Shelf>>,
    bell: Arc<OwnedFd>,
}

impl SupplyThread {
    fn run(self) {
        while self.wait(None) {
            let mut rung = [0; 8];
            // It is readable, or the wait has ended early: either is fine.
            let _ = rustix::io::read(&*self.bell, &mut rung);
            loop {
                match self.asked.try_recv() {
                    Ok(shelf) => shelf.put(self.fetch(&shelf)),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
        }
        self.helper.note(Life::Ended);
        // Those who come later find out by themselves.
        for shelf in self.asked.try_iter() {
            shelf.put(Err(io::ErrorKind::BrokenPipe.into()));
        }
    }

    /// Asks until there is an answer.
    fn fetch(&self, shelf: &Shelf) -> io::Result<Vec<OwnedFd>> {
        loop {
            match shelf.fetch(&self.helper) {
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                fetched => return fetched,
            }
            shelf.fail(libc::EAGAIN);
            if !self.wait(Some(AGAIN_AFTER)) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
    }

    /// Waits for the bell, or for a while; false once the helper has ended.
    fn wait(&self, limit: Option<Duration>) -> bool {
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let channel = self.helper.channel();
        let news = self.helper.news();
        let mut watched = Vec::with_capacity(3);
        watched.push(PollFd::from_borrowed_fd(channel, PollFlags::RDHUP));
        watched.extend(news.map(|news| PollFd::from_borrowed_fd(news, PollFlags::IN)));
        // Without the bell, where it is the time that matters.
        if limit.is_none() {
            watched.push(PollFd::new(&*self.bell, PollFlags::IN));
        }
        // Interrupted is woken early.
        let _ = poll(&mut watched, limit.as_ref());
        self.helper.hear_news();
        let end = PollFlags::HUP | PollFlags::RDHUP;
        !watched[0].revents().intersects(end)
    }
}
