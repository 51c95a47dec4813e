//! `pool`: caps that let something through, and idle connections within them.

use super::Reading;
use crate::config::raw;
use crate::config::read::{Field, Spanned};
use crate::config::values::Count;
use crate::policy::limits::Pool;

pub(super) fn read(raw: &Spanned<raw::Pool>, pool: &mut Pool, reading: &mut Reading<'_>) {
    if let Some(cap) = cap("pool.max_connections", &raw.max_connections, reading) {
        pool.max_connections = Some(cap);
    }
    if let Some(cap) = cap("pool.max_requests", &raw.max_requests, reading) {
        pool.max_requests = Some(cap);
    }
    let mut count = |key, field: &Field<Count>, value: &mut u32| {
        if let Some(count) = reading.get(key, field) {
            *value = count.value.0;
        }
    };
    count("pool.max_pending", &raw.max_pending, &mut pool.max_pending);
    count("pool.max_idle", &raw.max_idle, &mut pool.max_idle);
    count("pool.min_idle", &raw.min_idle, &mut pool.min_idle);
    reading.set_time(
        "pool.idle_timeout",
        &raw.idle_timeout,
        &mut pool.idle_timeout,
    );
    reading.set_time(
        "pool.max_lifetime",
        &raw.max_lifetime,
        &mut pool.max_lifetime,
    );
    check_idle(raw, pool, reading);
}

fn cap(key: &str, field: &Field<Count>, reading: &mut Reading<'_>) -> Option<u32> {
    let count = reading.get(key, field)?;
    if count.value.0 == 0 {
        reading.found.mistake_at(count, "must be at least 1");
    }
    Some(count.value.0)
}

/// Said where it was written: the layer may set only one of the two.
fn check_idle(raw: &raw::Pool, pool: &Pool, reading: &mut Reading<'_>) {
    let (min_idle, max_idle) = (pool.min_idle, pool.max_idle);
    let min = raw.min_idle.as_ref();
    let max = raw.max_idle.as_ref();
    if let Some(at) = min.or(max).filter(|_| min_idle > max_idle) {
        let what = format!("min_idle {min_idle} is over max_idle {max_idle}");
        reading.found.mistake_at(at, what);
    }
    let connections = raw.max_connections.as_ref();
    if let Some(cap) = pool.max_connections
        && let Some(at) = min.or(connections).filter(|_| min_idle > cap)
    {
        let what = format!("min_idle {min_idle} is over max_connections {cap}");
        reading.found.mistake_at(at, what);
    }
}
