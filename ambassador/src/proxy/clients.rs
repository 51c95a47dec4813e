//! The clients of a shard, and which of them is ended when connections or memory
//! run out: one that holds what others wait for, and stalls.
//!
//! A client stalls if its request body is waited for or its response unread. A
//! slow upstream is not its fault. Shedding a client ends its connection; the
//! task that serves it sees a reset.

mod carrier;
mod memory;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use slab::Slab;

use crate::addr::Peer;
use crate::clock::Instant;
use crate::multiplex::Http2Stream;
use crate::ring::{growth, slack};
use crate::transport::Transport;
use carrier::Carrier;
pub(crate) use memory::Excess;

/// How long a client is looked at before it is called slow.
const SLOW_FOR: Duration = Duration::from_millis(1_500);

/// What was seen longer ago says nothing of now.
const SEEN_MAX: Duration = Duration::from_secs(6);

/// Who moves fewer bytes in a second is slow.
const SLOW_RATE: u64 = 1024;

/// Looks in a second at most, on behalf of whoever waits.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What a client costs that sends nothing, about.
const BYTES_OF_ONE: usize = 2 * 1024;

/// Everybody who is connected to a shard.
#[derive(Default)]
pub struct Clients {
    members: RefCell<Slab<Member>>,
    looked_at: Cell<Option<Instant>>,
    when_grown: Cell<Option<fn()>>,
}

/// What a client holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holding {
    /// No upstream's connection.
    Nothing,
    /// One to the upstream of this number, for a request.
    Request(u32),
    /// One for opaque bytes, whose silence may be as it should.
    Relay(u32),
}

struct Member {
    carrier: Carrier,
    /// Where its response comes from, if that is a stream: what waits on it is for this
    /// one.
    source: Option<Carrier>,
    peer: Peer,
    holds: Holding,
    /// What had moved when it was looked at first since it holds that.
    seen: Option<(Instant, u32)>,
    /// Bytes that are kept for it besides those that its stream holds: of its
    /// head, and of a body that may be sent again.
    kept: u32,
    pace: memory::Pace,
    is_shed: bool,
}

/// The place of one client in its crowd, until it is dropped.
pub(crate) struct Membership {
    clients: Rc<Clients>,
    key: usize,
}

impl Clients {
    /// Has `look` called when much is kept for clients that was not before.
    pub fn when_grown(&self, look: fn()) {
        self.when_grown.set(Some(look));
    }

    /// A client that has just connected.
    pub(crate) fn join(self: &Rc<Self>, transport: &Transport, peer: Peer) -> Membership {
        self.add(Carrier::of_connection(transport), peer)
    }

    /// A request that has just begun beside others of its connection.
    pub(crate) fn join_stream(self: &Rc<Self>, stream: &Http2Stream, peer: Peer) -> Membership {
        self.add(Carrier::of_stream(stream), peer)
    }

    fn add(self: &Rc<Self>, carrier: Carrier, peer: Peer) -> Membership {
        growth::has_grown(BYTES_OF_ONE);
        let key = self.members.borrow_mut().insert(Member {
            carrier,
            source: None,
            peer,
            holds: Holding::Nothing,
            seen: None,
            kept: 0,
            pace: memory::Pace::default(),
            is_shed: false,
        });
        let clients = Rc::clone(self);
        Membership { clients, key }
    }

    /// Somebody has waited for a connection to this upstream for a while: the
    /// worst of those who hold one and are slow is shed. `false`: none is.
    pub fn make_room(&self, upstream: u32, now: Instant) -> bool {
        let looked_at = self.looked_at.get();
        if looked_at.is_some_and(|at| now.saturating_duration_since(at) < LOOK_EVERY) {
            return false;
        }
        self.looked_at.set(Some(now));
        let mut members = self.members.borrow_mut();
        let shares = Shares::of(&members, upstream);
        let worst = members
            .iter_mut()
            .filter_map(|(key, member)| Some((member.badness(upstream, &shares, now)?, key)))
            .max();
        let Some((_, worst)) = worst else {
            return false;
        };
        let member = &mut members[worst];
        member.is_shed = true;
        member.carrier.fail();
        true
    }
}

/// How many connections of an upstream each peer holds.
struct Shares {
    held: HashMap<Peer, u32>,
    all: u32,
}

