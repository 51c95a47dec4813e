//! When the circuit breaker changed, as `/metrics` tells who asks often.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::demo::admin::{Admin, Metrics};
use crate::workspace::Failure;

/// How often it asks; changes are told apart where they are further apart.
const INTERVAL: Duration = Duration::from_millis(5);

/// The states, in the order in which an open breaker goes through them.
const STATES: [&str; 3] = ["half-open", "closed", "open"];

/// Watches a breaker until it is asked what it saw.
pub struct Timeline {
    /// Dropped, it ends the thread.
    stop: Sender<()>,
    thread: JoinHandle<Vec<Change>>,
}

/// A change of the breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// When it was seen.
    pub at: Instant,
    /// What the breaker is since: `open`, `half-open` or `closed`.
    pub to: &'static str,
}

impl Timeline {
    /// Watches from now on.
    pub fn watch(admin: Admin) -> Result<Timeline, Failure> {
        let mut before = transitions(&admin.metrics()?);
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut changes = Vec::new();
            let mut go_on = true;
            while go_on {
                // One more look after the end.
                go_on = stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout);
                // What is missed once is seen the next time.
                if let Ok(metrics) = admin.metrics() {
                    let now = transitions(&metrics);
                    changes.extend(changes_between(before, now, Instant::now()));
                    before = now;
                }
            }
            changes
        });
        Ok(Timeline { stop, thread })
    }

    /// All that has happened until now.
    pub fn end(self) -> Vec<Change> {
        drop(self.stop);
        self.thread.join().unwrap_or_default()
    }
}

/// How often the breaker has changed to each of the [`STATES`].
fn transitions(metrics: &Metrics) -> [u64; 3] {
    STATES.map(|to| {
        let labels = [("upstream", "demo"), ("to", to)];
        metrics.sum("ambassador_breaker_transitions_total", &labels) as u64
    })
}

fn changes_between(before: [u64; 3], now: [u64; 3], at: Instant) -> Vec<Change> {
    let grown = STATES.iter().zip(before).zip(now);
    grown
        .filter(|((_, before), now)| now > before)
        .map(|((to, _), _)| Change { at, to })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_seen_at_once_are_in_the_order_of_a_probe() {
        let at = Instant::now();
        let words = |before, now| -> Vec<_> {
            let changes = changes_between(before, now, at);
            changes.iter().map(|change| change.to).collect()
        };
        assert_eq!(words([0, 0, 1], [1, 1, 1]), ["half-open", "closed"]);
        assert_eq!(words([0, 0, 1], [1, 0, 2]), ["half-open", "open"]);
        assert_eq!(words([1, 1, 1], [1, 1, 1]), [""; 0]);
    }
}
