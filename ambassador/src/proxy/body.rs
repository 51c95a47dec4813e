//! What the two sides of a request have to agree on about a body.

use crate::http1;
use crate::message::{End, Length, field_list};
use crate::ring::{Chunk, Gather};

/// In what form the bytes of a request's body come from its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyForm {
    /// As HTTP/1 frames them, trailers included.
    Http1,
    /// The content alone, of this length.
    Content(Length),
}

/// Content of a body whose length is not known, as HTTP/1.1 frames it.
pub(crate) fn in_chunks(content: &Gather, end: End<'_>) -> Chunk {
    Chunk::written(content.bytes() + 32, |out| {
        http1::write_chunk(out, content.bytes(), content.chunks().map(|chunk| &**chunk));
        if let End::Whole(trailers) = end {
            http1::write_last_chunk(out, field_list::fields(trailers));
        }
    })
}
