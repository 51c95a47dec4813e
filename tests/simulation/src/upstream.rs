//! A model of an upstream: servers that work in parallel, a queue before them,
//! outages, and a start with few servers.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::Duration;

use rand::{Rng, RngExt};

/// What an upstream can do.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Requests that it works on at the same time.
    pub servers: u32,
    /// Requests that may wait for a server.
    pub queue_max: usize,
    /// How long a request takes, uniformly distributed.
    pub service: RangeInclusive<Duration>,
    /// The share of its servers that a restarted one begins with.
    pub cold_share: f64,
    /// How long after a restart it has all of them; their number grows linearly.
    pub warm_up: Duration,
}

/// An upstream and the requests that it has, told apart by `J`.
#[derive(Debug)]
pub struct Upstream<J> {
    settings: Settings,
    queue: VecDeque<J>,
    in_service: u32,
    state: State,
    /// How often it was stopped.
    stops: u32,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Down,
    /// It has all its servers from this time on.
    Up {
        warm_at: Duration,
    },
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// It has a place in the queue.
    Queued,
    /// The queue is full.
    Full,
    /// Nobody listens.
    Down,
}

/// A request that a server begins with.
#[derive(Debug)]
pub struct Started<J> {
    /// The request.
    pub job: J,
    /// How long the server works on it.
    pub takes: Duration,
    /// To be handed to [`Upstream::finish`].
    pub server: Server,
}

/// A server at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server {
    stops: u32,
}

impl<J> Upstream<J> {
    /// A warm one.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            queue: VecDeque::new(),
            in_service: 0,
            state: State::Up {
                warm_at: Duration::ZERO,
            },
            stops: 0,
        }
    }

    /// Hands it a request.
    pub fn offer(&mut self, job: J) -> Offer {
        match self.state {
            State::Down => Offer::Down,
            State::Up { .. } if self.queue.len() >= self.settings.queue_max => Offer::Full,
            State::Up { .. } => {
                self.queue.push_back(job);
                Offer::Queued
            }
        }
    }

    /// The next request that a server begins with now. To be asked after every
    /// offer and every end, until there is none.
    pub fn start_next(&mut self, now: Duration, rng: &mut impl Rng) -> Option<Started<J>> {
        if self.in_service >= self.servers(now) {
            return None;
        }
        let job = self.queue.pop_front()?;
        self.in_service += 1;
        Some(Started {
            job,
            takes: rng.random_range(self.settings.service.clone()),
            server: Server { stops: self.stops },
        })
    }

    /// A server has done its work; whether there is anything of it: one that
    /// was stopped meanwhile answers nothing.
    pub fn finish(&mut self, server: Server) -> bool {
        let lives = server.stops == self.stops;
        if lives {
            self.in_service -= 1;
        }
        lives
    }

    /// Stops it. The requests that it had are lost.
    pub fn stop(&mut self) {
        self.state = State::Down;
        self.stops += 1;
        self.in_service = 0;
        self.queue.clear();
    }

    /// Starts it, cold.
    pub fn restart(&mut self, now: Duration) {
        self.state = State::Up {
            warm_at: now + self.settings.warm_up,
        };
    }

    /// How many servers it has at this time.
    fn servers(&self, now: Duration) -> u32 {
        let State::Up { warm_at } = self.state else {
            return 0;
        };
        let cold_for = warm_at.saturating_sub(now).as_secs_f64();
        if cold_for == 0.0 {
            return self.settings.servers;
        }
        let missing = (1.0 - self.settings.cold_share) * cold_for;
        let share = 1.0 - missing / self.settings.warm_up.as_secs_f64();
        (f64::from(self.settings.servers) * share) as u32
    }
}
