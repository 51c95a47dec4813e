//! How other threads reach a shard: closures, wake-ups, and an eventfd that
//! ends its wait.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::event::{EventfdFlags, eventfd};

use super::task::TaskId;

/// Closures that may wait at once.
const MAIL_MAX: usize = 1_024;

type Mail = Box<dyn FnOnce() + Send>;

/// The shard's end.
pub(super) struct Mailbox {
    shared: Arc<Shared>,
}

/// What both ends have.
pub(super) struct Shared {
    id: u16,
    event: OwnedFd,
    /// Something was put in since the last drain: the eventfd is written once
    /// per drain, not once per message.
    rung: AtomicBool,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    closed: bool,
    mail: VecDeque<Mail>,
    /// Closures for which room is kept.
    reserved: usize,
    /// At most one per task matters, and a task that is woken twice before the
    /// drain is merged by the executor.
    woken: Vec<TaskId>,
}

/// Runs closures on a shard; may be cloned and sent.
#[derive(Clone)]
pub struct Remote {
    shared: Arc<Shared>,
}

/// Room for one closure in a mailbox, until it is sent or this is dropped.
pub struct Reserved {
    shared: Arc<Shared>,
}

/// Why a closure was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// 1,024 wait already.
    Full,
    /// The shard has ended.
    Closed,
}

/// Where wakers find the executor of a number.
static EXECUTORS: Mutex<Option<HashMap<u16, Weak<Shared>>>> = Mutex::new(None);

impl Mailbox {
    /// An empty mailbox under a number of its own.
    pub(super) fn new() -> io::Result<Self> {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let shared = Arc::new(Shared {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            event,
            rung: AtomicBool::new(false),
            queue: Mutex::default(),
        });
        lock(&EXECUTORS)
            .get_or_insert_default()
            .insert(shared.id, Arc::downgrade(&shared));
        Ok(Self { shared })
    }

    /// Its shared part.
    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Readable when there is something to drain.
    pub(super) fn event(&self) -> OwnedFd {
        let event = self.shared.event.try_clone();
        event.expect("one more descriptor, at the start of a shard")
    }

    /// A handle for other threads.
    pub(super) fn remote(&self) -> Remote {
        Remote {
            shared: self.shared(),
        }
    }

    /// Runs the closures that have come in, and gives the tasks that were woken to
    /// `wake`. Counts panics. The eventfd is silenced by whoever saw that it is
    /// readable, before this.
    pub(super) fn drain(&self, wake: impl Fn(TaskId)) -> u64 {
        if !self.shared.rung.swap(false, Ordering::AcqRel) {
            return 0;
        }
        let (mail, woken) = {
            let mut queue = lock(&self.shared.queue);
            (
                std::mem::take(&mut queue.mail),
                std::mem::take(&mut queue.woken),
            )
        };
        woken.into_iter().for_each(wake);
        let mut panics = 0;
        for run in mail {
            if catch_unwind(AssertUnwindSafe(run)).is_err() {
                panics += 1;
                tracing::error!("a closure sent to the shard panicked; the shard goes on");
            }
        }
        panics
    }

    /// Takes nothing more; what waits is dropped.
    pub(super) fn close(&self) {
        if let Some(executors) = &mut *lock(&EXECUTORS) {
            executors.remove(&self.shared.id);
        }
        let dropped = {
            let mut queue = lock(&self.shared.queue);
            queue.closed = true;
            std::mem::take(&mut queue.mail)
        };
        drop(dropped);
    }
}

impl Shared {
    /// The number that wakers carry.
    pub(super) fn id(&self) -> u16 {
        self.id
    }

    fn ring(&self) {
        if self.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        // The only failure is a full counter, and then the shard is awake already.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }
}

/// Makes a shard's eventfd unreadable until it is written to again.
pub(super) fn silence(event: &OwnedFd) {
    // A failure means that it was silent.
    let _ = rustix::io::read(event, &mut [0; 8]);
}

impl AsFd for Shared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl Remote {
    /// Runs `mail` on the shard, between two turns of its loop.
    pub fn send(&self, mail: Mail) -> Result<(), SendError> {
        {
            let mut queue = lock(&self.shared.queue);
            queue.check_room()?;
            queue.mail.push_back(mail);
        }
        self.shared.ring();
        Ok(())
    }

    /// Keeps room for one closure, which can be sent whatever else is until then.
    pub fn reserve(&self) -> Result<Reserved, SendError> {
        let mut queue = lock(&self.shared.queue);
        queue.check_room()?;
        queue.reserved += 1;
        drop(queue);
        Ok(Reserved {
            shared: Arc::clone(&self.shared),
        })
    }
}

impl Queue {
    fn check_room(&self) -> Result<(), SendError> {
        if self.closed {
            return Err(SendError::Closed);
        }
        match self.mail.len() + self.reserved < MAIL_MAX {
            true => Ok(()),
            false => Err(SendError::Full),
        }
    }
}

impl Reserved {
    /// Runs `mail` on the shard; where that has ended, it is dropped.
    pub fn send(self, mail: Mail) {
        {
            let mut queue = lock(&self.shared.queue);
            if queue.closed {
                return;
            }
            queue.mail.push_back(mail);
        }
        self.shared.ring();
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        lock(&self.shared.queue).reserved -= 1;
    }
}

/// Wakes a task of another thread's executor; one that has ended is ignored.
pub(super) fn wake_elsewhere(executor: u16, id: TaskId) {
    let shared = {
        let executors = lock(&EXECUTORS);
        let found = executors.as_ref().and_then(|all| all.get(&executor));
        found.and_then(Weak::upgrade)
    };
    if let Some(shared) = shared {
        {
            let mut queue = lock(&shared.queue);
            if !queue.woken.contains(&id) {
                queue.woken.push(id);
            }
        }
        shared.ring();
    }
}

/// Nothing panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_that_is_kept_stays_for_whom_it_is_kept() {
        let mailbox = Mailbox::new().unwrap();
        let remote = mailbox.remote();
        let reserved = remote.reserve().unwrap();
        let given_up = remote.reserve().unwrap();
        let send = || remote.send(Box::new(|| {}));
        for _ in 2..MAIL_MAX {
            send().unwrap();
        }
        assert_eq!(send(), Err(SendError::Full));
        assert_eq!(remote.reserve().map(drop), Err(SendError::Full));
        drop(given_up);
        send().unwrap();
        assert_eq!(send(), Err(SendError::Full));
        let ran = Arc::new(AtomicBool::new(false));
        let run = Arc::clone(&ran);
        reserved.send(Box::new(move || run.store(true, Ordering::Relaxed)));
        assert_eq!(mailbox.drain(|_| {}), 0, "nothing panics");
        assert!(ran.load(Ordering::Relaxed));

        let late = remote.reserve().unwrap();
        mailbox.close();
        assert_eq!(remote.reserve().map(drop), Err(SendError::Closed));
        late.send(Box::new(|| unreachable!("the shard has ended")));
    }
}
