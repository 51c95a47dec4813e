//! The schema, the reference and the README say what is so.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::policies::policies;
use super::reference::{reference, with_defaults};
use super::*;
use crate::route::settings::Policies;

/// The defaults that the schema and the reference name are those in effect.
#[test]
fn documented_defaults_are_true() {
    let minimal = "\
capture: {}
listeners: [{ name: a, bind: 127.0.0.1:1 }]
upstreams: { a: { hosts: [b] } }
telemetry: { access_log: {} }
";
    let effective = load_str("f", minimal).unwrap().effective();
    let mut compared = 0;
    let mut pairs = vec![(schema(), effective.clone())];
    let upstream = effective["upstreams"]["a"].clone();
    pairs.push((schema()["properties"]["defaults"].clone(), upstream));
    while let Some((schema, value)) = pairs.pop() {
        for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
            if let Some(default) = schema.get("default") {
                let seen = value
                    .get(key)
                    .unwrap_or_else(|| panic!("{key} is not in effect"));
                let canonical = |v: &Value| match v {
                    Value::String(text) if text == "60s" => "1m".to_owned(),
                    Value::String(text) => text.clone(),
                    // The lists are sets.
                    Value::Array(list) => {
                        let mut list: Vec<String> = list.iter().map(Value::to_string).collect();
                        list.sort();
                        list.concat()
                    }
                    other => other.to_string(),
                };
                assert_eq!(canonical(seen), canonical(default), "{key}");
                compared += 1;
            }
            if key == "defaults" || key == "upstreams" {
                continue;
            }
            match value.get(key) {
                Some(Value::Array(list)) => pairs.extend(
                    list.iter()
                        .map(|item| (schema["items"].clone(), item.clone())),
                ),
                Some(below) => pairs.push((schema.clone(), below.clone())),
                None => {}
            }
        }
    }
    assert!(compared > 50, "{compared}");
}

#[test]
fn the_schema_accepts_no_key_that_the_reader_refuses() {
    let schema = schema();
    assert_eq!(schema["additionalProperties"], false);
    assert!(schema["properties"]["routes"]["items"]["properties"]["match"].is_object());
    assert!(!schema.to_string().contains("null"));
    assert!(schema.get("required").is_none());
    let listener = &schema["properties"]["listeners"]["items"];
    assert_eq!(listener["required"], serde_json::json!(["name", "bind"]));
}

/// Run with AMBASSADOR_WRITE_REFERENCE=1 to bring the file up to date.
#[test]
fn the_reference_is_current() {
    let path = repository().join("docs/configuration.md");
    if std::env::var_os("AMBASSADOR_WRITE_REFERENCE").is_some() {
        std::fs::write(&path, reference()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(
        written == reference(),
        "docs/configuration.md is out of date"
    );
}

/// Each policy key of the schema with its default.
fn schema_defaults(schema: &Value, key: &mut Vec<String>, out: &mut Vec<(Vec<String>, Value)>) {
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        key.push(name.clone());
        if let Some(default) = schema.get("default") {
            out.push((key.clone(), default.clone()));
        }
        schema_defaults(schema, key, out);
        key.pop();
    }
}

fn put(file: &mut Value, key: &[String], value: &Value) {
    let at = key.iter().fold(file, |at, name| &mut at[name]);
    *at = value.clone();
}

#[test]
fn writing_a_default_of_the_schema_changes_nothing() {
    let nothing = loaded("upstreams: { a: { hosts: [b] } }");
    assert_eq!(nothing.routes.upstreams[0].policies, Policies::default());
    let mut defaults = Vec::new();
    let schema = schema();
    schema_defaults(
        &schema["properties"]["defaults"],
        &mut Vec::new(),
        &mut defaults,
    );
    let mut all = Value::Object(Map::new());
    for (key, default) in &defaults {
        let mut one = Value::Object(Map::new());
        put(&mut one, key, default);
        put(&mut all, key, default);
        let file = json!({ "defaults": one, "upstreams": { "a": { "hosts": ["b"] } } });
        let written = loaded(&file.to_string());
        assert_eq!(written.routes, nothing.routes, "{key:?}");
    }
    let file = json!({ "defaults": all, "upstreams": { "a": { "hosts": ["b"] } } });
    assert_eq!(loaded(&file.to_string()).routes, nothing.routes);
    // Every key that is listed for an upstream has its default in the schema.
    let with_default: BTreeSet<String> = defaults.iter().map(|(key, _)| key.join(".")).collect();
    let listed = nothing.policies[0].iter().map(|policy| policy.key.clone());
    assert_eq!(with_default, listed.collect());
    assert!(with_default.len() > 40);

    // A rate limit has defaults only where there is one.
    let schema = &schema["properties"]["defaults"]["properties"]["rate_limit"]["anyOf"][1];
    let on_limit = &schema["properties"]["on_limit"]["default"];
    let rate = json!({ "requests_per_second": 3 });
    let mut written = rate.clone();
    written["on_limit"] = on_limit.clone();
    assert!(on_limit.is_string());
    let limited = |limit: Value| policies(&format!("rate_limit: {limit}")).rate_limit;
    assert_eq!(limited(written), limited(rate));
}

/// Run with AMBASSADOR_WRITE_REFERENCE=1 to bring the table up to date.
#[test]
fn the_readme_says_the_defaults_as_they_are() {
    let path = repository().join("README.md");
    let built_in = load_str("f", "upstreams: { web: { endpoints: [\"10.1.2.3:80\"] } }").unwrap();
    let readme = std::fs::read_to_string(&path).unwrap();
    let current = with_defaults(&readme, &built_in.policies[0]);
    if std::env::var_os("AMBASSADOR_WRITE_REFERENCE").is_some() {
        std::fs::write(&path, &current).unwrap();
    }
    let readme = std::fs::read_to_string(&path).unwrap();
    assert!(
        readme == current,
        "the policies in README.md are out of date"
    );
}
