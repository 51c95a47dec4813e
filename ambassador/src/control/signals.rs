//! SIGTERM and SIGINT drain, SIGHUP reloads. They have a thread of their own, so
//! that they are heard whatever else hangs.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Deadline, Event, raise};

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

    /// Hands them on until the process ends.
    pub(super) fn start(events: SyncSender<Event>, deadline: Arc<Deadline>) -> io::Result<()> {
        let runtime: Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?;
        let handlers = {
            let _inside = runtime.enter();
            Self::install()?
        };
        let run = move || runtime.block_on(handlers.run(&events, &deadline));
        thread::Builder::new().name("signals".into()).spawn(run)?;
        Ok(())
    }

    pub(super) async fn run(mut self, events: &SyncSender<Event>, deadline: &Deadline) {
        loop {
            let (name, event) = tokio::select! {
                _ = self.terminate.recv() => ("SIGTERM", Event::Drain),
                _ = self.interrupt.recv() => ("SIGINT", Event::Drain),
                _ = self.hangup.recv() => ("SIGHUP", Event::Reload),
            };
            tracing::info!(signal = name, ?event, "signal received");
            if event == Event::Drain {
                deadline.arm();
            }
            raise(events, event);
        }
    }
}
