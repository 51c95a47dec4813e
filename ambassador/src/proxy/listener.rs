//! A listener on a shard: its settings, which a reload may change, and its end.

use std::cell::RefCell;
use std::sync::Arc;

use crate::proxy::drain::Drain;
use crate::proxy::room::Room;
use crate::telemetry::ListenerIndex;
use crate::tls::Server;

/// What a listener does with its connections.
#[derive(Debug, Clone)]
pub enum Entry {
    /// HTTP, routed by what each request says.
    Http,
    /// Opaque bytes for the upstream of this name.
    Tcp(Arc<str>),
    /// Captured: the origin has the original destination.
    Captured,
}

/// What a listener does with its connections. A reload may change it, under the
/// same socket.
#[derive(Debug, Clone)]
pub struct ListenerSettings {
    /// What metrics call the listener.
    pub index: ListenerIndex,
    /// What its connections are.
    pub entry: Entry,
    /// How many there may be; `None`: any number.
    pub max_connections: Option<u32>,
    /// What they are encrypted with; `None`: they are in clear.
    pub tls: Option<Arc<Server>>,
}

/// A listener on a shard.
pub struct ShardListener {
    /// Begins when a reload removes it.
    pub stop: Drain,
    /// For how many connections, on all shards.
    pub room: Arc<Room>,
    settings: RefCell<ListenerSettings>,
}

impl ShardListener {
    /// One that accepts from now on.
    pub fn new(settings: ListenerSettings, room: Arc<Room>) -> Self {
        Self {
            stop: Drain::default(),
            room,
            settings: RefCell::new(settings),
        }
    }

    /// What is accepted now is this.
    pub fn settings(&self) -> ListenerSettings {
        self.settings.borrow().clone()
    }

    /// What is accepted from now on is something else.
    pub fn change(&self, settings: ListenerSettings) {
        self.room.set_max(settings.max_connections);
        self.settings.replace(settings);
    }
}
