//! The circuit breaker of an upstream, one for all shards.
//!
//! Closed, it counts failures; where they are many, and many of all that was
//! counted, it opens and refuses. After `sleep` it is half open: one try goes
//! through as a probe, and its result closes or reopens it. See Nygard, "Release
//! It!", and Fowler, "CircuitBreaker" (2014).
//!
//! The state is one word, read relaxed on the way of a request. A success writes
//! counters that belong to its shard alone, and what shards share only where it
//! ends a run of failures. Failures are counted behind a lock: a breaker that
//! works lets few of them through. Each change of state raises the epoch, and a
//! try counts only in the epoch that it was admitted in.
//!
//! A probe that ends without a result frees its place: the next one that asks is
//! the probe. So a caller who takes every probe and leaves keeps out only those
//! who come while it waits.

mod counts;
mod observer;
mod settings;
mod tally;
mod word;

use std::time::Duration;

use self::counts::{Moment, Successes};
pub use self::observer::{Observer, RefusalPeriod};
pub use self::settings::{FAILURES_MAX, Ratio, Settings, Trip};
use self::tally::{LastFailures, Tally};
use self::word::{Kind, Word};
use super::jitter;
use super::sync::{AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering, PoisonError};
use crate::clock::Instant;

impl std::ops::AddAssign for Transitions {
    fn add_assign(&mut self, other: Self) {
        self.opened += other.opened;
        self.half_opened += other.half_opened;
        self.closed += other.closed;
    }
}

/// The state of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It lets them through.
    Closed = 0,
    /// It refuses all but the one that probes.
    HalfOpen = 1,
    /// It refuses them.
    Open = 2,
}

impl State {
    /// The word in metrics and in what the admin API shows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

/// How an operator can set a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// Open until set otherwise.
    Open,
    /// Closed until set otherwise.
    Closed,
    /// Closed, and on its own from here on.
    Auto,
}

/// How often a breaker has changed to each state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Transitions {
    /// To open.
    pub opened: u64,
    /// To half open.
    pub half_opened: u64,
    /// To closed.
    pub closed: u64,
}

/// A circuit breaker.
#[derive(Debug)]
pub struct Breaker {
    started: Instant,
    /// A packed [`Word`]. Changed under the lock, but for the claim of a probe.
    word: AtomicU64,
    /// Failures since a success or since it closed; changed under the lock.
    run: AtomicU32,
    successes: Successes,
    /// What the jitter of its sleeps is drawn from.
    seed: u64,
    tally: Mutex<Tally>,
}

/// An admitted try. Its result must be reported. A probe that is dropped without
/// a result lets the next request probe.
#[derive(Debug)]
pub struct Trial<'a> {
    breaker: &'a Breaker,
    settings: &'a Settings,
    /// Who asked.
    shard: u16,
    epoch: u32,
    /// When it was let through, where it is the probe and has not ended.
    probe_since: Option<Instant>,
}

/// Whether a failure may be the one that opens a closed breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MayOpen {
    Yes,
    No,
}

impl Breaker {
    /// A closed breaker. `seed` is 64 random bits.
    pub fn new(now: Instant, seed: u64) -> Self {
        let word = Word {
            kind: Kind::Closed,
            epoch: 0,
            until_ms: 0,
        };
        Self {
            started: now,
            word: AtomicU64::new(word.pack()),
            run: AtomicU32::new(0),
            successes: Successes::default(),
            seed,
            tally: Mutex::default(),
        }
    }

