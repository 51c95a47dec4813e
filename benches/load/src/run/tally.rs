//! What is counted, and during which part of a run.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::errors::{ErrorKind, Errors};
use super::open_loop::Moment;

/// The longest time that is told from longer ones: an hour, in nanoseconds.
const HIGHEST: u64 = 3_600_000_000_000;

/// Significant decimal digits of a histogram.
const DIGITS: u8 = 3;

/// After the window, what was asked has this long to be answered: ten thousand
/// connections of a closed loop wait for each other, seconds where a machine is
/// busy otherwise.
const DRAIN: Duration = Duration::from_secs(10);

/// The parts of a run.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// The end of the warm-up.
    pub begin: Moment,
    /// From when on nothing new is asked.
    pub end: Moment,
    /// From when on nothing is waited for.
    pub deadline: Moment,
}

impl Window {
    /// `warmup`, then `length` that counts, then time for the last answers.
    pub fn new(warmup: Duration, length: Duration) -> Self {
        let end = warmup + length;
        Self {
            begin: warmup,
            end,
            deadline: end + DRAIN,
        }
    }

    fn contains(&self, moment: Moment) -> bool {
        self.begin <= moment && moment < self.end
    }
}

/// What makes a request one of the window.
#[derive(Clone, Copy, Debug)]
enum Membership {
    /// That it was due then: what is answered late is not lost.
    Due,
    /// That it ended then.
    Ended,
}

/// The figures of a run. Histograms are in nanoseconds.
pub struct Tally {
    window: Window,
    membership: Membership,
    latency: Histogram<u64>,
    in_window: u64,
    errors: Errors,
    connect_call: Histogram<u64>,
    established: Histogram<u64>,
    start_delay: Histogram<u64>,
    reconnects: u64,
}

impl Tally {
    /// For an open loop: a request belongs to when it was due.
    pub fn of_due(window: Window) -> Self {
        Self::new(window, Membership::Due)
    }

    /// For a closed loop: a request belongs to when it ended.
    pub fn of_ended(window: Window) -> Self {
        Self::new(window, Membership::Ended)
    }

    fn new(window: Window, membership: Membership) -> Self {
        Self {
            window,
            membership,
            latency: histogram(),
            in_window: 0,
            errors: Errors::default(),
            connect_call: histogram(),
            established: histogram(),
            start_delay: histogram(),
            reconnects: 0,
        }
    }

    /// A request that was due at `due` has its whole answer.
    pub fn answered(&mut self, due: Moment, now: Moment) {
        if self.counts(due, now) {
            record(&mut self.latency, now.saturating_sub(due));
        }
        if self.window.contains(now) {
            self.in_window += 1;
        }
    }

    /// A request that was due at `due` will not have an answer.
    pub fn failed(&mut self, kind: ErrorKind, due: Moment, now: Moment) {
        if self.counts(due, now) {
            self.errors.count(kind, 1);
        }
    }

    /// `times` requests never ended.
    pub fn abandoned(&mut self, kind: ErrorKind, times: u64) {
        self.errors.count(kind, times);
    }

    /// The connect() call for a request that was due at `due` took `call`.
    pub fn connect_call(&mut self, call: Duration, due: Moment, now: Moment) {
        if self.counts(due, now) {
            record(&mut self.connect_call, call);
        }
    }

    /// The connection for it was established `after` its connect() began.
    pub fn established(&mut self, after: Duration, due: Moment, now: Moment) {
        if self.counts(due, now) {
            record(&mut self.established, after);
        }
    }

    /// A request could have been sent `delay` ago.
    pub fn started(&mut self, delay: Duration, due: Moment) {
        if self.window.contains(due) {
            record(&mut self.start_delay, delay);
        }
    }

    /// A kept connection has to be opened anew.
    pub fn reconnect(&mut self) {
        self.reconnects += 1;
    }

    /// Valid answers.
    pub fn requests(&self) -> u64 {
        self.latency.len()
    }

    /// Valid answers that came within the window.
    pub fn in_window(&self) -> u64 {
        self.in_window
    }

    /// Requests without one.
    pub fn errors(&self) -> &Errors {
        &self.errors
    }

    /// From when a request was due to the last byte of its answer.
    pub fn latency(&self) -> &Histogram<u64> {
        &self.latency
    }

    /// The duration of the connect() calls.
    pub fn connect_calls(&self) -> &Histogram<u64> {
        &self.connect_call
    }

    /// From a connect() call to an established connection.
    pub fn establishments(&self) -> &Histogram<u64> {
        &self.established
    }

    /// What the generator itself added before it sent.
    pub fn start_delays(&self) -> &Histogram<u64> {
        &self.start_delay
    }

    /// Connections that were opened anew.
    pub fn reconnects(&self) -> u64 {
        self.reconnects
    }

    fn counts(&self, due: Moment, now: Moment) -> bool {
        self.window.contains(match self.membership {
            Membership::Due => due,
            Membership::Ended => now,
        })
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(HIGHEST, DIGITS).expect("the bounds are valid ones")
}

fn record(histogram: &mut Histogram<u64>, time: Duration) {
    let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    histogram.saturating_record(nanoseconds);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_warm_up_does_not_count() {
        let mut tally = Tally::of_ended(Window::new(SECOND, SECOND));
        tally.answered(Moment::ZERO, SECOND / 2);
        tally.answered(SECOND / 2, SECOND);
        tally.answered(SECOND, 2 * SECOND);
        assert_eq!((tally.requests(), tally.in_window()), (1, 1));
        tally.failed(ErrorKind::Closed, Moment::ZERO, SECOND / 2);
        tally.failed(ErrorKind::Closed, SECOND / 2, SECOND);
        assert_eq!(tally.errors().closed, 1);
    }

    #[test]
    fn what_was_due_in_the_window_counts_when_it_ends_later() {
        let mut tally = Tally::of_due(Window::new(SECOND, SECOND));
        tally.answered(SECOND / 2, SECOND);
        tally.answered(SECOND, 3 * SECOND);
        assert_eq!((tally.requests(), tally.in_window()), (1, 1));
        assert!(tally.latency().max() >= 2_000_000_000);
    }
}
