//! `circuit_breaker.failure_statuses`: answers that count as failures.

use serde_json::Value as Json;

use crate::config::findings::Findings;
use crate::config::read::{Either, Place, Read, Spanned, inline_schema};
use crate::config::setting::Value;
use crate::config::values::{Calls, StatusRange};
use crate::config::yaml::Node;
use crate::policy::codes::Codes;
use crate::policy::statuses::Statuses;

/// All answers that count as failures.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(in crate::config) struct FailureStatuses {
    /// By their status.
    pub(super) statuses: Statuses,
    /// Calls by their code.
    pub(super) codes: Codes,
}

/// One status or more, or codes of calls.
type FailureStatus = Either<StatusRange, Calls>;

impl FailureStatuses {
    fn with(mut self, one: &FailureStatus) -> Self {
        match one {
            Either::Short(range) => self.statuses = self.statuses.with(range.0.clone()),
            Either::Full(calls) => self.codes = self.codes.and(calls.codes()),
        }
        self
    }
}

impl Read for FailureStatuses {
    fn read(node: &Node, place: &Place, findings: &mut Findings) -> Option<Self> {
        let list: Vec<Spanned<FailureStatus>> = Read::read(node, place, findings)?;
        let mut all = Self::default();
        for one in list {
            let with = all.with(&one);
            if with == all {
                Calls::blame_twice(&one, findings);
            }
            all = with;
        }
        Some(all)
    }
}

impl Value<Self> for FailureStatuses {
    fn meaning(&self) -> Self {
        *self
    }

    fn written(all: &Self) -> Option<Json> {
        let statuses = StatusRange::list(all.statuses).into_iter();
        Some(statuses.chain(Calls::list(all.codes)).collect())
    }
}

inline_schema!(FailureStatuses: |generator| generator.subschema_for::<Vec<FailureStatus>>());
