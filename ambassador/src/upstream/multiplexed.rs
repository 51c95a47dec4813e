//! A connection to an endpoint that many requests share.

use std::cell::Cell;
use std::future::pending;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Instant;
use crate::combinators::{First, first};
use crate::http2::ErrorCode;
use crate::multiplex::{self, Driven, Driver, Ended, Multiplexed};
use crate::ring::{self, timer};
use crate::upstream::connection::{ConnectionUse, Lifetime};
use crate::upstream::key::PoolKey;
use crate::upstream::permits::Permit;
use crate::upstream::shared::Shared;

/// How long a server may take to read why its connection ends.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// A connection to an endpoint that many requests share.
pub(crate) struct MultiplexedConnection {
    /// Before the permit, which is for its socket.
    multiplexed: Rc<Multiplexed>,
    shared: Arc<Shared>,
    key: PoolKey,
    lifetime: Lifetime,
    /// Requests that have a place on it, those included that have opened no stream yet.
    places: Cell<u32>,
    /// Since when it has none.
    idle_since: Cell<Instant>,
    past: Cell<ConnectionUse>,
    /// It gets no more requests.
    is_leaving: Cell<bool>,
    _permit: Permit,
}

impl MultiplexedConnection {
    /// A new connection, which `lifetime` tells the end of.
    pub(super) fn new(
        multiplexed: Rc<Multiplexed>,
        shared: Arc<Shared>,
        key: PoolKey,
        lifetime: Lifetime,
        permit: Permit,
    ) -> Rc<Self> {
        shared.add_idle();
        Rc::new(Self {
            multiplexed,
            shared,
            key,
            lifetime,
            places: Cell::new(0),
            idle_since: Cell::new(ring::now()),
            past: Cell::new(ConnectionUse::Dialled),
            is_leaving: Cell::new(false),
            _permit: permit,
        })
    }

    /// The connection and its streams.
    pub(crate) fn multiplexed(&self) -> &Rc<Multiplexed> {
        &self.multiplexed
    }

    /// Its pool key.
    pub(crate) fn key(&self) -> PoolKey {
        self.key
    }

    /// How it was used before.
    pub(crate) fn past(&self) -> ConnectionUse {
        self.past.get()
    }

    /// A response has come over it.
    pub(crate) fn is_answered(&self) {
        self.past.set(ConnectionUse::Used);
    }

    /// Takes a place for a request, where one is free. `max_streams` is how many the
    /// configuration allows.
    pub(super) fn take_place(&self, max_streams: u32) -> bool {
        let most = self.multiplexed.streams_max().min(max_streams as usize);
        let places = self.places.get();
        if self.is_leaving.get() || places as usize >= most {
            return false;
        }
        if places == 0 {
            self.shared.remove_idle();
        }
        self.places.set(places + 1);
        true
    }

    /// A request gives its place back.
    pub(super) fn gives_place(&self) {
        self.places.set(self.places.get() - 1);
        if self.is_idle() {
            if !self.is_leaving.get() {
                self.shared.add_idle();
            }
            self.idle_since.set(ring::now());
            self.end_if_left();
        }
    }

    /// Its upstream, as all shards see it.
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Whether no request has a place on it.
    pub(super) fn is_idle(&self) -> bool {
        self.places.get() == 0
    }

    /// Whether it gets no more requests, whatever ends.
    pub(super) fn is_over(&self) -> bool {
        self.is_leaving.get() || self.multiplexed.is_draining()
    }

    /// Since when no request has a place on it; `None`: one has.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        self.is_idle().then(|| self.idle_since.get())
    }

    /// How long it may live and stand idle.
    pub(crate) fn lifetime(&self) -> &Lifetime {
        &self.lifetime
    }

    /// Gives it no more requests, and closes it after those that it has.
    pub(super) fn leave(&self) {
        if !self.is_leaving.replace(true) {
            self.shared.add_leaving();
            if self.is_idle() {
                self.shared.remove_idle();
            }
        }
        self.end_if_left();
    }

    fn end_if_left(&self) {
        if self.is_idle() && self.is_over() {
            self.multiplexed.go_away(ErrorCode::NO_ERROR);
            self.multiplexed.end(Ended::Closed);
        }
    }

    /// Drives it to its end. A peer from which nothing has come for `ping` while a
    /// request waits is asked for a sign of life, and given up when it gives none for as
    /// long again. One that was asked and ends the connection for too much of something
    /// is asked less often, as gRPC clients do (gRFC A8).
    pub(super) async fn drive(&self) {
        let mut driver = Driver::of(&self.multiplexed);
        let mut asked_at: Option<Instant> = None;
        // Whether it was asked, as long as nothing has come of that.
        let mut was_asked = false;
        loop {
            let silence = self.shared.ping();
            let silence = silence.filter(|_| !self.is_idle());
            let heard_at = self.multiplexed.heard_at();
            let last = asked_at.map_or(heard_at, |asked_at| asked_at.max(heard_at));
            let due = silence.map(|silence| last + silence);
            let whole_by = self.multiplexed.unfinished_since();
            let whole_by = whole_by.map(|since| since + self.shared.limits.head());
            let due = due.into_iter().chain(whole_by).min();
            let due = async {
                match due {
                    Some(due) => timer::sleep_until(due).await,
                    None => pending().await,
                }
            };
            let next = first(driver.next(), due).await;
            let word = self.multiplexed.go_away_of_peer();
            if was_asked && word == Some(ErrorCode::ENHANCE_YOUR_CALM) {
                was_asked = false;
                self.shared.calm_down();
            }
            match next {
                First::Left(Driven::Ended(ended)) => {
                    return match ended {
                        Ended::Error(error) => {
                            multiplex::explain(&error, &self.key.endpoint, ring::now());
                            driver.finish(GOODBYE_MAX).await;
                        }
                        Ended::Closed => self.multiplexed.part().await,
                    };
                }
                First::Left(Driven::Opened { .. }) => {}
                First::Left(Driven::Changed | Driven::Rests) if self.is_over() => self.leave(),
                First::Left(Driven::Changed | Driven::Rests) => {}
                First::Right(()) if whole_by.is_some_and(|by| by <= ring::now()) => {
                    self.multiplexed.end_for_slowness();
                }
                First::Right(()) => match asked_at {
                    Some(asked) if self.multiplexed.heard_at() < asked => {
                        self.multiplexed.end(Ended::Closed);
                    }
                    // It has been heard of meanwhile.
                    _ if self.multiplexed.heard_at() > heard_at => asked_at = None,
                    _ => {
                        self.multiplexed.ping();
                        was_asked = true;
                        asked_at = Some(ring::now());
                    }
                },
            }
        }
    }
}

impl Drop for MultiplexedConnection {
    fn drop(&mut self) {
        match self.is_leaving.get() {
            true => self.shared.remove_leaving(),
            false if self.is_idle() => self.shared.remove_idle(),
            false => {}
        }
    }
}
