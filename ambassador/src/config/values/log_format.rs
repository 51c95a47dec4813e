//! `telemetry.access_log.format`: how a line is written.

use serde_json::json;

use super::{choose, fills, value_schemas};
use crate::config::findings::Findings;
use crate::config::read::{Either, Place, Read, Scalar, inline_schema, nearest, object};
use crate::config::yaml::Node;
use crate::telemetry::access_log::{FIELDS, LineFormat, Template, TemplateError};

/// How a line is written.
#[derive(Debug, Clone)]
pub(in crate::config) struct LogFormat(LineFormat);

/// As the file has it.
type Written = Either<Word, TextTemplate>;

/// A format that is a word.
#[derive(Debug, Clone, Copy)]
enum Word {
    Json,
    Logfmt,
}

/// A template that is sound.
#[derive(Debug, Clone)]
pub(in crate::config) struct TemplateText(Template);

object! {
    /// Lines of text.
    TextTemplate {
        /// The text of a line. `{name}` stands for a field of the JSON form, `-` where a line
        /// has none; `{{` and `}}` for braces.
        template: TemplateText,
    }
}

impl Scalar for Word {
    fn parse(text: &str) -> Result<Self, String> {
        let words = [("json", Self::Json), ("logfmt", Self::Logfmt)];
        choose(text, &words).map_err(|what| format!("{what}; or {{ template: \"...\" }}"))
    }
}

impl Scalar for TemplateText {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = |error| match error {
            TemplateError::Field(name) => {
                let mut what = "names a field that no line has".to_owned();
                if let Some(meant) = nearest(&name, FIELDS.into_iter()) {
                    what = format!("{what}; did you mean {{{meant}}}?");
                }
                what
            }
            TemplateError::Brace => {
                "must have its braces in pairs, around the name of a field".to_owned()
            }
            TemplateError::Text => "must be one line of 1 to 1024 bytes".to_owned(),
        };
        Template::parse(text).map(Self).map_err(wrong)
    }
}

impl Read for LogFormat {
    fn read(node: &Node, place: &Place, findings: &mut Findings) -> Option<Self> {
        let written: Written = Read::read(node, place, findings)?;
        Some(Self(match written {
            Either::Short(Word::Json) => LineFormat::Json,
            Either::Short(Word::Logfmt) => LineFormat::Logfmt,
            Either::Full(TextTemplate { template }) => match template.as_ref() {
                Some(template) => LineFormat::Template(template.value.0.clone()),
                None => {
                    findings.mistake_unless_inside(place, "must have a template");
                    return None;
                }
            },
        }))
    }
}

fills! {
    LogFormat => LineFormat, |format| Some(match format {
        LineFormat::Json => "json".into(),
        LineFormat::Logfmt => "logfmt".into(),
        LineFormat::Template(template) => json!({ "template": template.to_string() }),
    });
}

value_schemas! {
    Word: { "anyOf": [{ "const": "json" }, { "const": "logfmt" }] },
    TemplateText: { "type": "string" },
}

inline_schema!(LogFormat: |generator| generator.subschema_for::<Written>());
