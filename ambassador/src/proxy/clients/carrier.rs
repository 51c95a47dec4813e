//! What carries the bytes of a client: a connection, or a stream of one.

use std::rc::{Rc, Weak};

use crate::http2::StreamId;
use crate::multiplex::{Http2Stream, Multiplexed};
use crate::ring::{self, StreamActivity};
use crate::transport::Transport;

/// What carries the bytes of a client.
pub(super) enum Carrier {
    /// A connection of its own.
    Own(ring::StreamId),
    /// A stream of a connection that others share: they are not to suffer for it.
    Shared(Weak<Multiplexed>, StreamId),
}

impl Carrier {
    /// That of a client with a connection of its own.
    pub(super) fn of_connection(transport: &Transport) -> Self {
        Self::Own(transport.id())
    }

    /// That of one request among others.
    pub(super) fn of_stream(stream: &Http2Stream) -> Self {
        let id = stream.id().unwrap_or(StreamId::CONNECTION);
        Self::Shared(Rc::downgrade(stream.connection()), id)
    }

    /// A connection of its own.
    pub(super) fn connection(&self) -> Option<ring::StreamId> {
        match self {
            Self::Own(id) => Some(*id),
            Self::Shared(..) => None,
        }
    }

    /// The connection that others share.
    pub(super) fn carried_by(&self) -> Option<ring::StreamId> {
        match self {
            Self::Own(_) => None,
            Self::Shared(connection, _) => Some(connection.upgrade()?.transport().id()),
        }
    }

    /// What it is doing; `None`: it has gone.
    pub(super) fn activity(&self) -> Option<StreamActivity> {
        match self {
            Self::Own(id) => ring::standing(*id),
            Self::Shared(connection, id) => connection.upgrade()?.activity(*id),
        }
    }

    /// Bytes that wait for it in the kernel.
    pub(super) fn queued(&self) -> usize {
        match self {
            Self::Own(id) => ring::queued(*id),
            // Nobody knows whose those of its connection are.
            Self::Shared(..) => 0,
        }
    }

    /// Bytes that it holds and that the ring does not count.
    pub(super) fn held_beside(&self, activity: &StreamActivity) -> u64 {
        match self {
            Self::Own(_) => 0,
            Self::Shared(..) => activity.held as u64,
        }
    }

    /// Ends it: whoever waits on it finds it failed.
    pub(super) fn fail(&self) {
        match self {
            Self::Own(id) => ring::fail(*id),
            Self::Shared(connection, id) => {
                if let Some(connection) = connection.upgrade() {
                    connection.give_up(*id);
                }
            }
        }
    }
}
