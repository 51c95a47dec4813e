//! The virtual clock, and what is to happen when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use ambassador::testing::clock::Instant;

/// Events in the order of their time; those of one moment in the order in which
/// they were scheduled.
#[derive(Debug)]
pub struct Timeline<E> {
    /// Policies are told moments; only the differences between them count.
    origin: Instant,
    now: Duration,
    scheduled: u64,
    events: BinaryHeap<Reverse<Scheduled<E>>>,
}

#[derive(Debug)]
struct Scheduled<E> {
    at: Duration,
    number: u64,
    event: E,
}

impl<E> Timeline<E> {
    /// One on which nothing is to happen. Which moment it starts at makes no
    /// difference.
    pub fn new(origin: Instant) -> Self {
        Self {
            origin,
            now: Duration::ZERO,
            scheduled: 0,
            events: BinaryHeap::new(),
        }
    }

    /// Virtual time since the start: that of the event that came last.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// The same as a policy takes it.
    pub fn instant(&self) -> Instant {
        self.origin + self.now
    }

    /// Schedules an event for so long from now.
    pub fn after(&mut self, wait: Duration, event: E) {
        self.scheduled += 1;
        self.events.push(Reverse(Scheduled {
            at: self.now + wait,
            number: self.scheduled,
            event,
        }));
    }

    /// Goes on to the next event; `None`: nothing is to happen any more.
    pub fn advance(&mut self) -> Option<E> {
        let Reverse(next) = self.events.pop()?;
        self.now = next.at;
        Some(next.event)
    }
}

impl<E> Ord for Scheduled<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl<E> PartialOrd for Scheduled<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Scheduled<E> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<E> Eq for Scheduled<E> {}
