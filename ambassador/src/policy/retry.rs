//! Whether and when a request is tried again.

use std::time::Duration;

use super::budget;
use super::codes::Codes;
use super::methods::Methods;
use super::statuses::Statuses;
use crate::clock::Instant;
use crate::message::grpc::Code;

/// `retry` of an upstream or route.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// Tries at most, the first included; 1: none is repeated.
    pub attempts: u16,
    /// A connection that cannot be established is a cause.
    pub on_connect_failure: bool,
    /// A connection that ends before a whole response head is a cause.
    pub on_reset: bool,
    /// Responses with these statuses are a cause.
    pub on_statuses: Statuses,
    /// Calls that end with these codes before anything else is a cause.
    pub on_codes: Codes,
    /// Whether another endpoint that is well is asked for what this one gets
    /// wrong: for a status that counts as a failure, and beside one that is
    /// silent.
    pub elsewhere: bool,
    /// Which requests may reach an upstream twice.
    pub methods: Methods,
    /// Requests with this header may too, lower case.
    pub idempotency_header: Box<str>,
    /// Half the upper bound of the wait before the second try; it doubles with
    /// each further one.
    pub base: Duration,
    /// The bound of all waits.
    pub cap: Duration,
    /// How many requests may be tried again.
    pub budget: budget::Settings,
    /// Bytes of a body kept for another try; a larger one is streamed once.
    pub body_limit: u64,
    /// Whether a response's `Retry-After` is waited for.
    pub honor_retry_after: bool,
}

/// The cause of a further try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The connection could not be established.
    ConnectFailure,
    /// The connection ended before a whole response head.
    Reset,
    /// The try took longer than `per_try` or `first_byte`.
    TryTimeout,
    /// A response that is malformed.
    Malformed,
    /// A response with this status.
    Status(u16),
    /// A call that has ended with this code, and nothing else.
    Code(Code),
}

/// What the retry decision depends on: how the last try ended, and what is left.
#[derive(Debug, Clone, Copy)]
pub struct RetryInput {
    /// What another one may do better.
    pub cause: Cause,
    /// Tries so far, this one included.
    pub tries: u16,
    /// Whether the request may be sent again.
    pub resend: Resend,
    /// Where the next one would go.
    pub place: NextEndpoint,
    /// How long the upstream asks its callers to stay away.
    pub retry_after: Option<Duration>,
    /// When the request has to have its response; `None`: at any time.
    pub deadline: Option<Instant>,
}

/// Whether the request may be sent again, by its number of tries, its method or
/// key, and the kept part of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resend {
    /// It may.
    Allowed,
    /// It may not.
    Forbidden,
}

/// The endpoint of a further try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextEndpoint {
    /// For the first time to an endpoint that was not tried yet.
    AnotherFirst,
    /// Anywhere else.
    Any,
}

/// The decision after a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryDecision {
    /// What it has ended with is what the request gets.
    Stop,
    /// The same, because the circuit will be open by then.
    CircuitOpen,
    /// Another try.
    Again {
        /// How long it is waited for.
        wait: Duration,
        /// Whether the budget of retries has to allow it.
        cost: RetryCost,
    },
}

/// What a further try costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryCost {
    /// One retry.
    Budget,
    /// Nothing: nothing was sent, so that nothing is repeated.
    Nothing,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 3,
            on_connect_failure: true,
            on_reset: true,
            on_statuses: Statuses::default().with(429..=429).with(503..=503),
            on_codes: Self::ON_CODES,
            elsewhere: true,
            methods: Methods::of(Self::METHODS),
            idempotency_header: "idempotency-key".into(),
            base: Duration::from_millis(100),
            cap: Duration::from_secs(30),
            budget: budget::Settings::default(),
            body_limit: 64 * 1024,
            honor_retry_after: true,
        }
    }
}

impl Retry {
    /// The codes that are a cause where nothing else is said.
    pub const ON_CODES: Codes = Codes::of(&[Code::Unavailable]);

    const METHODS: [&str; 6] = ["GET", "HEAD", "OPTIONS", "TRACE", "DELETE", "QUERY"];

    /// No retries.
    pub fn never() -> Self {
        Self {
            attempts: 1,
            ..Self::default()
        }
    }

    /// The settings for connections without requests: only a failed connect is a
    /// cause.
    pub fn of_connects(self) -> Self {
        Self {
            on_reset: false,
            on_statuses: Statuses::default(),
            on_codes: Codes::default(),
            elsewhere: false,
            methods: Methods::of([]),
            ..self
        }
    }

    /// Whether calls are sent again that their server has refused: `POST` is among
    /// the methods by default, but for nothing else.
    pub fn repeats_refused_calls(&self) -> bool {
        let mut methods = self.methods.names();
        methods.all(|name| Self::METHODS.contains(&name))
            && self.methods.names().count() == Self::METHODS.len()
    }

