//! The policies that shards share, compiled from the ambassador's own source
//! with the atomics and the lock of a model checker: `tests/` runs them under
//! every interleaving of a few threads, and every stale value that a relaxed
//! load may return. See Norris and Demsky, "CDSChecker" (2013).
//!
//! Compared with the build that ships, only `policy::sync` is another one, so
//! what is checked cannot drift from what runs.

use std::sync::Arc;

use loom::model::Builder;
use loom::thread::{self, JoinHandle};

mod atomic;
mod once;

/// What a moment is.
#[path = "../../../ambassador/src/clock"]
pub mod clock {
    mod instant;

    pub use instant::Instant;
}

/// The policies; see the crate `ambassador`.
#[path = "../../../ambassador/src/policy"]
pub mod policy {
    pub mod breaker;
    pub mod budget;
    mod codes;
    mod jitter;
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for balancing, which is not here")
    )]
    pub mod outlier;
    pub mod rate_limit;
    pub mod statuses;

    /// In the place of the ambassador's `policy::sync`.
    pub(crate) mod sync {
        pub use std::sync::PoisonError;

        pub use crate::once::OnceLock;

        pub use loom::sync::atomic::Ordering;
        pub use loom::sync::{Mutex, MutexGuard};

        pub use crate::atomic::{AtomicU32, AtomicU64};
    }
}

/// What the breaker counts of gRPC.
#[path = "../../../ambassador/src/message"]
pub mod message {
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for requests, which are not here")
    )]
    pub mod grpc;
}

/// Who has a share of its own.
#[path = "../../../ambassador/src/addr"]
pub mod addr {
    mod peer;

    pub use peer::Peer;
}

/// What shards know of each other's idle connections, and the cap on all.
#[path = "../../../ambassador/src/upstream"]
pub mod upstream {
    pub mod holders;
    pub mod permits;
}

/// How often a thread may be interrupted where it could have gone on. Defects of
/// concurrency show with two (Musuvathi and Qadeer, "Iterative Context Bounding",
/// 2007); what a model takes grows exponentially with it.
const PREEMPTIONS_MAX: usize = 3;

/// Runs a model once for each of its interleavings. `LOOM_MAX_PREEMPTIONS` and
/// loom's other variables set other limits.
///
/// # Panics
///
/// Where the model does in one of them.
pub fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound.get_or_insert(PREEMPTIONS_MAX);
    builder.check(model);
}

/// Does something on a thread of its own.
pub fn spawn<S: 'static, T: 'static>(
    shared: &Arc<S>,
    act: impl FnOnce(&S) -> T + 'static,
) -> JoinHandle<T> {
    let shared = Arc::clone(shared);
    thread::spawn(move || act(&shared))
}

/// Does the same on so many threads, this one among them, and returns what each
/// of them got.
pub fn on_threads<S: 'static, T: 'static>(
    threads: usize,
    shared: &Arc<S>,
    act: impl Fn(&S) -> T + Copy + 'static,
) -> Vec<T> {
    let others: Vec<_> = (1..threads).map(|_| spawn(shared, act)).collect();
    let mine = act(shared);
    let others = others
        .into_iter()
        .map(|thread| thread.join().expect("a panic ends the model"));
    others.chain([mine]).collect()
}
