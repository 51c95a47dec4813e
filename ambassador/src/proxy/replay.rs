//! What of a request's body is kept so that it can be sent again.

use crate::ring::Chunk;

/// The body of a request as far as it has been read, while another try may need
/// it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Replay {
    /// `None`: not all of it is kept.
    body: Option<Vec<u8>>,
    /// Bytes that may still be kept.
    room: u64,
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
        }
    }

    /// Whether all that was read is still there.
    pub(crate) fn is_whole(&self) -> bool {
        self.body.is_some()
    }

    /// Whether nothing was read, and so nothing left out.
    pub(crate) fn is_empty(&self) -> bool {
        self.body.as_ref().is_some_and(Vec::is_empty)
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

    /// All that was read, to be sent again.
    pub(crate) fn again(&self) -> Option<Chunk> {
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
    fn nothing_is_kept_of_what_may_be_sent_once() {
        let mut replay = Replay::none();
        assert!(!replay.is_empty());
        assert_eq!(replay.add(b"body"), 0);
        assert!(replay.again().is_none());
    }
}