    /// Whether a try with this cause is retried. A time limit of a try always is.
    pub fn applies_to(&self, cause: Cause) -> bool {
        match cause {
            Cause::ConnectFailure => self.on_connect_failure,
            Cause::Reset => self.on_reset,
            Cause::TryTimeout => true,
            Cause::Malformed => false,
            Cause::Status(status) => self.on_statuses.contains(status),
            Cause::Code(code) => self.on_codes.contains(code),
        }
    }

    /// What comes after a try that has ended so, `now`. `refuses_at` says whether
    /// the circuit is open at a time; `random` gives 64 random bits.
    ///
    /// The first move to another endpoint after a connect that failed waits for
    /// nothing: the other one knows nothing of what this one lacks.
    pub fn next(
        &self,
        input: &RetryInput,
        refuses_at: impl FnOnce(Instant) -> bool,
        now: Instant,
        random: impl FnOnce() -> u64,
    ) -> RetryDecision {
        if input.resend == Resend::Forbidden {
            return RetryDecision::Stop;
        }
        let (wait, cost) = match (input.cause, input.place) {
            (Cause::ConnectFailure, NextEndpoint::AnotherFirst) => {
                (Duration::ZERO, RetryCost::Nothing)
            }
            _ => {
                let wait = self.wait(input.tries, input.retry_after, random());
                (wait, RetryCost::Budget)
            }
        };
        let then = now + wait;
        if input.deadline.is_some_and(|deadline| then >= deadline) {
            return RetryDecision::Stop;
        }
        match refuses_at(then) {
            true => RetryDecision::CircuitOpen,
            false => RetryDecision::Again { wait, cost },
        }
    }

