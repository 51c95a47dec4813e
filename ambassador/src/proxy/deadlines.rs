//! Until when a try may wait for its response.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::http::CallerTimeout;
use crate::policy::limits::Timeouts;
use crate::ring::Gather;

/// The time limits of one try. They run from the moment that the whole request
/// was there: a client that is slow to send its body does not use them up. What
/// the caller itself says of its patience runs from the head on.
#[derive(Debug)]
pub struct Deadlines {
    idle: Duration,
    first_byte: Option<Duration>,
    per_try: Option<Duration>,
    request: Option<Duration>,
    began: Cell<Instant>,
    /// When the last byte of the request's body was read; `None`: not yet.
    whole_at: Cell<Option<Instant>>,
    caller: Option<Caller>,
}

/// How long the caller waits, as it says itself.
#[derive(Debug, Clone, Copy)]
struct Caller {
    timeout: CallerTimeout,
    until: Instant,
    /// The length of the outgoing head, which tells it to the upstream.
    head_bytes: usize,
}

/// Which limit it is that ends a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// `timeouts.idle`.
    Idle,
    /// `timeouts.first_byte` or `timeouts.per_try`.
    Try,
    /// `timeouts.request`, or the time that the caller gave.
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
            began: Cell::new(now),
            whole_at: Cell::new(is_whole.then_some(now)),
            caller: None,
        }
    }

    /// Adds the caller's own limit, of which the outgoing head of `head_bytes`
    /// tells at its end.
    pub fn bounded_by(self, timeout: CallerTimeout, head_bytes: usize) -> Self {
        let caller = timeout.limit().map(|limit| Caller {
            timeout,
            until: self.began.get() + limit,
            head_bytes,
        });
        Self { caller, ..self }
    }

    /// Has the head at the front of `outgoing` say how much of the caller's time
    /// is left.
    pub fn tell(&self, outgoing: &mut Gather, now: Instant) {
        let Some(caller) = &self.caller else { return };
        let until = self.of_request().unwrap_or(caller.until);
        let left = until.saturating_duration_since(now);
        let first = outgoing.first_mut();
        if let Some(head) = first.and_then(|first| first.get_mut(..caller.head_bytes)) {
            caller.timeout.overwrite(head, left);
        }
    }

    /// Another try begins.
    pub fn begin_try(&self, now: Instant) {
        self.began.set(now);
    }

    /// How long the try has taken since the whole request was there; `None`: it
    /// is not.
    pub fn waited(&self, now: Instant) -> Option<Duration> {
        let began = self.began.get().max(self.whole_at.get()?);
        Some(now.saturating_duration_since(began))
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

    /// When the request is out of time; `None`: never, as far as is known before
    /// it is whole.
    pub fn of_request(&self) -> Option<Instant> {
        let whole_at = self.whole_at.get();
        let own = whole_at.zip(self.request).map(|(at, limit)| at + limit);
        own.into_iter().chain(self.of_caller()).min()
    }

    /// Whether the request is out of time.
    pub fn have_passed(&self, now: Instant) -> bool {
        self.of_request().is_some_and(|until| until <= now)
    }

    /// Until when to wait for a connection.
    pub fn of_checkout(&self) -> Option<(Instant, Limit)> {
        let began = self.whole_at.get().map(|at| self.began.get().max(at));
        let limits = [
            (
                began.zip(self.per_try).map(|(began, limit)| began + limit),
                Limit::Try,
            ),
            (self.of_request(), Limit::Request),
        ];
        earliest(limits)
    }

    /// Until when to wait for a response head while the body is uploaded.
    pub fn of_upload(&self) -> Option<(Instant, Limit)> {
        Some((self.of_caller()?, Limit::Request))
    }

    /// Until when to wait for more of a response head; `heard`: some of it has
    /// come. To be asked for the whole request only.
    pub fn of_head(&self, heard: bool, now: Instant) -> (Instant, Limit) {
        let whole_at = self.whole_at.get().unwrap_or(now);
        let began = self.began.get().max(whole_at);
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

    fn of_caller(&self) -> Option<Instant> {
        Some(self.caller?.until)
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
    use crate::http::{Limits, RequestHead};
    use crate::ring::Chunk;

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
        let deadlines = Deadlines::new(&timeouts(), true, start);
        let at = |seconds: u32| start + SECOND * seconds;
        assert_eq!(deadlines.of_head(false, start), (at(1), Limit::Try));
        assert_eq!(deadlines.of_head(true, start), (at(2), Limit::Try));
        deadlines.begin_try(at(4));
        assert_eq!(deadlines.waited(at(5)), Some(SECOND));
        assert_eq!(deadlines.of_head(false, at(4)), (at(5), Limit::Try));
        assert_eq!(deadlines.of_head(true, at(4)), (at(5), Limit::Request));
        assert_eq!(deadlines.of_checkout(), Some((at(5), Limit::Request)));
    }

    #[test]
    fn none_runs_before_the_request_is_whole() {
        let start = Instant::now();
        let deadlines = Deadlines::new(&timeouts(), false, start);
        assert_eq!(deadlines.of_request(), None);
        assert_eq!(deadlines.waited(start + SECOND), None);
        assert_eq!(deadlines.of_checkout(), None);
        let whole = start + 100 * SECOND;
        deadlines.request_is_whole(whole);
        deadlines.request_is_whole(whole + SECOND);
        assert_eq!(deadlines.waited(whole + SECOND), Some(SECOND));
        assert_eq!(deadlines.of_request(), Some(whole + 5 * SECOND));
        assert_eq!(
            deadlines.of_head(false, whole),
            (whole + SECOND, Limit::Try)
        );
    }

    /// Those of a request with these fields at `start`, and the head that goes
    /// out.
    fn bounded(fields: &str, is_whole: bool, start: Instant) -> (Deadlines, Gather) {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let mut request = RequestHead::default();
        let parsed = request.parse(head.as_bytes(), &Limits::default());
        assert_eq!(parsed, Ok(Some(head.len())));
        let timeout = CallerTimeout::of(&request, head.as_bytes());
        let deadlines = Deadlines::new(&timeouts(), is_whole, start);
        let mut outgoing = Gather::from(Chunk::from(head.clone().into_bytes()));
        outgoing.push(Chunk::from(b"body".to_vec()));
        (deadlines.bounded_by(timeout, head.len()), outgoing)
    }

    #[test]
    fn what_the_caller_says_bounds_an_upload_too() {
        let start = Instant::now();
        let (deadlines, _) = bounded("grpc-timeout: 3S\r\n", false, start);
        let end = start + 3 * SECOND;
        assert_eq!(deadlines.of_request(), Some(end));
        assert_eq!(deadlines.of_checkout(), Some((end, Limit::Request)));
        assert_eq!(deadlines.of_upload(), Some((end, Limit::Request)));
        assert!(!deadlines.have_passed(start + 2 * SECOND));
        assert!(deadlines.have_passed(end));
        // `per_try` and `first_byte` have begun, and end later.
        deadlines.request_is_whole(start + SECOND * 5 / 2);
        assert_eq!(deadlines.of_head(false, start), (end, Limit::Request));
        assert_eq!(Deadlines::new(&timeouts(), false, start).of_upload(), None);
    }

    #[test]
    fn the_shorter_of_both_limits_counts_and_is_told() {
        let start = Instant::now();
        for (said, left) in [("00000004S", " 3000000u"), ("00000009S", " 4000000u")] {
            let fields = format!("grpc-timeout: {said}\r\n");
            let (deadlines, mut outgoing) = bounded(&fields, true, start);
            deadlines.tell(&mut outgoing, start + SECOND);
            let head = String::from_utf8(outgoing.first_mut().unwrap().to_vec()).unwrap();
            assert!(
                head.ends_with(&format!("grpc-timeout: {left}\r\n\r\n")),
                "{head}"
            );
        }
    }

    #[test]
    fn a_head_that_says_nothing_stays_as_it_is() {
        let start = Instant::now();
        let (deadlines, mut outgoing) = bounded("grpc-timeout: soon\r\n", true, start);
        let before = outgoing.first_mut().unwrap().to_vec();
        deadlines.tell(&mut outgoing, start);
        assert_eq!(outgoing.first_mut().unwrap(), before);
        assert_eq!(deadlines.of_request(), Some(start + 5 * SECOND));
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
