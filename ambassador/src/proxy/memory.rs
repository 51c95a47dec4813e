//! How much memory the process holds, and how much it may.
//!
//! What it holds is its resident memory and what the kernel has buffered for
//! connections that do not move. Shards look at it as what waits on their heaps
//! grows, so that a burst is seen before it is over. What was freed stays resident
//! until the allocator gives it back, which nobody waits for: until that is done,
//! what was shed is taken for gone, but for what has grown in its place.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;

use crate::workload::memory::page_bytes;

/// Once the limit is reached, so much of it is freed: a 16th.
const FREED: u64 = 16;

/// What goes to the heap between two looks, as a share of what is left, and its
/// bounds: a look costs as much as copying some 128 KiB.
const LOOKS: u64 = 64;
const LOOK_AFTER_MIN: u64 = 128 << 10;
const LOOK_AFTER_MAX: u64 = 1 << 20;

/// What a proxy needs that serves next to nobody: the code that runs, the
/// configuration being read, and of each shard its buffers.
const NEEDED: u64 = 12 << 20;
const NEEDED_PER_SHARD: u64 = 256 << 10;

/// What `memory_limit` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Limit {
    /// By the cgroup of the process.
    #[default]
    Auto,
    /// There is none.
    None,
    /// So many bytes.
    Bytes(u64),
}

/// The memory of the process, as its shards and who looks after it know it.
#[derive(Debug)]
pub struct Memory {
    setting: Mutex<Limit>,
    /// `u64::MAX`: none.
    limit: AtomicU64,
    /// Says how much is resident; `None`: that is not to be had.
    pages: Option<File>,
    page_bytes: u64,
    /// Shed, and not yet given back by the allocator.
    leaving: AtomicU64,
    shards: Box<[Part]>,
    is_full: AtomicBool,
    keeper: OnceLock<Thread>,
}

/// What one shard holds for connections.
#[derive(Debug, Default)]
struct Part {
    here: AtomicU64,
    in_kernel: AtomicU64,
    still: AtomicU64,
}

/// What a shard holds for its connections, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// In this process.
    pub here: u64,
    /// In the kernel's buffers.
    pub in_kernel: u64,
    /// Of both, what does not move.
    pub still: u64,
}

/// The state of the memory limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// There is room for so many bytes.
    Room(u64),
    /// So many have to go.
    Full {
        /// Above the limit.
        over: u64,
        /// What is to be freed, where it does not move.
        free: u64,
    },
}

impl Memory {
    /// That of a process of so many shards, without a limit before somebody
    /// [keeps](Self::keep) it.
    pub fn new(shards: u16, setting: Limit) -> Self {
        Self {
            setting: Mutex::new(setting),
            limit: AtomicU64::new(u64::MAX),
            pages: File::open("/proc/self/statm").ok(),
            page_bytes: page_bytes(),
            leaving: AtomicU64::new(0),
            shards: (0..shards).map(|_| Part::default()).collect(),
            is_full: AtomicBool::new(false),
            keeper: OnceLock::new(),
        }
    }

    /// What `memory_limit` says.
    pub fn setting(&self) -> Limit {
        *self.lock()
    }

    /// Changes it.
    pub fn change(&self, setting: Limit) {
        *self.lock() = setting;
        self.wake_keeper();
    }

    fn lock(&self) -> MutexGuard<'_, Limit> {
        self.setting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This thread puts the setting in force, and looks after the memory. It is
    /// woken when the setting has changed or something was shed.
    pub fn keep(&self) {
        // There is one.
        let _ = self.keeper.set(std::thread::current());
    }

    fn wake_keeper(&self) {
        if let Some(keeper) = self.keeper.get() {
            keeper.unpark();
        }
    }

    /// Puts a limit in force.
    pub fn set_limit(&self, limit: Option<u64>) {
        self.limit.store(limit.unwrap_or(u64::MAX), Relaxed);
        if limit.is_none() {
            self.is_full.store(false, Relaxed);
        }
    }

