//! Hands an idle connection of one shard to another shard that has a request for
//! it.
//!
//! A shard without an idle connection asks a shard that may have one, and waits a
//! few milliseconds at most before it dials. The owner hands over the socket with
//! all its state and its permit. A connection that cannot be handed over, or that
//! arrives too late, closes, so that an upstream which serves one connection at a
//! time is free for the new one. A shard that needs its connections itself keeps
//! them.

use std::collections::hash_map::Entry;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::{CURRENT, Pools};
use crate::clock::Instant;
use crate::ring::{self, Remote, timer};
use crate::transport::{Detached, Transport};
use crate::upstream::connection::{Connection, ConnectionState};
use crate::upstream::key::PoolKey;
use crate::upstream::shared::Shared;

/// How long a request waits for other shards before it dials. They answer within
/// a turn of their loop; a shard that does not is busy with better. Tests wait for
/// as long as a loaded machine may need.
const WAIT_MAX: Duration = match cfg!(test) {
    false => Duration::from_millis(5),
    true => Duration::from_secs(5),
};

/// How many shards are asked before a dial: each may turn out to have none.
const ASKED_MAX: usize = 3;

/// Requests of a shard to an upstream within a second from which on it needs its
/// idle connections itself: to hand them to and fro would cost more than a
/// connection.
const BUSY_FROM: u32 = 10;

/// For how long a shard does not ask again to which others have said that they need
/// theirs.
const ALONE_FOR: Duration = Duration::from_millis(100);

/// A busy shard has no use for a connection that stood idle for this long.
const SURPLUS_AFTER: Duration = Duration::from_secs(1);

/// Why another shard's connection is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// To carry a request.
    Idle,
    /// To be gone: it may keep the upstream from another one.
    Blocked,
}

/// Only what has stood idle for this long is taken for something that keeps an
/// upstream from another connection: answers that were due at the same moment come
/// one after another.
const STANDS_IN_THE_WAY_AFTER: Duration = Duration::from_millis(20);

/// How many requests a shard had lately, in whole seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demand {
    since: Instant,
    count: u32,
    before: u32,
}

/// The state of a question to another shard.
pub(super) enum Answer {
    /// Nothing has come yet.
    Awaited(Option<Waker>),
    /// What has come.
    Come(Reply<Box<Connection>>),
}

/// The answer of a shard that was asked for a connection.
pub(super) enum Reply<T> {
    /// Here it is.
    Given(T),
    /// There is none.
    Nothing,
    /// It needs those that it has.
    Kept,
}

/// A connection on its way to another shard. Dropped, it closes.
struct Parcel {
    transport: Detached,
    state: ConnectionState,
}

/// A question to another shard.
struct Question<'a> {
    pools: &'a Pools,
    number: u64,
}

impl Pools {
    /// A connection for `key` that another shard has idle.
    pub(super) async fn take_over(&self, shared: &Shared, key: PoolKey) -> Option<Box<Connection>> {
        if shared.permits.waiting() > 0 || shared.idle() == 0 || self.is_alone(shared.id) {
            return None;
        }
        self.ask_others(shared, key, Need::Idle).await
    }

    fn is_alone(&self, id: u32) -> bool {
        let pools = self.pools.borrow();
        let until = pools.get(&id).and_then(|pool| pool.alone_until);
        until.is_some_and(|until| ring::now() < until)
    }

    /// Asks other shards for a connection, for any need.
    pub(super) async fn ask_others(
        &self,
        shared: &Shared,
        key: PoolKey,
        need: Need,
    ) -> Option<Box<Connection>> {
        let slot = key.slot();
        let shards = self.peers.borrow().len() as u16 + 1;
        let until = ring::now() + WAIT_MAX;
        let others = shared.holders.others(slot, self.shard, shards);
        let asked_max = match need {
            Need::Idle => ASKED_MAX,
            Need::Blocked => usize::from(shards),
        };
        let mut others_are_busy = false;
        for shard in others.take(asked_max) {
            let Some(question) = self.ask(shard, shared.id, key, need) else {
                continue;
            };
            match timer::timeout_at(until, question).await {
                Ok(Reply::Given(connection)) => return Some(connection),
                Ok(Reply::Nothing) => {}
                Ok(Reply::Kept) => others_are_busy = true,
                Err(_) => break,
            }
        }
        if others_are_busy && let Some(pool) = self.pools.borrow_mut().get_mut(&shared.id) {
            pool.alone_until = Some(ring::now() + ALONE_FOR);
        }
        None
    }

