//! The trailer section of a request: it is under the rules of its head, and what
//! would have been looked for there does not pass.

use crate::message;
use crate::proxy::client_certificate::reads_as_forwarded;
use crate::proxy::routing::{Incoming, RouteDecision};
use crate::route::settings::AddedHeaders;

/// Which trailer fields of a request go on.
#[derive(Clone, Copy)]
pub(crate) struct Trailers<'a> {
    /// Where it goes.
    pub route: &'a RouteDecision,
    /// As it came.
    pub incoming: &'a Incoming<'a>,
}

impl Trailers<'_> {
    /// Whether all of them do.
    pub(crate) fn pass_as_they_are(self) -> bool {
        let policies = &self.route.target.upstream.policies;
        policies.added_headers == AddedHeaders::None && !self.incoming.forwards_certificate()
    }

    /// Whether one of this name can be taken for what the upstream is told of the client.
    fn is_of_the_certificate(self, name: &[u8]) -> bool {
        self.incoming.forwards_certificate() && reads_as_forwarded(name)
    }

    /// Whether one of this name does.
    pub(crate) fn passes(self, name: &[u8]) -> bool {
        let policies = &self.route.target.upstream.policies;
        let Incoming { request, head, .. } = self.incoming;
        let credential = self.route.target.credential();
        message::may_trail(name)
            && !credential.is_some_and(|credential| credential.auth.is_field(name))
            && !request.fields().names_for_this_hop(head, name)
            && !self.is_of_the_certificate(name)
            && !str::from_utf8(name).is_ok_and(|name| {
                policies.headers.names(name)
                    || name.eq_ignore_ascii_case(message::X_REQUEST_ID)
                    || name.eq_ignore_ascii_case(&policies.retry.idempotency_header)
            })
    }
}
