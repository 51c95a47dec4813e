//! The connections of an admin listener. There are few, but a new one always gets
//! a place: that of the connection that has been idle longest, else that of the
//! oldest. So health checks are answered whoever else connects.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep, sleep_until};

/// Connections at once.
pub(super) const PLACES: usize = 64;
/// What all of them may hold of answers that are not read. The answer that comes
/// last is held in any case.
const UNREAD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Who takes no byte of an answer for this long is cut off.
const WRITE_WITHIN: Duration = Duration::from_secs(5);
/// From a request to the last byte of its answer.
const EXCHANGE_WITHIN: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct Places {
    held: Mutex<Connections>,
}

#[derive(Debug, Default)]
struct Connections {
    next: u64,
    /// From the oldest to the newest.
    places: Vec<(u64, Holder)>,
}

#[derive(Debug)]
struct Holder {
    activity: Activity,
    /// `None`: its task is about to be made.
    task: Option<AbortHandle>,
}

#[derive(Debug, Clone, Copy)]
enum Activity {
    /// No request is answered.
    Idle { since: Instant },
    /// One is, with so many bytes.
    Answers { since: Instant, bytes: usize },
}

/// A connection's side of its place, which it leaves when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
}

impl Places {
    /// A place, taken from another where none is free.
    pub(super) fn take(self: &Arc<Self>) -> Place {
        let mut held = self.held();
        if held.places.len() >= PLACES {
            held.evict_idle_or_oldest();
        }
        let number = held.next;
        held.next += 1;
        let holder = Holder {
            activity: Activity::Idle {
                since: Instant::now(),
            },
            task: None,
        };
        held.places.push((number, holder));
        Place {
            places: Arc::clone(self),
            number,
        }
    }

    /// Says which task to end when the place goes to another.
    pub(super) fn is_held_by(&self, number: u64, task: AbortHandle) {
        match self.held().find(number) {
            Some(holder) => holder.task = Some(task),
            None => task.abort(),
        }
    }

    fn held(&self) -> MutexGuard<'_, Connections> {
        // A holder adds, changes or removes one entry.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connections {
    fn find(&mut self, number: u64) -> Option<&mut Holder> {
        let mut places = self.places.iter_mut();
        let found = places.find(|(held, _)| *held == number);
        found.map(|(_, holder)| holder)
    }

    fn evict_idle_or_oldest(&mut self) {
        let idle = self.places.iter().enumerate();
        let idle = idle.filter_map(|(at, (_, holder))| match holder.activity {
            Activity::Idle { since } => Some((since, at)),
            Activity::Answers { .. } => None,
        });
        let at = idle.min().map_or(0, |(_, at)| at);
        self.evict(at);
    }

    /// The oldest answers go until `number`'s has room beside the others.
    fn make_room(&mut self, number: u64) {
        let unread = |holder: &Holder| match holder.activity {
            Activity::Idle { .. } => 0,
            Activity::Answers { bytes, .. } => bytes,
        };
        while self.places.iter().map(|(_, it)| unread(it)).sum::<usize>() > UNREAD_BYTES_MAX {
            let mut others = self.places.iter();
            let oldest = others.position(|(held, it)| *held != number && unread(it) > 0);
            match oldest {
                Some(at) => self.evict(at),
                None => return,
            }
        }
    }

    fn evict(&mut self, at: usize) {
        let (_, holder) = self.places.remove(at);
        if let Some(task) = holder.task {
            task.abort();
        }
    }
}

impl Place {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// A request is there.
    pub(super) fn begins(&self) {
        let now = Instant::now();
        self.change(|activity| {
            if matches!(activity, Activity::Idle { .. }) {
                *activity = Activity::Answers {
                    since: now,
                    bytes: 0,
                };
            }
        });
    }

    /// This much is to be written.
    pub(super) fn answers(&self, length: usize) {
        self.change(|activity| {
            if let Activity::Answers { bytes, .. } = activity {
                *bytes = length;
            }
        });
        self.places.held().make_room(self.number);
    }

    /// All is written.
    fn is_idle(&self) {
        let now = Instant::now();
        self.change(|activity| match activity {
            Activity::Answers { bytes, .. } if *bytes > 0 => {
                *activity = Activity::Idle { since: now }
            }
            _ => {}
        });
    }

