//! Faults injected on purpose, so that what calls can be tested: an answer that
//! says failure, a delay, a reset.

use std::time::{Duration, SystemTime};

use crate::addr::Authority;

/// `fault` of an upstream or route.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settings {
    /// Requests answered in the upstream's stead.
    pub abort: Option<Abort>,
    /// Requests and connections that wait before they are served.
    pub delay: Option<Delay>,
    /// The share of requests and connections whose connection is reset.
    pub reset: f64,
    /// Requests with this field alone.
    pub header: Option<Box<str>>,
    /// Requests to this authority alone, and connections to it.
    pub authority: Option<Authority>,
    /// None from then on.
    pub until: Option<SystemTime>,
}

/// `fault.abort`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Abort {
    /// What they are answered.
    pub status: u16,
    /// Which share of them, from 0 to 1.
    pub share: f64,
}

/// `fault.delay`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Delay {
    /// How long they wait.
    pub wait: Duration,
    /// Which share of them, from 0 to 1.
    pub share: f64,
}

/// All of them, once there is a status.
impl Default for Abort {
    fn default() -> Self {
        let (status, share) = (0, 1.0);
        Self { status, share }
    }
}

/// All of them, once there is a time.
impl Default for Delay {
    fn default() -> Self {
        let (wait, share) = (Duration::ZERO, 1.0);
        Self { wait, share }
    }
}

/// What happens to one request or connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// It waits first.
    pub delay: Option<Duration>,
    /// How it ends; `None`: it is served.
    pub end: Option<End>,
}

/// How an injected fault ends a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With this status.
    Abort(u16),
    /// With a reset of the caller's connection.
    Reset,
}

impl Settings {
    /// Whether more than every request would end by a fault.
    pub fn exceeds_all(&self) -> bool {
        // Percentages are no whole numbers of halves.
        const DUST: f64 = 1e-9;
        self.reset + self.abort.map_or(0.0, |abort| abort.share) > 1.0 + DUST
    }

    /// The faults that also apply to connections without requests: those have no
    /// headers and cannot be answered.
    pub fn of_connections(&self) -> Option<Self> {
        let abort = None;
        let whole = self.header.is_none().then(|| self.clone());
        whole.map(|fault| Self { abort, ..fault })
    }

    /// Whether the time of these faults has passed.
    pub fn is_over(&self, wall: SystemTime) -> bool {
        self.until.is_some_and(|until| until <= wall)
    }

    /// Whether they are for this host; a port that the request does not name is
    /// `default_port`.
    pub fn are_for(&self, host: &str, port: Option<u16>, default_port: Option<u16>) -> bool {
        let Some(wanted) = &self.authority else {
            return true;
        };
        let port = port.or(default_port);
        let same_port = wanted.port().is_none_or(|wanted| Some(wanted) == port);
        same_port && wanted.host().eq_ignore_ascii_case(host)
    }

    /// The faults of a request.
    pub fn of_request(&self, random: [u64; 2]) -> Faults {
        let [first, second] = random.map(unit);
        let abort = self
            .abort
            .filter(|abort| first >= self.reset && first - self.reset < abort.share);
        Faults {
            delay: self
                .delay
                .filter(|delay| second < delay.share)
                .map(|delay| delay.wait),
            end: match abort {
                _ if first < self.reset => Some(End::Reset),
                Some(abort) => Some(End::Abort(abort.status)),
                None => None,
            },
        }
    }

    /// Those of a connection that carries no requests: nothing can be answered.
    pub fn of_connection(&self, random: [u64; 2]) -> Faults {
        let faults = self.of_request(random);
        Faults {
            end: faults.end.filter(|end| *end == End::Reset),
            ..faults
        }
    }
}

