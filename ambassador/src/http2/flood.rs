//! How much of what is allowed a peer may do: token buckets, which fill with
//! time and with useful work.

use std::time::Duration;

use crate::clock::Instant;
use crate::http2::error::Flood;

/// A frame that asks for work and carries no content. A second of all that may
/// come costs less than a thousandth of a core.
const CONTROL: Rate = Rate {
    burst: 2_000,
    per_second: 1_000,
};

/// A stream that the peer resets before its answer is complete: each has cost a
/// request to an upstream (CVE-2023-44487).
const RESETS: Rate = Rate {
    burst: 500,
    per_second: 100,
};

/// A stream that has to be reset here for what the peer did in it: the same at
/// one remove (CVE-2025-8671).
const ERRORS: Rate = Rate {
    burst: 100,
    per_second: 10,
};

/// Control frames that are free with each stream: windows that are opened wider,
/// a PING to measure with.
const CONTROL_PER_STREAM: u32 = 4;

/// Control frames that are free with each frame of content that comes.
const CONTROL_PER_DATA: u32 = 1;

/// Bytes sent that make one control frame free: receivers open their windows as
/// they read, some after every 4 KiB, both of them. By bytes and not by frames, so
/// that a window opened by the byte earns nothing (CVE-2019-9511).
const BYTES_PER_CONTROL: u32 = 256;

/// Completed streams that make one reset free: who sends a request twice and
/// cancels the slower one resets every second stream.
const STREAMS_PER_RESET: u32 = 1;

/// A token is made of so many parts.
const PARTS: u32 = 1_024;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Every bucket is full after so long; longer times do not have to be multiplied.
const FULL_AFTER: Duration = Duration::from_secs(60);

/// How many there may be at once, and how fast that many come back.
struct Rate {
    burst: u32,
    per_second: u32,
}

/// What is left, in parts of a token.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: u32,
    /// Until when time is counted in.
    at: Option<Instant>,
}

/// The budgets of one connection.
#[derive(Debug)]
pub(super) struct Budgets {
    control: Bucket,
    resets: Bucket,
    errors: Bucket,
}

impl Budgets {
    pub(super) const fn new() -> Self {
        Self {
            control: Bucket::full(&CONTROL),
            resets: Bucket::full(&RESETS),
            errors: Bucket::full(&ERRORS),
        }
    }

    /// A control frame has come.
    pub(super) fn spend_control(&mut self, now: Instant) -> Result<(), Flood> {
        self.control.spend(now, &CONTROL, Flood::ControlFrames)
    }

    /// The peer has reset a stream before its answer was complete.
    pub(super) fn spend_reset(&mut self, now: Instant) -> Result<(), Flood> {
        self.resets.spend(now, &RESETS, Flood::PeerResets)
    }

    /// A stream had to be reset for what the peer did.
    pub(super) fn spend_error(&mut self, now: Instant) -> Result<(), Flood> {
        self.errors.spend(now, &ERRORS, Flood::StreamErrors)
    }

    /// A stream has begun, or goes on, or was reset here: late frames for it follow.
    pub(super) fn earn_by_stream(&mut self) {
        self.control.earn(CONTROL_PER_STREAM * PARTS, &CONTROL);
    }

    /// Content has come.
    pub(super) fn earn_by_data(&mut self) {
        self.control.earn(CONTROL_PER_DATA * PARTS, &CONTROL);
    }

    /// Content was sent.
    pub(super) fn earn_by_sent(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let earned = bytes.saturating_mul(PARTS / BYTES_PER_CONTROL);
        self.control.earn(earned, &CONTROL);
    }

    /// An answer was complete.
    pub(super) fn earn_by_answer(&mut self) {
        self.resets.earn(PARTS / STREAMS_PER_RESET, &RESETS);
    }
}

impl Bucket {
    const fn full(rate: &Rate) -> Self {
        Self {
            left: rate.burst * PARTS,
            at: None,
        }
    }

    fn earn(&mut self, parts: u32, rate: &Rate) {
        self.left = self.left.saturating_add(parts).min(rate.burst * PARTS);
    }

    fn spend(&mut self, now: Instant, rate: &Rate, flood: Flood) -> Result<(), Flood> {
        let at = self.at.get_or_insert(now);
        let passed = now.saturating_duration_since(*at).min(FULL_AFTER);
        let per_second = u64::from(rate.per_second * PARTS);
        let parts = passed.as_nanos() as u64 * per_second / NANOS_PER_SECOND;
        match passed == FULL_AFTER {
            true => *at = now,
            // What is not a whole part yet counts the next time.
            false => *at += Duration::from_nanos(parts * NANOS_PER_SECOND / per_second),
        }
        self.earn(u32::try_from(parts).unwrap_or(u32::MAX), rate);
        self.left = self.left.checked_sub(PARTS).ok_or(flood)?;
        Ok(())
    }
}
