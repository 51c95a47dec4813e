//! Until when a try may wait for its response.

use std::cell::Cell;
use std::time::Duration;

use crate::clock::Instant;
use crate::policy::limits::Timeouts;
use crate::policy::pace::Part;
use crate::proxy::paced::Patience;

/// The time limits of one try. They run from the moment that the whole request
/// was there: a client that is slow to send its body does not use them up. What
/// the caller itself says of its patience runs from the head on.
#[derive(Debug)]
pub(crate) struct Deadlines<'a> {
    timeouts: &'a Timeouts,
    began: Cell<Instant>,
    /// When the last byte of the request's body was read; `None`: not yet.
    whole_at: Cell<Option<Instant>>,
    /// Until when the caller waits, as it says itself.
    caller: Option<Instant>,
    silence: Cell<Silence>,
}

/// Whether silence of the upstream is of interest before it is a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Silence {
    /// It is not.
    Ignored,
    /// From this moment on.
    Noticed(Instant),
    /// It was silent until then.
    Kept,
}

/// When a wait ends, and by which limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline {
    pub at: Instant,
    pub limit: Limit,
}

/// What of a response head is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Awaited {
    FirstByte,
    RestOfHead,
}

/// Which limit it is that ends a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// `timeouts.idle`.
    Idle,
    /// `timeouts.min_rate`.
    Rate,
    /// `timeouts.first_byte` or `timeouts.per_try`; `timeouts.head` of a response.
    Try,
    /// `timeouts.request`.
    Request,
    /// The time that the caller gave, where that is shorter.
    Caller,
}

impl<'a> Deadlines<'a> {
    /// Those of a request whose head came at `now`, and which is not whole yet.
    pub(crate) fn new(timeouts: &'a Timeouts, now: Instant) -> Self {
        Self {
            timeouts,
            began: Cell::new(now),
            whole_at: Cell::new(None),
            caller: None,
            silence: Cell::new(Silence::Ignored),
        }
    }

    /// Adds the caller's own limit.
    pub(crate) fn bounded_by(self, limit: Option<Duration>) -> Self {
        let caller = limit.map(|limit| self.began.get() + limit);
        Self { caller, ..self }
    }

    /// How much is left of the time that the caller gave; zero where it gave
    /// none.
    pub(crate) fn left_for_caller(&self, now: Instant) -> Duration {
        let until = self.caller.and(self.of_request());
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// By which limit the endpoint is told that the time ends; `None`: its caller gave
    /// none.
    pub(crate) fn told(&self) -> Option<Limit> {
        self.caller?;
        earliest(self.of_own_and_caller()).map(|deadline| deadline.limit)
    }

    /// When the caller's own time ends, whatever has come by then; `None`: it gave none.
    pub(crate) fn of_caller(&self) -> Option<Instant> {
        self.caller
    }

    /// When the try has begun, before the first one the request.
    pub(crate) fn began(&self) -> Instant {
        self.began.get()
    }

    /// Another try begins.
    pub(crate) fn begin_try(&self, now: Instant) {
        self.began.set(now);
    }

    /// Whether nothing of a response has come is of interest from `due` on.
    pub(crate) fn notice_silence(&self, due: Instant) {
        self.silence.set(Silence::Noticed(due));
    }

    /// When to look whether nothing has come.
    pub(crate) fn of_silence(&self) -> Option<Instant> {
        match self.silence.get() {
            Silence::Noticed(due) => Some(due),
            Silence::Ignored | Silence::Kept => None,
        }
    }

    /// Nothing has come by then.
    pub(crate) fn silence_is_kept(&self) {
        self.silence.set(Silence::Kept);
    }

    /// Whether nothing has come by then.
    pub(crate) fn is_silence_kept(&self) -> bool {
        self.silence.get() == Silence::Kept
    }

    /// How long the try has taken since the whole request was there; `None`: it
    /// is not.
    pub(crate) fn waited(&self, now: Instant) -> Option<Duration> {
        let began = self.began.get().max(self.whole_at.get()?);
        Some(now.saturating_duration_since(began))
    }

    /// The last of the request's body has been read.
    pub(crate) fn request_is_whole(&self, now: Instant) {
        if self.whole_at.get().is_none() {
            self.whole_at.set(Some(now));
        }
    }

    /// Silence that ends a connection, in any state.
    pub(crate) fn idle(&self) -> Duration {
        self.timeouts.idle
    }

    /// How long a peer may be waited for that sends or reads a body.
    pub(crate) fn patience(&self, silence: Duration, part: Part) -> Patience<'a> {
        Patience {
            silence,
            timeouts: self.timeouts,
            part,
        }
    }