/// From 0 to below 1.
fn unit(random: u64) -> f64 {
    const STEPS: f64 = (1_u64 << f64::MANTISSA_DIGITS) as f64;
    (random >> (u64::BITS - f64::MANTISSA_DIGITS)) as f64 / STEPS
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn settings(abort: f64, delay: f64, reset: f64) -> Settings {
        Settings {
            abort: Some(Abort {
                status: 503,
                share: abort,
            }),
            delay: Some(Delay {
                wait: 200 * MS,
                share: delay,
            }),
            reset,
            ..Settings::default()
        }
    }

    /// Random numbers at `share` of all there are.
    fn at(share: f64) -> u64 {
        (share * u64::MAX as f64) as u64
    }

    #[test]
    fn shares_are_of_all_requests() {
        let settings = settings(0.1, 0.05, 0.01);
        let end = |share| settings.of_request([at(share), u64::MAX]).end;
        assert_eq!(end(0.0), Some(End::Reset));
        assert_eq!(end(0.0099), Some(End::Reset));
        assert_eq!(end(0.0101), Some(End::Abort(503)));
        assert_eq!(end(0.1099), Some(End::Abort(503)));
        assert_eq!(end(0.1101), None);
        assert_eq!(end(1.0), None);
        let delay = |share| settings.of_request([u64::MAX, at(share)]).delay;
        assert_eq!(delay(0.0499), Some(200 * MS));
        assert_eq!(delay(0.0501), None);
    }

    #[test]
    fn none_and_all_are_exact() {
        for random in [0, 1, u64::MAX / 2, u64::MAX] {
            let none = settings(0.0, 0.0, 0.0).of_request([random, random]);
            assert_eq!(none, Faults::default());
            let all = settings(1.0, 1.0, 0.0).of_request([random, random]);
            assert_eq!(
                (all.delay, all.end),
                (Some(200 * MS), Some(End::Abort(503)))
            );
            let reset = settings(0.0, 0.0, 1.0).of_request([random, random]);
            assert_eq!(reset.end, Some(End::Reset));
        }
    }

    #[test]
    fn a_connection_is_never_answered() {
        let faults = settings(1.0, 1.0, 0.0).of_connection([0, 0]);
        assert_eq!((faults.delay, faults.end), (Some(200 * MS), None));
        let faults = settings(0.0, 0.0, 1.0).of_connection([0, 0]);
        assert_eq!(faults.end, Some(End::Reset));
    }

    #[test]
    fn more_than_all_is_too_much_and_a_rounding_is_not() {
        for (abort, reset, exceeds) in [
            (0.0, 0.0, false),
            (0.5, 0.5, false),
            (0.6, 0.5, true),
            (0.5, 0.6, true),
            (1.0, 1e-9, false),
            (1.0, 2e-9, true),
        ] {
            let faults = settings(abort, 1.0, reset);
            assert_eq!(faults.exceeds_all(), exceeds, "{abort} {reset}");
        }
        let resets = Settings {
            reset: 1.0,
            ..Settings::default()
        };
        assert!(!resets.exceeds_all(), "nothing is aborted besides");
    }

    #[test]
    fn connections_without_requests_get_what_needs_none() {
        let all = settings(0.1, 0.2, 0.3);
        let expected = Settings {
            abort: None,
            ..all.clone()
        };
        assert_eq!(all.of_connections(), Some(expected));
        let by_field = Settings {
            header: Some("x-chaos".into()),
            ..all
        };
        assert_eq!(by_field.of_connections(), None);
    }

    #[test]
    fn they_end_at_their_time() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let until = |until| Settings {
            until,
            ..Settings::default()
        };
        assert!(!until(None).is_over(now));
        assert!(!until(Some(now + MS)).is_over(now));
        assert!(until(Some(now)).is_over(now));
    }

    #[test]
    fn they_may_be_for_one_authority() {
        let of = |text: &str| Settings {
            authority: Some(text.parse().unwrap()),
            ..Settings::default()
        };
        assert!(Settings::default().are_for("any", None, None));
        assert!(of("api.test").are_for("API.test", Some(8080), None));
        assert!(!of("api.test").are_for("web.test", None, None));
        assert!(of("api.test:80").are_for("api.test", None, Some(80)));
        assert!(of("api.test:80").are_for("api.test", Some(80), Some(8080)));
        assert!(!of("api.test:80").are_for("api.test", None, Some(8080)));
    }
}
