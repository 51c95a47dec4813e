//! `propagate`: the headers that carry traces on.

use super::{choose, fills, value_schemas};
use crate::config::findings::Findings;
use crate::config::read::{Place, Read, Scalar, Spanned};
use crate::config::setting::{Layer, Setting, Shown, View};
use crate::config::yaml::{Node, Value};
use crate::message::trace::{self, Formats};

/// Each word, and its part of the formats.
const WORDS: [(&str, Formats); 3] = [
    (
        "tracecontext",
        Formats {
            tracecontext: true,
            ..Formats::OFF
        },
    ),
    (
        "b3",
        Formats {
            b3: true,
            ..Formats::OFF
        },
    ),
    (
        "baggage",
        Formats {
            baggage: true,
            ..Formats::OFF
        },
    ),
];

/// A list of formats, or `off`.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Propagation(Formats);

/// One word of the list.
#[derive(Debug, Clone, Copy)]
struct Format(Formats);

impl Propagation {
    /// The words of the list; none for `off`.
    fn words(formats: Formats) -> Vec<&'static str> {
        let [tracecontext, b3, baggage] = WORDS.map(|(word, _)| word);
        let words = [
            (tracecontext, formats.tracecontext),
            (b3, formats.b3),
            (baggage, formats.baggage),
        ];
        let on = words.into_iter().filter(|(_, on)| *on);
        on.map(|(word, _)| word).collect()
    }
}

impl Read for Propagation {
    fn read(node: &Node, place: &Place, findings: &mut Findings) -> Option<Self> {
        let Value::List(_) = &node.value else {
            let is_off = matches!(&node.value, Value::Text(text) if text == "off");
            if !is_off {
                findings.wrong_kind(place, "must be a list of formats, or off", &node.value);
            }
            return is_off.then_some(Self(Formats::OFF));
        };
        let list: Vec<Spanned<Format>> = Read::read(node, place, findings)?;
        let formats = list.iter().map(|format| format.value.0);
        let formats = formats.fold(Formats::OFF, |all, one| Formats {
            tracecontext: all.tracecontext | one.tracecontext,
            b3: all.b3 | one.b3,
            baggage: all.baggage | one.baggage,
        });
        Some(Self(formats))
    }
}

impl Scalar for Format {
    fn parse(text: &str) -> Result<Self, String> {
        choose(text, &WORDS).map(Self)
    }
}

/// Traces that the file leaves alone are carried on by no upstream.
impl Setting<Option<trace::Settings>> for Propagation {
    fn lay(
        &self,
        place: &Place,
        over: &mut Option<trace::Settings>,
        key: &str,
        layer: &mut Layer<'_>,
    ) {
        layer.note(key, place.line);
        match over {
            Some(tracing) => tracing.formats = self.0,
            None => layer.findings.mistake(place, "needs telemetry.tracing"),
        }
    }

    fn show(tracing: &Option<trace::Settings>, key: &str, view: View, shown: &mut Vec<Shown>) {
        if let Some(tracing) = tracing {
            <Self as Setting<Formats>>::show(&tracing.formats, key, view, shown);
        }
    }
}

fills! {
    Propagation => Formats, |formats| Some(match Self::words(*formats) {
        words if words.is_empty() => "off".into(),
        words => words.into(),
    });
}

value_schemas! {
    Propagation: { "anyOf": [
        { "const": "off" },
        { "type": "array", "items": { "anyOf": [
            { "const": "tracecontext" }, { "const": "b3" }, { "const": "baggage" },
        ] } },
    ] },
    Format: { "anyOf": [{ "const": "tracecontext" }, { "const": "b3" }, { "const": "baggage" }] },
}