    /// Asks for a try of a shard; `None`: it is refused. The same shard reports
    /// its result.
    #[inline(always)]
    pub fn admit<'a>(
        &'a self,
        settings: &'a Settings,
        shard: u16,
        now: Instant,
    ) -> Option<Trial<'a>> {
        let word = self.word();
        let trial = |epoch, probe_since| Trial {
            breaker: self,
            settings,
            shard,
            epoch,
            probe_since,
        };
        match word.kind {
            Kind::Closed | Kind::HeldClosed => Some(trial(word.epoch, None)),
            Kind::HalfOpen => None,
            Kind::Open if self.ms(now) < word.until_ms => None,
            Kind::Open => {
                let half_open = word.to(Kind::HalfOpen, 0);
                // Of all that ask at this moment one is the probe.
                self.change(word, half_open)?;
                self.lock().transitions.half_opened += 1;
                Some(trial(half_open.epoch, Some(now)))
            }
        }
    }

    /// The state. An open breaker stays open past its time until somebody asks
    /// for a try.
    pub fn state(&self) -> State {
        match self.word().kind {
            Kind::Closed | Kind::HeldClosed => State::Closed,
            Kind::HalfOpen => State::HalfOpen,
            Kind::Open => State::Open,
        }
    }

    /// Whether it would refuse a try at that time, as far as is known now.
    pub fn refuses_at(&self, then: Instant) -> bool {
        let word = self.word();
        word.kind == Kind::Open && self.ms(then) < word.until_ms
    }

    /// How long an open one still refuses; `None` where it does not, or does so
    /// until an operator sets it otherwise.
    pub fn refuses_for(&self, now: Instant) -> Option<Duration> {
        let word = self.word();
        let counts = word.kind == Kind::Open && word.until_ms != Word::FOR_EVER_MS;
        let left_ms = word.until_ms.saturating_sub(self.ms(now));
        (counts && left_ms > 0).then(|| Duration::from_millis(left_ms))
    }

    /// How an operator has forced it.
    pub fn forced(&self) -> Force {
        let word = self.word();
        match word.kind {
            Kind::HeldClosed => Force::Closed,
            Kind::Open if word.until_ms == Word::FOR_EVER_MS => Force::Open,
            _ => Force::Auto,
        }
    }

    /// Forces it, or lets it work by itself again.
    pub fn force(&self, force: Force) {
        let mut tally = self.lock();
        loop {
            let word = self.word();
            let next = match force {
                Force::Open => word.to(Kind::Open, Word::FOR_EVER_MS),
                Force::Closed => word.to(Kind::HeldClosed, 0),
                Force::Auto => word.to(Kind::Closed, 0),
            };
            // A probe may be claimed in between.
            if self.change(word, next).is_some() {
                let was_closed = matches!(word.kind, Kind::Closed | Kind::HeldClosed);
                match force {
                    Force::Open if word.kind != Kind::Open => tally.transitions.opened += 1,
                    Force::Closed | Force::Auto if !was_closed => tally.transitions.closed += 1,
                    _ => {}
                }
                return self.changed(next, &mut tally);
            }
        }
    }

    /// Replaces the observer, and tells it the present refusal; `None`: no
    /// observer.
    pub fn observe(&self, observer: Option<Observer>) {
        let mut tally = self.lock();
        tally.observer = observer;
        self.tell(self.word(), &tally);
    }

    /// How often it has changed to each state.
    pub fn transitions(&self) -> Transitions {
        self.lock().transitions
    }

    /// Failures that count towards the threshold at this moment.
    pub fn failures(&self, settings: &Settings, now: Instant) -> u32 {
        match settings.trip {
            Trip::Never => 0,
            Trip::Consecutive(_) => self.run.load(Ordering::Relaxed),
            Trip::Rolling { window, .. } => {
                let window_ms = ms(window);
                let (tally, now_ms) = (self.lock(), self.ms(now));
                let failures = match tally.last.is_full() {
                    false => tally.last.within(window_ms, now_ms) as u64,
                    true => tally.failed_within(
                        window_ms,
                        Moment {
                            epoch: self.word().epoch,
                            now_ms,
                            window_ms,
                        },
                    ),
                };
                failures.try_into().unwrap_or(u32::MAX)
            }
        }
    }

    #[inline(always)]
    fn succeeded(&self, trial: &Trial<'_>, now: Instant) {
        if trial.probe_since.is_none() {
            self.count_success(trial, now);
            // Shared by all shards: written only where there is something to
            // undo.
            if self.run.load(Ordering::Relaxed) == 0 {
                return;
            }
        }
        let mut tally = self.lock();
        let word = self.word();
        if word.epoch != trial.epoch {
            return;
        }
        match word.kind {
            Kind::Closed => self.run.store(0, Ordering::Relaxed),
            Kind::HalfOpen => {
                let closed = word.to(Kind::Closed, 0);
                self.set(closed);
                tally.transitions.closed += 1;
                self.changed(closed, &mut tally);
            }
            Kind::Open | Kind::HeldClosed => {}
        }
    }

    #[inline(always)]
    fn count_success(&self, trial: &Trial<'_>, now: Instant) {
        let word = self.word();
        if let Trip::Rolling { window, .. } = trial.settings.trip
            && word.kind == Kind::Closed
            && word.epoch == trial.epoch
        {
            let moment = Moment {
                epoch: word.epoch,
                now_ms: self.ms(now),
                window_ms: ms(window),
            };
            self.successes.count(trial.shard, moment);
        }
    }

    fn failed(&self, trial: &Trial<'_>, now: Instant, may_open: MayOpen) {
        if trial.settings.trip == Trip::Never && trial.probe_since.is_none() {
            return;
        }
        let mut tally = self.lock();
        let word = self.word();
        if word.epoch != trial.epoch {
            return;
        }
        let opens = match word.kind {
            Kind::HalfOpen => true,
            Kind::Closed => self.count(trial, &mut tally, now) && may_open == MayOpen::Yes,
            Kind::Open | Kind::HeldClosed => false,
        };
        if opens {
            let sleep_ms = self.sleep_ms(trial.settings, word.epoch);
            // One less than for ever, which only force gives.
            let until_ms = (self.ms(now) + sleep_ms).min(Word::FOR_EVER_MS - 1);
            let open = word.to(Kind::Open, until_ms);
            self.set(open);
            tally.transitions.opened += 1;
            self.changed(open, &mut tally);
        }
    }

    /// A probe ended without a result. Nothing has been learned, so that the next
    /// that asks may be the probe at once; it has not opened again either.
    fn freed(&self, trial: &Trial<'_>, since: Instant) {
        let tally = self.lock();
        let word = self.word();
        if word.epoch == trial.epoch {
            let due = word.to(Kind::Open, self.ms(since));
            self.set(due);
            self.tell(due, &tally);
        }
    }

    /// How long it sleeps, with up to a tenth of jitter, so that those who call
    /// the same upstream do not all probe it at the same moment.
    fn sleep_ms(&self, settings: &Settings, epoch: u32) -> u64 {
        let sleep_ms = settings.sleep.as_millis() as u64;
        jitter::lengthened_ms(sleep_ms, self.seed.wrapping_add(epoch.into()))
    }

    /// Counts a failure; whether it was one too many.
    fn count(&self, trial: &Trial<'_>, tally: &mut Tally, now: Instant) -> bool {
        match trial.settings.trip {
            Trip::Never => false,
            Trip::Consecutive(most) => {
                let run = self.run.load(Ordering::Relaxed) + 1;
                self.run.store(run, Ordering::Relaxed);
                run >= most
            }
            Trip::Rolling {
                failures,
                window,
                ratio,
            } => {
                let moment = Moment {
                    epoch: trial.epoch,
                    now_ms: self.ms(now),
                    window_ms: ms(window),
                };
                tally.count(failures as usize, moment);
                let last_tenth_ms = Trip::last_tenth_ms(moment.window_ms);
                [moment.window_ms, last_tenth_ms]
                    .into_iter()
                    .any(|span_ms| {
                        tally.last.within(span_ms, moment.now_ms) >= failures as usize
                            && ratio.is_none_or(|ratio| {
                                let failed = tally.failed_within(span_ms, moment);
                                ratio.is_reached(failed, self.successes.within(span_ms, moment))
                            })
                    })
            }
        }
    }

    /// It was changed to `word`: failures before that count no more.
    fn changed(&self, word: Word, tally: &mut Tally) {
        tally.last = LastFailures::default();
        self.run.store(0, Ordering::Relaxed);
        self.tell(word, tally);
    }

    fn tell(&self, word: Word, tally: &Tally) {
        let Some(Observer(told)) = &tally.observer else {
            return;
        };
        told(match word.kind {
            Kind::Closed | Kind::HeldClosed => RefusalPeriod::Nothing,
            Kind::Open if word.until_ms == Word::FOR_EVER_MS => RefusalPeriod::Always,
            // A half-open one has the time of the start.
            Kind::Open | Kind::HalfOpen => {
                RefusalPeriod::Until(self.started + Duration::from_millis(word.until_ms))
            }
        });
    }

    fn word(&self) -> Word {
        Word::unpack(self.word.load(Ordering::Relaxed))
    }

    fn set(&self, word: Word) {
        self.word.store(word.pack(), Ordering::Relaxed);
    }

    /// `None`: it was not `from` any more.
    fn change(&self, from: Word, to: Word) -> Option<()> {
        let (from, to) = (from.pack(), to.pack());
        self.word
            .compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed)
            .ok()
            .map(drop)
    }

    fn ms(&self, now: Instant) -> u64 {
        ms(now.saturating_duration_since(self.started))
    }

    /// A panic under the lock cannot leave the tally half changed: nothing in
    /// there can fail.
    fn lock(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Without the 128 bits that a `Duration` may have.
fn ms(time: Duration) -> u64 {
    time.as_secs() * 1_000 + u64::from(time.subsec_millis())
}

impl Trial<'_> {
    /// Whether it is the one try of a half-open breaker.
    pub fn is_probe(&self) -> bool {
        self.probe_since.is_some()
    }

    /// Reports a success.
    #[inline(always)]
    pub fn succeeded(mut self, now: Instant) {
        self.breaker.succeeded(&self, now);
        self.probe_since = None;
    }

    /// Reports a failure.
    pub fn failed(mut self, now: Instant) {
        self.breaker.failed(&self, now, MayOpen::Yes);
        self.probe_since = None;
    }

    /// Reports a failure of one endpoint while another is healthy. It counts like
    /// any failure but does not open the breaker: the next failure may, if the
    /// other endpoint fails too. The place of a probe is free for the next
    /// request.
    pub fn failed_in_part(self, now: Instant) {
        if !self.is_probe() {
            self.breaker.failed(&self, now, MayOpen::No);
        }
    }

    /// Ends the try without a result: it was never made, or its caller left. The
    /// place of a probe is free for the next request.
    pub fn abandoned(self) {}
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if let Some(since) = self.probe_since {
            self.breaker.freed(self, since);
        }
    }
}

#[cfg(test)]
mod tests;
