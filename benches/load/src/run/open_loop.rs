//! The open loop: requests are due at a constant rate, whatever the server
//! does, and each waits for a free connection where there is none.
//!
//! No clock and no sockets: `now` is an argument. A moment is the time since
//! the start of the run.

use std::collections::VecDeque;
use std::time::Duration;

/// The time since the start of a run.
pub type Moment = Duration;

/// The queue holds a second of load, and no fewer requests than this. Whoever
/// is a second behind is saturated: more would only be memory.
const QUEUE_MIN: usize = 100;

/// A request to send now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// On which connection.
    pub slot: usize,
    /// When it was due: its latency counts from here.
    pub due: Moment,
    /// For how long a connection was free, and the request due, without
    /// anything being done: the generator's own delay.
    pub delay: Duration,
}

/// A connection without a request.
struct Free {
    slot: usize,
    since: Moment,
}

/// Which request is due when, and which connection takes it.
pub struct OpenLoop {
    /// Requests per second.
    rate: u64,
    /// The number of the next request that is not due yet.
    next: u64,
    /// How many requests there are.
    total: u64,
    /// Due and not sent; at most `queue_max`.
    queue: VecDeque<Moment>,
    queue_max: usize,
    queue_peak: usize,
    overflowed: u64,
    /// The longest free first, so that all connections are used.
    free: VecDeque<Free>,
}

impl OpenLoop {
    /// `rate` requests per second, at least one, for as long as `length`.
    pub fn new(rate: u64, length: Duration) -> Self {
        let total = u128::from(rate) * length.as_nanos() / NANOS_PER_SECOND;
        Self {
            rate,
            next: 0,
            total: total as u64,
            queue: VecDeque::new(),
            queue_max: (rate as usize).max(QUEUE_MIN),
            queue_peak: 0,
            overflowed: 0,
            free: VecDeque::new(),
        }
    }

    /// The connection `slot` can take a request.
    pub fn release(&mut self, slot: usize, now: Moment) {
        self.free.push_back(Free { slot, since: now });
    }

    /// The connection `slot` is gone.
    pub fn withdraw(&mut self, slot: usize) {
        self.free.retain(|free| free.slot != slot);
    }

    /// The next request to send, where one is due and a connection free.
    pub fn start(&mut self, now: Moment) -> Option<Start> {
        self.enqueue(now);
        let due = *self.queue.front()?;
        let free = self.free.pop_front()?;
        self.queue.pop_front();
        Some(Start {
            slot: free.slot,
            due,
            delay: now.saturating_sub(due.max(free.since)),
        })
    }

    /// When a request is due that a free connection could take at once.
    pub fn next_start(&self) -> Option<Moment> {
        if self.free.is_empty() {
            return None;
        }
        match self.queue.front() {
            Some(due) => Some(*due),
            None if self.next < self.total => Some(self.due(self.next)),
            None => None,
        }
    }

    /// Requests due by `now` that no connection has taken.
    pub fn waiting(&mut self, now: Moment) -> usize {
        self.enqueue(now);
        self.queue.len()
    }

    /// The most that ever waited.
    pub fn queue_peak(&self) -> usize {
        self.queue_peak
    }

    /// Requests that found the queue full and are never sent.
    pub fn overflowed(&self) -> u64 {
        self.overflowed
    }

    fn enqueue(&mut self, now: Moment) {
        while self.next < self.total {
            let due = self.due(self.next);
            if due > now {
                break;
            }
            self.next += 1;
            if self.queue.len() < self.queue_max {
                self.queue.push_back(due);
            } else {
                self.overflowed += 1;
            }
        }
        self.queue_peak = self.queue_peak.max(self.queue.len());
    }

    /// Computed from the start each time, so that no rounding adds up.
    fn due(&self, number: u64) -> Moment {
        let nanoseconds = u128::from(number) * NANOS_PER_SECOND / u128::from(self.rate);
        Duration::from_nanos(nanoseconds as u64)
    }
}

const NANOS_PER_SECOND: u128 = 1_000_000_000;

#[cfg(test)]
mod tests;
