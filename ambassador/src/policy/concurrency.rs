//! How many of an upstream's requests may be in flight, over all shards, found
//! out from its latency. A request is in flight here until its response head has
//! come: what streams for long must not keep the limit from being measured.
//!
//! An upstream with room answers after the same time however many requests it
//! has; beyond its capacity each further one waits, and the latency grows with
//! their number. So the limit follows the gradient of the latency: after each
//! window
//!
//! ```text
//! gradient = baseline * 1.25 / latency, from 0.5 to 2
//! limit    = gradient * limit + sqrt(limit), from min to max
//! ```
//!
//! where `baseline` is the latency without a queue. The quarter is noise that is
//! put up with; the root is room to grow into, and keeps a short queue, so that
//! no server is ever idle. This is the gradient controller of Envoy's adaptive
//! concurrency filter, which has it from Netflix' concurrency-limits ("Performance
//! Under Load", 2018). Where it differs:
//!
//! - The latency of a window is a geometric mean: a few slow requests hardly move
//!   it, and it needs no histogram.
//! - The baseline is learnt in passing. Only when no window has come near it for
//!   a while, as under a lasting overload, is the limit halved for one window to
//!   measure it: see `ProbeRTT` in BBR (Cardwell et al., 2016). Envoy goes down to
//!   the minimum every time.
//! - Where the limit has fallen and the latency has not followed, it was no queue
//!   that made it high: the upstream has become slower, and that is the new
//!   baseline. So a permanent step does not hold the limit down.
//! - Tries that time out have no latency. Their share lowers the limit, up to a
//!   half, in the way of DCTCP (RFC 8257 section 3.3).
//!
//! Nothing changes while less than half of the limit is in flight: latency then
//! says nothing about the limit.
//!
//! On the way of a request are one load for the limit and, at its response, an
//! addition and a few loads more. Windows are closed behind a lock, by whoever
//! comes first.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::sync::{AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering, PoisonError};
use crate::clock::Instant;

/// `concurrency` of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Whether there is such a limit.
    pub adaptive: bool,
    /// The limit is never lower; at least 1. It starts here.
    pub min: u32,
    /// The limit is never higher; at least `min`.
    pub max: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            adaptive: false,
            min: 4,
            max: 1_024,
        }
    }
}

/// The result of a try, as far as it says something about the upstream's load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// It was answered, so long after it began.
    Answered(Duration),
    /// It was given up: nothing came in time, or there was no place for it.
    Dropped,
}

/// The adaptive limit of an upstream, and its measurements.
#[derive(Debug)]
pub struct Concurrency {
    started: Instant,
    /// 0 before the first window is closed.
    limit: AtomicU32,
    /// Of the samples of this window: a packed [`Latencies`].
    latencies: AtomicU64,
    dropped: AtomicU32,
    /// When the window begins, in milliseconds since the start: not before the
    /// requests from before the last change of the limit are answered.
    opens_ms: AtomicU64,
    /// When it may be closed.
    due_ms: AtomicU64,
    control: Mutex<Control>,
}

/// The shortest window.
const WINDOW: Duration = Duration::from_millis(100);
/// A window is not closed with fewer samples,
const SAMPLES_MIN: u64 = 30;
/// and the first, which all others are compared with, not with fewer than these.
const FIRST_SAMPLES_MIN: u64 = 100;
/// By how much a latency may exceed the baseline and be taken for the same.
const TOLERANCE: f64 = 1.25;
/// How far the limit moves in a window, apart from the room to grow into.
const GRADIENTS: RangeInclusive<f64> = 0.5..=2.0;
/// How fast the baseline follows what is below it, and what is near it. The
/// second keeps it from becoming the least of all that noise has ever shown.
const FALL: f64 = 0.2;
const RISE: f64 = 0.05;
/// A baseline that no window came near to for so long is measured.
const FRESH: Duration = Duration::from_secs(10);
/// So far the limit must have fallen before it is asked what that has changed.
const FELL: f64 = 0.7;

/// Samples of a window: their number in the lower bits, the sum of the binary
/// logarithms of their nanoseconds, in 1/256, in the upper. No count of a window
/// reaches 2^24: it would take 160,000 requests a second, for 100 s.
struct Latencies(u64);

impl Latencies {
    const COUNT_BITS: u32 = 24;
    const STEPS: f64 = 256.0;

    fn of(latency: Duration) -> Self {
        let ns = latency.as_nanos().max(1) as f64;
        let log = (ns.log2() * Self::STEPS).round() as u64;
        Self(log << Self::COUNT_BITS | 1)
    }

