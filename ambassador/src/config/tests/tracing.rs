//! `telemetry.tracing` and `propagate`.

use serde_json::json;

use super::*;
use crate::message::trace::{Formats, Settings};

/// How the traces of the requests of the first upstream are carried on.
fn traced(text: &str) -> Option<Settings> {
    loaded(text).routes.upstreams[0].policies.tracing
}

fn formats(words: &str) -> Formats {
    Formats {
        tracecontext: words.contains("tracecontext"),
        b3: words.contains("b3"),
        baggage: words.contains("baggage"),
    }
}

#[test]
fn traces_are_left_alone_unless_asked_for() {
    let checked = loaded("upstreams: { a: { hosts: [b] } }");
    assert_eq!(checked.tracing, None);
    assert_eq!(checked.routes.upstreams[0].policies.tracing, None);
    assert_eq!(checked.routes.adopted.tracing, None);
    assert_eq!(checked.effective().get("telemetry"), None);
}

#[test]
fn every_upstream_has_what_the_nearest_says() {
    let of = |sample, words| {
        let formats = formats(words);
        Some(Settings { sample, formats })
    };
    for (telemetry, more, wanted) in [
        ("{}", "", of(0.01, "tracecontext baggage")),
        ("{ sample: 0.5% }", "", of(0.005, "tracecontext baggage")),
        ("{ propagate: [b3] }", "", of(0.01, "b3")),
        ("{ propagate: off }", "", of(0.01, "")),
        (
            "{}",
            ", propagate: [b3, tracecontext]",
            of(0.01, "b3 tracecontext"),
        ),
        ("{ sample: 100% }", ", propagate: off", of(1.0, "")),
        (
            "{ propagate: off }",
            ", propagate: [baggage]",
            of(0.01, "baggage"),
        ),
    ] {
        let text = format!(
            "telemetry: {{ tracing: {telemetry} }}\nupstreams: {{ a: {{ hosts: [b]{more} }} }}"
        );
        assert_eq!(traced(&text), wanted, "{text}");
    }
    let checked = loaded(
        "\
telemetry: { tracing: { propagate: [b3] } }
upstreams:
  a: { hosts: [a] }
  b: { hosts: [b], propagate: off }
  c: { hosts: [10.1.1.1], protocol: tcp }
routes: [{ upstream: b, match: { path_prefix: /x }, retry: { attempts: 2 } }]
",
    );
    let listed = |upstream: usize| {
        let list = checked.policies[upstream].iter();
        let mut found = list.filter(|policy| policy.key == "propagate");
        found.next().map(|p| format!("{} ({})", p.value, p.origin))
    };
    assert_eq!(listed(0).as_deref(), Some("b3 (telemetry, line 1)"));
    assert_eq!(listed(1).as_deref(), Some("off (upstream, line 4)"));
    assert_eq!(listed(2), None);
    assert_eq!(checked.routes.adopted.tracing, of(0.01, "b3"));
    let overridden = checked.routes.routes[0].overridden.as_deref().unwrap();
    assert_eq!(overridden.policies.tracing, of(0.01, ""));

    let effective = checked.effective();
    let shown = json!({ "tracing": { "sample": "1%", "propagate": ["b3"] } });
    assert_eq!(effective["telemetry"], shown);
    assert_eq!(loaded(&effective.to_string()).routes, checked.routes);
}

#[test]
fn mistakes_say_what_is_known() {
    let upstream = "\nupstreams: { a: { hosts: [b] } }";
    for (text, wanted) in [
        (
            "telemetry: { tracing: { sample: 2 } }",
            "f:1: telemetry.tracing.sample: must be a percentage from 0% to 100%, got 2",
        ),
        (
            "telemetry: { tracing: { propagate: [b4] } }",
            "f:1: telemetry.tracing.propagate[0]: must be one of tracecontext, b3, baggage; \
             did you mean b3?, got b4",
        ),
        (
            "telemetry: { tracing: { propagate: b3 } }",
            "f:1: telemetry.tracing.propagate: must be a list of formats, or off, got b3",
        ),
        (
            "telemetry: { tracing: { otlp: \"http://127.0.0.1:4318\" } }",
            "f:1: telemetry.tracing.otlp: unknown key; known here: sample, propagate",
        ),
        (
            "defaults: { propagate: off }",
            "f:1: defaults.propagate: needs telemetry.tracing",
        ),
        (
            "telemetry: { tracing: {} }\nupstreams: { c: { hosts: [10.1.1.1], protocol: tcp, propagate: [b3] } }",
            "f:2: upstreams.c.propagate: protocol tcp has no requests",
        ),
    ] {
        let text = match text.contains("upstreams") {
            true => text.to_owned(),
            false => format!("{text}{upstream}"),
        };
        assert_eq!(mistakes(&text), [wanted], "{text}");
    }
}
