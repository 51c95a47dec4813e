//! A call as JSON: the fields of its line in the access log, and its steps.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::access_log::{Circumstances, Line};
use super::super::journal::{Decision, Rule, Step, TryStep};
use super::super::registry::{ListenerIndex, Registry, UpstreamIndex};
use super::Call;
use crate::clock::Instant;

/// The names of upstreams and listeners.
#[derive(Debug)]
pub(crate) struct Names {
    upstreams: BTreeMap<UpstreamIndex, Arc<str>>,
    listeners: BTreeMap<ListenerIndex, Arc<str>>,
}

impl Names {
    /// Those of now.
    pub(crate) fn of(registry: &Registry) -> Self {
        Self {
            upstreams: registry.upstream_names(),
            listeners: registry.listener_names(),
        }
    }
}

impl Call {
    /// All that is known of it.
    pub(crate) fn document(&self, names: &Names) -> Value {
        let passage = &self.record.passage;
        let (upstream, listener) = (passage.upstream, passage.listener);
        let at = Circumstances {
            upstream: names.upstreams.get(&upstream).map_or("", |name| name),
            listener: names.listeners.get(&listener).map_or("", |name| name),
            unix_ms: self.ended_unix_ms,
            ended: self.ended,
        };
        let mut line = Vec::new();
        Line::of(&self.members).format(&mut line, self.logged(), at);
        // It is JSON, whatever its caller has sent.
        let mut document: Value = serde_json::from_slice(&line).unwrap_or_default();
        if let Some(Value::String(path)) = document.get_mut("path")
            && let Some(query) = path.find('?')
        {
            // It may hold what is nobody's business.
            path.replace_range(query + 1.., "…");
        }
        let since = |at: Instant| milliseconds(at.saturating_duration_since(passage.started));
        let steps = self.steps.iter();
        let steps: Vec<_> = steps.map(|step| self::step(step, since)).collect();
        if let Some(members) = document.as_object_mut() {
            members.insert("steps".into(), steps.into());
            if self.steps_left_out > 0 {
                members.insert("steps_left_out".into(), self.steps_left_out.into());
            }
        }
        document
    }
}

/// `since`: the time from the beginning of the request to an instant.
fn step(step: &Step, since: impl Fn(Instant) -> f64) -> Value {
    match step {
        Step::Try(tried) => self::tried(tried, since),
        Step::Decision { at, decision } => {
            let at = since(*at);
            match decision {
                Decision::Again { cause, wait } => json!({
                    "step": "again",
                    "at_ms": at,
                    "cause": cause.as_str(),
                    "wait_ms": milliseconds(*wait),
                    "rule": Rule::On.key(),
                }),
                Decision::Beside(cause) => json!({
                    "step": "beside",
                    "at_ms": at,
                    "cause": cause.as_str(),
                }),
                Decision::Stop(rule) => json!({
                    "step": "stop",
                    "at_ms": at,
                    "rule": rule.key(),
                    "why": rule.text(),
                }),
            }
        }
    }
}

fn tried(tried: &TryStep, since: impl Fn(Instant) -> f64) -> Value {
    let mut value = json!({
        "step": "try",
        "endpoint": tried.endpoint.to_string(),
        "at_ms": since(tried.began),
        "ended_ms": since(tried.ended),
        "outcome": tried.outcome.as_str(),
    });
    if let Some(sent) = tried.sent {
        value["sent_ms"] = json!(since(sent));
        value["reused"] = json!(tried.reused);
    }
    if let Some((at, status)) = tried.head {
        value["head_ms"] = json!(since(at));
        value["status"] = json!(status);
    }
    value
}

/// With microseconds.
fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1_000.0
}