    fn count(&self) -> u64 {
        self.0 & ((1 << Self::COUNT_BITS) - 1)
    }

    /// The geometric mean in nanoseconds.
    fn mean_ns(&self) -> Option<f64> {
        let sum = (self.0 >> Self::COUNT_BITS) as f64;
        let count = self.count();
        (count > 0).then(|| (sum / Self::STEPS / count as f64).exp2())
    }
}

/// What is remembered from window to window.
#[derive(Debug, Default)]
struct Control {
    limit: f64,
    baseline: Option<Baseline>,
    /// What later windows are compared with.
    reference: Option<Reference>,
    /// The limit is halved to measure the baseline, and was this.
    probing: Option<f64>,
}

/// The latency without a queue.
#[derive(Debug, Clone, Copy)]
struct Baseline {
    ns: f64,
    /// When a window last came near it, in milliseconds since the start.
    seen_ms: u64,
}

/// A limit and the latency under it.
#[derive(Debug, Clone, Copy)]
struct Reference {
    limit: f64,
    latency_ns: f64,
}

/// Whether so many requests were in flight that the limit can be told from one
/// that is too high.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pressure {
    Felt,
    None,
}

/// A window that has ended.
struct Window {
    /// `None`: nothing was answered.
    latency_ns: Option<f64>,
    /// Of all that ended, how much was dropped.
    dropped_share: f64,
    /// Requests in flight at its end.
    in_flight: u32,
    now_ms: u64,
}

impl Concurrency {
    /// A limit without measurements.
    pub fn new(now: Instant) -> Self {
        Self {
            started: now,
            limit: AtomicU32::new(0),
            latencies: AtomicU64::new(0),
            dropped: AtomicU32::new(0),
            opens_ms: AtomicU64::new(0),
            due_ms: AtomicU64::new(WINDOW.as_millis() as u64),
            control: Mutex::default(),
        }
    }

    /// How many requests may be in flight now; `None`: the limit is not adaptive.
    pub fn limit(&self, settings: &Settings) -> Option<u32> {
        if !settings.adaptive {
            return None;
        }
        let limit = self.limit.load(Ordering::Relaxed);
        Some(limit.clamp(settings.min, settings.max.max(settings.min)))
    }

    /// Takes note of how a try has ended while so many requests were in flight,
    /// itself included. Nothing where the limit is not adaptive.
    pub fn report(&self, settings: &Settings, sample: Sample, in_flight: u32, now: Instant) {
        if !settings.adaptive {
            return;
        }
        let now_ms = now.saturating_duration_since(self.started).as_millis() as u64;
        if now_ms < self.opens_ms.load(Ordering::Relaxed) {
            return;
        }
        let dropped = match sample {
            Sample::Answered(latency) => {
                let one = Latencies::of(latency).0;
                self.latencies.fetch_add(one, Ordering::Relaxed);
                self.dropped.load(Ordering::Relaxed)
            }
            Sample::Dropped => self.dropped.fetch_add(1, Ordering::Relaxed) + 1,
        };
        let due_ms = self.due_ms.load(Ordering::Relaxed);
        if now_ms < due_ms {
            return;
        }
        let answered = Latencies(self.latencies.load(Ordering::Relaxed)).count();
        // Of all that come now one closes the window; for the others it is not
        // due any more.
        let needed = match self.limit.load(Ordering::Relaxed) {
            0 => FIRST_SAMPLES_MIN,
            _ => SAMPLES_MIN,
        };
        if answered + u64::from(dropped) >= needed
            && self
                .due_ms
                .compare_exchange(due_ms, u64::MAX, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            self.close_window(settings, in_flight, now_ms);
        }
    }

    fn close_window(&self, settings: &Settings, in_flight: u32, now_ms: u64) {
        let mut control = self.lock();
        let latencies = Latencies(self.latencies.swap(0, Ordering::Relaxed));
        let dropped = f64::from(self.dropped.swap(0, Ordering::Relaxed));
        let latency_ns = latencies.mean_ns();
        control.next(
            settings,
            &Window {
                latency_ns,
                dropped_share: dropped / (dropped + latencies.count() as f64).max(1.0),
                in_flight,
                now_ms,
            },
        );
        self.limit.store(control.limit as u32, Ordering::Relaxed);
        // What was sent under the old limit is answered by then, and the window
        // as long as a request takes: Netflix' windows have two latencies too.
        let latency_ms = (latency_ns.unwrap_or_default() / 1e6).ceil() as u64;
        let opens_ms = now_ms + latency_ms;
        let length_ms = latency_ms.max(WINDOW.as_millis() as u64);
        self.opens_ms.store(opens_ms, Ordering::Relaxed);
        self.due_ms.store(opens_ms + length_ms, Ordering::Relaxed);
    }

