//! The queue for permits, fair among peers.
//!
//! Each peer has one turn in a round, so a peer with many waiters is served as
//! often as one with few. Within a round, and for one peer alone, the order is
//! that of arrival. This is fair queueing with requests of one size (Demers,
//! Keshav and Shenker, 1989).
//!
//! When the queue is full, a newcomer replaces the newest waiter of the peer that
//! has the most, if its own peer would still have fewer.

use std::cmp::Ordering;
use std::collections::VecDeque;

use foldhash::HashMap;

use crate::addr::Peer;

/// A waiter.
pub(in crate::upstream) trait QueueEntry {
    /// Who it belongs to.
    fn peer(&self) -> Peer;
}

/// The queue.
pub(in crate::upstream) struct Queue<W> {
    places: VecDeque<Place<W>>,
    peers: HashMap<Peer, PeerShare>,
}

struct Place<W> {
    round: u64,
    waiter: W,
}

/// A peer's share of the queue.
#[derive(Default)]
struct PeerShare {
    waiting: u32,
    /// The last round in which it is to have a turn, or has had one.
    round: u64,
    /// The last in which it has had one.
    served: u64,
}

/// The result of [`Queue::push`].
#[derive(Debug, PartialEq, Eq)]
pub(in crate::upstream) enum PushOutcome<W> {
    /// There was one.
    Free,
    /// It is that of another, who waits no longer.
    InPlaceOf(W),
    /// There was none.
    Full,
}

impl<W> Default for Queue<W> {
    fn default() -> Self {
        Self {
            places: VecDeque::new(),
            peers: HashMap::default(),
        }
    }
}

impl<W: QueueEntry> Queue<W> {
    /// Who is next.
    pub(in crate::upstream) fn front(&self) -> Option<&W> {
        self.places.front().map(|place| &place.waiter)
    }

    /// Those who wait, in order.
    pub(in crate::upstream) fn iter(&self) -> impl Iterator<Item = &W> {
        self.places.iter().map(|place| &place.waiter)
    }

    /// Gives `waiter` a place, where there are fewer than `max`.
    pub(in crate::upstream) fn push(&mut self, waiter: W, max: u32) -> PushOutcome<W> {
        let pushed = match (self.places.len() as u64).cmp(&u64::from(max)) {
            Ordering::Less => PushOutcome::Free,
            Ordering::Equal => {
                let worst = self.worst_beside(waiter.peer());
                let Some(other) = worst.and_then(|worst| self.leave(worst)) else {
                    return PushOutcome::Full;
                };
                PushOutcome::InPlaceOf(other)
            }
            // The limit was lowered.
            Ordering::Greater => return PushOutcome::Full,
        };
        let now = self.places.front().map_or(0, |place| place.round);
        let held = self.peers.entry(waiter.peer()).or_default();
        let round = match held.waiting == 0 && held.round < now {
            true => now,
            false => held.round + 1,
        };
        (held.waiting, held.round) = (held.waiting + 1, round);
        let at = self.places.partition_point(|place| place.round <= round);
        self.places.insert(at, Place { round, waiter });
        pushed
    }

    /// Takes the waiter at this place: its turn has come.
    pub(in crate::upstream) fn take(&mut self, at: usize) -> Option<W> {
        let Place { round, waiter } = self.places.remove(at)?;
        if let Some(held) = self.peers.get_mut(&waiter.peer()) {
            (held.waiting, held.served) = (held.waiting - 1, round);
        }
        self.forget();
        Some(waiter)
    }

    /// Removes the waiter at this place, as if it had never come.
    pub(in crate::upstream) fn leave(&mut self, at: usize) -> Option<W> {
        let Place { waiter, .. } = self.places.remove(at)?;
        let peer = waiter.peer();
        let mut newest_first = self.places.iter().rev();
        let last = newest_first.find(|place| place.waiter.peer() == peer);
        if let Some(held) = self.peers.get_mut(&peer) {
            held.waiting -= 1;
            held.round = last.map_or(held.served, |last| last.round);
        }
        self.forget();
        Some(waiter)
    }

    /// The newest waiter of the peer that has the most, where that is more than
    /// `peer` has with one more.
    fn worst_beside(&self, peer: Peer) -> Option<usize> {
        let waiting = |peer| self.peers.get(&peer).map_or(0, |held| held.waiting);
        let most = self.peers.values().map(|held| held.waiting).max()?;
        if most <= waiting(peer) + 1 {
            return None;
        }
        let has_most = |place: &Place<W>| waiting(place.waiter.peer()) == most;
        self.places.iter().rposition(has_most)
    }

