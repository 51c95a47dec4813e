//! The end: a drain, what is left when it is over, and the summary of `exec`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use super::Proxy;
use crate::app::captured::Captured;
use crate::app::figures;
use crate::capture::Verdict;
use crate::clock::{self, Instant};
use crate::config::Checked;
use crate::control::{Event, Phase};
use crate::shard::{Shard, accept};
use crate::telemetry::Snapshot;

/// How often the main thread looks whether the shards have ended, while it
/// waits for them.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long shards may take to cut what is left after the deadline of a drain.
const CUT_WITHIN: Duration = Duration::from_millis(500);

/// The summary of a run without traffic.
const NO_TRAFFIC: &str = "no call to sum up: the command made no TCP connection that is captured \
     (loopback, UDP and what `capture` leaves out are not)\n";

impl Proxy {
    /// Goes on serving for `drain_delay`, while captured programs still run;
    /// then finishes what is in flight, within `drain_timeout`. Another drain
    /// event cuts what is left.
    pub(crate) fn drain(mut self) {
        self.state.readiness.set(Phase::Draining);
        let checked = Arc::clone(&self.state.current().checked);
        self.delay(&checked);
        let deadline = clock::now() + checked.drain_timeout;
        tracing::info!(timeout = ?checked.drain_timeout, "draining");
        self.finish(deadline, accept::CLOSING_GRACE);
        let captured = self.state.captured.as_ref();
        if captured.is_some_and(Captured::is_pinned) {
            tracing::warn!(
                "on_failure: refuse: captured programs cannot connect until the next start; \
                 `ambassador doctor --clean` ends that, 10 s from now"
            );
        }
    }

    /// Ends, giving what is in flight until `deadline`, and who is about to
    /// connect or to ask `grace`; gives what all shards have counted.
    pub(crate) fn finish(&mut self, deadline: Instant, grace: Duration) -> Snapshot {
        for shard in &self.shards {
            shard.drain(deadline, grace);
        }
        while !self.shards.iter().all(Shard::has_ended) {
            if clock::now() >= deadline + CUT_WITHIN {
                tracing::error!("a shard hangs; its last counts are lost");
                break;
            }
            match self.events.recv_timeout(LOOK_EVERY) {
                Ok(Event::Drain) => {
                    for shard in &self.shards {
                        shard.drain(clock::now(), Duration::ZERO);
                    }
                }
                Ok(Event::Reload) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(LOOK_EVERY),
            }
        }
        let mut sum = Snapshot::default();
        for shard in self.shards.drain(..).filter(Shard::has_ended) {
            match shard.join() {
                Ok(counted) => sum.merge(&counted),
                Err(error) => tracing::error!(%error, "a shard failed"),
            }
        }
        if let Some(log) = self.log.take() {
            log.finish();
        }
        sum
    }

    /// The summary of what [`Proxy::finish`] gave.
    pub(crate) fn summary(&self, sum: &Snapshot) -> String {
        let generation = self.state.generation();
        let figures = figures::summary(sum, &self.state.registry, &generation);
        let mut text = figures.unwrap_or_else(|| NO_TRAFFIC.to_owned());
        if let Some(captured) = &self.state.captured {
            for (verdict, count) in captured.verdicts() {
                let is_own = matches!(verdict, Verdict::Canary | Verdict::CanaryFailed);
                if count > 0 && !is_own {
                    text.push_str(&format!("connects {}: {count}\n", verdict.as_str()));
                }
            }
        }
        text
    }

    fn delay(&self, checked: &Checked) {
        if checked.drain_delay.is_zero() {
            return;
        }
        let until = clock::now() + checked.drain_delay;
        let groups: Vec<PathBuf> = checked
            .capture
            .iter()
            .flat_map(|capture| &capture.targets)
            .map(|target| target.cgroup.clone())
            .collect();
        tracing::info!(delay = ?checked.drain_delay, "serving on before the drain");
        while clock::now() < until {
            let empty = !groups.is_empty() && groups.iter().all(|group| is_empty(group));
            if empty || self.events.recv_timeout(LOOK_EVERY * 5) == Ok(Event::Drain) {
                return;
            }
        }
    }
}

fn is_empty(cgroup: &Path) -> bool {
    let events = std::fs::read_to_string(cgroup.join("cgroup.events"));
    events.is_ok_and(|events| events.lines().any(|line| line == "populated 0"))
}