    /// When the request is out of time; `None`: never, as far as is known before
    /// it is whole.
    pub(crate) fn of_request(&self) -> Option<Instant> {
        let [own, callers] = self.of_own_and_caller();
        let earliest = earliest([own, callers]);
        earliest.map(|deadline| deadline.at)
    }

    /// Until when to wait for a connection.
    pub(crate) fn of_checkout(&self) -> Option<Deadline> {
        let began = self.whole_at.get().map(|at| self.began.get().max(at));
        let [own, callers] = self.of_own_and_caller();
        let per_try = began.zip(self.timeouts.per_try);
        let per_try = per_try.map(|(began, limit)| Limit::Try.at(began + limit));
        earliest([per_try, own, callers])
    }

    /// Until when to wait for a response head while the body is uploaded.
    pub(crate) fn of_upload(&self) -> Option<Deadline> {
        self.caller.map(|at| Limit::Caller.at(at))
    }

    /// By when a response head must be whole that has just begun.
    pub(crate) fn of_rest(&self, now: Instant) -> Instant {
        now + self.timeouts.head
    }

    /// Until when the upstream may leave unread what begins an upload.
    pub(crate) fn of_beginning(&self, now: Instant) -> Deadline {
        let idle = Limit::Idle.at(now + self.timeouts.idle);
        earliest([Some(idle), self.of_upload()]).unwrap_or(idle)
    }

    /// Until when to wait for that part of a response head. To be asked for the
    /// whole request only.
    #[inline]
    pub(crate) fn of_head(&self, awaited: Awaited, now: Instant) -> Deadline {
        let whole_at = self.whole_at.get().unwrap_or(now);
        let began = self.began.get().max(whole_at);
        let first_byte = match awaited {
            Awaited::FirstByte => self.timeouts.first_byte,
            Awaited::RestOfHead => None,
        };
        let [own, callers] = self.of_own_and_caller();
        let of_try = |limit| Limit::Try.at(began + limit);
        let idle = Limit::Idle.at(now + self.timeouts.idle);
        let limits = [
            Some(idle),
            self.timeouts.per_try.map(of_try),
            first_byte.map(of_try),
            own,
            callers,
        ];
        earliest(limits).unwrap_or(idle)
    }

    /// The limits of the whole request: the upstream's, then that of the caller,
    /// which counts where it is the shorter one.
    fn of_own_and_caller(&self) -> [Option<Deadline>; 2] {
        let own = self.whole_at.get().zip(self.timeouts.request);
        let own = own.map(|(at, limit)| Limit::Request.at(at + limit));
        [own, self.caller.map(|at| Limit::Caller.at(at))]
    }
}

impl Limit {
    /// The end of a wait by this limit.
    pub(crate) fn at(self, at: Instant) -> Deadline {
        Deadline { at, limit: self }
    }
}

