//! SIGTERM and SIGINT drain, SIGHUP reloads.

use std::io;
use std::sync::mpsc::SyncSender;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Event, raise};

pub(super) struct Handlers {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Handlers {
    /// Takes the signals over; must run inside the runtime.
    pub(super) fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    pub(super) async fn run(mut self, events: &SyncSender<Event>) {
        loop {
            let (name, event) = tokio::select! {
                _ = self.terminate.recv() => ("SIGTERM", Event::Drain),
                _ = self.interrupt.recv() => ("SIGINT", Event::Drain),
                _ = self.hangup.recv() => ("SIGHUP", Event::Reload),
            };
            tracing::info!(signal = name, ?event, "signal received");
            raise(events, event);
        }
    }
}
