//! The configuration, read again: all of it comes into force, or nothing does.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::{Common, Proxy, accept_on, open_log};
use crate::app::{Failure, advice, opened};
use crate::config::checked::Listener;
use crate::config::{Checked, Mistakes};
use crate::control::Fingerprint;
use crate::proxy::generation::Generation;
use crate::proxy::listening::Meaning;
use crate::proxy::room;
use crate::shard;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::{ListenerIndex, Registry};
use crate::upstream::dial::Namespace;

/// The listeners that there are, by name.
pub(super) type Known = HashMap<String, (Listener, ListenerIndex)>;

/// A file that was refused, and why.
#[derive(PartialEq, Eq)]
pub(super) struct Refused {
    /// None where it could not be read to the end.
    content: Option<Fingerprint>,
    why: String,
}

/// What became of a good file.
enum Taken {
    InForce,
    Unchanged,
}

/// What becomes of the listeners.
struct Listeners {
    /// Those of the new file that have a socket already, and its old number.
    kept: Vec<(ListenerIndex, Listener)>,
    /// Those that nobody wants any more.
    gone: Vec<ListenerIndex>,
}

impl Proxy {
    /// Reads the configuration again; a bad file changes nothing. What is wrong
    /// with it is told once: an editor and a signal may both ask.
    pub(crate) fn reload(&mut self) {
        if let Some(log) = &self.log {
            log.reopen();
        }
        let Some((file, before)) = self.file.clone() else {
            return;
        };
        let (content, taken) = match self.loader.load(&file) {
            Ok(loaded) => {
                let taken = self.take(&file, &before, loaded.checked);
                (Some(loaded.content), taken)
            }
            Err(why) => (None, Err(format!("{}: {why}", file.display()))),
        };
        let control = &self.common.registry.control;
        match taken {
            Ok(taken) => {
                control.reloaded(crate::clock::unix_ms() / 1_000);
                self.refused = None;
                let file = file.display();
                match taken {
                    Taken::InForce => tracing::info!(%file, "configuration reloaded"),
                    Taken::Unchanged => {
                        tracing::info!(%file, "configuration read again: nothing has changed");
                    }
                }
            }
            Err(why) => {
                let refused = Some(Refused { content, why });
                if refused == self.refused {
                    let file = file.display();
                    tracing::info!(%file, "configuration not reloaded: what was wrong with it still is");
                    return;
                }
                control.reload_failed();
                tracing::error!("configuration not reloaded, the old one stays:");
                let why = refused.as_ref().map_or("", |refused| &refused.why);
                why.lines().for_each(|line| tracing::error!("{line}"));
                self.refused = refused;
            }
        }
    }

    fn take(
        &mut self,
        file: &Path,
        before: &Checked,
        new: Result<Checked, Mistakes>,
    ) -> Result<Taken, String> {
        let new = new.and_then(|new| {
            before.check_reload(&new, &file.display().to_string())?;
            Ok(new)
        });
        let new = new.map_err(|mistakes| mistakes.to_string())?;
        if new == *before {
            return Ok(Taken::Unchanged);
        }
        let mut overridden = new.clone();
        (self.overrides)(&mut overridden);
        self.apply(overridden)
            .map_err(|failure| failure.to_string())?;
        self.file = Some((file.to_owned(), new));
        Ok(Taken::InForce)
    }