    /// Asks one shard. `None`: it takes no mail.
    fn ask(&self, shard: u16, id: u32, key: PoolKey, need: Need) -> Option<Question<'_>> {
        let number = self.questions.get();
        self.questions.set(number + 1);
        let requester = ring::remote();
        let ask = Box::new(move || {
            if let Some(pools) = CURRENT.with_borrow(std::rc::Weak::upgrade) {
                pools.answer(id, key, need, ReplyAddress { requester, number });
            }
        });
        let peers = self.peers.borrow();
        let peer = peers.get(usize::from(shard - u16::from(shard > self.shard)))?;
        peer.send(ask).ok()?;
        let awaited = Answer::Awaited(None);
        self.answers.borrow_mut().insert(number, awaited);
        Some(Question {
            pools: self,
            number,
        })
    }

    /// Takes an idle connection of this shard that may block an upstream.
    pub(super) fn take_blocking(&self, id: u32, key: PoolKey) -> Option<Box<Connection>> {
        // Dropping a connection may wake waiters: not while we are borrowed.
        let mut dead = Vec::new();
        let mut pools = self.pools.borrow_mut();
        let pool = pools.get_mut(&id)?;
        pool.take_oldest(key, STANDS_IN_THE_WAY_AFTER, ring::now(), &mut dead)
    }

    /// Gives another shard one of this one's idle connections for `key`, if it
    /// can be spared.
    fn answer(self: &Rc<Self>, id: u32, key: PoolKey, need: Need, reply_to: ReplyAddress) {
        let now = ring::now();
        // Dropping a connection may wake waiters: not while we are borrowed.
        let mut dead = Vec::new();
        let reply = match self.pools.borrow_mut().get_mut(&id) {
            Some(pool) => pool.reply(key, need, self.shard, now, &mut dead),
            None => Reply::Nothing,
        };
        drop(dead);
        match reply {
            Reply::Given(connection) => ring::spawn(async move {
                reply_to.tell(match Parcel::of(connection).await {
                    Some(parcel) => Reply::Given(parcel),
                    None => Reply::Nothing,
                });
            }),
            Reply::Nothing => reply_to.tell(Reply::Nothing),
            Reply::Kept => reply_to.tell(Reply::Kept),
        }
    }

    /// What another shard has answered. Where nobody waits for it any more, it
    /// closes.
    fn take_answer(&self, number: u64, reply: Reply<Parcel>) {
        let reply = match reply {
            Reply::Given(parcel) => match parcel.unpack() {
                Ok(connection) => Reply::Given(connection),
                Err(error) => {
                    tracing::debug!(%error, "a connection of another shard is dropped");
                    Reply::Nothing
                }
            },
            Reply::Nothing => Reply::Nothing,
            Reply::Kept => Reply::Kept,
        };
        let mut answers = self.answers.borrow_mut();
        if let Entry::Occupied(mut waits) = answers.entry(number)
            && let Answer::Awaited(waker) = waits.insert(Answer::Come(reply))
            && let Some(waker) = waker
        {
            waker.wake();
        }
    }
}

/// Where the answer to a question goes.
struct ReplyAddress {
    requester: Remote,
    number: u64,
}

impl ReplyAddress {
    fn tell(self, reply: Reply<Parcel>) {
        let number = self.number;
        let tell = Box::new(move || {
            if let Some(pools) = CURRENT.with_borrow(std::rc::Weak::upgrade) {
                pools.take_answer(number, reply);
            }
        });
        // A shard that takes no mail dials, and the connection closes.
        let _ = self.requester.send(tell);
    }
}

impl Parcel {
    async fn of(connection: Box<Connection>) -> Option<Self> {
        let (stream, state) = connection.pack();
        let transport = stream.leave().await?;
        Some(Self { transport, state })
    }

    fn unpack(self) -> io::Result<Box<Connection>> {
        // What came on the way belongs to no request.
        if !self.transport.is_quiet() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let stream = Transport::attach(self.transport)?;
        Ok(Connection::unpack(stream, self.state))
    }
}

impl Future for Question<'_> {
    type Output = Reply<Box<Connection>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut answers = self.pools.answers.borrow_mut();
        match answers.get_mut(&self.number) {
            Some(Answer::Awaited(waker)) => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
            Some(Answer::Come(reply)) => Poll::Ready(std::mem::replace(reply, Reply::Nothing)),
            None => Poll::Ready(Reply::Nothing),
        }
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        let answer = self.pools.answers.borrow_mut().remove(&self.number);
        // It may hold a connection, whose end may wake others.
        drop(answer);
    }
}

impl Demand {
    /// None so far.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            count: 0,
            before: 0,
        }
    }

    /// One request more.
    pub(super) fn count(&mut self, now: Instant) {
        self.turn(now);
        self.count += 1;
    }

    /// Whether there were many, in this second or the one before.
    fn is_busy(&mut self, now: Instant) -> bool {
        self.turn(now);
        self.count.max(self.before) >= BUSY_FROM
    }

    fn turn(&mut self, now: Instant) {
        if now < self.since + Duration::from_secs(1) {
            return;
        }
        let seconds = now.saturating_duration_since(self.since).as_secs();
        self.before = if seconds == 1 { self.count } else { 0 };
        self.count = 0;
        self.since += Duration::from_secs(seconds);
    }
}

/// What an upstream's idle connections are on one shard, for the others.
impl super::Pool {
    /// What another shard is told that needs one for `key`.
    fn reply(
        &mut self,
        key: PoolKey,
        need: Need,
        shard: u16,
        now: Instant,
        dead: &mut Vec<super::Idle>,
    ) -> Reply<Box<Connection>> {
        let is_busy = self.demand.is_busy(now);
        let spared = match need {
            Need::Blocked => self.take_oldest(key, STANDS_IN_THE_WAY_AFTER, now, dead),
            Need::Idle if is_busy => self.take_oldest(key, SURPLUS_AFTER, now, dead),
            Need::Idle => self.take_newest(key, now, dead),
        };
        self.withdraw_unheld(shard);
        match spared {
            Some(connection) => Reply::Given(connection),
            None if is_busy && need == Need::Idle => Reply::Kept,
            None => Reply::Nothing,
        }
    }

    /// The oldest one, where it has stood idle for that long.
    fn take_oldest(
        &mut self,
        key: PoolKey,
        age_min: Duration,
        now: Instant,
        dead: &mut Vec<super::Idle>,
    ) -> Option<Box<Connection>> {
        let oldest = self.idle.iter().position(|idle| idle.key() == key)?;
        if self.idle[oldest].age(now) < age_min {
            return None;
        }
        let idle = self.remove(oldest);
        if idle.is_usable(now) {
            return Some(idle.connection);
        }
        dead.push(idle);
        None
    }
}

#[cfg(test)]
mod tests;
