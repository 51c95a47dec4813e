//! The tasks of a shard. A waker is three numbers packed in a pointer: no
//! allocation, nothing to count, and safe to send to other threads, because it
//! points to nothing.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

use slab::Slab;

use super::mailbox::{self, Shared};
use super::slack;
use super::task::TaskId;

type Future_ = Pin<Box<dyn Future<Output = ()>>>;

/// The tasks of one thread.
pub(super) struct Executor {
    shared: Arc<Shared>,
    tasks: RefCell<Slab<Task>>,
    generation: Cell<u16>,
    ready: RefCell<VecDeque<TaskId>>,
    panics: Cell<u64>,
}

struct Task {
    generation: u16,
    queued: bool,
    /// Taken out while it is polled.
    future: Option<Future_>,
}

impl Executor {
    /// No tasks; `shared` takes wake-ups from other threads.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            tasks: RefCell::default(),
            generation: Cell::new(0),
            ready: RefCell::default(),
            panics: Cell::new(0),
        }
    }

    /// Adds a task; it is polled in this turn.
    pub(super) fn spawn(&self, future: Future_) -> TaskId {
        let generation = self.generation.get();
        self.generation.set(generation.wrapping_add(1));
        let place = self.tasks.borrow_mut().insert(Task {
            generation,
            queued: true,
            future: Some(future),
        });
        let id = TaskId {
            executor: self.shared.id(),
            generation,
            place: place as u32,
        };
        self.ready.borrow_mut().push_back(id);
        id
    }

    /// Polls the next ready task; `false`: none is ready.
    pub(super) fn poll_one(&self) -> bool {
        let Some(id) = self.ready.borrow_mut().pop_front() else {
            return false;
        };
        let taken = self.with_task(id, |task| {
            task.queued = false;
            task.future.take()
        });
        let Some(mut future) = taken.flatten() else {
            return true;
        };
        let waker = waker(id);
        let mut context = Context::from_waker(&waker);
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut context)));
        match polled {
            Ok(Poll::Pending) => {
                self.with_task(id, |task| task.future = Some(future));
            }
            Ok(Poll::Ready(())) => self.remove(id, future),
            Err(_) => {
                self.count_panics(1);
                tracing::error!("a task panicked; its connection is closed, the others go on");
                self.remove(id, future);
            }
        }
        true
    }

    /// Whether a task could be polled now.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.borrow().is_empty()
    }

    /// Whether this task has not ended.
    pub(super) fn is_running(&self, id: TaskId) -> bool {
        self.with_task(id, |_| ()).is_some()
    }

    /// Tasks that have not ended.
    #[cfg(test)]
    pub(super) fn task_count(&self) -> usize {
        self.tasks.borrow().len()
    }

    /// Counts panics that were caught.
    pub(super) fn count_panics(&self, panics: u64) {
        self.panics.set(self.panics.get() + panics);
    }

    /// Panics caught so far.
    pub(super) fn panics(&self) -> u64 {
        self.panics.get()
    }

    /// Queues a task for its next poll; stale ids do nothing.
    pub(super) fn wake(&self, id: TaskId) {
        let queue = self.with_task(id, |task| !std::mem::replace(&mut task.queued, true));
        if queue == Some(true) {
            self.ready.borrow_mut().push_back(id);
        }
    }

    /// Drops every task, also those that the drops spawn.
    pub(super) fn clear(&self) {
        loop {
            let mut tasks = std::mem::take(&mut *self.tasks.borrow_mut());
            if tasks.is_empty() {
                return;
            }
            for task in tasks.drain() {
                drop_quietly(task.future);
            }
        }
    }

    fn remove(&self, id: TaskId, future: Future_) {
        let mut tasks = self.tasks.borrow_mut();
        tasks.try_remove(id.place as usize);
        slack::shrink(&mut tasks);
        drop(tasks);
        drop_quietly(Some(future));
    }

    fn with_task<R>(&self, id: TaskId, use_it: impl FnOnce(&mut Task) -> R) -> Option<R> {
        let mut tasks = self.tasks.borrow_mut();
        let task = tasks.get_mut(id.place as usize)?;
        (task.generation == id.generation).then(|| use_it(task))
    }
}

/// A future that panicked may panic again when dropped.
fn drop_quietly(future: Option<Future_>) {
    if catch_unwind(AssertUnwindSafe(|| drop(future))).is_err() {
        tracing::error!("a task panicked while it was dropped");
    }
}

#[expect(unsafe_code, reason = "the only way to a waker without an allocation")]
fn waker(id: TaskId) -> Waker {
    // SAFETY: the functions of the table read the pointer as a number and
    // never follow it, so the contract of RawWaker holds on any thread.
    unsafe { Waker::from_raw(RawWaker::new(id.pack(), &TABLE)) }
}

static TABLE: RawWakerVTable = RawWakerVTable::new(
    |data| RawWaker::new(data, &TABLE),
    |data| wake(TaskId::unpack(data)),
    |data| wake(TaskId::unpack(data)),
    |_| (),
);

fn wake(id: TaskId) {
    let mut here = false;
    super::try_with(|core| {
        if core.executor.shared.id() == id.executor {
            here = true;
            core.executor.wake(id);
        }
    });
    if !here {
        mailbox::wake_elsewhere(id.executor, id);
    }
}
