//! Which servers speak before their clients do.
//!
//! It only saves a wait: to such a server a silent client is connected at once.
//! Who speaks first is looked at all the same, so that what is known here, be it
//! wrong, decides about no policy.

use std::collections::HashMap;
use std::time::Duration;

use crate::addr::OriginalDst;
use crate::clock::Instant;
use crate::upstream::dial::Namespace;

/// Places known at most; beyond it none is learnt.
const PLACES_MAX: usize = 4_096;

/// How long a place is known since its server was last heard first.
const KEPT: Duration = Duration::from_secs(600);

/// A destination, as one namespace knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    /// The namespace.
    pub namespace: Namespace,
    /// The destination.
    pub original: OriginalDst,
}

/// The places whose servers speak first.
#[derive(Default)]
pub(crate) struct ServerFirst {
    heard: HashMap<Place, Instant>,
}

/// Whether somebody else should hear of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Observation {
    /// It is new, or half forgotten.
    New,
    /// It is known well enough.
    Known,
}

impl ServerFirst {
    /// Whether the server there is known to speak first.
    pub(crate) fn knows(&self, place: Place, now: Instant) -> bool {
        let heard = self.heard.get(&place);
        heard.is_some_and(|heard| now.saturating_duration_since(*heard) < KEPT)
    }

    /// The server there has spoken first.
    pub(crate) fn hear(&mut self, place: Place, now: Instant) -> Observation {
        let age = |heard: Instant| now.saturating_duration_since(heard);
        if let Some(heard) = self.heard.get_mut(&place) {
            if age(*heard) < KEPT / 2 {
                return Observation::Known;
            }
            *heard = now;
            return Observation::New;
        }
        if self.heard.len() == PLACES_MAX {
            self.heard.retain(|_, heard| age(*heard) < KEPT);
        }
        if self.heard.len() < PLACES_MAX {
            self.heard.insert(place, now);
        }
        Observation::New
    }
}

/// Whether a server that begins like this is one to which clients listen first.
/// Servers of HTTP and TLS complain of silence, too; a beginning of that may be
/// all that has come.
pub(crate) fn is_greeting(said: &[u8]) -> bool {
    const COMPLAINTS: [&[u8]; 2] = [b"HTTP/", &[0x15, 0x03]];
    let complains = |known: &[u8]| said.starts_with(known) || known.starts_with(said);
    !COMPLAINTS.into_iter().any(complains)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(namespace: u16, last: u8) -> Place {
        let address = format!("10.0.0.{last}:25").parse().unwrap();
        Place {
            namespace: Namespace(namespace),
            original: OriginalDst(address),
        }
    }

    #[test]
    fn a_place_is_known_in_its_namespace_and_for_a_while() {
        let mut known = ServerFirst::default();
        let start = Instant::now();
        assert_eq!(known.hear(place(1, 1), start), Observation::New);
        assert!(known.knows(place(1, 1), start + KEPT - Duration::from_millis(1)));
        assert!(!known.knows(place(1, 1), start + KEPT));
        assert!(!known.knows(place(0, 1), start));
        assert!(!known.knows(place(1, 2), start));
    }

    #[test]
    fn what_is_heard_again_is_kept_and_seldom_news() {
        let mut known = ServerFirst::default();
        let start = Instant::now();
        known.hear(place(0, 1), start);
        let soon = start + KEPT / 2 - Duration::from_millis(1);
        assert_eq!(known.hear(place(0, 1), soon), Observation::Known);
        assert_eq!(known.hear(place(0, 1), start + KEPT / 2), Observation::New);
        assert!(known.knows(place(0, 1), start + KEPT));
    }

    #[test]
    fn a_full_list_makes_room_by_what_has_expired() {
        let mut known = ServerFirst::default();
        let start = Instant::now();
        let places = (0..PLACES_MAX as u16 + 1).map(|number| place(number, 1));
        let places: Vec<Place> = places.collect();
        let (last, others) = places.split_last().unwrap();
        for other in others {
            known.hear(*other, start);
        }
        known.hear(*last, start);
        assert!(!known.knows(*last, start), "it is full");
        known.hear(*last, start + KEPT);
        assert!(known.knows(*last, start + KEPT));
        assert_eq!(known.heard.len(), 1);
    }

    #[test]
    fn complaints_and_their_beginnings_are_no_greeting() {
        for (said, expected) in [
            (&b"220 ready\r\n"[..], true),
            (b"SSH-2.0-x\r\n", true),
            (b"HELLO", true),
            (b"\x4a\0\0\0\x0a8.0", true),
            (b"HTTP/1.1 408 Request Timeout\r\n", false),
            (b"HTT", false),
            (b"\x15\x03\x03\0\x02", false),
            (b"\x15", false),
            (b"", false),
        ] {
            assert_eq!(is_greeting(said), expected, "{said:?}");
        }
    }
}
