//! Codes of gRPC calls, as an element of a list of other things.

use serde_json::{Value as Json, json};

use super::choose;
use crate::config::findings::Findings;
use crate::config::read::{Either, Scalar, Spanned, inline_schema, object};
use crate::message::grpc::Code;
use crate::policy::codes::Codes;

object! {
    /// Calls of gRPC that end with one of these codes.
    Calls {
        /// The codes, as `unavailable`.
        grpc: Vec<Spanned<CodeName>>,
    }
}

/// A code by its name.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct CodeName(pub(in crate::config) Code);

impl Calls {
    /// The codes.
    pub(in crate::config) fn codes(&self) -> Codes {
        let codes = self.grpc.items().iter();
        codes.fold(Codes::default(), |codes, name| codes.with(name.value.0))
    }

    /// Notes that an element of a list adds nothing to those before it.
    pub(in crate::config) fn blame_twice<S>(
        element: &Spanned<Either<S, Self>>,
        findings: &mut Findings,
    ) {
        match &element.value {
            Either::Short(_) => findings.mistake_at(element, "is listed twice"),
            Either::Full(_) => {
                let what = "must name codes that are not listed yet, as { grpc: [unavailable] }";
                findings.mistake_unless_inside(&element.place, what);
            }
        }
    }

    /// The same as a file writes them, as the last element of a list; empty where there
    /// are none.
    pub(in crate::config) fn list(codes: Codes) -> Vec<Json> {
        let names: Vec<&str> = codes.iter().map(Code::as_str).collect();
        match names.is_empty() {
            true => Vec::new(),
            false => vec![json!({ "grpc": names })],
        }
    }
}

impl Scalar for CodeName {
    fn parse(text: &str) -> Result<Self, String> {
        let words: Vec<_> = Code::ALL
            .iter()
            .map(|code| (code.as_str(), *code))
            .collect();
        choose(text, &words).map(Self)
    }
}

inline_schema!(CodeName: |_| {
    let names: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    schemars::json_schema!({ "enum": names })
});