    /// Puts a new configuration in force. What can fail comes first, and leaves
    /// nothing when it is dropped; capture is the last of it.
    fn apply(&mut self, new: Checked) -> Result<(), Failure> {
        let common = Arc::clone(&self.common);
        let shards = self.shards.len() as u16;
        let registry = &common.registry;
        let (old, known) = {
            let now = common.now();
            (Arc::clone(&now.checked), now.listeners.clone())
        };
        let listeners = Listeners::plan(&known, &new);
        let opened = opened::open(&new, registry, shards, |listener| listeners.opens(listener))?;
        let log = match new.access_log != old.access_log {
            true => Some(
                new.access_log
                    .as_ref()
                    .map(|log| open_log(log, registry).map_err(advice::named_too_late))
                    .transpose()?,
            ),
            false => None,
        };
        let generation = Arc::new(Generation::new(
            new.routes.clone(),
            registry,
            Some(&common.generation()),
        ));
        self.labels.follow(&generation);
        let change = common.update_capture(&new, &generation);
        let change = change.inspect_err(|_| {
            if let Some(log) = log.as_ref().and_then(Option::as_ref) {
                log.give_up();
            }
        })?;
        // From here on nothing fails.
        generation.put_in_force();
        room::set_total(new.max_connections);
        common.memory.change(new.memory_limit);
        self.hand_out(
            &listeners.meanings(&new, registry),
            &listeners.gone,
            &generation,
        );
        for opened in opened {
            for (shard, intake) in self.shards.iter().zip(opened.intakes()) {
                accept_on(shard, intake);
            }
        }
        self.change_capture(change);
        if let Some(log) = log {
            self.change_log(log);
        }
        {
            let mut now = common.now();
            now.listeners = by_name(&new, registry);
            self.labels
                .follow_listeners(&known, &now.listeners, &self.shards);
            now.checked = Arc::new(new);
            now.generation = generation;
        }
        common.watch_names(&self.control);
        Ok(())
    }

    /// Gives every shard the new generation, and its listeners their meaning, at
    /// once.
    fn hand_out(
        &self,
        meanings: &[(ListenerIndex, Meaning)],
        gone: &[ListenerIndex],
        generation: &Arc<Generation>,
    ) {
        let shards = self.shards.len() as u16;
        for shard in &self.shards {
            let (meanings, gone) = (meanings.to_vec(), gone.to_vec());
            let generation = Arc::clone(generation);
            shard.tell(move |context| {
                for index in gone {
                    context.stop_listener(index, Namespace::default());
                }
                context.change_listeners(meanings);
                context.set_generation(generation);
                shard::keep_warm(context, shards);
            });
        }
    }

    fn change_log(&mut self, log: Option<AccessLog>) {
        for shard in &self.shards {
            let sink = log.as_ref().map(AccessLog::sink);
            shard.tell(move |context| context.telemetry.set_log(sink));
        }
        if let Some(before) = std::mem::replace(&mut self.log, log) {
            before.finish();
        }
    }
}

impl Listeners {
    /// A listener is its address: what else is said of it is what its connections
    /// mean, and needs no other socket.
    fn plan(known: &Known, new: &Checked) -> Self {
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

    fn opens(&self, listener: &Listener) -> bool {
        self.kept.iter().all(|(_, kept)| kept.name != listener.name)
    }

    /// What the sockets that are kept mean from now on.
    fn meanings(&self, new: &Checked, registry: &Registry) -> Vec<(ListenerIndex, Meaning)> {
        let meaning = |(index, listener): &(ListenerIndex, Listener)| {
            let meaning = Meaning {
                index: registry.listener(&listener.name),
                entry: opened::entry(new, listener),
                max_connections: listener.max_connections,
            };
            (*index, meaning)
        };
        self.kept.iter().map(meaning).collect()
    }
}

/// The listeners of a configuration, with their numbers.
pub(super) fn by_name(checked: &Checked, registry: &Registry) -> Known {
    let listeners = checked.listeners.iter().map(|listener| {
        let index = registry.listener(&listener.name);
        (listener.name.clone(), (listener.clone(), index))
    });
    listeners.collect()
}

impl Common {
    /// Captures what the new configuration says. Without `capture` nothing is.
    fn update_capture(
        &self,
        new: &Checked,
        generation: &Generation,
    ) -> Result<super::Change, Failure> {
        let nothing = super::Settings::default();
        let settings = new.capture.as_ref().unwrap_or(&nothing);
        match &self.captured {
            Some(captured) => captured.update(settings, generation),
            None if settings.targets.is_empty() => Ok(super::Change::default()),
            None => Err(Failure::Unavailable(
                "capture: needs a restart, the proxy was started without and has given its \
                 privileges up"
                    .to_owned(),
            )),
        }
    }
}
