//! The main thread while the proxy serves: it waits for events and does periodic
//! work.

use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use super::slots::Slots;
use super::{Proxy, reserve};
use crate::app::Failure;
use crate::app::captured::Captured;
use crate::capture::settings::Settings;
use crate::clock;
use crate::control::Event;
use crate::proxy::drop_spares;
use crate::ring::slack;
use crate::telemetry::handshakes_have_ended;
use crate::workload::memory::{self, MappedFiles};

/// How often the main thread looks whether captured cgroups are still those
/// that their paths name, and whether there is memory to give back. To attach
/// takes a few hundred milliseconds, and all of it is to take a second.
const LOOK_AROUND_EVERY: Duration = Duration::from_millis(500);

/// How long shards are given to free what a burst has left them.
const SPARES_DROPPED_WITHIN: Duration = Duration::from_millis(100);

/// Looks without a TLS handshake after which the last one is long enough ago: five
/// seconds.
const LULL_LOOKS: u32 = 10;

/// What is looked after.
#[derive(Default)]
pub(super) struct Housekeeping {
    /// It had when the main thread last looked around.
    burst_has_ended: bool,
    /// Slots of the token table.
    slots: Slots,
    handshakes: HandshakeLull,
}

/// How many looks ago the last TLS handshake was; `None`: what it left was dealt
/// with.
#[derive(Debug, Default)]
struct HandshakeLull(Option<u32>);

impl HandshakeLull {
    /// Notes whether there were any since the last look. True once after each
    /// series of them.
    fn begins(&mut self, handshakes_have_ended: bool) -> bool {
        let quiet = match (handshakes_have_ended, self.0) {
            (true, _) => Some(0),
            (false, quiet) => quiet.map(|looks| looks + 1),
        };
        let begins = quiet.is_some_and(|looks| looks >= LULL_LOOKS);
        self.0 = quiet.filter(|_| !begins);
        begins
    }
}

impl Proxy {
    /// Serves until it is told to drain; reloads on the way.
    pub(crate) fn serve(&mut self) {
        // By the clock: events may come more often than it is time to look.
        let mut next_look = clock::now() + LOOK_AROUND_EVERY;
        loop {
            let wait = next_look.saturating_duration_since(clock::now());
            match self.events.recv_timeout(wait) {
                Ok(Event::Reload) => self.reload(),
                Ok(Event::Drain) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if clock::now() >= next_look {
                self.look_around();
                next_look = clock::now()
                    + match self.housekeeping.burst_has_ended {
                        true => SPARES_DROPPED_WITHIN,
                        false => LOOK_AROUND_EVERY,
                    };
            }
        }
    }

    /// What comes up by itself.
    fn look_around(&mut self) {
        self.follow_cgroups();
        if let Some(captured) = &self.state.captured {
            self.housekeeping
                .slots
                .look_after(captured, &self.state.readiness);
        }
        self.labels.give_back(&self.state.registry, &self.shards);
        // Not at once, so that the shards have freed what they keep, too. What
        // ran for the burst need not run for what is left.
        if std::mem::replace(
            &mut self.housekeeping.burst_has_ended,
            slack::burst_has_ended(),
        ) {
            memory::give_back_freed();
            MappedFiles::find().unmap();
        }
        // A handshake runs 4 MiB of code that requests over its session do not.
        if self.housekeeping.handshakes.begins(handshakes_have_ended()) {
            MappedFiles::find().unmap();
        }
        if self.housekeeping.burst_has_ended {
            for shard in &self.shards {
                shard.tell(|_| drop_spares());
            }
        }
    }

    fn follow_cgroups(&self) {
        let Some(captured) = &self.state.captured else {
            return;
        };
        let Some(settings) = captured.outdated() else {
            return;
        };
        match self.capture_anew(captured, &settings) {
            Ok(()) => tracing::info!("a captured cgroup was made anew; it is captured again"),
            Err(error) => {
                tracing::error!(%error, "a captured cgroup was made anew and is not captured");
            }
        }
    }

    fn capture_anew(&self, captured: &Captured, settings: &Settings) -> Result<(), Failure> {
        let rooms = reserve(&self.shards)?;
        let generation = self.state.generation();
        let change = captured.prepare(settings, &generation)?.commit();
        change.forget_in(&generation);
        let shards = self.shards.len() as u16;
        for (room, update) in rooms.into_iter().zip(change.updates(shards)) {
            room.fill(update);
        }
        Ok(())
    }

    /// Takes note of what has happened meanwhile; `exec` waits for its command
    /// instead of events.
    pub(crate) fn handle_pending(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            match event {
                Event::Reload => self.reload(),
                Event::Drain => tracing::info!("exec drains when its command has ended"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lull_begins_once_after_each_series_of_handshakes() {
        let mut lull = HandshakeLull::default();
        let quiet = |lull: &mut HandshakeLull, looks| (0..looks).any(|_| lull.begins(false));
        assert!(!quiet(&mut lull, 3 * LULL_LOOKS), "there were none");
        for _ in 0..2 {
            for _ in 0..3 {
                assert!(!lull.begins(true));
                assert!(!quiet(&mut lull, LULL_LOOKS - 1), "they go on");
            }
            assert!(lull.begins(false));
            assert!(!quiet(&mut lull, 3 * LULL_LOOKS), "once");
        }
    }
}
