//! `ambassador why`: a failed request for people.

use std::fmt::Write as _;

use form_urlencoded::Serializer;
use serde_json::Value;

use crate::addr::Authority;
use crate::printable::OneLine;

/// What `ambassador why` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FailureQuery {
    what: What,
    most: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    RequestId(String),
    Url {
        /// As it may be written in a request.
        authorities: Vec<String>,
        path: String,
    },
}

impl FailureQuery {
    /// A request id or an http or https URL; so many failures at most. The query of a
    /// URL does not matter.
    pub(crate) fn parse(text: &str, most: u16) -> Result<Self, String> {
        let what = match text.split_once("://") {
            None => What::RequestId(text.to_owned()),
            Some((scheme, rest)) => {
                let port = match scheme.to_ascii_lowercase().as_str() {
                    "http" => 80,
                    "https" => 443,
                    _ => return Err("why: must be a request id, or an http or https URL".into()),
                };
                let at = rest.find(['/', '?', '#']).unwrap_or(rest.len());
                let (authority, path) = rest.split_at(at);
                let parsed: Authority = authority
                    .parse()
                    .map_err(|_| "why: the URL must name a host".to_owned())?;
                let host = authority.strip_suffix(&format!(":{port}"));
                let with_port = match parsed.port() {
                    None => Some(format!("{authority}:{port}")),
                    Some(_) => host.map(str::to_owned),
                };
                let path = path.split(['?', '#']).next().unwrap_or("");
                What::Url {
                    authorities: [authority.to_owned()]
                        .into_iter()
                        .chain(with_port)
                        .collect(),
                    path: if path.is_empty() { "/" } else { path }.to_owned(),
                }
            }
        };
        Ok(Self { what, most })
    }

    /// What is asked of the admin API.
    pub(super) fn path(&self) -> String {
        let mut query = Serializer::new(String::new());
        query.append_pair("max", &self.most.to_string());
        match &self.what {
            What::RequestId(id) => {
                query.append_pair("request_id", id);
            }
            What::Url { authorities, path } => {
                for authority in authorities {
                    query.append_pair("authority", authority);
                }
                query.append_pair("path", path);
            }
        }
        format!("/failures?{}", query.finish())
    }

    /// What there is to say where no failure is known.
    pub(crate) fn unknown(&self) -> String {
        let what = match &self.what {
            What::RequestId(id) => format!("the request id {id}"),
            What::Url { authorities, path } => {
                format!("the URL {}{path}", authorities[0])
            }
        };
        format!(
            "ambassador: no failure with {what} is known. The request has gone well, or \
             through another ambassador, or is older than the failures that are kept."
        )
    }
}

/// What happened to each of these.
pub(super) fn text(failures: &[Value]) -> String {
    let mut out = String::new();
    for (number, failure) in failures.iter().enumerate() {
        if number > 0 {
            out.push('\n');
        }
        tell(failure, &mut out);
    }
    out
}

fn tell(failure: &Value, out: &mut String) {
    let text = |name: &str| failure[name].as_str();
    let told = |name: &str| text(name).unwrap_or("-");
    line(
        out,
        format_args!(
            "{} {}{}: {}",
            told("method"),
            text("authority").unwrap_or(""),
            text("path").unwrap_or(""),
            end(failure)
        ),
    );
    for (label, value) in [
        ("at", text("time").map(str::to_owned)),
        ("request id", text("request_id").map(str::to_owned)),
        ("upstream", text("upstream").map(str::to_owned)),
        ("listener", text("listener").map(str::to_owned)),
        ("client", text("client").map(str::to_owned)),
        (
            "was going to",
            text("original_destination").map(str::to_owned),
        ),
        ("faults", text("fault").map(str::to_owned)),
        ("took", took(failure)),
        ("detail", text("detail").map(str::to_owned)),
    ] {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            line(out, format_args!("  {label:<12} {}", OneLine(&value)));
        }
    }
    out.push('\n');
    steps(failure, out);
    if let Some(explanation) = failure.get("explanation") {
        out.push('\n');
        explain(explanation, out);
    }
}

/// How it ended.
fn end(failure: &Value) -> String {
    let status = match failure["status"].as_u64() {
        None | Some(0) => "no answer".to_owned(),
        Some(status) => status.to_string(),
    };
    let words = ["grpc_status", "reason", "outcome"];
    let words = words.iter().filter_map(|name| failure[name].as_str());
    [status.as_str()]
        .into_iter()
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ")
}

fn took(failure: &Value) -> Option<String> {
    let took = failure["duration_ms"].as_f64()?;
    Some(match failure["overhead_ms"].as_f64() {
        Some(here) if here > 0.0 => format!("{took:.3} ms, of which {here:.3} ms here"),
        _ => format!("{took:.3} ms"),
    })
}

