//! Atomics of loom, made to show it every race.
//!
//! Of each atomic loom remembers only the last access. Where a thread loads it,
//! another loads it too and then stores, the second load hides the first, and
//! loom never tries the store before the first load. So every access here first
//! touches a companion by a read-modify-write, which loom always orders against
//! every other. Relaxed as it is, it makes no access visible to another thread
//! that was not.
//!
//! loom takes sequentially consistent accesses for acquire and release. Where all
//! accesses of an atomic are sequentially consistent, a load sees the last of the
//! stores before it, as a read-modify-write does: such a load is one here.

use loom::sync::atomic::{self, Ordering};

macro_rules! touching {
    ($name:ident, $value:ty) => {
        /// As that of the standard library, with the methods that are in use.
        #[derive(Debug, Default)]
        pub struct $name {
            value: atomic::$name,
            companion: atomic::AtomicU32,
        }

        impl $name {
            pub fn new(value: $value) -> Self {
                Self {
                    value: atomic::$name::new(value),
                    companion: atomic::AtomicU32::default(),
                }
            }

            pub fn load(&self, order: Ordering) -> $value {
                match order {
                    Ordering::SeqCst => self.touched().fetch_add(0, order),
                    _ => self.touched().load(order),
                }
            }

            pub fn store(&self, value: $value, order: Ordering) {
                self.touched().store(value, order);
            }

            pub fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                self.touched().fetch_add(value, order)
            }

            fn touched(&self) -> &atomic::$name {
                self.companion.fetch_add(0, Ordering::Relaxed);
                &self.value
            }
        }
    };
}

impl AtomicU32 {
    pub fn fetch_sub(&self, value: u32, order: Ordering) -> u32 {
        self.touched().fetch_sub(value, order)
    }

    pub fn fetch_update(
        &self,
        set: Ordering,
        fetch: Ordering,
        mut update: impl FnMut(u32) -> Option<u32>,
    ) -> Result<u32, u32> {
        let mut seen = self.load(fetch);
        while let Some(next) = update(seen) {
            let exchanged = self.value.compare_exchange(seen, next, set, fetch);
            match exchanged {
                Ok(before) => return Ok(before),
                Err(now) => seen = now,
            }
        }
        Err(seen)
    }
}

touching!(AtomicU32, u32);
touching!(AtomicU64, u64);

impl AtomicU64 {
    pub fn swap(&self, value: u64, order: Ordering) -> u64 {
        self.touched().swap(value, order)
    }

    pub fn fetch_or(&self, value: u64, order: Ordering) -> u64 {
        self.touched().fetch_or(value, order)
    }

    pub fn fetch_and(&self, value: u64, order: Ordering) -> u64 {
        self.touched().fetch_and(value, order)
    }

    pub fn compare_exchange(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        self.touched()
            .compare_exchange(current, new, success, failure)
    }

    pub fn fetch_update(
        &self,
        set: Ordering,
        fetch: Ordering,
        update: impl FnMut(u64) -> Option<u64>,
    ) -> Result<u64, u64> {
        self.touched().fetch_update(set, fetch, update)
    }
}
