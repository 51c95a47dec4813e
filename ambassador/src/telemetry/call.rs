//! Requests that have failed, as they went: what `ambassador why` tells.
//!
//! A shard keeps its newest ones. A request that goes well leaves nothing here.

mod document;

use std::collections::VecDeque;

use smallvec::SmallVec;

use super::access_log::{Line, LogRecord, has_member, has_path};
use super::journal::Step;
use super::record::RequestRecord;
use crate::clock::Instant;

pub(crate) use document::Names;

/// Failures that all shards of a process keep together at most.
const KEPT_MAX: usize = 2_000;
/// Bytes that they take together at most; a text is as long as its sender likes.
const KEPT_BYTES_MAX: usize = 2 * 1024 * 1024;
/// A shard keeps so many at least, however many shards there are.
const KEPT_BY_SHARD_MIN: usize = 64;

/// Bytes of a line, and steps, for which a call needs no memory of its own. What is kept
/// for long in pieces of its own keeps the pages that it lies in from being given back.
const MEMBERS: usize = 192;
const STEPS: usize = 3;

/// One request that has ended: its line of the access log, and its steps.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// Those of its line.
    members: SmallVec<[u8; MEMBERS]>,
    steps: SmallVec<[Step; STEPS]>,
    steps_left_out: u32,
    /// Without a journal.
    record: RequestRecord,
    cancelled: bool,
    ended: Instant,
    ended_unix_ms: u64,
}

/// The newest failures of one shard.
#[derive(Debug)]
pub(crate) struct Failures {
    calls: VecDeque<Call>,
    bytes: usize,
    calls_max: usize,
    bytes_max: usize,
}

/// Which failures are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CallQuery {
    /// The one with this `x-request-id`.
    pub request_id: Option<String>,
    /// Those to one of these authorities; empty: to any.
    pub authorities: Vec<String>,
    /// Those with this path, whatever their query is.
    pub path: Option<String>,
    /// So many at most, the newest.
    pub most: usize,
}

impl Call {
    /// One that has ended just now.
    pub(super) fn new(
        line: &Line,
        record: &mut RequestRecord,
        cancelled: bool,
        ended: Instant,
        ended_unix_ms: u64,
    ) -> Self {
        let steps = std::mem::take(&mut record.passage.journal).steps();
        let steps = steps.unwrap_or_default();
        Self {
            members: line.members().into(),
            steps: steps.iter().copied().collect(),
            steps_left_out: steps.left_out(),
            record: record.clone(),
            cancelled,
            ended,
            ended_unix_ms,
        }
    }

    /// When it ended, in milliseconds since 1970.
    pub(crate) fn ended_unix_ms(&self) -> u64 {
        self.ended_unix_ms
    }

    fn logged(&self) -> LogRecord<'_> {
        LogRecord::Request {
            record: &self.record,
            cancelled: self.cancelled,
        }
    }

    /// Bytes that it takes.
    fn bytes(&self) -> usize {
        let members = if self.members.spilled() {
            self.members.capacity()
        } else {
            0
        };
        let steps = if self.steps.spilled() {
            self.steps.capacity()
        } else {
            0
        };
        size_of::<Self>() + members + steps * size_of::<Step>()
    }
}

impl Default for Failures {
    fn default() -> Self {
        Self::of_shards(1)
    }
}

impl Failures {
    /// Those of one of so many shards.
    pub(crate) fn of_shards(shards: usize) -> Self {
        let shards = shards.max(1);
        let calls_max = (KEPT_MAX / shards).max(KEPT_BY_SHARD_MIN);
        Self {
            calls: VecDeque::new(),
            bytes: 0,
            calls_max,
            bytes_max: KEPT_BYTES_MAX / KEPT_MAX * calls_max,
        }
    }

    /// Keeps one more; the oldest make room.
    pub(super) fn keep(&mut self, call: Call) {
        self.bytes += call.bytes();
        self.calls.push_back(call);
        while self.calls.len() > self.calls_max || self.bytes > self.bytes_max {
            let Some(oldest) = self.calls.pop_front() else {
                break;
            };
            self.bytes -= oldest.bytes();
        }
    }

