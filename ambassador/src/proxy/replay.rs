//! What of a request's body is kept so that it can be sent again.
//!
//! Most failures leave open whether the request has arrived; then only what may
//! arrive twice is sent again. A refusal does not: the upstream says that it has not
//! acted on it.

use crate::ring::Chunk;

/// The body of a request as far as it has been read, while another try may need
/// it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Replay {
    /// `None`: not all of it is kept.
    body: Option<Vec<u8>>,
    /// Bytes that may still be kept.
    room: u64,
    after: ReplayAfter,
}

/// After what it is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum ReplayAfter {
    /// Whatever went wrong.
    #[default]
    AnyFailure,
    /// A refusal alone: it must not arrive twice.
    Refusal,
}

impl Replay {
    /// Nothing is kept: it may be sent once.
    pub(crate) fn none() -> Self {
        Self::default()
    }

    /// Keeps up to `body_limit` bytes.
    pub(crate) fn up_to(body_limit: u64) -> Self {
        Self {
            body: Some(Vec::new()),
            room: body_limit,
            after: ReplayAfter::AnyFailure,
        }
    }

    /// The same of a request that must not arrive twice: it is sent again where it was
    /// refused.
    pub(crate) fn of_refused(body_limit: u64) -> Self {
        Self {
            after: ReplayAfter::Refusal,
            ..Self::up_to(body_limit)
        }
    }

    /// Whether all that was read is still there, to be sent again whatever went wrong.
    pub(crate) fn is_whole(&self) -> bool {
        self.body.is_some() && self.after == ReplayAfter::AnyFailure
    }

    /// Whether all that was read is still there, to be sent again after a refusal.
    pub(crate) fn is_whole_after_refusal(&self) -> bool {
        self.body.is_some()
    }

    /// Whether nothing was read, and so nothing left out.
    pub(crate) fn is_empty(&self) -> bool {
        self.is_whole() && self.body.as_ref().is_some_and(Vec::is_empty)
    }

    /// Keeps more of the body; says by how much what is kept has grown. Where it
    /// gets too large, nothing is kept any more.
    pub(crate) fn add(&mut self, chunk: &[u8]) -> isize {
        let Some(body) = &mut self.body else {
            return 0;
        };
        match self.room.checked_sub(chunk.len() as u64) {
            Some(room) => {
                self.room = room;
                body.extend_from_slice(chunk);
                chunk.len().cast_signed()
            }
            None => {
                let kept = body.len().cast_signed();
                *self = Self::none();
                -kept
            }
        }
    }

    /// All that was read, to be sent again whatever went wrong.
    pub(crate) fn again(&self) -> Option<Chunk> {
        match self.after {
            ReplayAfter::AnyFailure => self.again_after_refusal(),
            ReplayAfter::Refusal => None,
        }
    }

    /// All that was read, to be sent again after a refusal.
    pub(crate) fn again_after_refusal(&self) -> Option<Chunk> {
        let body = self.body.as_ref()?;
        Some(Chunk::written(body.len(), |copy| {
            copy.extend_from_slice(body);
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gives_everything_again_as_often_as_asked() {
        let mut replay = Replay::up_to(6);
        assert_eq!(&*replay.again().unwrap(), b"");
        assert!(replay.is_empty());
        assert_eq!(replay.add(b"body"), 4);
        assert!(!replay.is_empty());
        assert_eq!(replay.add(b"!!"), 2);
        for _ in 0..2 {
            assert_eq!(&*replay.again().unwrap(), b"body!!");
        }
    }

    #[test]
    fn a_body_over_the_limit_is_not_kept() {
        let mut replay = Replay::up_to(3);
        assert_eq!(replay.add(b"bo"), 2);
        assert!(replay.is_whole());
        assert_eq!(replay.add(b"dy"), -2);
        assert!(!replay.is_whole() && replay.again().is_none());
        assert_eq!(replay.add(b"more"), 0);
        assert!(replay.again().is_none());
    }

    #[test]
    fn what_must_not_arrive_twice_is_sent_again_after_a_refusal_alone() {
        let mut replay = Replay::of_refused(4);
        assert_eq!(replay.add(b"body"), 4);
        assert!(!replay.is_whole() && replay.again().is_none());
        assert!(replay.is_whole_after_refusal());
        assert_eq!(&*replay.again_after_refusal().unwrap(), b"body");
        assert_eq!(replay.add(b"!"), -4);
        assert!(!replay.is_whole_after_refusal());
        assert!(replay.again_after_refusal().is_none());
    }

    #[test]
    fn nothing_is_kept_of_what_may_be_sent_once() {
        let mut replay = Replay::none();
        assert!(!replay.is_empty());
        assert_eq!(replay.add(b"body"), 0);
        assert!(replay.again().is_none());
    }
}
