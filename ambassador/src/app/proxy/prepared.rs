//! A reload that can be committed. Everything that can fail has made a value, which
//! undoes itself when it is dropped; committing it cannot fail.
//!
//! Listeners are open and nobody accepts on them, the log has a writer and no lines,
//! the kernel has rules under an epoch that is not in force, and there is room in
//! each shard's mailbox for what it will be told. Capture comes last, since captured
//! programs notice what is attached to them.

use std::sync::Arc;

use super::access_log::LogChange;
use super::labels::NewNames;
use super::listeners::{self, Listeners};
use super::{Current, Proxy, ProxyState, reserve};
use crate::app::Failure;
use crate::app::captured::{self, Change};
use crate::app::open_listeners::{self, OpenListener};
use crate::capture::settings::Settings;
use crate::config::checked::Listener;
use crate::config::{Certificates, Checked};
use crate::proxy::generation::Generation;
use crate::proxy::listener::ListenerSettings;
use crate::proxy::room;
use crate::shard::{Shard, Update, UpdateRoom};
use crate::telemetry::ListenerIndex;

/// A configuration about to be in force.
#[must_use = "dropped, it changes nothing"]
pub(super) struct Prepared<'a> {
    new: Checked,
    gone: Vec<ListenerIndex>,
    listeners: Vec<(ListenerIndex, ListenerSettings)>,
    opened: Vec<OpenListener>,
    log: LogChange,
    generation: Arc<Generation>,
    rooms: Vec<UpdateRoom>,
    /// `None`: this process captures nothing.
    capture: Option<captured::Prepared<'a>>,
    names: NewNames<'a>,
    certificates: Certificates,
}

impl<'a> Prepared<'a> {
    /// Does all that can fail.
    pub(super) fn prepare(
        file: &str,
        new: Checked,
        state: &'a ProxyState,
        shards: &[Shard],
    ) -> Result<Self, Failure> {
        let registry = &state.registry;
        let names = NewNames::from_now_on(registry);
        let (old, known, now_open) = {
            let now = state.current();
            let certificates = now.certificates.clone();
            let certificates = certificates.with_identity(state.identity.borrow().clone());
            (
                Arc::clone(&now.checked),
                now.listeners.clone(),
                certificates,
            )
        };
        let plan = Listeners::plan(&known, &new);
        let count = shards.len() as u16;
        let certificates = Certificates::open(&new, file, &now_open);
        let certificates = certificates.map_err(Failure::Config)?;
        let opens = |listener: &Listener| plan.opens(listener);
        let opened = open_listeners::open(&new, &certificates, registry, count, opens)?;
        let log = LogChange::prepare(&old, &new, registry)?;
        let before = state.generation();
        let generation = Generation::new(new.routes.clone(), registry, Some(&before));
        let generation = generation.with_tls(certificates.of_upstreams(&new.routes.upstreams));
        let generation = Arc::new(generation);
        let rooms = reserve(shards)?;
        let capture = state.prepare_capture(&new, &generation)?;
        Ok(Self {
            listeners: plan.listeners(&new, &certificates, registry),
            gone: plan.gone,
            new,
            opened,
            log,
            generation,
            rooms,
            capture,
            names,
            certificates,
        })
    }

    /// Puts it in force.
    pub(super) fn commit(self, running: &mut Proxy) {
        let Self {
            new,
            gone,
            listeners,
            opened,
            log,
            generation,
            rooms,
            capture,
            names,
            certificates,
        } = self;
        let state = Arc::clone(&running.state);
        let shards = rooms.len() as u16;
        names.keep();
        let change = capture.map_or_else(Change::default, captured::Prepared::commit);
        generation.put_in_force();
        change.forget_in(&generation);
        room::set_total(new.max_connections);
        state.memory.change(new.memory_limit);
        let leaving = {
            let mut current = state.current();
            let listeners = listeners::by_name(&new, &state.registry);
            let labels = &mut running.labels;
            labels.follow(&generation);
            let leaving = labels.follow_listeners(&current.listeners, &listeners);
            *current = Current {
                checked: Arc::new(new),
                generation: Arc::clone(&generation),
                listeners,
                certificates,
            };
            leaving
        };
        let opened = opened.into_iter().map(OpenListener::listen_sockets);
        let mut opened: Vec<_> = opened.map(Vec::into_iter).collect();
        for (room, mut update) in rooms.into_iter().zip(change.updates(shards)) {
            update
                .listen_sockets
                .extend(opened.iter_mut().filter_map(Iterator::next));
            let update = Update {
                generation: Some(Arc::clone(&generation)),
                gone: gone.clone(),
                listeners: listeners.clone(),
                log: log.of_shard(),
                names: leaving.clone(),
                ..update
            };
            room.fill(update);
        }
        if let LogChange::To(log) = log
            && let Some(before) = std::mem::replace(&mut running.log, log)
        {
            before.finish();
        }
        state.watch_names(&running.control);
        let watched = state.certificates();
        running.control.watch_certificates(watched);
        state.keep_credentials(&running.control);
        state.check_health(&running.control);
        running.control.keep_identity(state.identity_source());
    }
}

impl ProxyState {
    /// Prepares to capture what a configuration says. Without `capture` nothing is.
    fn prepare_capture(
        &self,
        new: &Checked,
        generation: &Generation,
    ) -> Result<Option<captured::Prepared<'_>>, Failure> {
        let nothing = Settings::default();
        let settings = new.capture.as_ref().unwrap_or(&nothing);
        match &self.captured {
            Some(captured) => captured.prepare(settings, generation).map(Some),
            None if settings.targets.is_empty() => Ok(None),
            None => Err(Failure::Unavailable(
                "capture: needs a restart, the proxy was started without and has given its \
                 privileges up"
                    .to_owned(),
            )),
        }
    }
}
