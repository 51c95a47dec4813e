//! The reference of the file, made from its schema. A test holds that
//! `docs/configuration.md` is it.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::checked::Policy;
use super::schema;
use super::setting::in_one_line;

/// Stands above the reference.
const INTRODUCTION: &str = "\
# Configuration

<!-- Made from the entries in ambassador/src/config; do not edit. A test \
compares; AMBASSADOR_WRITE_REFERENCE=1 cargo test -p ambassador config:: writes it. -->

The file is YAML. Unknown keys are errors, and `ambassador check FILE` prints \
every mistake at once as `FILE:LINE: key.path: what is wrong, got VALUE`. \
Durations are a whole number and a unit (`ms`, `s`, `m`, `h`, `d`), sizes a \
whole number and one of `B`, `KiB`, `MiB`, `GiB`. `ambassador schema` prints the JSON Schema for editors.

A relative path of a file that is read (a certificate, key, token or other secret) \
begins in the directory of the configuration file. Other paths begin at the root.

SIGHUP, or a change of the file, reloads it. A file with a mistake changes \
nothing. Nor does a file that changes a key which needs a restart; the texts of \
the keys say which do.

A destination is out of scope when `capture.exclude` names its port or its \
address, or when `capture.include` names other ports or addresses only.

One upstream can be configured by the environment, without a file: `LISTEN_ADDR`, \
`UPSTREAM_HOST`, `UPSTREAM_PORT`, `PROTOCOL` (as `protocol`), `RETRY_MAX` \
(`attempts` of `retry`, 0 is 1), `CIRCUIT_BREAKER_THRESHOLD` (`failures` of \
`circuit_breaker`, 0 is `off`) and `METRICS_LISTEN_ADDR` (`admin.metrics_listen`).

Each policy key is looked up in the route, then in the upstream, then in \
`defaults`; if none has it, the default below applies. A list replaces the inherited \
list, headers are added, and `off` switches off what is inherited.
";

/// The reference for people, in Markdown.
pub(crate) fn reference() -> String {
    let schema = schema();
    let mut reference = Reference {
        out: INTRODUCTION.to_owned(),
        described: Vec::new(),
    };
    reference.section(&schema, "");
    reference.out
}

/// The README with the policies that are built in, in its table. What it remarks of
/// a policy stays; of a new one it is the first sentence of the reference.
pub(crate) fn with_defaults(readme: &str, policies: &[Policy]) -> String {
    const HEAD: &str = "| policy | default | |\n|---|---|---|\n";
    let (before, table) = readme.split_once(HEAD).unwrap_or((readme, ""));
    let (table, after) = table.split_once("\n\n").unwrap_or((table, ""));
    let schema = schema();
    let mut out = format!("{before}{HEAD}");
    for Policy { key, value, .. } in policies {
        let start = format!("| `{key}` | ");
        let row = table.lines().find_map(|row| row.strip_prefix(&start));
        let remark = row
            .and_then(|row| row.split_once(" | "))
            .map(|(_, remark)| remark);
        let new = || {
            let defaults = &schema["properties"]["defaults"];
            let entry = key
                .split('.')
                .fold(defaults, |at, name| &at["properties"][name]);
            let text = meaning(entry);
            format!("{} |", text.split(". ").next().unwrap_or_default())
        };
        let remark = remark.map_or_else(new, str::to_owned);
        let _ = writeln!(out, "{start}`{value}` | {remark}");
    }
    out + "\n" + after
}

/// The reference while it is written.
struct Reference<'a> {
    out: String,
    /// The keys of each mapping that has its table, and where that is.
    described: Vec<(&'a Map<String, Value>, String)>,
}

