//! Every setting, whatever it is: each entry of the schema is read, merged, shown,
//! explained and described, and what is wrong with it is said.

use serde_json::{Map, Value, json};

use super::reference::reference;
use super::*;

/// A key, as `retry.budget.ratio`, and its part of the schema.
struct Entry {
    key: String,
    schema: Value,
}

/// Every key of a policy that holds no other keys.
fn policies() -> Vec<Entry> {
    let mut entries = Vec::new();
    walk(&schema()["properties"]["defaults"], "", &mut entries);
    entries
}

/// The same of all that stands once in a file.
fn of_the_file() -> Vec<Entry> {
    let mut schema = schema();
    let properties = schema["properties"].as_object_mut().unwrap();
    properties.retain(|key, _| {
        ![
            "defaults",
            "listeners",
            "placeholders",
            "routes",
            "upstreams",
        ]
        .contains(&&**key)
    });
    let mut entries = Vec::new();
    walk(&schema, "", &mut entries);
    entries
}

fn walk(schema: &Value, key: &str, entries: &mut Vec<Entry>) {
    let choices = schema["anyOf"].as_array().into_iter().flatten();
    for group in choices.chain([schema]) {
        let properties = group["properties"].as_object().into_iter().flatten();
        for (name, schema) in properties {
            walk(schema, &below(key, name), entries);
        }
    }
    if kinds(schema).next().is_some() && key != "headers.set" {
        let (key, schema) = (key.to_owned(), schema.clone());
        entries.push(Entry { key, schema });
    }
}

fn below(group: &str, name: &str) -> String {
    let dot = if group.is_empty() { "" } else { "." };
    format!("{group}{dot}{name}")
}

/// The kinds of value that may stand there, mappings aside.
fn kinds(schema: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    let choices = ["anyOf", "oneOf"].into_iter();
    let mut choices = choices.filter_map(|choice| schema[choice].as_array());
    match choices.next() {
        Some(choices) => Box::new(choices.iter().flat_map(kinds)),
        None if schema["type"] == "object" => Box::new(std::iter::empty()),
        None => Box::new(std::iter::once(schema)),
    }
}

impl Entry {
    /// Values that may stand there; others than the default, where there are any.
    fn sound(&self) -> Vec<Value> {
        let sound = kinds(&self.schema).filter_map(|kind| self.sound_of(kind));
        let (default, others): (Vec<_>, Vec<_>) =
            sound.partition(|value| *value == self.schema["default"]);
        if others.is_empty() { default } else { others }
    }

    fn sound_of(&self, kind: &Value) -> Option<Value> {
        if let Some(word) = kind.get("const") {
            return Some(word.clone());
        }
        Some(match (kind["type"].as_str()?, kind["format"].as_str()) {
            // Shown with its unit.
            ("integer", _) if self.key == "memory_limit" => return None,
            ("integer" | "number", _) => {
                let min = kind["minimum"].as_f64().unwrap_or_default().ceil();
                let default = self.schema["default"].as_f64().unwrap_or(min);
                json!(default as u64 + 1)
            }
            ("boolean", _) => json!(self.schema["default"] == false),
            ("array", _) => Value::Array(vec![match kinds(&kind["items"]).next()? {
                items if items["type"] == "string" && self.key.ends_with("methods") => {
                    json!("PURGE")
                }
                items => self.sound_of(items)?,
            }]),
            ("string", Some("duration")) => json!("7s"),
            ("string", Some("percentage")) => json!("7%"),
            ("string", Some("size")) if self.key == "memory_limit" => json!("7GiB"),
            ("string", Some("size")) if self.key.starts_with("http2.") => json!("2MiB"),
            ("string", Some("size")) => json!("7KiB"),
            ("string", Some("size per second")) => json!("7KiB/s"),
            ("string", Some("path")) => json!("/a"),
            ("string", Some("SPIFFE ID")) => json!("spiffe://td/a"),
            ("string", Some("unix:/path or tcp://ip:port")) => json!("unix:/a"),
            ("string", Some("stdout, stderr or path")) => json!("/a"),
            ("string", Some("ip:port or unix:/path")) => json!("127.0.0.1:7"),
            ("string", Some("address or CIDR")) => json!("10.0.0.0/8"),
            ("string", Some("auto, name or uid:gid")) => json!("7:7"),
            ("string", Some("date-time")) => json!("2126-12-01T00:00:00Z"),
            ("string", Some("range of statuses")) => json!("500-503"),
            ("string", Some("name of a service")) => json!("shop.Cart"),
            ("string", None) => json!("x-name"),
            other => panic!("{}: no value is known of {other:?}", self.key),
        })
    }

