//! The connections of one upstream that stand idle on one shard.

use std::time::Duration;

use super::Pool;
use super::sweep::Surplus;
use crate::clock::Instant;
use crate::ring::slack;
use crate::upstream::connection::Connection;
use crate::upstream::holders::SLOTS;
use crate::upstream::key::PoolKey;

/// A connection that stands idle.
pub(super) struct Idle {
    pub(super) connection: Box<Connection>,
    since: Instant,
    /// Until when it may be used: the upstream keeps it so long, and its certificate is
    /// valid.
    until: Option<Instant>,
}

impl Idle {
    /// `connection`, from now on.
    #[inline(always)]
    pub(super) fn new(connection: Box<Connection>, now: Instant) -> Self {
        let kept_until = connection.idle_limit().map(|limit| now + limit);
        let until = match (kept_until, connection.usable_until()) {
            (Some(kept_until), Some(usable_until)) => Some(kept_until.min(usable_until)),
            (until, None) | (None, until) => until,
        };
        Self {
            until,
            since: now,
            connection,
        }
    }

    /// What it may be used for.
    pub(super) fn key(&self) -> PoolKey {
        self.connection.key()
    }

    /// How long it has stood idle.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// Whether it can be used for what it is kept for.
    #[inline(always)]
    pub(super) fn is_usable(&self, now: Instant) -> bool {
        let is_in_time = self.until.is_none_or(|until| now < until);
        is_in_time && !self.connection.stream.is_closed_or_busy()
    }
}

impl Pool {
    /// The newest live one for `key`. What is found dead goes to `dead`.
    #[inline(always)]
    pub(super) fn take_newest(
        &mut self,
        key: PoolKey,
        now: Instant,
        dead: &mut Vec<Idle>,
    ) -> Option<Box<Connection>> {
        loop {
            let place = self.idle.iter().rposition(|idle| idle.key() == key)?;
            let idle = self.remove(place);
            if idle.is_usable(now) {
                return Some(idle.connection);
            }
            dead.push(idle);
        }
    }

    /// Puts the newest in, for other shards to find.
    #[inline(always)]
    pub(super) fn push(&mut self, idle: Idle, shard: u16) {
        let slot = idle.connection.slot;
        if self.announced & 1 << slot == 0 {
            self.announced |= 1 << slot;
            self.shared.holders.announce(slot, shard);
        }
        self.idle.push(idle);
    }

    /// Tells other shards for what keys there are none any more.
    pub(super) fn withdraw_unheld(&mut self, shard: u16) {
        let slots = self.idle.iter().map(|idle| idle.connection.slot);
        let held = slots.fold(0, |held, slot| held | 1 << slot);
        let unheld = self.announced & !held;
        for slot in (0..SLOTS as u8).filter(|slot| unheld & 1 << slot != 0) {
            self.shared.holders.withdraw(slot, shard);
        }
        self.announced &= held;
    }

    /// Takes one out.
    pub(super) fn remove(&mut self, place: usize) -> Idle {
        self.shared.remove_idle();
        self.idle.remove(place)
    }

    /// Closes all.
    pub(super) fn clear(&mut self) {
        while !self.idle.is_empty() {
            self.remove(self.idle.len() - 1);
        }
    }

    /// Moves those that are dead, idle for too long or too old to `expired`, but
    /// for the `keep` that stay however long they are idle.
    pub(super) fn take_expired(
        &mut self,
        keep: usize,
        surplus: Surplus,
        now: Instant,
        expired: &mut Vec<Idle>,
    ) {
        let limits = &self.shared.limits;
        let (idle_timeout, max_lifetime) = (limits.idle_timeout(), limits.max_lifetime());
        // A reload may have lowered either limit. The oldest go first.
        let above_idle = self.shared.idle().saturating_sub(limits.max_idle()) as usize;
        let rested = self.idle.iter();
        let rested = rested.take_while(|idle| idle.age(now) >= surplus.idle_for());
        let above_idle = above_idle.min(rested.count());
        let above = above_idle.max(self.shared.above_cap() as usize);
        for _ in 0..above.min(self.idle.len()) {
            expired.push(self.remove(0));
        }
        let mut place = 0;
        while place < self.idle.len() {
            let idle = &self.idle[place];
            let connection = &idle.connection;
            let limit = connection.share_of(idle_timeout);
            let is_too_long = idle.age(now) >= limit;
            // The kept ones are not closed for being idle, only for being old.
            if is_too_long && self.idle.len() > keep
                || connection.is_old(max_lifetime, now)
                || !idle.is_usable(now)
            {
                expired.push(self.remove(place));
            } else {
                place += 1;
            }
        }
        if slack::is_too_large(self.idle.capacity(), self.idle.len()) {
            self.idle.shrink_to_fit();
        }
    }
}
