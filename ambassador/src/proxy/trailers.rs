//! The trailer section of a request: it is under the rules of its head, and what
//! would have been looked for there does not pass.

use crate::http1::BodyReader;
use crate::message::BadMessage;
use crate::proxy::routing::{Incoming, RouteDecision};
use crate::ring::Chunk;
use crate::route::settings::AddedHeaders;
use crate::{http1, message};

/// A section without fields.
const NO_FIELDS: &[u8] = b"\r\n";

/// Which trailer fields of a request go on.
#[derive(Clone, Copy)]
pub(crate) struct Trailers<'a> {
    /// Where it goes.
    pub route: &'a RouteDecision,
    /// As it came.
    pub incoming: &'a Incoming<'a>,
}

impl Trailers<'_> {
    /// Splits what goes on of a body off what follows it. The part of a trailer
    /// section that has come is kept back until all of it has.
    pub(crate) fn take(
        self,
        body: &mut BodyReader,
        mut chunk: Chunk,
    ) -> Result<(Chunk, Option<Chunk>), BadMessage> {
        let progress = body.advance(&chunk)?;
        let mut rest = Some(chunk.split_off(progress.consumed)).filter(|rest| !rest.is_empty());
        if let Some(rest) = &mut rest {
            rest.detach();
        }
        let section_at = progress.consumed - progress.trailers;
        let mut held = self.incoming.trailers.borrow_mut();
        let is_plain = progress.done && held.is_empty() && chunk[section_at..] == *NO_FIELDS;
        if progress.trailers == 0 || is_plain || self.pass_as_they_are() {
            return Ok((chunk, rest));
        }
        let section = chunk.split_off(section_at);
        held.extend_from_slice(&section);
        if progress.done {
            let held = std::mem::take(&mut *held);
            chunk = Chunk::written(chunk.len() + held.len(), |out| {
                out.extend_from_slice(&chunk);
                http1::write_trailers(out, &held, |name| self.passes(name));
            });
        }
        Ok((chunk, rest))
    }

    fn pass_as_they_are(self) -> bool {
        self.route.target.upstream.policies.added_headers == AddedHeaders::None
    }

    fn passes(self, name: &[u8]) -> bool {
        let policies = &self.route.target.upstream.policies;
        let Incoming { request, head, .. } = self.incoming;
        message::may_trail(name)
            && !request.fields().names_for_this_hop(head, name)
            && !str::from_utf8(name).is_ok_and(|name| {
                policies.headers.names(name)
                    || name.eq_ignore_ascii_case(message::X_REQUEST_ID)
                    || name.eq_ignore_ascii_case(&policies.retry.idempotency_header)
            })
    }
}