    fn answers_since(&self) -> Option<Instant> {
        match self.places.held().find(self.number)?.activity {
            Activity::Idle { .. } => None,
            Activity::Answers { since, .. } => Some(since),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Activity)) {
        if let Some(holder) = self.places.held().find(self.number) {
            change(&mut holder.activity);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.places.held();
        held.places.retain(|(number, _)| *number != self.number);
    }
}

/// A stream whose peer has to read what is written to it.
pub(super) struct Limited<S> {
    stream: S,
    place: Arc<Place>,
    /// While a write waits.
    limit: Option<Pin<Box<Sleep>>>,
}

impl<S> Limited<S> {
    pub(super) fn new(stream: S, place: Arc<Place>) -> Self {
        Self {
            stream,
            place,
            limit: None,
        }
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let place = &self.place;
        let limit = self.limit.get_or_insert_with(|| {
            let now = Instant::now();
            let exchange = place.answers_since().unwrap_or(now) + EXCHANGE_WITHIN;
            Box::pin(sleep_until(exchange.min(now + WRITE_WITHIN)))
        });
        ready!(limit.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Limited<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Limited<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(cx, bytes) {
            Poll::Pending => self.wait(cx),
            written => {
                self.limit = None;
                written
            }
        }
    }

    /// Called by hyper when it has written all that there is.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_ready() {
            self.place.is_idle();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection that does nothing by itself.
    struct Peer {
        place: Arc<Place>,
        task: tokio::task::JoinHandle<()>,
    }

    fn connect(places: &Arc<Places>) -> Peer {
        let place = Arc::new(places.take());
        let task = tokio::spawn(std::future::pending());
        places.is_held_by(place.number(), task.abort_handle());
        Peer { place, task }
    }

    impl Peer {
        /// A request, answered with so many bytes that nobody reads.
        fn ask(&self, bytes: usize) {
            self.place.begins();
            self.place.answers(bytes);
        }

        async fn is_out(&self) -> bool {
            tokio::task::yield_now().await;
            self.task.is_finished()
        }
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        runtime.block_on(test);
    }

    #[test]
    fn the_longest_idle_goes_first_then_the_oldest() {
        run(async {
            let places = Arc::default();
            let peers: Vec<Peer> = (0..PLACES).map(|_| connect(&places)).collect();
            // The first has asked since, and read what it got.
            peers[0].ask(9);
            peers[0].place.is_idle();
            peers[1].ask(9);
            let late = connect(&places);
            assert!(peers[2].is_out().await);
            assert!(!peers[0].is_out().await && !peers[1].is_out().await);

            peers.iter().for_each(|peer| peer.ask(9));
            late.ask(9);
            let _last = connect(&places);
            assert!(peers[0].is_out().await && !peers[1].is_out().await);
            assert!(!late.is_out().await);
        });
    }

    #[test]
    fn who_leaves_makes_room() {
        run(async {
            let places = Arc::default();
            let mut peers: Vec<Peer> = (0..PLACES).map(|_| connect(&places)).collect();
            peers.remove(7);
            let _new = connect(&places);
            for peer in &peers {
                assert!(!peer.is_out().await);
            }
        });
    }

    #[test]
    fn answers_that_nobody_reads_are_bounded_together() {
        run(async {
            let places = Arc::default();
            let peers: Vec<Peer> = (0..3).map(|_| connect(&places)).collect();
            peers.iter().for_each(|peer| peer.ask(UNREAD_BYTES_MAX / 2));
            assert!(peers[0].is_out().await);
            assert!(!peers[1].is_out().await && !peers[2].is_out().await);
            // One that is larger than all may be is sent alone.
            peers[1].ask(2 * UNREAD_BYTES_MAX);
            assert!(peers[2].is_out().await && !peers[1].is_out().await);
        });
    }

    /// A peer that reads now and then, but too little.
    #[test]
    fn a_write_that_waits_is_given_up() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        run(async {
            let places = Arc::default();
            let (ours, mut theirs) = tokio::io::duplex(8);
            let place = Arc::new(Places::take(&places));
            let mut stream = Limited::new(ours, Arc::clone(&place));
            place.begins();
            stream.write_all(b"12345678").await.unwrap();
            let begun = Instant::now();
            let error = stream.write_all(b"9").await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert!(begun.elapsed() >= WRITE_WITHIN);
            theirs.read_exact(&mut [0; 8]).await.unwrap();
        });
    }
}
