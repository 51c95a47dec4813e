//! How one request or connection went, step by step: its tries, and what was decided
//! between them.
//!
//! It is empty, one word, until a try ends badly: what goes well costs nothing.

use std::cell::{OnceCell, RefCell};
use std::time::Duration;

use super::labels::{AttemptOutcome, RetryCause};
use crate::addr::EndpointAddr;
use crate::clock::{self, Instant};

/// Steps that are kept of one request. Beyond, the newest takes the place of the one
/// before it.
pub(super) const STEPS_MAX: usize = 32;

/// The steps of one request or connection, in the order in which they ended.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    kept: OnceCell<Box<RefCell<Steps>>>,
}

/// Steps, the first of them and the last.
#[derive(Debug, Clone, Default)]
pub struct Steps {
    steps: Vec<Step>,
    left_out: u32,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A try has ended.
    Try(TryStep),
    /// It was decided what follows.
    Decision {
        /// When.
        at: Instant,
        /// What.
        decision: Decision,
    },
}

/// One try, once it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TryStep {
    /// Where it went.
    pub endpoint: EndpointAddr,
    /// When it began.
    pub began: Instant,
    /// When its request was sent; `None`: it had no connection.
    pub sent: Option<Instant>,
    /// Whether that connection had carried a request before.
    pub reused: bool,
    /// When the head of its response had come, and with which status.
    pub head: Option<(Instant, u16)>,
    /// When it ended.
    pub ended: Instant,
    /// How.
    pub outcome: AttemptOutcome,
}

/// What follows a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Another one, after a wait.
    Again {
        /// Why.
        cause: RetryCause,
        /// How long it is waited for.
        wait: Duration,
    },
    /// Another one beside it.
    Beside(RetryCause),
    /// None: by this rule.
    Stop(Rule),
}

/// What forbids another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// `retry.on`, `retry.elsewhere`: such an end is no cause of one.
    On,
    /// `retry.attempts`: all have been made.
    Attempts,
    /// `retry.methods`: the request may have arrived, and must not twice.
    Methods,
    /// `retry.body_limit`: its body is not kept.
    BodyLimit,
    /// `retry.budget`: too many requests are tried again already.
    Budget,
    /// `timeouts.request`, or the time that its caller gave it: it would come too late.
    Deadline,
    /// `circuit_breaker`: the circuit is open, or this was its probe.
    CircuitBreaker,
    /// A part of the response has gone to the caller.
    HasBegun,
    /// Another configuration is in force.
    Reload,
}

impl Journal {
    /// Keeps all steps from now on, however they end.
    pub fn keep(&self) {
        self.kept.get_or_init(Box::default);
    }

    /// Whether a step that went well is added too.
    #[inline]
    pub fn is_kept(&self) -> bool {
        self.kept.get().is_some()
    }

    /// It was decided now what follows.
    pub fn decided(&self, decision: Decision) {
        let at = clock::now();
        self.add(Step::Decision { at, decision });
    }

    /// Adds a step.
    #[cold]
    pub fn add(&self, step: Step) {
        let mut kept = self.kept.get_or_init(Box::default).borrow_mut();
        if kept.steps.len() == STEPS_MAX {
            kept.steps.pop();
            kept.left_out += 1;
        }
        kept.steps.push(step);
    }

    /// Goes on with what another one has kept.
    pub fn follow(&self, other: &Self) {
        for step in other.steps().iter().flat_map(Steps::iter) {
            self.add(*step);
        }
    }

    /// What was kept.
    pub fn steps(&self) -> Option<Steps> {
        self.kept.get().map(|kept| kept.borrow().clone())
    }

    /// Where its tries went, in their order.
    pub(super) fn endpoints(&self) -> Vec<EndpointAddr> {
        let steps = self.kept.get().map(|kept| kept.borrow());
        let tries = steps.iter().flat_map(|steps| steps.tries());
        tries.map(|tried| tried.endpoint).collect()
    }
}

impl Steps {
    /// The steps, in the order in which they ended.
    pub fn iter(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter()
    }

    /// The tries among them.
    pub fn tries(&self) -> impl Iterator<Item = &TryStep> {
        self.iter().filter_map(|step| match step {
            Step::Try(tried) => Some(tried),
            Step::Decision { .. } => None,
        })
    }

    /// How many are not there, before the last one.
    pub fn left_out(&self) -> u32 {
        self.left_out
    }
}

impl Rule {
    /// The key of the configuration that it stands in; `None`: it stands in none.
    pub fn key(self) -> Option<&'static str> {
        match self {
            Self::On => Some("retry.on"),
            Self::Attempts => Some("retry.attempts"),
            Self::Methods => Some("retry.methods"),
            Self::BodyLimit => Some("retry.body_limit"),
            Self::Budget => Some("retry.budget"),
            Self::Deadline => Some("timeouts.request"),
            Self::CircuitBreaker => Some("circuit_breaker"),
            Self::HasBegun | Self::Reload => None,
        }
    }

    /// What it says, in plain words.
    pub fn text(self) -> &'static str {
        match self {
            Self::On => "such an end is no cause of another try",
            Self::Attempts => "all tries have been made",
            Self::Methods => "the request may have arrived, and must not arrive twice",
            Self::BodyLimit => "the body is too large to be kept for another try",
            Self::Budget => "too many requests are tried again already",
            Self::Deadline => "another try would come too late",
            Self::CircuitBreaker => "the circuit is open, or this was its probe",
            Self::HasBegun => "a part of the response has gone to the caller",
            Self::Reload => "another configuration is in force",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn tried(port: u16) -> Step {
        let now = clock::now();
        Step::Try(TryStep {
            endpoint: EndpointAddr(([127, 0, 0, 1], port).into()),
            began: now,
            sent: None,
            reused: false,
            head: None,
            ended: now,
            outcome: AttemptOutcome::Reset,
        })
    }

    #[test]
    fn it_is_one_word_and_empty_until_something_is_kept() {
        assert_eq!(size_of::<Journal>(), size_of::<usize>());
        let journal = Journal::default();
        assert!(!journal.is_kept() && journal.steps().is_none());
        journal.keep();
        assert!(journal.is_kept());
        assert_eq!(journal.steps().unwrap().iter().count(), 0);
    }

    #[test]
    fn the_first_steps_and_the_last_are_kept() {
        let journal = Journal::default();
        let most = STEPS_MAX as u16;
        for port in 1..=most + 5 {
            journal.add(tried(port));
        }
        let steps = journal.steps().unwrap();
        let ports: Vec<_> = steps.tries().map(|it| it.endpoint.0.port()).collect();
        let expected: Vec<_> = (1..most).chain([most + 5]).collect();
        assert_eq!((ports, steps.left_out()), (expected, 5));
    }

    #[test]
    fn decisions_are_no_tries() {
        let journal = Journal::default();
        journal.add(tried(1));
        journal.add(Step::Decision {
            at: clock::now(),
            decision: Decision::Stop(Rule::Attempts),
        });
        let steps = journal.steps().unwrap();
        assert_eq!((steps.iter().count(), steps.tries().count()), (2, 1));
    }
}
