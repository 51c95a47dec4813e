//! The figures of all shards, collected by asking each.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::{self, Instant};
use crate::telemetry::{Call, CallQuery, Snapshot};

/// One shard, asked from the control thread: leaves the sender in the shard's mailbox
/// and returns. Dropping the sender means "no".
pub(crate) trait AskShard: Send + Sync {
    /// For a copy of its counters.
    fn counters(&self, reply: oneshot::Sender<Snapshot>);

    /// For failures that it keeps.
    fn failures(&self, query: CallQuery, reply: oneshot::Sender<Vec<Call>>);
}

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

/// Asks all shards at once and waits for each up to [`ANSWER_WITHIN`].
async fn ask_all<T>(
    shards: &[Box<dyn AskShard>],
    ask: impl Fn(&dyn AskShard, oneshot::Sender<T>),
) -> Vec<Option<T>> {
    let deadline = tokio::time::Instant::now() + ANSWER_WITHIN;
    let asked: Vec<_> = shards
        .iter()
        .map(|shard| {
            let (reply, answer) = oneshot::channel();
            ask(&**shard, reply);
            answer
        })
        .collect();
    let mut answers = Vec::with_capacity(asked.len());
    for answer in asked {
        let answer = tokio::time::timeout_at(deadline, answer).await;
        answers.push(answer.ok().and_then(Result::ok));
    }
    answers
}

/// The failures that are asked for, of all shards, the newest first.
pub(super) async fn failures(shards: &[Box<dyn AskShard>], query: &CallQuery) -> Vec<Call> {
    let answers = ask_all(shards, |shard, reply| shard.failures(query.clone(), reply)).await;
    let mut calls: Vec<_> = answers.into_iter().flatten().flatten().collect();
    calls.sort_by_key(|call| std::cmp::Reverse(call.ended_unix_ms()));
    calls.truncate(query.most);
    calls
}

impl Figures {
    pub(super) fn new(shards: usize) -> Self {
        Self {
            last: Mutex::new(vec![None; shards]),
            started: clock::now(),
        }
    }

    /// Asks all shards at once and waits for each up to [`ANSWER_WITHIN`].
    pub(super) async fn collect(&self, shards: &[Box<dyn AskShard>]) -> Collected {
        self.sum(ask_all(shards, |shard, reply| shard.counters(reply)).await)
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