    /// Copies of those that are asked for, the newest first.
    pub(crate) fn find(&self, query: &CallQuery) -> Vec<Call> {
        let newest_first = self.calls.iter().rev();
        let matching = newest_first.filter(|call| query.matches(&call.members));
        matching.take(query.most).cloned().collect()
    }
}

impl CallQuery {
    fn matches(&self, members: &[u8]) -> bool {
        let (id, path) = (self.request_id.as_ref(), self.path.as_ref());
        let to = |authority: &String| has_member(members, "authority", authority.as_bytes());
        id.is_none_or(|id| has_member(members, "request_id", id.as_bytes()))
            && path.is_none_or(|path| has_path(members, path.as_bytes()))
            && (self.authorities.is_empty() || self.authorities.iter().any(to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::telemetry::record::{Description, Passage};
    use crate::telemetry::registry::ListenerIndex;

    fn call(request_id: &str, path: &str) -> Call {
        let mut line = Line::default();
        line.describe(Description {
            method: b"GET",
            authority: b"shop.test",
            path: path.as_bytes(),
            request_id: request_id.as_bytes(),
            peer_id: b"",
        });
        let now = clock::now();
        let mut record = RequestRecord::new(Passage::new(ListenerIndex::CAPTURE, now));
        Call::new(&line, &mut record, false, now, 7)
    }

    fn found(failures: &Failures, query: &CallQuery) -> usize {
        failures.find(query).len()
    }

    fn all() -> CallQuery {
        CallQuery {
            most: usize::MAX,
            ..CallQuery::default()
        }
    }

    #[test]
    fn one_takes_little() {
        let call = call(
            "0190a5d2-3f6b-7c7e-9a64-5a3c3b6f7a11",
            "/api/v1/orders/4711",
        );
        assert!(call.bytes() <= 800, "{}", call.bytes());
    }

    #[test]
    fn the_newest_are_kept() {
        let mut failures = Failures::of_shards(KEPT_MAX);
        for number in 0..KEPT_BY_SHARD_MIN + 3 {
            failures.keep(call(&number.to_string(), "/"));
        }
        assert_eq!(found(&failures, &all()), KEPT_BY_SHARD_MIN);
        let with = |id: &str| CallQuery {
            request_id: Some(id.to_owned()),
            ..all()
        };
        assert_eq!(found(&failures, &with("2")), 0);
        assert_eq!(found(&failures, &with("3")), 1);
        let newest = &failures.find(&CallQuery { most: 1, ..all() })[0];
        assert!(
            has_member(&newest.members, "request_id", b"66"),
            "{newest:?}"
        );
    }

    #[test]
    fn long_texts_do_not_take_more_memory() {
        let mut failures = Failures::of_shards(KEPT_MAX);
        let path = format!("/{}", "a".repeat(64 * 1024));
        for _ in 0..KEPT_BY_SHARD_MIN * 4 {
            failures.keep(call(&path, &path));
        }
        let kept = failures.calls.iter().map(Call::bytes).sum::<usize>();
        assert_eq!(kept, failures.bytes);
        assert!(kept <= failures.bytes_max, "{kept}");
        assert!(!failures.calls.is_empty());
    }

    #[test]
    fn they_are_found_by_url() {
        let mut failures = Failures::of_shards(1);
        for path in ["/a", "/a?b=1", "/ab", "/a\"b"] {
            failures.keep(call("1", path));
        }
        let at = |authority: &str, path: &str| {
            let query = CallQuery {
                authorities: vec![authority.to_owned(), format!("{authority}:80")],
                path: Some(path.to_owned()),
                ..all()
            };
            found(&failures, &query)
        };
        assert_eq!(at("shop.test", "/a"), 2);
        assert_eq!(at("shop.test", "/a\"b"), 1);
        assert_eq!(at("shop", "/a"), 0);
    }
}
