//! How a line is written. Shards make a JSON object of each; what else is asked for is made
//! of that by the thread that writes, so that no request waits for it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::printable;

/// How a line is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LineFormat {
    /// As a JSON object.
    Json,
    /// As `name=value` pairs, with the values in quotes that need them.
    Logfmt,
    /// As a text with the values of fields in it.
    Template(Template),
}

/// A text in which `{name}` stands for the value of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    /// The value of the field of this name; `-`: there is none.
    Field(&'static str),
}

/// Why a text is no [`Template`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TemplateError {
    /// No field has this name.
    Field(String),
    /// A brace stands alone.
    Brace,
    /// It is empty, breaks the line, or is longer than 1 KiB.
    Text,
}

/// The longest template.
const TEMPLATE_BYTES_MAX: usize = 1024;

/// The fields that a line may have.
pub(crate) const FIELDS: [&str; 31] = [
    "time",
    "listener",
    "upstream",
    "protocol",
    "method",
    "authority",
    "path",
    "request_id",
    "peer_id",
    "detail",
    "server_name",
    "status",
    "grpc_status",
    "reason",
    "outcome",
    "cancelled",
    "duration_ms",
    "overhead_ms",
    "attempts",
    "reused",
    "endpoints",
    "fault",
    "endpoint",
    "tls_version",
    "tls_group",
    "tls_cipher",
    "tls_resumed",
    "original_destination",
    "client",
    "bytes_in",
    "bytes_out",
];

impl LineFormat {
    /// Whole lines as they are written; `lines` are JSON objects.
    pub(super) fn of<'a>(&self, lines: &'a [u8]) -> Cow<'a, [u8]> {
        match self {
            Self::Json => Cow::Borrowed(lines),
            Self::Logfmt => Cow::Owned(rewritten(lines, logfmt)),
            Self::Template(template) => {
                Cow::Owned(rewritten(lines, |members, out| template.fill(members, out)))
            }
        }
    }
}

/// Each line as `write` appends it.
fn rewritten(lines: &[u8], write: impl Fn(&Members, &mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(lines.len());
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        match serde_json::from_slice(line) {
            Ok(members) => write(&members, &mut out),
            // Shards write nothing else.
            Err(_) => out.extend_from_slice(line.trim_ascii_end()),
        }
        out.push(b'\n');
    }
    out
}

impl Template {
    /// Reads a text. `{{` and `}}` stand for braces.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        if !(1..=TEMPLATE_BYTES_MAX).contains(&text.len())
            || !text.chars().all(printable::is_visible)
        {
            return Err(TemplateError::Text);
        }
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, behind) = rest.split_at(at);
            plain.push_str(before);
            if let Some(behind) = behind.strip_prefix("{{") {
                plain.push('{');
                rest = behind;
            } else if let Some(behind) = behind.strip_prefix("}}") {
                plain.push('}');
                rest = behind;
            } else {
                let field = behind.strip_prefix('{').and_then(|it| it.split_once('}'));
                let (name, behind) = field.ok_or(TemplateError::Brace)?;
                let known = FIELDS.iter().find(|known| **known == name);
                let known = known.ok_or_else(|| TemplateError::Field(name.to_owned()))?;
                if !plain.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut plain)));
                }
                parts.push(Part::Field(known));
                rest = behind;
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self { parts })
    }

    fn fill(&self, members: &Members, out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Field(name) => match members.0.iter().find(|(member, _)| member == name) {
                    // In quotes, a value cannot end them.
                    Some((_, value)) => printable::push_json(out, &text_of(value)),
                    None => out.push(b'-'),
                },
            }
        }
    }
}

/// The text that [`Template::parse`] reads as it.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Text(text) => {
                    f.write_str(&text.replace('{', "{{").replace('}', "}}"))?;
                }
                Part::Field(name) => write!(f, "{{{name}}}")?,
            }
        }
        Ok(())
    }
}

/// The members of an object, in their order.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

fn logfmt(members: &Members, out: &mut Vec<u8>) {
    for (number, (name, value)) in members.0.iter().enumerate() {
        if number > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(name.as_bytes());
        out.push(b'=');
        let value = text_of(value);
        let is_plain = |c: char| printable::is_visible(c) && !matches!(c, ' ' | '"' | '=' | '\\');
        match !value.is_empty() && value.chars().all(is_plain) {
            true => out.extend_from_slice(value.as_bytes()),
            false => {
                out.push(b'"');
                printable::push_json(out, &value);
                out.push(b'"');
            }
        }
    }
}

/// A value as text; those of a list with commas between them.
fn text_of(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => Cow::Borrowed(text),
        Value::Array(list) => {
            let list: Vec<_> = list.iter().map(text_of).collect();
            Cow::Owned(list.join(","))
        }
        value => Cow::Owned(value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &[u8] = b"{\"time\":\"2026-11-20T12:34:56.789Z\",\"path\":\"/a b\\u001b\\\"c\",\"status\":200,\
        \"duration_ms\":3.412,\"reused\":true,\"endpoints\":[\"10.1.2.3:80\",\"10.1.2.4:80\"],\"method\":\"\"}\n\
        {\"status\":503,\"reason\":\"no-endpoint\"}\n";

    fn written(format: &LineFormat) -> String {
        String::from_utf8(format.of(LINES).into_owned()).unwrap()
    }

    #[test]
    fn json_is_written_as_it_is() {
        assert!(matches!(LineFormat::Json.of(LINES), Cow::Borrowed(LINES)));
    }

    #[test]
    fn logfmt_has_pairs_in_order_and_quotes_what_needs_them() {
        assert_eq!(
            written(&LineFormat::Logfmt),
            "time=2026-11-20T12:34:56.789Z path=\"/a b\\u001b\\\"c\" status=200 duration_ms=3.412 \
             reused=true endpoints=10.1.2.3:80,10.1.2.4:80 method=\"\"\n\
             status=503 reason=no-endpoint\n"
        );
    }

    #[test]
    fn a_template_has_values_in_its_places() {
        let text = "{status} \"{path}\" {{{reason}}} {endpoints}";
        let template = Template::parse(text).unwrap();
        assert_eq!(template.to_string(), text);
        assert_eq!(
            written(&LineFormat::Template(template)),
            "200 \"/a b\\u001b\\\"c\" {-} 10.1.2.3:80,10.1.2.4:80\n503 \"-\" {no-endpoint} -\n"
        );
    }

    #[test]
    fn a_template_that_cannot_be_meant_is_none() {
        for (text, error) in [
            ("{statsu}", TemplateError::Field("statsu".into())),
            ("{}", TemplateError::Field(String::new())),
            ("{status", TemplateError::Brace),
            ("status}", TemplateError::Brace),
            ("", TemplateError::Text),
            ("a\nb", TemplateError::Text),
            ("\u{1b}[2J", TemplateError::Text),
        ] {
            assert_eq!(Template::parse(text), Err(error), "{text:?}");
        }
        let long = "a".repeat(TEMPLATE_BYTES_MAX + 1);
        assert_eq!(Template::parse(&long), Err(TemplateError::Text));
        assert!(Template::parse(&long[1..]).is_ok());
    }
}
