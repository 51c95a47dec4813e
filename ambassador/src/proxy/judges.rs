//! Who learns how a try went: the endpoint it was sent to, and the circuit
//! breaker of the upstream.
//!
//! With one endpoint every try speaks for the upstream. With several, what one
//! endpoint gets wrong and another makes good is that endpoint's failure alone:
//! the breaker counts each request once, by its last try.

use crate::clock::Instant;
use crate::policy::breaker::{Settings, State, Trial};
use crate::policy::outlier;
use crate::upstream::balancer::{Grade, Picked};
use crate::upstream::reputation::Reputation;

/// Those who are told of a request's tries. Dropped, they learn nothing: the
/// caller has left.
pub(crate) struct Judges<'a> {
    /// The endpoint of the try under way.
    pub endpoint: Picked,
    /// `None`: it was told.
    breaker: Option<Trial<'a>>,
    counts: Counts,
    /// A success that counts once the body has come in time, as of its head.
    put_off: Option<(Grade, Instant)>,
    /// The upstream's, as the caller's namespace knows it.
    pub reputation: &'a Reputation,
}

/// What the breaker counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counts {
    /// Every try: there is one endpoint.
    Tries,
    /// Every request, by its last try.
    Requests,
}

/// Whether a try decides about its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its result is that of the request.
    Last,
    /// The same, but the body of its response may yet come too slowly.
    Streams,
    /// Another one may follow.
    MayGiveWay,
}

/// What became of the body of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// It came, or it was not the upstream that kept it from coming.
    Came,
    /// It came more slowly than it may.
    TooSlow,
}

/// How a try went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Score {
    /// The upstream did what it is there for.
    Success,
    /// It did not.
    Failure,
}

impl Counts {
    /// What counts where `endpoint` was chosen.
    pub(crate) fn of(endpoint: &Picked) -> Self {
        match endpoint.has_alternatives() {
            true => Self::Requests,
            false => Self::Tries,
        }
    }
}

impl<'a> Judges<'a> {
    /// For a request that the breaker let through, and whose first try goes to
    /// `endpoint`.
    pub(crate) fn new(endpoint: Picked, breaker: Trial<'a>, reputation: &'a Reputation) -> Self {
        let counts = Counts::of(&endpoint);
        Self {
            endpoint,
            breaker: Some(breaker),
            counts,
            put_off: None,
            reputation,
        }
    }

    /// For a second try beside another one, which the breaker counts where there
    /// is a `breaker`.
    pub(crate) fn of_second(
        endpoint: Picked,
        breaker: Option<Trial<'a>>,
        reputation: &'a Reputation,
    ) -> Self {
        Self {
            endpoint,
            breaker,
            counts: Counts::Tries,
            put_off: None,
            reputation,
        }
    }

    /// Leaves the endpoint, which is busy as long as it is kept. A breaker that
    /// was not told learns nothing.
    pub(crate) fn into_endpoint(self) -> Picked {
        self.endpoint
    }

    /// What the breaker counts.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether the request is the probe of a half-open breaker.
    pub(crate) fn is_probe(&self) -> bool {
        self.breaker.as_ref().is_some_and(Trial::is_probe)
    }

    /// Whether another try may follow, as far as the breaker goes. The probe of
    /// an upstream with one endpoint is one try.
    pub(crate) fn may_try_again(&self) -> bool {
        self.counts == Counts::Requests || !self.is_probe()
    }

    /// Asks the breaker for another try.
    pub(crate) fn admit_again(&mut self, settings: &'a Settings, shard: u16) -> Admitted {
        let breaker = &self.reputation.breaker;
        let admitted = match self.counts {
            Counts::Tries => {
                self.breaker = breaker.admit(settings, shard, crate::ring::now());
                self.breaker.is_some()
            }
            Counts::Requests => self.is_probe() || breaker.state() == State::Closed,
        };
        match admitted {
            true => Admitted::Yes,
            false => Admitted::No,
        }
    }

    /// Another try won the race: it is the one that counts.
    pub(crate) fn replace(&mut self, endpoint: Picked, breaker: Option<Trial<'a>>) {
        self.endpoint = endpoint;
        if breaker.is_some() {
            self.breaker = breaker;
        }
    }

    /// Tells endpoint and breaker of a try.
    pub(crate) fn tell(
        &mut self,
        (score, grade): (Score, Grade),
        stage: Stage,
        settings: &outlier::Settings,
        now: Instant,
    ) {
        if stage == Stage::Streams && score == Score::Success {
            self.put_off = Some((grade, now));
            return;
        }
        self.endpoint.ended(grade, settings, now);
        if stage != Stage::MayGiveWay || self.counts == Counts::Tries {
            self.tell_breaker(score, now);
        }
    }

    /// Tells what was put off until it is known what became of the body.
    pub(crate) fn settle(&mut self, body: Body, settings: &outlier::Settings, now: Instant) {
        let Some((grade, at)) = self.put_off.take() else {
            return;
        };
        match body {
            Body::Came => self.tell((Score::Success, grade), Stage::Last, settings, at),
            Body::TooSlow => {
                let how = (Score::Failure, Grade::Bad { retry_after: None });
                self.tell(how, Stage::Last, settings, now);
            }
        }
    }

    /// Tells the breaker how the request went, unless it was told. What an
    /// endpoint gets wrong that is out, or went out by it, says nothing of the
    /// upstream while another one is well.
    pub(crate) fn tell_breaker(&mut self, score: Score, now: Instant) {
        if let Some(trial) = self.breaker.take() {
            match score {
                Score::Success => trial.succeeded(now),
                // One bad part is not the whole: another would have served it.
                Score::Failure if self.endpoint.has_well_alternative() => {
                    trial.failed_in_part(now);
                }
                Score::Failure => trial.failed(now),
            }
        }
    }
}

/// Whether the breaker lets another try through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admitted {
    /// It does.
    Yes,
    /// The circuit is open.
    No,
}