/// The first of those that there are; of two at once the one that stands first.
#[inline]
pub(crate) fn earliest<const N: usize>(limits: [Option<Deadline>; N]) -> Option<Deadline> {
    let some = limits.into_iter().flatten();
    some.reduce(|first, next| if next.at < first.at { next } else { first })
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
        let (start, timeouts) = (Instant::now(), timeouts());
        let deadlines = whole(&timeouts, start);
        let at = |seconds: u32| start + SECOND * seconds;
        assert_eq!(
            deadlines.of_head(Awaited::FirstByte, start),
            Limit::Try.at(at(1))
        );
        assert_eq!(
            deadlines.of_head(Awaited::RestOfHead, start),
            Limit::Try.at(at(2))
        );
        deadlines.begin_try(at(4));
        assert_eq!(deadlines.waited(at(5)), Some(SECOND));
        assert_eq!(
            deadlines.of_head(Awaited::FirstByte, at(4)),
            Limit::Try.at(at(5))
        );
        assert_eq!(
            deadlines.of_head(Awaited::RestOfHead, at(4)),
            Limit::Request.at(at(5))
        );
        assert_eq!(deadlines.of_checkout(), Some(Limit::Request.at(at(5))));
    }

    #[test]
    fn none_runs_before_the_request_is_whole() {
        let (start, timeouts) = (Instant::now(), timeouts());
        let deadlines = Deadlines::new(&timeouts, start);
        assert_eq!(deadlines.of_request(), None);
        assert_eq!(deadlines.waited(start + SECOND), None);
        assert_eq!(deadlines.of_checkout(), None);
        let whole = start + 100 * SECOND;
        deadlines.request_is_whole(whole);
        deadlines.request_is_whole(whole + SECOND);
        assert_eq!(deadlines.waited(whole + SECOND), Some(SECOND));
        assert_eq!(deadlines.of_request(), Some(whole + 5 * SECOND));
        assert_eq!(
            deadlines.of_head(Awaited::FirstByte, whole),
            Limit::Try.at(whole + SECOND)
        );
    }

    /// Those of a request that is whole.
    fn whole(timeouts: &Timeouts, start: Instant) -> Deadlines<'_> {
        let deadlines = Deadlines::new(timeouts, start);
        deadlines.request_is_whole(start);
        deadlines
    }

    #[test]
    fn what_the_caller_says_bounds_an_upload_too() {
        let start = Instant::now();
        let timeouts = timeouts();
        let deadlines = Deadlines::new(&timeouts, start).bounded_by(Some(3 * SECOND));
        let end = start + 3 * SECOND;
        assert_eq!(deadlines.of_request(), Some(end));
        assert_eq!(deadlines.of_checkout(), Some(Limit::Caller.at(end)));
        assert_eq!(deadlines.of_upload(), Some(Limit::Caller.at(end)));
        // `per_try` and `first_byte` have begun, and end later.
        deadlines.request_is_whole(start + SECOND * 5 / 2);
        assert_eq!(
            deadlines.of_head(Awaited::FirstByte, start),
            Limit::Caller.at(end)
        );
        assert_eq!(Deadlines::new(&timeouts, start).of_upload(), None);
    }

    #[test]
    fn the_shorter_of_both_limits_counts_and_is_told() {
        let (start, timeouts) = (Instant::now(), timeouts());
        for (said, left, limit) in [
            (4, 3, Limit::Caller),
            (5, 4, Limit::Request),
            (9, 4, Limit::Request),
        ] {
            let deadlines = whole(&timeouts, start);
            let deadlines = deadlines.bounded_by(Some(said * SECOND));
            let now = start + SECOND;
            assert_eq!(deadlines.left_for_caller(now), left * SECOND);
            assert_eq!(deadlines.told(), Some(limit));
            deadlines.begin_try(start + 4 * SECOND);
            assert_eq!(deadlines.of_checkout().unwrap().limit, limit, "{said}");
        }
        let silent = whole(&timeouts, start);
        assert_eq!(silent.left_for_caller(start), Duration::ZERO);
        assert_eq!(silent.told(), None);
    }

    #[test]
    fn silence_is_the_limit_where_there_is_no_other() {
        let start = Instant::now();
        let without = Timeouts {
            request: None,
            ..Timeouts::default()
        };
        let deadlines = whole(&without, start);
        let idle = start + Timeouts::default().idle;
        assert_eq!(
            deadlines.of_head(Awaited::FirstByte, start),
            Limit::Idle.at(idle)
        );
        assert_eq!(deadlines.of_checkout(), None);
    }
}
