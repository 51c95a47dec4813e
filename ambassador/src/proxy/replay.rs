//! What of a request is kept so that it can be sent again.

use crate::ring::{Chunk, Gather};

/// The bytes of a request as far as they have been read, while another try may
/// need them.
#[derive(Debug, Default)]
pub struct Replay {
    /// The head, and what of the body came along; `None`: nothing is kept.
    begin: Option<Gather>,
    /// The body after that.
    rest: Vec<u8>,
    /// Bytes of the body that may still be kept.
    room: u64,
}

impl Replay {
    /// Nothing is kept: it may be sent once.
    pub fn none() -> Self {
        Self::default()
    }

    /// Keeps what is about to be sent, of which `body_bytes` are body, and up to
    /// `body_limit` of the body in all.
    pub fn of(begin: &Gather, body_bytes: u64, body_limit: u64) -> Self {
        match body_limit.checked_sub(body_bytes) {
            Some(room) => Self {
                begin: Some(begin.copy()),
                rest: Vec::new(),
                room,
            },
            None => Self::none(),
        }
    }

    /// Whether all that was read is still there.
    pub fn is_whole(&self) -> bool {
        self.begin.is_some()
    }

    /// Keeps more of the body. Where it gets too large, nothing is kept any more.
    pub fn add(&mut self, chunk: &[u8]) {
        if self.begin.is_none() {
            return;
        }
        match self.room.checked_sub(chunk.len() as u64) {
            Some(room) => {
                self.room = room;
                self.rest.extend_from_slice(chunk);
            }
            None => *self = Self::none(),
        }
    }

    /// All that was read, to be sent again.
    pub fn again(&self) -> Option<Gather> {
        let mut gather = self.begin.as_ref()?.copy();
        gather.push(Chunk::from(self.rest.clone()));
        Some(gather)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(bytes: &[u8]) -> Gather {
        Gather::from(Chunk::from(bytes.to_vec()))
    }

    #[test]
    fn it_gives_everything_again_as_often_as_asked() {
        let mut replay = Replay::of(&gather(b"headbo"), 2, 6);
        assert_eq!(replay.again().unwrap().bytes(), 6);
        replay.add(b"dy");
        replay.add(b"!!");
        for _ in 0..2 {
            assert_eq!(replay.again().unwrap().bytes(), 10);
        }
    }

    #[test]
    fn a_body_over_the_limit_is_not_kept() {
        assert!(!Replay::of(&gather(b"headbody"), 4, 3).is_whole());
        let mut replay = Replay::of(&gather(b"headbo"), 2, 3);
        replay.add(b"dy");
        assert!(!replay.is_whole() && replay.again().is_none());
        replay.add(b"");
        assert!(replay.again().is_none());
    }

    #[test]
    fn nothing_is_kept_of_what_may_be_sent_once() {
        let mut replay = Replay::none();
        replay.add(b"body");
        assert!(replay.again().is_none());
    }
}
