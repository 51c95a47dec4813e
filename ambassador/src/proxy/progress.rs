//! The progress of a request in flight, shared by everything that works on it.

use std::cell::Cell;
use std::time::Duration;

use crate::addr::Peer;
use crate::clock::Instant;
use crate::proxy::body_wait::BodyWait;
use crate::proxy::clients::Membership;
use crate::proxy::outbound::Outbound;
use crate::proxy::routing::Incoming;
use crate::proxy::verdict::Verdict;
use crate::telemetry::RequestRecord;

/// The progress of a request in flight, shared by everything that works on it.
pub(crate) struct Progress<'a> {
    /// Among what whom holds a body counts that is kept.
    keeper: Option<&'a Membership>,
    /// The upstream of this try sent at least one byte.
    pub any_byte: Cell<bool>,
    /// Its record.
    pub record: &'a RequestRecord,
    /// Bytes of it that had been taken before: its head, and what came along.
    taken_before: u64,
    /// The last of the request's body has been read from the client.
    pub body_read: Cell<bool>,
    /// Whether it keeps the upstream waiting for more.
    pub(super) withheld: BodyWait,
    /// How long connections were waited for, dials and handshakes included, and tries
    /// that gave way to another one.
    waited: Cell<Duration>,
    /// The shard learnt that the first bytes of the final response are here.
    pub head_at: Cell<Option<Instant>>,
    /// They have been handed to the client.
    pub forwarded_at: Cell<Option<Instant>>,
    /// What its response says of a call, once all of it has been passed on.
    pub end: Cell<Option<Verdict>>,
}

impl<'a> Progress<'a> {
    /// That of a request of which nothing has happened yet.
    pub(crate) fn new(record: &'a RequestRecord, keeper: Option<&'a Membership>) -> Self {
        Self {
            keeper,
            any_byte: Cell::new(false),
            record,
            taken_before: record.passage.bytes_in.get(),
            body_read: Cell::new(false),
            withheld: BodyWait::default(),
            waited: Cell::new(Duration::ZERO),
            head_at: Cell::new(None),
            forwarded_at: Cell::new(None),
            end: Cell::new(None),
        }
    }

    /// How much of the body has come; `None`: its client waits to be told that it
    /// may send it.
    pub(super) fn sent_of_body(&self, incoming: &Incoming<'_>) -> Option<i64> {
        let sent = self.record.passage.bytes_in.get() - self.taken_before;
        let waits = sent == 0 && !self.any_byte.get() && incoming.expects_continue();
        (!waits).then_some(sent as i64)
    }

    /// Who has asked.
    pub(crate) fn peer(&self) -> Peer {
        self.keeper.map_or(Peer::Local, Membership::peer)
    }

    /// Its response comes from there.
    #[inline]
    pub(crate) fn reads_from(&self, outbound: &Outbound) {
        if let Some(keeper) = self.keeper
            && let Some(stream) = outbound.stream()
        {
            keeper.reads_from(stream);
        }
    }

    /// So much more is kept of the body, or less.
    pub(crate) fn keeps_more(&self, bytes: isize) {
        if let Some(keeper) = self.keeper {
            keeper.keeps_more(bytes);
        }
    }

    /// Whether nothing of a response has gone to the client.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.record.passage.bytes_out.get() == 0
    }

    /// The upstream was waited for from `since` to `until`, before the request was sent
    /// last.
    pub(crate) fn waited(&self, since: Instant, until: Instant) {
        let time = until.saturating_duration_since(since);
        self.waited.set(self.waited.get() + time);
    }

    /// The time spent here on a request that was sent last at `sent_at`.
    #[inline]
    pub(super) fn overhead(&self, sent_at: Instant) -> Duration {
        let started = self.record.passage.started;
        let before = sent_at.saturating_duration_since(started);
        // The upstream was awaited then.
        let before = before.saturating_sub(self.waited.get());
        let after = match (self.head_at.get(), self.forwarded_at.get()) {
            // The shard's clock stands while a turn lasts.
            (Some(head_at), Some(forwarded_at)) => {
                forwarded_at.saturating_duration_since(head_at.max(sent_at))
            }
            _ => Duration::ZERO,
        };
        before + after
    }

    /// Another try begins.
    pub(crate) fn begin_try(&self) {
        self.any_byte.set(false);
        self.withheld.end();
        self.head_at.set(None);
        self.forwarded_at.set(None);
    }
}