    /// The limit in force.
    pub fn limit(&self) -> Option<u64> {
        Some(self.limit.load(Relaxed)).filter(|limit| *limit < u64::MAX)
    }

    /// Takes note of what shard `shard` holds.
    pub fn tell(&self, shard: u16, load: Load) {
        let part = &self.shards[usize::from(shard)];
        part.here.store(load.here, Relaxed);
        part.in_kernel.store(load.in_kernel, Relaxed);
        part.still.store(load.still, Relaxed);
    }

    /// What connections hold, in the process and in the kernel.
    pub fn of_connections(&self) -> u64 {
        self.sum(|part| &part.here) + self.sum(|part| &part.in_kernel)
    }

    /// Whether connections hold enough for it to matter which of them go: a 16th of
    /// the limit. Below that it is others that hold the rest, or the allocator has
    /// yet to give back what those held that have gone.
    pub fn is_of_connections(&self) -> bool {
        self.of_connections() >= self.limit.load(Relaxed) / FREED
    }

    /// What is held, by the last that shards have told of the kernel's part.
    pub fn held(&self) -> u64 {
        self.resident() + self.sum(|part| &part.in_kernel)
    }

    /// Connections were ended that held so many bytes.
    pub fn was_shed(&self, bytes: u64) {
        self.leaving.fetch_add(bytes, Relaxed);
        self.wake_keeper();
    }

    /// What was shed, and is not yet given back.
    pub fn leaving(&self) -> u64 {
        self.leaving.load(Relaxed)
    }

    /// So many bytes of that were given back as far as they can be.
    pub fn has_left(&self, bytes: u64) {
        let less = |leaving: u64| Some(leaving.saturating_sub(bytes));
        // It always has a next value.
        let _ = self.leaving.fetch_update(Relaxed, Relaxed, less);
    }

    /// So many bytes more are held: first in the place of what was shed.
    pub fn has_grown(&self, bytes: u64) {
        self.has_left(bytes);
    }

    /// Whether something has to go.
    pub fn state(&self) -> State {
        self.state_of(self.held())
    }

    fn state_of(&self, held: u64) -> State {
        let limit = self.limit.load(Relaxed);
        let held = held.saturating_sub(self.leaving());
        match limit.checked_sub(held) {
            Some(room) if room > 0 => State::Room(room),
            _ => State::Full {
                over: held - limit,
                free: held - limit + limit / FREED,
            },
        }
    }

    /// Resident memory (proc_pid_statm(5): the second number, in pages).
    fn resident(&self) -> u64 {
        let mut text = [0; 64];
        let read = self.pages.as_ref().map(|pages| pages.read_at(&mut text, 0));
        let length = read.and_then(Result::ok).unwrap_or_default();
        let text = str::from_utf8(&text[..length]).unwrap_or_default();
        let pages = text.split(' ').nth(1).and_then(|pages| pages.parse().ok());
        pages.map_or(0, |pages: u64| pages * self.page_bytes)
    }

    /// The shard that holds the most without moving; where nothing stands still,
    /// the most.
    pub fn worst_shard(&self) -> u16 {
        let by = |part: &Part| {
            let all = part.here.load(Relaxed) + part.in_kernel.load(Relaxed);
            (part.still.load(Relaxed), all)
        };
        let shards = self.shards.iter().enumerate();
        let worst = shards.max_by_key(|(_, part)| by(part));
        worst.map_or(0, |(shard, _)| shard as u16)
    }

    /// The limit is reached, and nobody is left who could go.
    pub fn fill(&self) {
        self.is_full.store(true, Relaxed);
    }

    /// There is room again.
    pub fn clear(&self) {
        self.is_full.store(false, Relaxed);
    }

    /// Whether new connections find no memory.
    pub fn is_full(&self) -> bool {
        self.is_full.load(Relaxed)
    }