/// The steps, each with its moment.
fn steps(failure: &Value, out: &mut String) {
    let mut said = |at: Option<f64>, what: String| {
        let at = at.unwrap_or(0.0);
        line(out, format_args!("  {at:>12.3} ms  {}", OneLine(&what)));
    };
    said(Some(0.0), "arrived".to_owned());
    let mut number = 0;
    for step in failure["steps"].as_array().into_iter().flatten() {
        let (text, ms) = (
            |name: &str| step[name].as_str().unwrap_or("-"),
            |name: &str| step[name].as_f64(),
        );
        match text("step") {
            "try" => {
                number += 1;
                let endpoint = text("endpoint");
                said(ms("at_ms"), format!("try {number} at {endpoint}"));
                if let Some(sent) = ms("sent_ms") {
                    let over = match step["reused"].as_bool() {
                        Some(true) => "a connection that was there",
                        _ => "a new connection",
                    };
                    said(Some(sent), format!("try {number}: sent over {over}"));
                }
                if let (Some(head), Some(status)) = (ms("head_ms"), step["status"].as_u64()) {
                    said(Some(head), format!("try {number}: answered {status}"));
                }
                let outcome = text("outcome");
                if outcome != "response" {
                    said(ms("ended_ms"), format!("try {number}: {outcome}"));
                }
            }
            "again" => said(
                ms("at_ms"),
                format!(
                    "another try follows in {:.3} ms, for {}{}",
                    ms("wait_ms").unwrap_or(0.0),
                    text("cause"),
                    rule(step)
                ),
            ),
            "beside" => said(
                ms("at_ms"),
                format!("another try is made beside it, for {}", text("cause")),
            ),
            "stop" => said(
                ms("at_ms"),
                format!("no other try: {}{}", text("why"), rule(step)),
            ),
            other => said(ms("at_ms"), other.to_owned()),
        }
    }
    if let Some(left_out) = failure["steps_left_out"].as_u64() {
        said(None, format!("{left_out} more steps are not kept"));
    }
    said(
        failure["duration_ms"].as_f64(),
        format!("ended: {}", end(failure)),
    );
}

/// The rule of a decision, and where it stands.
fn rule(step: &Value) -> String {
    match (step["rule"].as_str(), step["from"].as_str()) {
        (Some(rule), Some(from)) => format!(" ({rule}: {from})"),
        (Some(rule), None) => format!(" ({rule})"),
        (None, _) => String::new(),
    }
}

fn explain(explanation: &Value, out: &mut String) {
    let text = |name: &str| explanation[name].as_str().unwrap_or("-");
    line(out, format_args!("{}: {}", text("reason"), text("meaning")));
    let list = |name: &str| {
        let list = explanation[name].as_array().into_iter().flatten();
        list.filter_map(Value::as_str).collect::<Vec<_>>()
    };
    line(
        out,
        format_args!("  at fault  {}", list("at_fault").join(", or ")),
    );
    for (number, step) in list("what_to_do").into_iter().enumerate() {
        let label = if number == 0 { "to do" } else { "" };
        line(out, format_args!("  {label:<9} {step}"));
    }
    line(out, format_args!("  page      {}", text("page")));
}

fn line(out: &mut String, what: std::fmt::Arguments<'_>) {
    writeln!(out, "{what}").expect("a String takes every write");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_url_is_asked_for_as_requests_may_write_it() {
        for (url, authorities, path) in [
            ("http://a.test", &["a.test", "a.test:80"][..], "/"),
            ("https://a.test:443/x?y#z", &["a.test:443", "a.test"], "/x"),
            ("http://a.test:8080/x y", &["a.test:8080"], "/x y"),
            ("http://[::1]/", &["[::1]", "[::1]:80"], "/"),
        ] {
            let asked = FailureQuery::parse(url, 1).unwrap();
            let authorities = authorities.iter().map(|it| (*it).to_owned()).collect();
            let path = path.to_owned();
            assert_eq!(asked.what, What::Url { authorities, path }, "{url}");
        }
        for bad in ["ftp://a.test/", "http:///x"] {
            assert!(FailureQuery::parse(bad, 1).is_err(), "{bad}");
        }
        let asked = FailureQuery::parse("7 & 8", 3).unwrap();
        assert_eq!(asked.path(), "/failures?max=3&request_id=7+%26+8");
    }

    #[test]
    fn a_failure_is_told_step_by_step() {
        let failure = json!({
            "time": "2026-11-28T10:00:00.123Z", "listener": "in", "upstream": "shop",
            "method": "GET", "authority": "shop.test", "path": "/x",
            "request_id": "7", "status": 502, "reason": "upstream-reset",
            "duration_ms": 31.2, "overhead_ms": 0.2, "detail": "",
            "steps": [
                { "step": "try", "endpoint": "10.0.0.1:80", "at_ms": 0.1, "sent_ms": 0.4,
                  "reused": false, "ended_ms": 1.2, "outcome": "upstream-reset" },
                { "step": "again", "at_ms": 1.2, "cause": "reset", "wait_ms": 12.3,
                  "rule": "retry.on", "from": "built in" },
                { "step": "try", "endpoint": "10.0.0.2:80", "at_ms": 13.5, "sent_ms": 13.6,
                  "reused": true, "head_ms": 31.0, "status": 503, "ended_ms": 31.1,
                  "outcome": "response" },
                { "step": "stop", "at_ms": 31.1, "rule": "retry.attempts",
                  "why": "all tries have been made" },
            ],
        });
        let told = text(&[failure]);
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(lines[0], "GET shop.test/x: 502 upstream-reset");
        let steps: Vec<_> = lines.iter().filter(|it| it.contains(" ms  ")).collect();
        let expected = [
            "         0.000 ms  arrived",
            "         0.100 ms  try 1 at 10.0.0.1:80",
            "         0.400 ms  try 1: sent over a new connection",
            "         1.200 ms  try 1: upstream-reset",
            "         1.200 ms  another try follows in 12.300 ms, for reset (retry.on: built in)",
            "        13.500 ms  try 2 at 10.0.0.2:80",
            "        13.600 ms  try 2: sent over a connection that was there",
            "        31.000 ms  try 2: answered 503",
            "        31.100 ms  no other try: all tries have been made (retry.attempts)",
            "        31.200 ms  ended: 502 upstream-reset",
        ];
        assert_eq!(steps.len(), expected.len(), "{told}");
        for (line, expected) in steps.into_iter().zip(expected) {
            assert!(
                line.trim_start() == expected.trim_start(),
                "{line:?} {expected:?}"
            );
        }
    }
}
