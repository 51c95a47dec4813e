//! A hierarchical timing wheel (Varghese and Lauck, 1987): arming and
//! cancelling cost the same whatever is armed, and a timer is moved at most
//! once per level before it fires. One tick is a millisecond; deadlines are
//! rounded up, so nothing fires early. Nothing ticks: the loop waits until the
//! next occupied slot.

use std::task::Waker;
use std::time::Duration;

use slab::Slab;

use super::slack;
use crate::clock::Instant;

const LEVELS: usize = 6;
const SLOTS: u64 = 64;
const SLOT_BITS: u32 = 6;

/// A millisecond.
const TICK_NS: u64 = 1_000_000;

/// Farther deadlines fire at this distance: 64^6 ms, two years.
const TICKS_MAX: u64 = (1 << (SLOT_BITS * LEVELS as u32)) - 1;

const NONE: u32 = u32::MAX;
const NEVER: u64 = u64::MAX;

/// The timers of a shard.
pub(super) struct Wheel {
    start: Instant,
    /// Ticks up to here have fired.
    elapsed: u64,
    /// When the next occupied slot begins, or `NEVER`: every turn of the loop asks
    /// twice, and few change it.
    next: u64,
    levels: Box<[Level; LEVELS]>,
    timers: Slab<Timer>,
}

/// Names an armed or fired timer until it is removed.
pub(super) type Key = u32;

#[derive(Clone, Copy)]
struct Level {
    /// A bit per slot that has timers.
    occupied: u64,
    first: [u32; SLOTS as usize],
}

struct Timer {
    due: u64,
    waker: Waker,
    state: State,
    previous: u32,
    next: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Armed { level: u8, slot: u8 },
    Fired,
}

impl Wheel {
    /// An empty wheel that starts now.
    pub(super) fn new(start: Instant) -> Self {
        let empty = Level {
            occupied: 0,
            first: [NONE; SLOTS as usize],
        };
        Self {
            start,
            elapsed: 0,
            next: NEVER,
            levels: Box::new([empty; LEVELS]),
            timers: Slab::new(),
        }
    }

    /// Arms a timer that wakes `waker` at `deadline`.
    pub(super) fn arm(&mut self, deadline: Instant, waker: Waker) -> Key {
        let due = self.tick(deadline);
        let key = self.timers.insert(Timer {
            due,
            waker,
            state: State::Fired,
            previous: NONE,
            next: NONE,
        }) as u32;
        self.link(key);
        key
    }

    /// Has a timer wake `waker` at `deadline`, or before: one that is armed for
    /// an earlier time stays so, which costs next to nothing. Whoever is woken
    /// early calls this again.
    #[inline]
    pub(super) fn keep(&mut self, key: Option<Key>, deadline: Instant, waker: &Waker) -> Key {
        if let Some(key) = key {
            let since = self.since_start(deadline);
            let timer = &mut self.timers[key as usize];
            // Its tick is that of the deadline, or one before.
            if timer.state != State::Fired && (timer.due - 1) * TICK_NS < since {
                timer.waker.clone_from(waker);
                return key;
            }
        }
        self.arm_again(key, deadline, waker)
    }

    fn arm_again(&mut self, key: Option<Key>, deadline: Instant, waker: &Waker) -> Key {
        if let Some(key) = key {
            self.remove(key);
        }
        self.arm(deadline, waker.clone())
    }

    /// Changes whom an armed timer wakes; `true` once it has fired.
    pub(super) fn poll(&mut self, key: Key, waker: &Waker) -> bool {
        let timer = &mut self.timers[key as usize];
        if timer.state == State::Fired {
            return true;
        }
        timer.waker.clone_from(waker);
        false
    }

    /// Forgets a timer, fired or not.
    pub(super) fn remove(&mut self, key: Key) {
        self.unlink(key);
        self.timers.remove(key as usize);
        slack::shrink(&mut self.timers);
    }

    fn since_start(&self, time: Instant) -> u64 {
        time.kernel_ns().saturating_sub(self.start.kernel_ns())
    }

    /// The first tick that is not before `deadline`.
    fn tick(&self, deadline: Instant) -> u64 {
        let since = self.since_start(deadline);
        let latest = self.elapsed.saturating_add(TICKS_MAX);
        since.div_ceil(TICK_NS).clamp(self.elapsed + 1, latest)
    }

