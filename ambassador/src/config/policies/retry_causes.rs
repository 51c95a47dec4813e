//! `retry.on`: what a request is tried again for.

use crate::config::findings::Findings;
use crate::config::read::{Either, Place, Read, Scalar, Spanned, inline_schema};
use crate::config::setting::{Layer, Setting, Shown, View};
use crate::config::values::{Calls, STATUSES_WANTED, StatusRange, value_schemas};
use crate::config::yaml::Node;
use crate::policy::codes::Codes;
use crate::policy::retry::Retry;
use crate::policy::statuses;

/// All that a request is tried again for.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(in crate::config) struct RetryCauses {
    connect_failure: bool,
    reset: bool,
    statuses: statuses::Statuses,
    codes: Codes,
}

/// One cause, or codes of calls.
type OneCause = Either<RetryCause, Calls>;

/// One cause.
enum RetryCause {
    ConnectFailure,
    Reset,
    Statuses(StatusRange),
}

impl RetryCauses {
    fn with(mut self, cause: &OneCause) -> Self {
        match cause {
            Either::Short(RetryCause::ConnectFailure) => self.connect_failure = true,
            Either::Short(RetryCause::Reset) => self.reset = true,
            Either::Short(RetryCause::Statuses(range)) => {
                self.statuses = self.statuses.with(range.0.clone());
            }
            Either::Full(calls) => self.codes = self.codes.and(calls.codes()),
        }
        self
    }
}

impl Scalar for RetryCause {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "connect-failure" => Ok(Self::ConnectFailure),
            "reset" => Ok(Self::Reset),
            _ => StatusRange::parse(text)
                .map(Self::Statuses)
                .map_err(|_| format!("must be connect-failure, reset, or {STATUSES_WANTED}")),
        }
    }
}

impl Read for RetryCauses {
    fn read(node: &Node, place: &Place, findings: &mut Findings) -> Option<Self> {
        let list: Vec<Spanned<OneCause>> = Read::read(node, place, findings)?;
        let mut causes = Self::default();
        for cause in list {
            let with = causes.with(&cause);
            if with == causes {
                Calls::blame_twice(&cause, findings);
            }
            causes = with;
        }
        Some(causes)
    }
}

impl Setting<Retry> for RetryCauses {
    fn lay(&self, place: &Place, over: &mut Retry, key: &str, layer: &mut Layer<'_>) {
        layer.note(key, place.line);
        over.on_connect_failure = self.connect_failure;
        over.on_reset = self.reset;
        over.on_statuses = self.statuses;
        over.on_codes = self.codes;
    }

    fn show(retry: &Retry, key: &str, view: View, shown: &mut Vec<Shown>) {
        let causes = [
            ("connect-failure", retry.on_connect_failure),
            ("reset", retry.on_reset),
        ];
        let causes = causes.into_iter().filter(|(_, is_cause)| *is_cause);
        let causes = causes.map(|(cause, _)| cause.into());
        let causes = causes.chain(StatusRange::list(retry.on_statuses));
        let causes = causes.chain(Calls::list(retry.on_codes));
        view.put(key, causes.collect(), shown);
    }
}

value_schemas! {
    RetryCause: { "anyOf": [
        { "const": "connect-failure" },
        { "const": "reset" },
        { "type": "integer", "minimum": 100, "maximum": 599 },
        { "type": "string", "format": "range of statuses", "pattern": "^[1-5][0-9]{2}(-[1-5][0-9]{2})?$" },
    ] },
}

inline_schema!(RetryCauses: |generator| generator.subschema_for::<Vec<OneCause>>());
