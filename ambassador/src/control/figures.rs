//! The figures of all shards, collected by asking each.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::{self, Instant};
use crate::telemetry::Snapshot;

/// Asks one shard for a copy of its counters: runs on the control thread, leaves
/// the sender in the shard's mailbox and returns. Dropping the sender means "no".
pub(crate) type AskShard = Box<dyn Fn(oneshot::Sender<Snapshot>) + Send + Sync>;

/// A shard that needs longer is shown as it was when it last answered.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// The last answer of each shard. Counters must not run backwards for a shard
/// that is slow once, so an old answer is better than none.
#[derive(Debug)]
pub(super) struct Figures {
    last: Mutex<Vec<Option<(Instant, Snapshot)>>>,
    started: Instant,
}

/// What a round of asking gave.
pub(super) struct Collected {
    pub(super) sum: Snapshot,
    /// The age of the oldest answer in it.
    pub(super) staleness: Duration,
    /// Numbers of the shards that did not answer this time.
    pub(super) silent: Vec<usize>,
}

impl Figures {
    pub(super) fn new(shards: usize) -> Self {
        Self {
            last: Mutex::new(vec![None; shards]),
            started: clock::now(),
        }
    }

    /// Asks all shards at once and waits for each up to [`ANSWER_WITHIN`].
    pub(super) async fn collect(&self, shards: &[AskShard]) -> Collected {
        let deadline = tokio::time::Instant::now() + ANSWER_WITHIN;
        let asked: Vec<_> = shards
            .iter()
            .map(|ask| {
                let (reply, answer) = oneshot::channel();
                ask(reply);
                answer
            })
            .collect();
        let mut answers = Vec::with_capacity(asked.len());
        for answer in asked {
            let answer = tokio::time::timeout_at(deadline, answer).await;
            answers.push(answer.ok().and_then(Result::ok));
        }
        self.sum(answers)
    }

    fn sum(&self, answers: Vec<Option<Snapshot>>) -> Collected {
        let now = clock::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let mut collected = Collected {
            sum: Snapshot::default(),
            staleness: Duration::ZERO,
            silent: Vec::new(),
        };
        for (shard, (answer, last)) in answers.into_iter().zip(last.iter_mut()).enumerate() {
            match answer {
                Some(snapshot) => *last = Some((now, snapshot)),
                None => collected.silent.push(shard),
            }
            let at = last.as_ref().map_or(self.started, |(at, _)| *at);
            collected.staleness = collected.staleness.max(now - at);
            if let Some((_, snapshot)) = last {
                collected.sum.merge(snapshot);
            }
        }
        collected
    }
}
