//! What a reload changes on a shard. The shard gets all of it in one message,
//! whose room in the mailbox was reserved before anything changed.

use std::rc::Rc;
use std::sync::Arc;

use super::Shard;
use super::accept::{self, ListenSocket};
use crate::proxy::context::Context;
use crate::proxy::generation::Generation;
use crate::proxy::listener::ListenerSettings;
use crate::ring::{MailboxError, Reserved};
use crate::telemetry::ListenerIndex;
use crate::telemetry::access_log::Sink;
use crate::upstream::dial::Namespace;
use crate::workload::SocketStock;

/// Everything that one shard has to do.
#[derive(Default)]
pub struct Update {
    /// The configuration from now on; `None`: the same.
    pub generation: Option<Arc<Generation>>,
    /// Listeners that nobody wants any more.
    pub gone: Vec<ListenerIndex>,
    /// What listeners, by the number that they had, mean from now on.
    pub listeners: Vec<(ListenerIndex, ListenerSettings)>,
    /// What it accepts on from now on.
    pub listen_sockets: Vec<ListenSocket>,
    /// Namespaces that it did not know, in order.
    pub stocks: Vec<SocketStock>,
    /// Where nothing is captured any more.
    pub stopped: Vec<Namespace>,
    /// Where it logs.
    pub log: LogUpdate,
    /// Which names of listeners leave, and which do not after all.
    pub names: LeavingNames,
}

/// What becomes of a shard's end of the access log.
#[derive(Default)]
pub enum LogUpdate {
    /// It keeps the one that it has, or none.
    #[default]
    Same,
    /// It has this one, or none.
    Replaced(Option<Sink>),
}

/// Listeners whose names leave the configuration, or were about to.
#[derive(Clone, Default)]
pub struct LeavingNames {
    /// Those that are forgotten with their last connection, and what is let go of
    /// then.
    pub leave: Vec<(ListenerIndex, Arc<()>)>,
    /// Those that are back.
    pub stay: Vec<ListenerIndex>,
}

/// Room for one update.
pub struct UpdateRoom(Reserved);

impl Shard {
    /// Keeps room for an update.
    pub fn reserve_update(&self) -> Result<UpdateRoom, MailboxError> {
        self.remote.reserve().map(UpdateRoom)
    }
}

impl UpdateRoom {
    /// Has the shard do what an update says.
    pub fn fill(self, update: Update) {
        self.0.send(Box::new(move || {
            if let Some(context) = Context::current() {
                update.apply(&context);
            }
        }));
    }
}

impl Update {
    fn apply(self, context: &Rc<Context>) {
        for stock in self.stocks {
            context.pools.add_namespace(stock);
        }
        for index in self.gone {
            context.stop_listener(index, Namespace::default());
        }
        context.change_listeners(self.listeners);
        if let Some(generation) = self.generation {
            context.set_generation(generation);
        }
        for namespace in self.stopped {
            context.stop_listener(ListenerIndex::CAPTURE, namespace);
            context.pools.forget_namespace(namespace);
        }
        for listen_socket in self.listen_sockets {
            // As when accepting fails at any later time: the others go on.
            if let Err(error) = accept::spawn(context, listen_socket) {
                tracing::error!(%error, "a listener of the new configuration cannot accept");
            }
        }
        if let LogUpdate::Replaced(sink) = self.log {
            context.telemetry.set_log(sink);
        }
        let cells = &context.telemetry.cells;
        for index in self.names.stay {
            cells.listener_stays(index);
        }
        for (index, token) in self.names.leave {
            cells.listener_leaves(index, token);
        }
    }
}
