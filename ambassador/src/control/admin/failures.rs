//! `/failures`: requests that have failed, step by step.

use serde_json::{Value, json};

use crate::control::Origin;
use crate::telemetry::reasons::Explanation;
use crate::telemetry::{Call, CallQuery, Names, ReasonLabel};

/// Shown where nothing else is asked for.
const SHOWN: usize = 20;
/// Shown at most.
const SHOWN_MAX: usize = 1_000;

/// What a query asks for: `request_id`, `authority` (one of several), `path`, `max`.
pub(super) fn query(text: &str) -> Result<CallQuery, String> {
    let mut query = CallQuery {
        most: SHOWN,
        ..CallQuery::default()
    };
    for (name, value) in form_urlencoded::parse(text.as_bytes()) {
        let value = value.into_owned();
        match &*name {
            "request_id" => query.request_id = Some(value),
            "authority" => query.authorities.push(value),
            "path" => query.path = Some(value),
            "max" => match value.parse() {
                Ok(most) if (1..=SHOWN_MAX).contains(&most) => query.most = most,
                _ => return Err(format!("max: must be 1 to {SHOWN_MAX}")),
            },
            other => {
                let known = "request_id, authority, path and max";
                return Err(format!("unknown parameter {other}: there are {known}"));
            }
        }
    }
    Ok(query)
}

/// The document, the newest first.
pub(super) fn document(calls: &[Call], names: &Names, origin: &Origin) -> Value {
    let calls = calls.iter().map(|call| {
        let mut document = call.document(names);
        explain(&mut document);
        locate(&mut document, origin);
        document
    });
    json!({ "failures": calls.collect::<Vec<_>>() })
}

/// Adds what the reason means, and what to do.
fn explain(document: &mut Value) {
    let word = document["reason"].as_str();
    let mut reasons = ReasonLabel::ALL.iter().copied();
    if let Some(reason) = word.and_then(|word| reasons.find(|it| it.as_str() == word)) {
        document["explanation"] = Explanation::of(reason).to_json();
    }
}

/// Adds to each decision where its rule stands in the file.
fn locate(document: &mut Value, origin: &Origin) {
    let upstream = document["upstream"].as_str().unwrap_or("").to_owned();
    let steps = document["steps"].as_array_mut();
    for step in steps.into_iter().flatten() {
        let key = step["rule"].as_str();
        if let Some(from) = key.and_then(|key| origin(&upstream, key)) {
            step["from"] = from.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_what_is_asked_for() {
        let asked = query("authority=a.test&authority=a.test%3A80&path=%2Fx+y&max=3").unwrap();
        let expected = CallQuery {
            authorities: vec!["a.test".to_owned(), "a.test:80".to_owned()],
            path: Some("/x y".to_owned()),
            most: 3,
            ..CallQuery::default()
        };
        assert_eq!(asked, expected);
        assert_eq!(query("").unwrap().most, SHOWN);
        for bad in ["max=0", "max=1001", "max=x", "id=7"] {
            assert!(query(bad).is_err(), "{bad}");
        }
    }
}
