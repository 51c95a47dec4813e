//! What has come on a stream and was not taken yet.

use std::task::Waker;

use smallvec::SmallVec;

use crate::http2::FieldBlock;
use crate::ring::{Chunk, growth};

/// Heads that wait on a stream at most: interim ones, and the final one.
const HEADS_MAX: usize = 8;

/// Content that is kept in one piece and counts as memory that grows, where its reader
/// may just not have had its turn.
const MUCH: usize = 4 * 1024;

/// What has come on a stream and was not taken yet. The windows bound how much content
/// it is.
#[derive(Default)]
pub(super) struct Inbox {
    heads: SmallVec<[FieldBlock; 1]>,
    /// Content that its task takes in this turn.
    first: Option<Chunk>,
    /// What came behind it, on the heap.
    rest: Vec<u8>,
    /// The list of its trailer fields.
    trailers: Vec<u8>,
    /// All of it has come.
    ended: bool,
    /// Whoever takes it has taken the end, too.
    end_taken: bool,
    /// As much content has come as its head says that there is, but not its end.
    owes_end: bool,
    /// Who waits for more.
    pub(super) reader: Option<Waker>,
}

/// How much of the content of a message has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// More may come.
    Part,
    /// As much as its head says that there is, without its end.
    AllButEnd,
    /// Nothing more comes.
    Whole,
}

/// The next thing that has come.
pub(crate) enum Received {
    /// A head.
    Head(FieldBlock),
    /// Content; empty where nothing but the end has come.
    Content(Chunk),
}

impl Inbox {
    /// A head has come. `false`: there are too many.
    pub(super) fn add_head(&mut self, block: FieldBlock, ends: bool) -> bool {
        if self.heads.len() == HEADS_MAX {
            return false;
        }
        self.heads.push(block);
        self.ended |= ends;
        self.wake();
        true
    }

    /// Content has come. No buffer is kept that others need, unless a task is about to
    /// take it.
    ///
    /// The last piece of content whose length is known waits for the end: a message that
    /// goes on after it is malformed, and is not passed on as if it were whole (RFC 9113
    /// section 8.1.1).
    pub(super) fn add_content(&mut self, mut content: Chunk, progress: Progress) {
        self.ended |= progress == Progress::Whole;
        self.owes_end |= progress == Progress::AllButEnd;
        if !content.is_empty() {
            match (&self.first, self.rest.is_empty()) {
                (None, true) => {
                    if self.reader.is_none() || self.waits_for_end() {
                        if content.len() >= MUCH {
                            growth::has_grown(content.len());
                        }
                        content.detach();
                    }
                    self.first = Some(content);
                }
                _ => {
                    growth::has_grown(content.len());
                    self.rest.extend_from_slice(&content);
                }
            }
        }
        self.wake();
    }

    /// Trailers have come, as a list of fields.
    pub(super) fn add_trailers(&mut self, trailers: Vec<u8>) {
        self.trailers = trailers;
        self.ended = true;
        self.wake();
    }

    /// Nothing comes, as its head has told.
    pub(super) fn end(&mut self) {
        (self.ended, self.end_taken) = (true, true);
    }

    /// Whether more of it is waited for.
    pub(super) fn is_awaited(&self) -> bool {
        self.reader.is_some() && !self.ended && (self.unread() == 0 || self.owes_end)
    }

    /// Whether its last piece waits for its end.
    fn waits_for_end(&self) -> bool {
        self.owes_end && !self.ended
    }

    /// Content that was not taken.
    pub(super) fn unread(&self) -> u32 {
        let first = self.first.as_ref().map_or(0, Chunk::len);
        (first + self.rest.len()) as u32
    }

    /// Whether nothing more comes, and all was taken.
    pub(super) fn is_empty(&self) -> bool {
        self.ended && self.heads.is_empty() && self.unread() == 0
    }

    /// The same, and the end was taken, too. Whoever passes content on looks at this once
    /// it is gone: an end that has come meanwhile is still to be passed on.
    pub(super) fn is_done(&self) -> bool {
        self.end_taken && self.is_empty()
    }

    /// Whether nothing more comes.
    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Whether something has come that was not taken, be it the end.
    pub(super) fn has_more(&self) -> bool {
        self.ended || !self.heads.is_empty() || self.unread() > 0
    }

    /// Its trailers, left where they are.
    pub(super) fn trailers(&self) -> Vec<u8> {
        self.trailers.clone()
    }

    /// Its trailers, where they have come.
    pub(super) fn take_trailers(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.trailers)
    }

    pub(super) fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// What comes next; `None`: nothing has come.
    pub(super) fn next(&mut self) -> Option<Received> {
        let next = self.take_next();
        self.end_taken |= self.is_empty();
        next
    }

    fn take_next(&mut self) -> Option<Received> {
        if !self.heads.is_empty() {
            return Some(Received::Head(self.heads.remove(0)));
        }
        if self.waits_for_end() {
            return None;
        }
        if let Some(first) = self.first.take() {
            return Some(Received::Content(first));
        }
        if !self.rest.is_empty() {
            return Some(Received::Content(Chunk::from(std::mem::take(
                &mut self.rest,
            ))));
        }
        self.ended
            .then(|| Received::Content(Chunk::from(Vec::new())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_comes_behind_its_content_is_taken_by_itself() {
        let mut inbox = Inbox::default();
        inbox.add_content(Chunk::from(b"all".to_vec()), Progress::Part);
        assert!(matches!(inbox.next(), Some(Received::Content(content)) if &*content == b"all"));
        assert!(inbox.next().is_none() && !inbox.is_done());
        inbox.add_content(Chunk::from(Vec::new()), Progress::Whole);
        assert!(!inbox.is_done(), "nobody was told");
        assert!(matches!(inbox.next(), Some(Received::Content(content)) if content.is_empty()));
        assert!(inbox.is_done());
    }

    #[test]
    fn an_end_that_comes_with_its_content_is_taken_with_it() {
        let mut inbox = Inbox::default();
        inbox.add_content(Chunk::from(b"all".to_vec()), Progress::Whole);
        assert!(!inbox.is_done() && inbox.next().is_some() && inbox.is_done());
        let mut inbox = Inbox::default();
        inbox.end();
        assert!(inbox.is_done());
    }
}