impl<'a> Reference<'a> {
    /// One table for each mapping, the outer ones first.
    fn section(&mut self, schema: &'a Value, path: &str) {
        let Some(properties) = schema["properties"].as_object() else {
            return;
        };
        let heading = match path {
            "" => "The file".to_owned(),
            path => format!("`{path}`"),
        };
        let _ = write!(self.out, "\n## {heading}\n\n");
        let mut described = self.described.iter();
        if let Some((_, same)) = described.find(|(keys, _)| *keys == properties) {
            let _ = writeln!(self.out, "The keys of [`{same}`](#{}).", anchor(same));
            return;
        }
        self.described.push((properties, path.to_owned()));
        let head = "| key | value | default | meaning |\n|---|---|---|---|\n";
        self.out.push_str(head);
        for (key, value) in properties {
            let (default, kind, meaning) = (default(value), kind(value), meaning(value));
            let _ = writeln!(self.out, "| `{key}` | {kind} | {default} | {meaning} |");
        }
        for (key, value) in properties {
            let dot = if path.is_empty() { "" } else { "." };
            self.below(value, &format!("{path}{dot}{key}"));
        }
    }

    /// Sections of the mappings that a value can hold.
    fn below(&mut self, schema: &'a Value, path: &str) {
        if is_mapping(schema) {
            self.section(schema, path);
        }
        if let Some(named) = schema
            .get("additionalProperties")
            .filter(|value| value.is_object())
        {
            self.below(named, &format!("{path}.<name>"));
        }
        if let Some(items) = schema.get("items") {
            self.below(items, &format!("{path}[]"));
        }
        for choice in schema["anyOf"].as_array().into_iter().flatten() {
            self.below(choice, path);
        }
    }
}

/// What Markdown viewers call the heading of a section.
fn anchor(path: &str) -> String {
    let kept = |c: &char| c.is_ascii_alphanumeric() || "_-".contains(*c);
    path.chars().filter(kept).collect()
}

/// The default as the file writes it.
fn default(schema: &Value) -> String {
    match schema.get("default") {
        None => String::new(),
        Some(Value::Array(list)) => {
            let list: Vec<String> = list.iter().map(in_one_line).collect();
            format!("`[{}]`", list.join(", "))
        }
        Some(other) => format!("`{}`", in_one_line(other)),
    }
}

fn is_mapping(schema: &Value) -> bool {
    schema["properties"]
        .as_object()
        .is_some_and(|properties: &Map<_, _>| !properties.is_empty())
}

/// What can stand there, in a few words.
fn kind(schema: &Value) -> String {
    if let Some(word) = schema.get("const") {
        return format!("`{}`", word.as_str().unwrap_or_default());
    }
    if let Some(words) = schema["enum"].as_array() {
        let words = words.iter().map(|word| format!("`{}`", in_one_line(word)));
        return words.collect::<Vec<_>>().join(" or ");
    }
    let words = |list: &Value| {
        let list = list.as_array().into_iter().flatten();
        list.map(kind).collect::<Vec<_>>().join(" or ")
    };
    for alternatives in ["oneOf", "anyOf"] {
        if schema[alternatives].is_array() {
            return words(&schema[alternatives]);
        }
    }
    if let Some(items) = schema.get("items") {
        return format!("list of {}", kind(items));
    }
    if let Some(named) = schema
        .get("additionalProperties")
        .filter(|value| value.is_object())
    {
        return format!("name: {}", kind(named));
    }
    match (schema["format"].as_str(), schema["type"].as_str()) {
        (Some(format), _) => format.to_owned(),
        (None, Some("integer" | "number")) => number(schema),
        (None, Some("boolean")) => "`true` or `false`".to_owned(),
        (None, Some("object")) => "mapping".to_owned(),
        (None, Some("string")) => "text".to_owned(),
        _ => String::new(),
    }
}

/// A number, within bounds where it has some.
fn number(schema: &Value) -> String {
    let bound = |bound: &str| schema[bound].as_f64();
    match (bound("minimum"), bound("maximum")) {
        (Some(min), Some(max)) if min > 0.0 && max < f64::from(u32::MAX) => {
            format!("number from {min} to {max}")
        }
        _ => "number".to_owned(),
    }
}

/// The documentation of a key and of the words it can hold.
fn meaning(schema: &Value) -> String {
    let text = |value: &Value| {
        let text = value["description"].as_str().unwrap_or_default();
        text.split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .replace('|', "\\|")
    };
    let mut meaning = text(schema);
    for choice in schema["oneOf"].as_array().into_iter().flatten() {
        if let Some(word) = choice["const"].as_str() {
            let _ = write!(meaning, " `{word}`: {}", text(choice));
        }
    }
    meaning
}
