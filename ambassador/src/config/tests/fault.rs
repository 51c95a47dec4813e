//! `fault`: faults injected on purpose.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::policy::fault::{Abort, Delay, Settings};

/// The faults of the first upstream.
fn faults(text: &str) -> Option<Settings> {
    let policies = &loaded(text).routes.upstreams[0].policies;
    policies.fault.as_deref().cloned()
}

#[test]
fn every_key_is_read_and_shown() {
    let text = "\
upstreams:
  a:
    hosts: [b]
    fault:
      abort: { status: 503, share: 10% }
      delay: { for: 200ms, share: 5% }
      reset: 1%
      header: X-Fault
      until: 2026-12-01T00:00:00Z
";
    let expected = Settings {
        abort: Some(Abort {
            status: 503,
            share: 0.1,
        }),
        delay: Some(Delay {
            wait: Duration::from_millis(200),
            share: 0.05,
        }),
        reset: 0.01,
        header: Some("x-fault".into()),
        authority: None,
        until: Some(std::time::UNIX_EPOCH + Duration::from_secs(1_796_083_200)),
    };
    assert_eq!(faults(text), Some(expected));
    let checked = loaded(text);
    let effective = checked.effective();
    let shown = json!({
        "abort": { "status": 503, "share": "10%" },
        "delay": { "for": "200ms", "share": "5%" },
        "reset": "1%",
        "header": "x-fault",
        "until": "2026-12-01T00:00:00Z",
    });
    assert_eq!(effective["upstreams"]["a"]["fault"], shown);
    assert_eq!(loaded(&effective.to_string()).routes, checked.routes);
}

#[test]
fn layers_change_key_by_key_and_off_undoes() {
    let checked = loaded(
        "\
defaults: { fault: { abort: { status: 500 }, reset: 0% } }
upstreams:
  one: { hosts: [a], fault: { abort: { share: 5% } } }
  two: { hosts: [b], fault: off }
  db: { hosts: [10.1.1.1], protocol: tcp, fault: { delay: { for: 1s } } }
routes:
  - { upstream: one, fault: off }
  - { upstream: two, fault: { reset: 2% } }
",
    );
    let upstreams = &checked.routes.upstreams;
    let abort = |share| Some(Abort { status: 500, share });
    assert_eq!(
        upstreams[0].policies.fault.as_deref().unwrap().abort,
        abort(0.05)
    );
    assert_eq!(upstreams[1].policies.fault, None);
    // Nothing of a connection can be answered.
    let db = upstreams[2].policies.fault.as_deref().unwrap();
    assert_eq!((db.abort, db.delay.unwrap().share), (None, 1.0));
    assert_eq!(
        checked.routes.adopted.fault.as_deref().unwrap().abort,
        abort(1.0)
    );
    let of_route = |number: usize| {
        let overridden = checked.routes.routes[number].overridden.as_deref();
        overridden.unwrap().policies.fault.clone()
    };
    assert_eq!(of_route(0), None);
    assert_eq!(of_route(1).unwrap().reset, 0.02);
    let listed = |key: &str| {
        let mut list = checked.policies[0].iter();
        let policy = list.find(|policy| policy.key == key).unwrap();
        format!("{} ({})", policy.value, policy.origin)
    };
    assert_eq!(listed("fault.abort.status"), "500 (defaults, line 1)");
    assert_eq!(listed("fault.abort.share"), "5% (upstream, line 3)");
    assert_eq!(faults("upstreams: { a: { hosts: [b] } }"), None);
}

#[test]
fn mistakes_are_named() {
    for (fault, wanted) in [
        (
            "{ abort: { share: 1% } }",
            "f:1: upstreams.a.fault.abort: must have a status",
        ),
        (
            "{ abort: { status: 200 } }",
            "f:1: upstreams.a.fault.abort.status: must be from 400 to 599, got 200",
        ),
        (
            "{ delay: { share: 1% } }",
            "f:1: upstreams.a.fault.delay: must have for: how long requests wait",
        ),
        (
            "{ delay: { for: 6m } }",
            "f:1: upstreams.a.fault.delay.for: must be at most 5m, got 6m",
        ),
        (
            "{ delay: { for: 0s } }",
            "f:1: upstreams.a.fault.delay.for: must be longer than zero, got 0s",
        ),
        (
            "{ abort: { status: 500, share: 60% }, reset: 41% }",
            "f:1: upstreams.a.fault: abort and reset are more than 100% together",
        ),
        (
            "{ header: \"a b\" }",
            "f:1: upstreams.a.fault.header: is no header name, got a b",
        ),
        (
            "{ until: tomorrow }",
            "f:1: upstreams.a.fault.until: must be a date and time with its zone, \
             as 2026-12-01T00:00:00Z, got tomorrow",
        ),
        (
            "on",
            "f:1: upstreams.a.fault: must be off or a mapping, got on",
        ),
    ] {
        let text = format!("upstreams: {{ a: {{ hosts: [b], fault: {fault} }} }}");
        assert_eq!(mistakes(&text), [wanted], "{text}");
    }
    let text = "upstreams: { a: { hosts: [10.1.1.1], protocol: tcp, \
                fault: { abort: { status: 500, share: 1% }, header: x, reset: 1% } } }";
    let wanted = [
        "f:1: upstreams.a.fault.abort: protocol tcp has no requests",
        "f:1: upstreams.a.fault.header: protocol tcp has no requests",
    ];
    assert_eq!(mistakes(text), wanted);
}
