//! Keeps the credentials of upstreams fetched: one task for each upstream that has
//! one.

mod aws;
mod aws_keys;
mod command;
mod identity;
mod oauth2;
mod refresh;
pub(super) mod runners;
mod secret_file;
mod source;
mod token;
mod token_answer;
mod token_exchange;
mod token_server;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::HeaderMap;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::https::Answer;
use crate::credential::Secret;
use crate::telemetry::{Registry, UpstreamIndex};
use crate::upstream::credential::UpstreamCredential;

use refresh::Refresh;
use source::Source;

pub(super) use identity::PublicKeys;
pub(super) use source::Surroundings;

/// The credential of an upstream, to be kept fetched.
pub(crate) struct KeptCredential {
    /// The name of the upstream.
    pub upstream: Arc<str>,
    /// Where it is counted.
    pub label: UpstreamIndex,
    /// What requests get.
    pub credential: Arc<UpstreamCredential>,
}

/// How long what an answer gives is valid, or why it gives nothing, read in each way in
/// which servers write it. `sent` is the secret of the question, `now` in seconds since
/// 1970.
pub fn lifetimes(answer: &[u8], sent: &[u8], now: u64) -> Vec<Result<Duration, String>> {
    let (head, body) = answer.split_at(answer.len().min(1));
    let status = match head {
        [b'2'] => StatusCode::OK,
        _ => StatusCode::BAD_REQUEST,
    };
    let answer = Answer {
        status,
        fields: HeaderMap::new(),
        body: Secret::from(body.to_vec()),
    };
    let sent = Secret::from(sent.to_vec());
    let read = [
        token_answer::access_token(&answer, &[&sent]).map(|it| it.lifetime),
        token_exchange::generated(&answer, &sent, now).map(|it| it.lifetime),
        aws::assumed(&answer, &sent, now).map(|it| it.lifetime),
        aws::given(&answer, Some(&sent), now).map(|it| it.lifetime),
    ];
    let told = |error: token_answer::ServerError| error.to_string();
    read.into_iter().map(|it| it.map_err(told)).collect()
}

/// Ends with its handle.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Keeps the newest list of credentials that came in fetched, until the sender is
/// gone. One that stays in the list goes on as it was.
pub(super) async fn run(
    mut wanted: mpsc::Receiver<Vec<KeptCredential>>,
    registry: Arc<Registry>,
    surroundings: Surroundings,
) {
    // By what tells one credential from another: its place in memory, which its task
    // keeps.
    let mut tasks: HashMap<usize, Task> = HashMap::new();
    while let Some(wanted) = wanted.recv().await {
        let wanted: HashMap<usize, KeptCredential> = wanted
            .into_iter()
            .map(|kept| (Arc::as_ptr(&kept.credential).addr(), kept))
            .collect();
        tasks.retain(|place, _| wanted.contains_key(place));
        for (place, kept) in wanted {
            tasks.entry(place).or_insert_with(|| {
                let refresh = Refresh {
                    source: Source::of(&kept.credential.auth, &surroundings),
                    kept,
                    registry: Arc::clone(&registry),
                };
                Task(tokio::spawn(refresh.keep()))
            });
        }
    }
}
