//! The present state of an upstream, shared by all shards; one shard fills it in
//! when asked.

use super::labels::{BreakerState, PoolState};

/// How many connections the pool of an upstream holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolGauge {
    /// Established connections, idle ones included.
    pub open: u32,
    /// Of those, the ones without a request.
    pub idle: u32,
    /// Requests that wait for a connection.
    pub pending: u32,
}

/// What the circuit breaker of an upstream does. Of the adopted ones, which
/// have one label together, and of a name that means something else in each
/// namespace: the worst state, and all transitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BreakerGauge {
    /// 0 closed, 1 half open, 2 open.
    pub state: u8,
    /// How often it changed to open.
    pub opened: u64,
    /// How often it changed to half open.
    pub half_opened: u64,
    /// How often it changed to closed.
    pub closed: u64,
}

impl PoolGauge {
    /// How many are in a state.
    pub(super) fn count(&self, state: PoolState) -> u32 {
        match state {
            PoolState::Open => self.open,
            PoolState::Idle => self.idle,
            PoolState::Pending => self.pending,
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.open += other.open;
        self.idle += other.idle;
        self.pending += other.pending;
    }
}

impl BreakerGauge {
    /// How often it changed to a state.
    pub(super) fn transitions(&self, to: BreakerState) -> u64 {
        match to {
            BreakerState::Open => self.opened,
            BreakerState::HalfOpen => self.half_opened,
            BreakerState::Closed => self.closed,
        }
    }

    /// Adds what another breaker under the same label does.
    pub fn merge(&mut self, other: &Self) {
        self.state = self.state.max(other.state);
        self.opened += other.opened;
        self.half_opened += other.half_opened;
        self.closed += other.closed;
    }
}