    /// How long until the next timer may fire; `None`: there is none. It may
    /// be earlier than a far timer's deadline, which is then only moved.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        if self.next == NEVER {
            return None;
        }
        let wait_ns = (self.next * TICK_NS).saturating_sub(self.since_start(now));
        Some(Duration::from_nanos(wait_ns))
    }

    /// Fires what is due.
    pub(super) fn advance(&mut self, now: Instant) {
        let now = self.since_start(now) / TICK_NS;
        if self.next <= now {
            self.fire(now);
        }
        self.elapsed = self.elapsed.max(now);
    }

    fn fire(&mut self, now: u64) {
        while let Some((tick, level, slot)) = self.next_slot()
            && tick <= now
        {
            self.elapsed = tick;
            let mut key = self.take_slot(level, slot);
            while key != NONE {
                let timer = &mut self.timers[key as usize];
                let next = std::mem::replace(&mut timer.next, NONE);
                timer.previous = NONE;
                timer.state = State::Fired;
                if timer.due <= tick {
                    timer.waker.wake_by_ref();
                } else {
                    self.link(key);
                }
                key = next;
            }
        }
        self.find_next();
    }

    fn find_next(&mut self) {
        self.next = self.next_slot().map_or(NEVER, |(tick, _, _)| tick);
    }

    /// Armed and fired timers that have not been removed.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.timers.len()
    }

    /// The next occupied slot and the tick at which it begins. A lower level
    /// always begins earlier.
    fn next_slot(&self) -> Option<(u64, usize, usize)> {
        self.levels.iter().enumerate().find_map(|(level, slots)| {
            if slots.occupied == 0 {
                return None;
            }
            let shift = SLOT_BITS * level as u32;
            let current = (self.elapsed >> shift) % SLOTS;
            let ahead = slots.occupied.rotate_right(current as u32).trailing_zeros();
            let slot = (current + u64::from(ahead)) % SLOTS;
            let turn = self.elapsed >> (shift + SLOT_BITS);
            let mut tick = (turn * SLOTS + slot) << shift;
            if tick <= self.elapsed && level > 0 || tick < self.elapsed {
                tick += SLOTS << shift;
            }
            Some((tick, level, slot as usize))
        })
    }

    fn link(&mut self, key: Key) {
        let due = self.timers[key as usize].due;
        // The highest bit in which the deadline differs from now says on which
        // level the two fall into different slots.
        let differs = (self.elapsed ^ due) | (SLOTS - 1);
        let level = (((63 - differs.leading_zeros()) / SLOT_BITS) as usize).min(LEVELS - 1);
        let shift = SLOT_BITS * level as u32;
        let slot = ((due >> shift) % SLOTS) as usize;
        self.next = self.next.min((due >> shift) << shift);
        let head = std::mem::replace(&mut self.levels[level].first[slot], key);
        self.levels[level].occupied |= 1 << slot;
        if head != NONE {
            self.timers[head as usize].previous = key;
        }
        let timer = &mut self.timers[key as usize];
        timer.next = head;
        timer.previous = NONE;
        timer.state = State::Armed {
            level: level as u8,
            slot: slot as u8,
        };
    }

    fn unlink(&mut self, key: Key) {
        let Timer {
            due,
            state,
            previous,
            next,
            ..
        } = self.timers[key as usize];
        let State::Armed { level, slot } = state else {
            return;
        };
        let shift = SLOT_BITS * u32::from(level);
        if next != NONE {
            self.timers[next as usize].previous = previous;
        }
        if previous != NONE {
            self.timers[previous as usize].next = next;
            return;
        }
        let level = &mut self.levels[level as usize];
        level.first[slot as usize] = next;
        if next == NONE {
            level.occupied &= !(1 << slot);
            if (due >> shift) << shift == self.next {
                self.find_next();
            }
        }
    }

    fn take_slot(&mut self, level: usize, slot: usize) -> u32 {
        let level = &mut self.levels[level];
        level.occupied &= !(1 << slot);
        std::mem::replace(&mut level.first[slot], NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn ms(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn one_that_is_kept_is_moved_only_to_an_earlier_time() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        let woken = [(); 3].map(|()| Arc::new(Count::default()));
        let counts = || {
            woken
                .each_ref()
                .map(|woken| woken.0.load(Ordering::Relaxed))
        };
        let [first, second, third] = woken.each_ref().map(|woken| Arc::clone(woken).into());
        let key = wheel.keep(None, ms(start, 10), &first);
        assert_eq!(wheel.keep(Some(key), ms(start, 30), &second), key);
        assert_eq!(wheel.wait(start), Some(Duration::from_millis(10)));
        wheel.advance(ms(start, 10));
        assert_eq!(counts(), [0, 1, 0], "whoever asked last is woken, early");
        let key = wheel.keep(Some(key), ms(start, 30), &second);
        let key = wheel.keep(Some(key), ms(start, 20), &third);
        wheel.advance(ms(start, 19));
        assert_eq!(counts(), [0, 1, 0]);
        wheel.advance(ms(start, 20));
        assert_eq!((counts(), wheel.len()), ([0, 1, 1], 1));
        wheel.remove(key);
        assert_eq!(wheel.wait(ms(start, 20)), None);
    }

    #[test]
    fn a_timer_fires_at_its_deadline_and_not_before() {
        for due in [
            1, 2, 63, 64, 65, 127, 128, 4_095, 4_096, 5_000, 300_000, 20_000_000,
        ] {
            let start = Instant::now();
            let mut wheel = Wheel::new(start);
            let key = wheel.arm(ms(start, due), Waker::noop().clone());
            let mut now = start;
            let mut waits = 0;
            while !wheel.poll(key, Waker::noop()) {
                let wait = wheel.wait(now).expect("it is armed");
                now += wait;
                wheel.advance(now);
                waits += 1;
                assert!(waits <= LEVELS, "{due}: moved more than once per level");
            }
            assert_eq!(now, ms(start, due), "{due}");
            wheel.remove(key);
            assert_eq!((wheel.len(), wheel.wait(now)), (0, None));
        }
    }

    #[test]
    fn far_timers_neither_hang_nor_fire_early() {
        // Around the ends of the levels, from different times of the wheel's
        // life: 2^30 ms is a slot of the highest level, 2^36 ms all of it.
        let edges = (18..37).flat_map(|bits| [(1_u64 << bits) - 1, 1 << bits, (1 << bits) + 1]);
        let edges: Vec<u64> = edges.collect();
        for age in [
            0,
            1,
            63,
            1 << 30,
            (5 << 30) + 7,
            (1 << 36) - 1,
            (3 << 36) + (9 << 30),
        ] {
            for after in &edges {
                let start = Instant::now();
                let mut wheel = Wheel::new(start);
                let mut now = ms(start, age);
                wheel.advance(now);
                let key = wheel.arm(ms(start, age + after), Waker::noop().clone());
                let mut waits = 0;
                while !wheel.poll(key, Waker::noop()) {
                    now += wheel.wait(now).expect("it is armed");
                    wheel.advance(now);
                    waits += 1;
                    assert!(waits <= 2 * LEVELS, "{age} + {after}");
                }
                let due = age + after.min(&TICKS_MAX);
                assert_eq!(now, ms(start, due), "{age} + {after}");
            }
        }
    }

    #[test]
    fn many_timers_fire_in_order_of_a_model() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        let mut model: BTreeMap<u64, Vec<(Key, Arc<Count>)>> = BTreeMap::new();
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        let mut now = 0;
        for _ in 0..20_000 {
            match random(3) {
                0 => {
                    let bits = random(36);
                    let due = now + 1 + random(1 << bits);
                    let count = Arc::new(Count::default());
                    let key = wheel.arm(ms(start, due), Waker::from(Arc::clone(&count)));
                    model.entry(due).or_default().push((key, count));
                }
                1 if !model.is_empty() => {
                    let due = *model
                        .keys()
                        .nth(random(model.len() as u64) as usize)
                        .unwrap();
                    let timers = model.get_mut(&due).unwrap();
                    let (key, count) = timers.pop().unwrap();
                    if timers.is_empty() {
                        model.remove(&due);
                    }
                    wheel.remove(key);
                    assert_eq!(count.0.load(Ordering::Relaxed), 0);
                }
                _ => {
                    let far = random(50) == 0;
                    let bits = random(if far { 35 } else { 14 });
                    now += random(1 << bits);
                    wheel.advance(ms(start, now));
                    let later = model.split_off(&(now + 1));
                    for (key, count) in std::mem::replace(&mut model, later).into_values().flatten()
                    {
                        assert_eq!(count.0.load(Ordering::Relaxed), 1);
                        wheel.remove(key);
                    }
                    for (_, count) in model.values().flatten() {
                        assert_eq!(count.0.load(Ordering::Relaxed), 0);
                    }
                }
            }
            if let Some(due) = model.keys().next() {
                let wait = wheel.wait(ms(start, now)).expect("one is armed");
                assert!(wait <= Duration::from_millis(due - now));
            }
        }
    }
}
