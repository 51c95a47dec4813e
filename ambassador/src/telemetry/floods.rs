//! Connections of HTTP/2 that were ended for a flood, by who sent it and what it was.

use super::labels::{FloodCause, FloodPeer};

/// The counts of one shard, or their sum.
#[derive(Debug, Clone, Default)]
pub struct FloodCounts([[u64; FloodCause::ALL.len()]; FloodPeer::ALL.len()]);

impl FloodCounts {
    /// None so far.
    pub const fn new() -> Self {
        Self([[0; FloodCause::ALL.len()]; FloodPeer::ALL.len()])
    }

    /// Counts one.
    pub fn count(&mut self, peer: FloodPeer, cause: FloodCause) {
        self.0[peer as usize][cause as usize] += 1;
    }

    /// How many there were.
    pub fn get(&self, peer: FloodPeer, cause: FloodCause) -> u64 {
        self.0[peer as usize][cause as usize]
    }

    /// Adds what another shard counted.
    pub fn merge(&mut self, other: &Self) {
        for (ours, theirs) in self.0.iter_mut().zip(&other.0) {
            for (one, other) in ours.iter_mut().zip(theirs) {
                *one += other;
            }
        }
    }
}
