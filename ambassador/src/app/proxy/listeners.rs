//! Compares the listeners of two configurations: which open, stay, change or
//! close.

use std::collections::HashMap;

use crate::app::open_listeners;
use crate::config::checked::Listener;
use crate::config::{Certificates, Checked};
use crate::proxy::listener::ListenerSettings;
use crate::telemetry::{ListenerIndex, Registry};

/// The listeners that there are, by name.
pub(super) type ListenersByName = HashMap<String, (Listener, ListenerIndex)>;

/// Which stay, and which do not.
pub(super) struct Listeners {
    /// Those of the new file that have a socket already, and its old number.
    kept: Vec<(ListenerIndex, Listener)>,
    /// Those that nobody wants any more.
    pub gone: Vec<ListenerIndex>,
}

impl Listeners {
    /// A listener is its address: what else is said of it is what its connections
    /// mean, and needs no other socket.
    pub(super) fn plan(known: &ListenersByName, new: &Checked) -> Self {
        let mut left: Vec<&(Listener, ListenerIndex)> = known.values().collect();
        let mut kept = Vec::new();
        // Those of the same name first: several may want any free port.
        for same_name in [true, false] {
            for listener in &new.listeners {
                if kept
                    .iter()
                    .any(|(_, known): &(_, Listener)| known.name == listener.name)
                {
                    continue;
                }
                let fits = |(old, _): &&(Listener, ListenerIndex)| {
                    old.bind == listener.bind && (!same_name || old.name == listener.name)
                };
                if let Some(at) = left.iter().position(fits) {
                    let (_, index) = left.swap_remove(at);
                    kept.push((*index, listener.clone()));
                }
            }
        }
        Self {
            kept,
            gone: left.iter().map(|(_, index)| *index).collect(),
        }
    }

    /// Whether one of the new file needs a socket.
    pub(super) fn opens(&self, listener: &Listener) -> bool {
        self.kept.iter().all(|(_, kept)| kept.name != listener.name)
    }

    /// What the sockets that are kept mean from now on.
    pub(super) fn listeners(
        &self,
        new: &Checked,
        certificates: &Certificates,
        registry: &Registry,
    ) -> Vec<(ListenerIndex, ListenerSettings)> {
        let settings = |(index, listener): &(ListenerIndex, Listener)| {
            let settings = ListenerSettings {
                index: registry.listener(&listener.name),
                entry: open_listeners::entry(new, listener),
                max_connections: listener.max_connections,
                tls: certificates.of_listener(&listener.name).cloned(),
            };
            (*index, settings)
        };
        self.kept.iter().map(settings).collect()
    }
}

/// The listeners of a configuration, with their numbers.
pub(super) fn by_name(checked: &Checked, registry: &Registry) -> ListenersByName {
    let listeners = checked.listeners.iter().map(|listener| {
        let index = registry.listener(&listener.name);
        (listener.name.clone(), (listener.clone(), index))
    });
    listeners.collect()
}
