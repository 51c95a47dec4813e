//! What state that shards share is made of. The model checker puts its own in
//! the place of this module (`tests/model`).

pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
pub(crate) use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
