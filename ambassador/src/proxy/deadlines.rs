//! Until when a try may wait for its response.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::policy::limits::Timeouts;

/// The time limits of one try. They run from the moment that the whole request
/// was there: a client that is slow to send its body does not use them up.
#[derive(Debug)]
pub struct Deadlines {
    idle: Duration,
    first_byte: Option<Duration>,
    per_try: Option<Duration>,
    request: Option<Duration>,
    began: Instant,
    /// When the last byte of the request's body was read; `None`: not yet.
    whole_at: Cell<Option<Instant>>,
}

/// Which limit it is that ends a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// `timeouts.idle`.
    Idle,
    /// `timeouts.first_byte` or `timeouts.per_try`.
    Try,
    /// `timeouts.request`.
    Request,
}

impl Deadlines {
    /// Those of a request whose head came at `now`, all of it where
    /// `is_whole`.
    pub fn new(timeouts: &Timeouts, is_whole: bool, now: Instant) -> Self {
        Self {
            idle: timeouts.idle,
            first_byte: timeouts.first_byte,
            per_try: timeouts.per_try,
            request: timeouts.request,
            began: now,
            whole_at: Cell::new(is_whole.then_some(now)),
        }
    }

    /// Another try begins.
    pub fn begin_try(&mut self, now: Instant) {
        self.began = now;
    }

    /// The last of the request's body has been read.
    pub fn request_is_whole(&self, now: Instant) {
        if self.whole_at.get().is_none() {
            self.whole_at.set(Some(now));
        }
    }

    /// Silence that ends a connection, in any state.
    pub fn idle(&self) -> Duration {
        self.idle
    }

    /// When the request is out of time; `None`: never, or it is not whole yet.
    pub fn of_request(&self) -> Option<Instant> {
        Some(self.whole_at.get()? + self.request?)
    }

    /// Until when to wait for a connection.
    pub fn of_checkout(&self) -> Option<(Instant, Limit)> {
        let whole_at = self.whole_at.get()?;
        let limits = [
            (
                self.per_try.map(|limit| self.began.max(whole_at) + limit),
                Limit::Try,
            ),
            (self.of_request(), Limit::Request),
        ];
        earliest(limits)
    }

    /// Until when to wait for more of a response head; `heard`: some of it has
    /// come. To be asked for the whole request only.
    pub fn of_head(&self, heard: bool, now: Instant) -> (Instant, Limit) {
        let whole_at = self.whole_at.get().unwrap_or(now);
        let began = self.began.max(whole_at);
        let first_byte = self.first_byte.filter(|_| !heard);
        let limits = [
            (self.per_try.map(|limit| began + limit), Limit::Try),
            (first_byte.map(|limit| began + limit), Limit::Try),
            (self.of_request(), Limit::Request),
        ];
        let idle = (now + self.idle, Limit::Idle);
        earliest(limits)
            .filter(|limit| limit.0 < idle.0)
            .unwrap_or(idle)
    }
}

fn earliest<const N: usize>(limits: [(Option<Instant>, Limit); N]) -> Option<(Instant, Limit)> {
    let limits = limits.into_iter();
    let some = limits.filter_map(|(at, limit)| Some((at?, limit)));
    some.min_by_key(|(at, _)| *at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn timeouts() -> Timeouts {
        Timeouts {
            first_byte: Some(SECOND),
            per_try: Some(2 * SECOND),
            request: Some(5 * SECOND),
            idle: 60 * SECOND,
            ..Timeouts::default()
        }
    }

    #[test]
    fn the_earliest_limit_counts() {
        let start = Instant::now();
        let mut deadlines = Deadlines::new(&timeouts(), true, start);
        let at = |seconds: u32| start + SECOND * seconds;
        assert_eq!(deadlines.of_head(false, start), (at(1), Limit::Try));
        assert_eq!(deadlines.of_head(true, start), (at(2), Limit::Try));
        deadlines.begin_try(at(4));
        assert_eq!(deadlines.of_head(false, at(4)), (at(5), Limit::Try));
        assert_eq!(deadlines.of_head(true, at(4)), (at(5), Limit::Request));
        assert_eq!(deadlines.of_checkout(), Some((at(5), Limit::Request)));
    }

    #[test]
    fn none_runs_before_the_request_is_whole() {
        let start = Instant::now();
        let deadlines = Deadlines::new(&timeouts(), false, start);
        assert_eq!(deadlines.of_request(), None);
        assert_eq!(deadlines.of_checkout(), None);
        let whole = start + 100 * SECOND;
        deadlines.request_is_whole(whole);
        deadlines.request_is_whole(whole + SECOND);
        assert_eq!(deadlines.of_request(), Some(whole + 5 * SECOND));
        assert_eq!(
            deadlines.of_head(false, whole),
            (whole + SECOND, Limit::Try)
        );
    }

    #[test]
    fn silence_is_the_limit_where_there_is_no_other() {
        let start = Instant::now();
        let without = Timeouts {
            request: None,
            ..Timeouts::default()
        };
        let deadlines = Deadlines::new(&without, true, start);
        let idle = start + Timeouts::default().idle;
        assert_eq!(deadlines.of_head(false, start), (idle, Limit::Idle));
        assert_eq!(deadlines.of_checkout(), None);
    }
}
