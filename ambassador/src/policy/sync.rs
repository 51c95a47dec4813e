//! The primitives of shared state. The model checker replaces this module by its
//! own (`tests/model`).

pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
pub(crate) use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