    /// The key with a letter too many, and its name without.
    fn misspelled(&self) -> (String, &str) {
        let name = self.key.rsplit('.').next().unwrap();
        (format!("{}x", self.key), name)
    }

    /// Values that may not stand there: those around its range among them.
    fn wrong(&self) -> Vec<Value> {
        let bounds = kinds(&self.schema).flat_map(|kind| {
            let below = kind["minimum"].as_u64().filter(|min| *min > 0);
            let above = kind["maximum"].as_u64();
            let below = below.map(|min| json!(min - 1));
            below.into_iter().chain(above.map(|max| json!(max + 1)))
        });
        let is_word = |kind: &Value| kind["type"] == "string" && kind["format"].is_null();
        let any_text = kinds(&self.schema).any(is_word);
        let texts = if any_text { ["", ""] } else { ["a b", "-1"] };
        bounds.chain(texts.map(Value::from)).collect()
    }
}

/// What else has to be said where this key is.
fn with_what_it_needs(key: &str) -> Map<String, Value> {
    let needed = match key.rsplit_once('.').map(|(group, _)| group) {
        Some("rate_limit") => json!({ "rate_limit": { "requests_per_second": 7 } }),
        Some("fault.abort") => json!({ "fault": { "abort": { "status": 500 } } }),
        Some("tls") if key.ends_with(".cert") => json!({ "tls": { "key": "/key" } }),
        Some("tls") if key.ends_with(".key") => json!({ "tls": { "cert": "/cert" } }),
        Some("identity") if !key.contains("spiffe") => {
            json!({ "identity": { "cert": "/cert", "key": "/key", "bundle": "/bundle" } })
        }
        Some("http2") if key.ends_with(".connection_window") => {
            json!({ "http2": { "window": "64KiB" } })
        }
        Some("fault.delay") => json!({ "fault": { "delay": { "for": "1s" } } }),
        _ => json!({}),
    };
    needed.as_object().cloned().unwrap_or_default()
}

/// The policies of one layer, in one line, with this value under a key.
fn layer(key: &str, value: &Value) -> String {
    let mut layer = Value::Object(with_what_it_needs(key));
    *key.split('.').fold(&mut layer, |at, name| &mut at[name]) = value.clone();
    let text = layer.to_string();
    text[1..text.len() - 1].to_owned()
}

/// A file whose `defaults` have something on line 2, the upstream on line 3, and a
/// route, if it has anything, on line 4.
fn file(defaults: &str, upstream: &str, route: &str) -> String {
    let upstream = format!("{{ hosts: [10.1.1.1], endpoints: [\"10.1.1.1:1\"],\n {upstream} }}");
    let route = match route {
        "" => String::new(),
        route => format!("{{ upstream: a,\n {route} }}"),
    };
    format!(
        "{{ capture: {{}}, telemetry: {{ tracing: {{}} }},\n \
         defaults: {{ {defaults} }}, upstreams: {{ a: {upstream} }}, routes: [{route}] }}"
    )
}

/// The value and the origin that `explain` lists of a key.
fn listed(list: &[checked::Policy], key: &str) -> Option<(String, String)> {
    let policy = list.iter().find(|policy| policy.key == key)?;
    Some((policy.value.clone(), policy.origin.to_string()))
}

#[test]
fn each_is_described() {
    let reference = reference();
    let policies = policies().into_iter();
    let policies = policies.map(|entry| (below("defaults", &entry.key), entry.schema));
    let others = of_the_file().into_iter();
    let others = others.map(|entry| (entry.key, entry.schema));
    let entries: Vec<(String, Value)> = policies.chain(others).collect();
    assert!(entries.len() > 80, "{}", entries.len());
    for (key, schema) in entries {
        let heading = match key.rsplit_once('.') {
            None => "## The file\n".to_owned(),
            Some((group, _)) => format!("## `{group}`\n"),
        };
        let section = reference.split(&heading).nth(1);
        let section = section.unwrap_or_else(|| panic!("no section of {key}"));
        let section = match section.trim().strip_prefix("The keys of [`") {
            None => section,
            Some(same) => {
                let same = same.split('`').next().unwrap();
                reference.split(&format!("## `{same}`\n")).nth(1).unwrap()
            }
        };
        let start = format!("| `{}` |", key.rsplit('.').next().unwrap());
        let row = section.lines().find(|line| line.starts_with(&start));
        let row = row.unwrap_or_else(|| panic!("no row of {key}"));
        let cells: Vec<&str> = row.split(" | ").collect();
        assert!(!cells[1].is_empty() && cells[3].len() > 2, "{row}");
        let text = schema["description"].as_str();
        assert!(text.is_some_and(|text| !text.is_empty()), "{key}");
    }
}