    fn sum(&self, of: impl Fn(&Part) -> &AtomicU64) -> u64 {
        self.shards.iter().map(|part| of(part).load(Relaxed)).sum()
    }
}

impl State {
    /// Whether less than a quarter of the limit is left.
    pub fn is_tight(self, limit: u64) -> bool {
        match self {
            Self::Room(room) => room < limit / 4,
            Self::Full { .. } => true,
        }
    }

    /// How much may go to the heap of a shard before the next look.
    pub fn look_after(self) -> usize {
        let room = match self {
            Self::Room(room) => room,
            Self::Full { .. } => 0,
        };
        (room / LOOKS).clamp(LOOK_AFTER_MIN, LOOK_AFTER_MAX) as usize
    }
}

/// What a proxy of so many shards needs to start with.
pub(crate) fn needed(shards: u16) -> u64 {
    NEEDED + NEEDED_PER_SHARD * u64::from(shards)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn load(here: u64, in_kernel: u64, still: u64) -> Load {
        Load {
            here,
            in_kernel,
            still,
        }
    }

    #[test]
    fn what_is_resident_and_in_the_kernel_counts() {
        let memory = Memory::new(1, Limit::Auto);
        let resident = memory.resident();
        assert!(resident > 100 << 10);
        memory.tell(0, load(9 * MIB, 1 << 40, 0));
        assert!(memory.held() >= 1 << 40);
        assert_eq!(memory.of_connections(), 9 * MIB + (1 << 40));
    }

    #[test]
    fn what_was_shed_is_taken_for_gone_until_it_is_given_back() {
        let memory = Memory::new(1, Limit::Auto);
        assert!(matches!(memory.state_of(1 << 40), State::Room(_)));
        memory.set_limit(Some(32 * MIB));
        assert_eq!(memory.state_of(10 * MIB), State::Room(22 * MIB));
        let full = |over| State::Full {
            over,
            free: over + 2 * MIB,
        };
        assert_eq!(memory.state_of(32 * MIB), full(0));
        assert_eq!(memory.state_of(35 * MIB), full(3 * MIB));
        memory.was_shed(5 * MIB);
        assert_eq!(memory.state_of(35 * MIB), State::Room(2 * MIB));
        memory.has_left(3 * MIB);
        assert_eq!(memory.state_of(35 * MIB), full(MIB));
        // Others have taken its place.
        memory.has_grown(MIB);
        assert_eq!(memory.state_of(35 * MIB), full(2 * MIB));
        memory.has_grown(9 * MIB);
        assert_eq!(memory.state_of(35 * MIB), full(3 * MIB));
        memory.set_limit(None);
        assert_eq!(memory.limit(), None);
    }

    #[test]
    fn connections_that_hold_little_in_all_are_not_what_is_too_much() {
        let memory = Memory::new(2, Limit::Auto);
        memory.set_limit(Some(32 * MIB));
        memory.tell(0, load(MIB, 0, 0));
        memory.tell(1, load(MIB - 1, 0, 0));
        assert!(!memory.is_of_connections());
        memory.tell(1, load(MIB - 1, 1, 0));
        assert!(memory.is_of_connections());
    }

    #[test]
    fn the_shard_where_most_stands_still_is_the_worst() {
        let memory = Memory::new(3, Limit::Auto);
        memory.tell(0, load(9, 0, 0));
        memory.tell(1, load(5, 0, 0));
        assert_eq!(memory.worst_shard(), 0);
        memory.tell(1, load(5, 0, 2));
        memory.tell(2, load(1, 3, 3));
        assert_eq!(memory.worst_shard(), 2);
    }

    #[test]
    fn looks_become_frequent_when_little_is_left() {
        let after = |room| State::Room(room).look_after() as u64;
        assert_eq!(after(1 << 40), MIB);
        assert_eq!(after(32 * MIB), MIB / 2);
        assert_eq!(after(1), 128 << 10);
    }
}
