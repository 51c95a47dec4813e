//! Which of a shard's clients is ended when memory runs out: the stalled one with
//! the most buffered bytes.
//!
//! First come clients that do not do their part: the rest of a head or body is
//! missing, or a response is unread. Then come those that wait for their
//! upstream, and last those that move. Among equals it is the peer that holds the
//! most, and of that peer the client that holds the most.

use std::collections::HashMap;
use std::time::Duration;

use super::{Carrier, Clients, Holding, Member, Peer};
use crate::clock::Instant;
use crate::proxy::memory::Load;
use crate::ring;

/// The time over which the movement of a client is measured.
const PACE_OVER: Duration = Duration::from_secs(1);

/// A client that holds less, and keeps nobody waiting, is not shed: that would gain
/// next to nothing.
const WORTH_IT: u64 = 4 * 1024;

/// Clients that are shed at a time; whoever sheds looks again.
const SHED_AT_ONCE: usize = 64;

/// Whether a client passes on what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standstill {
    /// It has moved more than it holds in the last second.
    Moves,
    /// Its upstream keeps it waiting.
    Waits,
    /// It keeps others waiting.
    Withholds,
}

/// What had moved of a client when that was last looked at.
#[derive(Debug, Default)]
pub(super) struct Pace {
    since: Option<Instant>,
    moved: u32,
    is_slow: bool,
}

/// What there is to free.
#[derive(Debug, Clone, Copy)]
pub struct Excess {
    /// Whatever it costs.
    pub over: u64,
    /// Where it does not move.
    pub free: u64,
}

/// What was shed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shed {
    /// Clients.
    pub clients: usize,
    /// What they held.
    pub bytes: u64,
    /// The part of it that was in this process.
    pub here: u64,
}

/// What a client holds.
#[derive(Debug, Clone, Copy)]
struct Weight {
    standstill: Standstill,
    here: u64,
    /// The part of it that the ring does not count.
    beside: u64,
    in_kernel: u64,
}

/// A client that may go.
struct Candidate {
    key: usize,
    peer: Peer,
    /// Of a request beside others: the connection that carries it.
    carried_by: Option<ring::StreamId>,
    weight: Weight,
}

impl Clients {
    /// What the shard holds for connections, but for those that were shed
    /// already.
    pub fn load(&self, now: Instant) -> Load {
        let held = ring::held();
        let mut load = Load {
            here: held.here as u64,
            in_kernel: held.in_kernel as u64,
            still: 0,
        };
        for (_, member) in self.members.borrow_mut().iter_mut() {
            let Some(weight) = member.weigh(now) else {
                continue;
            };
            let beside = u64::from(member.kept) + weight.beside;
            if member.is_shed {
                // It leaves with the next turn. What the ring does not count is not in it.
                load.here = load.here.saturating_sub(weight.here - beside);
                load.in_kernel = load.in_kernel.saturating_sub(weight.in_kernel);
                continue;
            }
            load.here += beside;
            if weight.standstill != Standstill::Moves && weight.is_worth_it() {
                load.still += weight.bytes();
            }
        }
        load
    }

    /// Sheds the worst until there is nothing in excess, nobody is left who is
    /// worth it, or many were.
    pub fn shed_for_memory(&self, excess: Excess, now: Instant) -> Shed {
        let mut members = self.members.borrow_mut();
        let mut held: HashMap<Peer, u64> = HashMap::new();
        let mut candidates = Vec::new();
        for (key, member) in members.iter_mut().filter(|(_, member)| !member.is_shed) {
            let peer = member.peer;
            let weight = member.weigh(now);
            if let Some(weight) = weight.filter(|weight| weight.is_worth_it()) {
                *held.entry(peer).or_default() += weight.bytes();
                candidates.push(Candidate {
                    key,
                    peer,
                    carried_by: member.carrier.carried_by(),
                    weight,
                });
            }
        }
        let mut shed = Shed::default();
        while shed.clients < SHED_AT_ONCE {
            let by = |one: &Candidate| {
                let of_peer = held.get(&one.peer).copied();
                (one.weight.standstill, of_peer, one.weight.bytes())
            };
            let worst = (0..candidates.len()).max_by_key(|at| by(&candidates[*at]));
            let Some(worst) = worst.map(|at| candidates.swap_remove(at)) else {
                break;
            };
            let wanted = match worst.weight.standstill {
                Standstill::Moves => excess.over,
                Standstill::Waits | Standstill::Withholds => excess.free,
            };
            if shed.bytes >= wanted {
                break;
            }
            let member = &mut members[worst.key];
            member.is_shed = true;
            member.carrier.fail();
            if let Some(connection) = member.carrier.connection() {
                // Its requests go with it.
                candidates.retain(|one| one.carried_by != Some(connection));
            }
            let bytes = worst.weight.bytes();
            shed.clients += 1;
            shed.bytes += bytes;
            shed.here += worst.weight.here;
            if let Some(held) = held.get_mut(&worst.peer) {
                *held -= bytes;
            }
        }
        shed
    }
}

impl Member {
    /// What it holds, and whether that moves; `None`: it has gone.
    fn weigh(&mut self, now: Instant) -> Option<Weight> {
        let standing = self.carrier.activity()?;
        let in_kernel = match standing.is_backed_up {
            true => self.carrier.queued() as u64,
            false => 0,
        };
        let source = self.source.as_ref().and_then(Carrier::activity);
        let waiting = source.map_or(0, |source| source.held as u64);
        let mut weight = Weight {
            standstill: Standstill::Moves,
            here: standing.held as u64 + u64::from(self.kept) + waiting,
            beside: self.carrier.held_beside(&standing) + waiting,
            in_kernel,
        };
        self.pace.look(standing.moved, weight.bytes(), now);
        // Nothing can be done with a part of a head.
        let is_part_of_head = self.holds == Holding::Nothing && self.kept > 0;
        weight.standstill = match (is_part_of_head, self.pace.is_slow) {
            (true, _) => Standstill::Withholds,
            (false, true) if standing.owes_bytes || standing.leaves_unread => Standstill::Withholds,
            (false, true) => Standstill::Waits,
            (false, false) => Standstill::Moves,
        };
        Some(weight)
    }
}

impl Weight {
    fn bytes(self) -> u64 {
        self.here + self.in_kernel
    }

    fn is_worth_it(self) -> bool {
        match self.standstill {
            // With it goes what a connection takes by itself.
            Standstill::Withholds => self.bytes() > 0,
            Standstill::Waits | Standstill::Moves => self.bytes() >= WORTH_IT,
        }
    }
}

impl Pace {
    fn look(&mut self, moved: u32, held: u64, now: Instant) {
        let Some(since) = self.since else {
            (self.since, self.moved) = (Some(now), moved);
            return;
        };
        if now.saturating_duration_since(since) >= PACE_OVER {
            self.is_slow = u64::from(moved.wrapping_sub(self.moved)) < held;
            (self.since, self.moved) = (Some(now), moved);
        }
    }
}
