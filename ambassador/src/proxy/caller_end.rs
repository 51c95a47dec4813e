//! The caller's end of what carries no request, or none yet.

use std::rc::Rc;
use std::time::Duration;

use crate::proxy::client::{Client, Origin};
use crate::proxy::clients::Membership;
use crate::proxy::context::Context;
use crate::proxy::tunnel_end::TunnelEnd;
use crate::ring::{self, Chunk};

/// The caller's end of what carries no request, or none yet.
pub(crate) struct CallerEnd<'a> {
    /// The shard's state.
    pub context: &'a Rc<Context>,
    /// Where its connection came in.
    pub origin: &'a Origin,
    /// Its place among the clients of the shard.
    pub member: &'a Membership,
    /// What carries its bytes.
    pub end: TunnelEnd<'a>,
    /// Received and not yet consumed.
    pub ahead: &'a mut Option<Chunk>,
}

impl<'a> CallerEnd<'a> {
    /// That of a client that has a connection of its own.
    pub(crate) fn of(client: &'a mut Client) -> Self {
        Self {
            context: &client.context,
            origin: &client.origin,
            member: &client.member,
            end: TunnelEnd::Own(&client.stream),
            ahead: &mut client.ahead,
        }
    }

    /// The next bytes, within `idle`; `None` at the end, after an error and after
    /// silence.
    pub(crate) async fn next(&mut self, idle: Duration) -> Option<Chunk> {
        if let Some(chunk) = self.ahead.take().or_else(|| self.end.try_recv()) {
            return Some(chunk);
        }
        let received = self.end.recv_by(ring::now() + idle).await;
        received.ok()?.ok().flatten()
    }

    /// Lets go of shared buffers.
    pub(crate) fn detach(&mut self) {
        if let Some(ahead) = self.ahead {
            ahead.detach();
        }
    }
}