impl Shares {
    fn of(members: &Slab<Member>, upstream: u32) -> Self {
        let mut shares = Self {
            held: HashMap::new(),
            all: 0,
        };
        for (_, member) in members {
            if member.holds.upstream() == Some(upstream) {
                *shares.held.entry(member.peer).or_default() += 1;
                shares.all += 1;
            }
        }
        shares
    }

    fn held_by(&self, peer: Peer) -> u32 {
        self.held.get(&peer).copied().unwrap_or_default()
    }

    /// Whether a peer holds more than it would if all held the same.
    fn is_exceeded_by(&self, peer: Peer) -> bool {
        let peers = self.held.len() as u64;
        u64::from(self.held_by(peer)) * peers > u64::from(self.all)
    }
}

impl Holding {
    fn upstream(self) -> Option<u32> {
        match self {
            Self::Nothing => None,
            Self::Request(upstream) | Self::Relay(upstream) => Some(upstream),
        }
    }
}

impl Member {
    /// How bad it is that it holds a connection to `upstream`: by how many its
    /// peer holds, then by how long it has been slow. `None`: it is not.
    fn badness(&mut self, upstream: u32, shares: &Shares, now: Instant) -> Option<(u32, Duration)> {
        if self.holds.upstream() != Some(upstream) || self.is_shed {
            return None;
        }
        let standing = self.carrier.activity()?;
        let may_go = match self.holds {
            Holding::Relay(_) => shares.is_exceeded_by(self.peer),
            _ => standing.owes_bytes || standing.leaves_unread,
        };
        if !may_go {
            self.seen = None;
            return None;
        }
        let (since, moved) = *self.seen.get_or_insert((now, standing.moved));
        let watched = now.saturating_duration_since(since);
        let moved = u64::from(standing.moved.wrapping_sub(moved));
        let enough = match self.holds {
            Holding::Relay(_) => 1,
            _ => SLOW_RATE * watched.as_secs().max(1),
        };
        if moved >= enough || watched > SEEN_MAX && moved > 0 {
            self.seen = Some((now, standing.moved));
            return None;
        }
        (watched >= SLOW_FOR).then(|| (shares.held_by(self.peer), watched))
    }
}

impl Membership {
    /// It is about to hold a connection to an upstream for a request.
    pub(crate) fn asks(&self, upstream: u32) {
        let mut members = self.clients.members.borrow_mut();
        let member = &mut members[self.key];
        (member.holds, member.seen) = (Holding::Request(upstream), None);
    }

    /// It holds one for opaque bytes, and nothing is kept for it.
    pub(crate) fn relays(&self, upstream: u32) {
        self.begin(Holding::Relay(upstream));
    }

    /// It holds none, and nothing is kept for it.
    pub(crate) fn rests(&self) {
        self.begin(Holding::Nothing);
    }

    /// Its response comes from this stream.
    pub(crate) fn reads_from(&self, stream: &Http2Stream) {
        let mut members = self.clients.members.borrow_mut();
        members[self.key].source = Some(Carrier::of_stream(stream));
    }

    /// So many bytes are kept for it.
    pub(crate) fn keeps(&self, bytes: usize) {
        let before = {
            let mut members = self.clients.members.borrow_mut();
            std::mem::replace(&mut members[self.key].kept, bytes as u32)
        };
        // Many may be about to do the same: not when they have, but now.
        if growth::has_grown(bytes.saturating_sub(before as usize))
            && let Some(look) = self.clients.when_grown.get()
        {
            look();
        }
    }

    /// So many bytes more are kept for it, or fewer.
    pub(crate) fn keeps_more(&self, bytes: isize) {
        let kept = self.clients.members.borrow()[self.key].kept;
        self.keeps((kept as usize).saturating_add_signed(bytes));
    }

    /// Who the client belongs to.
    pub(crate) fn peer(&self) -> Peer {
        self.clients.members.borrow()[self.key].peer
    }

    /// Whether it was shed.
    pub(crate) fn is_shed(&self) -> bool {
        self.clients.members.borrow()[self.key].is_shed
    }

    fn begin(&self, holds: Holding) {
        let mut members = self.clients.members.borrow_mut();
        let member = &mut members[self.key];
        (member.holds, member.seen, member.kept) = (holds, None, 0);
        member.source = None;
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut members = self.clients.members.borrow_mut();
        members.remove(self.key);
        slack::shrink(&mut members);
    }
}

#[cfg(test)]
mod tests;