    /// The wait before the next try once `tries` were made: uniform in [0, min(cap,
    /// base * 2^tries)], full jitter as in Brooker, "Exponential Backoff And
    /// Jitter" (2015), but no shorter than what `Retry-After` asked for, up to
    /// `cap`. `random` has 64 random bits.
    pub fn wait(&self, tries: u16, retry_after: Option<Duration>, random: u64) -> Duration {
        let doublings = u32::from(tries).min(31);
        let bound = self.base.saturating_mul(1 << doublings).min(self.cap);
        // 53 bits are what a float holds exactly.
        let share = (random >> 11) as f64 / (1_u64 << 53) as f64;
        let jitter = bound.mul_f64(share);
        let asked = retry_after.filter(|_| self.honor_retry_after);
        jitter.max(asked.unwrap_or_default().min(self.cap))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn waits_double_up_to_the_cap_and_jitter_is_full() {
        let retry = Retry {
            base: 100 * MS,
            cap: 1_000 * MS,
            ..Retry::default()
        };
        for (tries, bound_ms) in [(1, 200), (2, 400), (3, 800), (4, 1_000), (500, 1_000)] {
            assert_eq!(retry.wait(tries, None, 0), Duration::ZERO, "{tries}");
            let longest = retry.wait(tries, None, u64::MAX);
            let bound = bound_ms * MS;
            assert!(
                longest <= bound && longest > bound - MS,
                "{tries}: {longest:?}"
            );
            let middle = retry.wait(tries, None, 1 << 63);
            assert_eq!(middle, bound / 2, "{tries}");
        }
    }

    #[test]
    fn retry_after_raises_the_wait_up_to_the_cap() {
        let mut retry = Retry {
            cap: 5_000 * MS,
            ..Retry::default()
        };
        let asked = Some(3_000 * MS);
        assert_eq!(retry.wait(1, asked, 0), 3_000 * MS);
        assert_eq!(retry.wait(1, Some(9_000 * MS), 0), 5_000 * MS);
        assert!(retry.wait(4, Some(MS), u64::MAX) > 1_500 * MS);
        retry.honor_retry_after = false;
        assert_eq!(retry.wait(1, asked, 0), Duration::ZERO);
    }

    const CAUSES: [Cause; 6] = [
        Cause::ConnectFailure,
        Cause::Reset,
        Cause::TryTimeout,
        Cause::Malformed,
        Cause::Status(503),
        Cause::Code(Code::Unavailable),
    ];

    fn ended(cause: Cause) -> RetryInput {
        RetryInput {
            cause,
            tries: 1,
            resend: Resend::Allowed,
            place: NextEndpoint::Any,
            retry_after: None,
            deadline: None,
        }
    }

    /// With waits of up to 200 ms, as long as they may be.
    fn next(
        input: &RetryInput,
        refuses_at: impl FnOnce(Instant) -> bool,
        now: Instant,
    ) -> RetryDecision {
        Retry::default().next(input, refuses_at, now, || u64::MAX)
    }

    #[test]
    fn each_cause_leads_to_another_try_after_its_wait() {
        let now = Instant::now();
        for cause in CAUSES {
            let wait = Retry::default().wait(1, None, u64::MAX);
            let cost = RetryCost::Budget;
            let again = RetryDecision::Again { wait, cost };
            assert_eq!(next(&ended(cause), |_| false, now), again);
            let third = RetryInput {
                tries: 2,
                ..ended(cause)
            };
            let wait = Retry::default().wait(2, None, u64::MAX);
            let again = RetryDecision::Again { wait, cost };
            assert_eq!(next(&third, |_| false, now), again);
        }
    }

    #[test]
    fn what_may_not_be_sent_again_is_not() {
        let now = Instant::now();
        let never = |_| -> bool { panic!("the circuit does not matter") };
        for cause in CAUSES {
            let may_not = RetryInput {
                resend: Resend::Forbidden,
                ..ended(cause)
            };
            assert_eq!(next(&may_not, never, now), RetryDecision::Stop, "{cause:?}");
        }
    }

    #[test]
    fn only_a_failed_connect_moves_on_at_once_and_for_nothing() {
        let now = Instant::now();
        for cause in CAUSES {
            let elsewhere = RetryInput {
                place: NextEndpoint::AnotherFirst,
                retry_after: Some(50 * MS),
                // No time for any wait.
                deadline: Some(now + MS),
                ..ended(cause)
            };
            let expected = match cause {
                Cause::ConnectFailure => RetryDecision::Again {
                    wait: Duration::ZERO,
                    cost: RetryCost::Nothing,
                },
                _ => RetryDecision::Stop,
            };
            assert_eq!(next(&elsewhere, |_| false, now), expected, "{cause:?}");
        }
    }

    #[test]
    fn a_wait_has_to_end_before_the_deadline() {
        let now = Instant::now();
        let wait = Retry::default().wait(1, None, u64::MAX);
        let until = |deadline| RetryInput {
            deadline: Some(deadline),
            ..ended(Cause::Reset)
        };
        assert_eq!(
            next(&until(now + wait), |_| false, now),
            RetryDecision::Stop
        );
        let later = until(now + wait + Duration::from_nanos(1));
        assert!(matches!(
            next(&later, |_| false, now),
            RetryDecision::Again { .. }
        ));
        let asked = RetryInput {
            retry_after: Some(900 * MS),
            ..until(now + 900 * MS)
        };
        assert_eq!(next(&asked, |_| false, now), RetryDecision::Stop);
    }

    #[test]
    fn the_circuit_is_asked_for_the_time_of_the_next_try() {
        let now = Instant::now();
        let wait = Retry::default().wait(1, None, u64::MAX);
        let open_until = |until: Instant| move |then: Instant| then < until;
        let reset = ended(Cause::Reset);
        let before = now + wait + Duration::from_nanos(1);
        assert_eq!(
            next(&reset, open_until(before), now),
            RetryDecision::CircuitOpen
        );
        let again = next(&reset, open_until(now + wait), now);
        assert!(matches!(again, RetryDecision::Again { .. }));
    }

    #[test]
    fn causes_are_those_of_the_file() {
        let retry = Retry::default();
        for (cause, expected) in [
            (Cause::ConnectFailure, true),
            (Cause::Reset, true),
            (Cause::TryTimeout, true),
            (Cause::Malformed, false),
            (Cause::Status(429), true),
            (Cause::Status(503), true),
            (Cause::Status(500), false),
            (Cause::Status(200), false),
            (Cause::Code(Code::Unavailable), true),
            (Cause::Code(Code::ResourceExhausted), false),
        ] {
            assert_eq!(retry.applies_to(cause), expected, "{cause:?}");
        }
    }

    #[test]
    fn refused_calls_are_repeated_unless_methods_are_said() {
        let mut retry = Retry::default();
        assert!(retry.repeats_refused_calls());
        for methods in [&["GET"][..], &["POST"], &[]] {
            retry.methods = Methods::of(methods.iter().copied());
            assert!(!retry.repeats_refused_calls(), "{methods:?}");
        }
    }

    #[test]
    fn where_there_are_no_requests_a_connect_is_the_only_cause() {
        let retry = Retry::default().of_connects();
        assert!(retry.applies_to(Cause::ConnectFailure) && !retry.elsewhere);
        for cause in [
            Cause::Reset,
            Cause::Status(429),
            Cause::Status(503),
            Cause::Code(Code::Unavailable),
        ] {
            assert!(!retry.applies_to(cause), "{cause:?}");
        }
        assert_eq!(retry.methods.names().count(), 0);
        assert_eq!(retry.attempts, Retry::default().attempts);
        assert_eq!(Retry::never().attempts, 1);
    }
}