    /// A panic under the lock cannot leave the control half changed: nothing in
    /// there can fail.
    fn lock(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Control {
    /// Takes a window in and sets the limit.
    fn next(&mut self, settings: &Settings, window: &Window) {
        let min = f64::from(settings.min);
        let max = f64::from(settings.max).max(min);
        self.limit = self.limit.clamp(min, max);
        if f64::from(window.in_flight) > self.limit {
            // It was lowered, and is not in force yet.
            return;
        }
        let pressure = match f64::from(window.in_flight) >= self.limit / 2.0 {
            true => Pressure::Felt,
            false => Pressure::None,
        };
        let limit = match window.latency_ns {
            None if pressure == Pressure::Felt => self.limit,
            None => return,
            Some(latency_ns) => match self.follow(latency_ns, window, pressure, min) {
                Some(limit) => limit,
                None => return,
            },
        };
        self.limit = (limit * (1.0 - window.dropped_share / 2.0)).clamp(min, max);
    }

    /// The next limit, drops aside; `None`: it is settled.
    fn follow(
        &mut self,
        latency_ns: f64,
        window: &Window,
        pressure: Pressure,
        min: f64,
    ) -> Option<f64> {
        let found = Baseline {
            ns: latency_ns,
            seen_ms: window.now_ms,
        };
        let baseline = self.baseline.get_or_insert(found);
        if let Some(limit) = self.probing.take() {
            // Where half was still too many the old limit is too high as well,
            // and what was measured is not the end.
            let share = (latency_ns / baseline.ns).min(1.0);
            if share * TOLERANCE >= 1.0 {
                baseline.seen_ms = window.now_ms;
            }
            baseline.ns = latency_ns;
            self.limit = limit * share;
            return None;
        }
        baseline.learn(latency_ns, window.now_ms);
        let is_stale = window.now_ms.saturating_sub(baseline.seen_ms) > FRESH.as_millis() as u64;
        if is_stale && (pressure == Pressure::None || self.limit <= min) {
            // There is no less to measure it with.
            *baseline = found;
        }
        let current = Reference {
            limit: self.limit,
            latency_ns,
        };
        if pressure == Pressure::None {
            self.reference = Some(current);
            return None;
        }
        let is_queue = Reference::shows_queue(&mut self.reference, current);
        let is_near = latency_ns <= baseline.ns * TOLERANCE;
        // Who gave up was not measured: nothing can be told.
        if is_queue == Some(false) && !is_near && window.dropped_share == 0.0 {
            *baseline = found;
        }
        let gradient = baseline.ns * TOLERANCE / latency_ns;
        let gradient = gradient.clamp(*GRADIENTS.start(), *GRADIENTS.end());
        let next = gradient * self.limit + self.limit.sqrt();
        if is_stale && self.limit > min && next >= self.limit {
            self.probing = Some(self.limit);
            self.reference = None;
            self.limit = (self.limit / 2.0).max(min);
            return None;
        }
        Some(next)
    }
}

impl Reference {
    /// Whether latency has followed the limit, as that of a queue does; `None`:
    /// the limit has not fallen enough to tell.
    fn shows_queue(reference: &mut Option<Self>, current: Self) -> Option<bool> {
        let Some(before) = *reference else {
            *reference = Some(current);
            return None;
        };
        let limits = current.limit / before.limit;
        let latencies = current.latency_ns / before.latency_ns;
        // More than any queue would account for.
        let is_slower = latencies > limits.max(1.0) * TOLERANCE;
        let is_faster = latencies * TOLERANCE < 1.0 && limits * TOLERANCE > 1.0;
        if is_slower || is_faster {
            // Something else has changed, perhaps in the midst of this window: the
            // next one is the first to compare with.
            *reference = None;
            return None;
        }
        if limits > 1.0 {
            *reference = Some(current);
        }
        if limits > FELL {
            return None;
        }
        *reference = Some(current);
        // A queue shrinks in the same measure; half of that, as logarithms, tells
        // the two apart.
        Some(latencies < limits.sqrt())
    }
}

impl Baseline {
    fn learn(&mut self, latency_ns: f64, now_ms: u64) {
        let share = latency_ns / self.ns;
        if share > TOLERANCE {
            return;
        }
        let weight = match share {
            // The upstream has become faster.
            share if share < 0.5 => 1.0,
            share if share < 1.0 => FALL,
            _ => RISE,
        };
        self.ns += (latency_ns - self.ns) * weight;
        self.seen_ms = now_ms;
    }
}

#[cfg(test)]
mod tests;