#[test]
fn each_is_merged_shown_and_explained() {
    let entries = policies().into_iter();
    for entry in entries.filter(|entry| !entry.key.starts_with("headers.")) {
        let key = &entry.key;
        let values = entry.sound();
        assert!(!values.is_empty(), "{key}");
        for value in values {
            let said = layer(key, &value);
            for (text, origin) in [
                (file(&said, "", ""), "defaults, line 2"),
                (file("", &said, ""), "upstream, line 3"),
            ] {
                let checked = load_str("f", &text).unwrap_or_else(|it| panic!("{text}\n{it}"));
                let shown = listed(&checked.policies[0], key);
                let (shown, from) = shown.unwrap_or_else(|| panic!("{key} is not listed: {text}"));
                assert_eq!(from, origin, "{text}");
                let effective = &checked.effective()["upstreams"]["a"];
                let effective = key.split('.').fold(effective, |at, name| &at[name]);
                let again = file("", &layer(key, effective), "");
                let again = load_str("f", &again).unwrap_or_else(|it| panic!("{again}\n{it}"));
                assert_eq!(listed(&again.policies[0], key).unwrap().0, shown, "{text}");
                assert_eq!(again.routes.upstreams, checked.routes.upstreams, "{text}");
            }
            let text = file("", "", &said);
            match load_str("f", &text) {
                Ok(checked) => {
                    let list = checked.route_policies[0].as_deref().unwrap();
                    assert_eq!(listed(list, key).unwrap().1, "routes[0]:4", "{text}");
                }
                Err(refused) => {
                    let refused = refused.to_string();
                    let start = format!("f:4: routes[0].{}", key.split('.').next().unwrap());
                    assert!(refused.starts_with(&start), "{text}\n{refused}");
                    let why = [": is for a whole upstream", ": is over before"];
                    assert!(why.iter().any(|why| refused.contains(why)), "{refused}");
                }
            }
        }
    }
}

#[test]
fn what_is_wrong_with_each_is_said() {
    for entry in policies() {
        let key = &entry.key;
        for value in entry.wrong() {
            let said = layer(key, &value);
            for (text, place) in [
                (file(&said, "", ""), "f:2: defaults"),
                (file("", &said, ""), "f:3: upstreams.a"),
            ] {
                is_said_of(&text, &format!("{place}.{key}"), &value);
            }
        }
        let (misspelled, name) = entry.misspelled();
        let text = file("", &layer(&misspelled, &json!(1)), "");
        let start = format!("f:3: upstreams.a.{misspelled}: unknown key, did you mean {name}?");
        let found = mistakes(&text);
        assert!(found.contains(&start), "{text}\n{found:#?}");
    }
}

#[test]
fn what_stands_once_is_shown_and_its_mistakes_are_said() {
    for entry in of_the_file() {
        let key = &entry.key;
        let values = entry.sound();
        assert!(!values.is_empty(), "{key}");
        for value in values {
            let text = format!("{{ {} }}", layer(key, &value));
            let checked = load_str("f", &text).unwrap_or_else(|it| panic!("{text}\n{it}"));
            let effective = checked.effective();
            let shown = key.split('.').fold(&effective, |at, name| &at[name]);
            assert_eq!(*shown, value, "{text}");
            assert_eq!(loaded(&effective.to_string()).effective(), effective);
        }
        for value in entry.wrong() {
            let text = format!("{{ {} }}", layer(key, &value));
            is_said_of(&text, &format!("f:1: {key}"), &value);
        }
        let (misspelled, name) = entry.misspelled();
        let text = format!("{{ {} }}", layer(&misspelled, &json!(1)));
        let wanted = format!("f:1: {misspelled}: unknown key, did you mean {name}?");
        assert_eq!(mistakes(&text), [wanted], "{text}");
    }
}

/// That the file has this mistake alone: its place, and the value.
fn is_said_of(text: &str, place: &str, value: &Value) {
    let found = mistakes(text);
    assert_eq!(found.len(), 1, "{text}\n{found:#?}");
    assert!(
        found[0].starts_with(&format!("{place}: ")),
        "{text}\n{}",
        found[0]
    );
    let got = value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned);
    let is_named = |got: &str| found[0].ends_with(&format!(", got {got}"));
    // Some are shown masked, wherever they stand.
    let is_named = got.is_empty() || is_named(&got) || is_named("***");
    assert!(is_named, "{text}\n{}", found[0]);
}
