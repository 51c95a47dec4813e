//! What the journal tells of a try.

use crate::addr::EndpointAddr;
use crate::clock::{self, Instant};
use crate::telemetry::{AttemptOutcome, TryStep};

/// What the journal tells of a try, as far as it has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Course {
    /// When it began.
    pub began: Instant,
    /// Whether its request was sent, at `sent_at`.
    pub is_sent: bool,
    /// Whether that was over a connection that had carried one before.
    pub reused: bool,
    /// When the head of its response had come, and with which status.
    pub head: Option<(Instant, u16)>,
    /// Whether it is told of however it ends.
    pub is_notable: bool,
}

impl Course {
    /// That of a try which begins.
    #[inline(always)]
    pub(super) fn new(began: Instant) -> Self {
        Self {
            began,
            is_sent: false,
            reused: false,
            head: None,
            is_notable: false,
        }
    }

    /// It has ended just now. Its request was sent at `sent_at`, if it was.
    pub(super) fn ended(
        self,
        endpoint: EndpointAddr,
        sent_at: Instant,
        outcome: AttemptOutcome,
    ) -> TryStep {
        TryStep {
            endpoint,
            began: self.began,
            sent: self.is_sent.then_some(sent_at),
            reused: self.reused,
            // A response may come in the turn in which its request was sent.
            head: self.head.map(|(at, status)| (at.max(sent_at), status)),
            ended: clock::now(),
            outcome,
        }
    }
}
