//! `telemetry.access_log.keep`: what is logged whatever the sample says.

use std::time::Duration;

use serde_json::json;

use super::times::{Period, Time};
use super::{choose, fills, value_schemas};
use crate::config::findings::Findings;
use crate::config::read::{Either, Place, Read, Scalar, Spanned, inline_schema, object};
use crate::config::setting::Value;
use crate::config::yaml::Node;
use crate::telemetry::access_log::Keep;

/// All of it.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Kept(Keep);

/// One kind.
type OneKept = Either<KeptWord, KeptSlow>;

/// A kind that is a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeptWord {
    Failed,
    Retried,
}

object! {
    /// Requests and relayed connections that take long.
    KeptSlow {
        /// How long, at least.
        slow: Period,
    }
}

impl Scalar for KeptWord {
    fn parse(text: &str) -> Result<Self, String> {
        let words = [("failed", Self::Failed), ("retried", Self::Retried)];
        choose(text, &words).map_err(|what| format!("{what}; or {{ slow: 500ms }}"))
    }
}

impl Kept {
    fn with(self, one: &OneKept) -> Self {
        let mut keep = self.0;
        match one {
            Either::Short(KeptWord::Failed) => keep.failed = true,
            Either::Short(KeptWord::Retried) => keep.retried = true,
            Either::Full(KeptSlow { slow }) => {
                let slow = slow.as_ref().map(|slow| slow.value.meaning());
                keep.slow = keep.slow.or(slow);
            }
        }
        Self(keep)
    }
}

impl Read for Kept {
    fn read(node: &Node, place: &Place, findings: &mut Findings) -> Option<Self> {
        let list: Vec<Spanned<OneKept>> = Read::read(node, place, findings)?;
        let mut kept = Self(Keep::default());
        for one in list {
            let with = kept.with(&one);
            if with.0 == kept.0 {
                match &one.value {
                    Either::Short(_) => findings.mistake_at(&one, "is listed twice"),
                    Either::Full(_) => {
                        let what = "must say how slow once, as { slow: 500ms }";
                        findings.mistake_unless_inside(&one.place, what);
                    }
                }
            }
            kept = with;
        }
        Some(kept)
    }
}

fills! {
    Kept => Keep, |keep| Some({
        let words = [("failed", keep.failed), ("retried", keep.retried)];
        let words = words.into_iter().filter(|(_, is_kept)| *is_kept);
        let slow = keep.slow.map(|slow: Duration| json!({ "slow": Time::text(slow) }));
        words.map(|(word, _)| word.into()).chain(slow).collect()
    });
}

value_schemas! {
    KeptWord: { "anyOf": [{ "const": "failed" }, { "const": "retried" }] },
}

inline_schema!(Kept: |generator| generator.subschema_for::<Vec<OneKept>>());