    /// Forgets peers that nobody waits for, and whose last turn is over.
    fn forget(&mut self) {
        let Some(front) = self.places.front() else {
            // Nobody has anything to share.
            return self.peers.clear();
        };
        let now = front.round;
        if self.peers.len() > 2 * self.places.len() {
            self.peers
                .retain(|_, held| held.waiting > 0 || held.round >= now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A waiter of a peer, by its number.
    type Numbered = (u32, u32);

    impl QueueEntry for Numbered {
        fn peer(&self) -> Peer {
            Peer::Workload(self.0)
        }
    }

    fn queue(waiters: &[Numbered]) -> Queue<Numbered> {
        let mut queue = Queue::default();
        for waiter in waiters {
            assert_eq!(queue.push(*waiter, u32::MAX), PushOutcome::Free);
        }
        queue
    }

    fn order(queue: &Queue<Numbered>) -> Vec<Numbered> {
        queue.iter().copied().collect()
    }

    #[test]
    fn one_peer_alone_is_served_in_order() {
        let mut queue = queue(&[(1, 0), (1, 1), (1, 2)]);
        assert_eq!(queue.take(0), Some((1, 0)));
        queue.push((1, 3), 9);
        assert_eq!(order(&queue), [(1, 1), (1, 2), (1, 3)]);
    }

    #[test]
    fn peers_have_a_turn_each_in_a_round() {
        let mut queue = queue(&[(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (3, 0)]);
        let rounds = [(1, 0), (2, 0), (3, 0), (1, 1), (2, 1), (1, 2)];
        assert_eq!(order(&queue), rounds);
        // Whoever comes back at once has had its turn.
        assert_eq!(queue.take(0), Some((1, 0)));
        assert_eq!(queue.take(0), Some((2, 0)));
        assert_eq!(queue.take(0), Some((3, 0)));
        queue.push((3, 1), 9);
        let rounds = [(1, 1), (2, 1), (3, 1), (1, 2)];
        assert_eq!(order(&queue), rounds);
    }

    #[test]
    fn nobody_comes_before_others_time_and_again() {
        let mut queue = queue(&[(1, 0), (1, 1), (1, 2), (1, 3)]);
        let mut served = Vec::new();
        for number in 0..4 {
            queue.push((2, number), 9);
            served.push(queue.take(0).unwrap());
        }
        assert_eq!(served, [(1, 0), (2, 0), (1, 1), (2, 1)]);
    }

    #[test]
    fn who_leaves_has_had_no_turn() {
        let mut queue = queue(&[(1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]);
        assert_eq!(queue.take(0), Some((1, 0)));
        let last = queue.iter().position(|waiter| *waiter == (1, 2)).unwrap();
        queue.leave(last);
        let last = queue.iter().position(|waiter| *waiter == (1, 1)).unwrap();
        queue.leave(last);
        queue.push((1, 3), 9);
        assert_eq!(order(&queue), [(2, 0), (2, 1), (1, 3)]);
    }

    #[test]
    fn a_full_queue_has_a_place_for_who_has_less_than_a_share() {
        let mut queue = queue(&[(1, 0), (1, 1), (1, 2), (2, 0)]);
        assert_eq!(queue.push((1, 3), 4), PushOutcome::Full);
        // With one more, it would have as many as the other.
        assert_eq!(queue.push((2, 1), 4), PushOutcome::InPlaceOf((1, 2)));
        assert_eq!(queue.push((2, 2), 4), PushOutcome::Full);
        assert_eq!(queue.push((3, 0), 4), PushOutcome::InPlaceOf((2, 1)));
        assert_eq!(queue.push((4, 0), 4), PushOutcome::InPlaceOf((1, 1)));
        assert_eq!(queue.push((5, 0), 4), PushOutcome::Full);
        assert_eq!(order(&queue), [(1, 0), (2, 0), (3, 0), (4, 0)]);
    }

    #[test]
    fn where_nobody_may_wait_nobody_does() {
        let mut queue = queue(&[]);
        assert_eq!(queue.push((1, 0), 0), PushOutcome::Full);
        // A limit that was lowered: who is here stays.
        queue.push((1, 0), 9);
        queue.push((1, 1), 9);
        assert_eq!(queue.push((2, 0), 1), PushOutcome::Full);
        assert_eq!(order(&queue), [(1, 0), (1, 1)]);
    }

    #[test]
    fn who_was_served_in_this_round_is_remembered() {
        let mut queue = queue(&[(1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (5, 1)]);
        for peer in 1..5 {
            assert_eq!(queue.take(0), Some((peer, 0)));
        }
        queue.push((1, 1), 9);
        assert_eq!(order(&queue), [(5, 0), (5, 1), (1, 1)]);
    }

    #[test]
    fn who_comes_late_is_in_the_round_of_those_who_wait() {
        let mut queue = queue(&[(1, 0), (1, 1), (1, 2), (1, 3)]);
        queue.take(0);
        queue.take(0);
        queue.push((2, 0), 9);
        assert_eq!(order(&queue), [(1, 2), (2, 0), (1, 3)]);
    }

    #[test]
    fn who_was_served_has_the_less_of_the_queue() {
        let mut queue = queue(&[(1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]);
        for number in 0..2 {
            let at = queue.iter().position(|waiter| *waiter == (1, number));
            queue.take(at.unwrap());
        }
        assert_eq!(queue.push((3, 0), 3), PushOutcome::InPlaceOf((2, 1)));
    }

    #[test]
    fn peers_that_have_gone_are_forgotten() {
        let mut queue = queue(&[(0, 0), (0, 1)]);
        for peer in 1..1_000 {
            queue.push((peer, 0), 9);
            let at = queue.iter().position(|waiter| waiter.0 == peer).unwrap();
            queue.leave(at);
        }
        assert!(queue.peers.len() <= 5, "{}", queue.peers.len());
        queue.take(0);
        queue.take(0);
        assert!(queue.peers.is_empty());
    }
}
