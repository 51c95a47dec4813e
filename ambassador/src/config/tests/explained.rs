//! What `explain` says of a destination.

use serde_json::json;

use super::layers::LAYERS;
use super::*;

#[test]
fn a_destination_is_explained_with_the_lines_that_decide() {
    let checked = example("full.yaml");
    let explain = |destination: &str| explain::explain(&checked, destination).unwrap().to_json();
    let shown = explain("http://api.payments.example/v1");
    assert_eq!(shown["upstream"], "payments");
    assert_eq!(shown["route"], "the name asked for");
    assert_eq!(
        shown["endpoints"],
        "10.1.2.3:8443, 10.1.2.4:8443 (weight 2, zone b)"
    );
    assert_eq!(shown["policies"]["timeouts.connect"]["value"], "250ms");
    assert!(
        shown["policies"]["timeouts.connect"]["from"]
            .as_str()
            .unwrap()
            .starts_with("upstream")
    );
    assert_eq!(
        explain("http://api.payments.example/search?q")["route"],
        "routes[0]"
    );
    assert_eq!(
        explain("10.2.7.7:8443")["captured"],
        "yes: payments claims it"
    );
    assert_eq!(
        explain("10.2.7.7:80")["upstream"],
        "unmatched: relayed to the original destination"
    );
    assert_eq!(
        explain("127.0.0.1:80")["captured"],
        "no: capture.exclude.cidrs has 127.0.0.0/8"
    );
    assert_eq!(
        explain("10.2.7.7:9")["captured"],
        "no: capture.include.ports does not have 9"
    );
    assert_eq!(explain("https://[2001:db8::1]/")["upstream"], "payments");

    let listeners = example("listeners.yaml");
    let explain = |destination: &str| explain::explain(&listeners, destination).unwrap().to_json();
    assert_eq!(
        explain("http://api.payments.example/")["upstream"],
        "payments"
    );
    assert_eq!(
        explain("http://127.0.0.1:8081/payments/v1")["route"],
        "the path"
    );
    assert_eq!(explain("http://other/")["upstream"], "none: no-route");
    assert_eq!(
        explain("10.1.2.20:5432")["captured"],
        "only by `run --cgroup`: the file has no capture"
    );
    assert_eq!(
        explain("10.1.2.20:5432")["upstream"],
        "unmatched: relayed to the original destination"
    );
    for bad in ["nonsense", "ftp://a", "http://", "http://a:0/"] {
        assert!(explain::explain(&checked, bad).is_err(), "{bad}");
    }
}

#[test]
fn a_route_is_explained_with_its_own_lines() {
    let checked = loaded(LAYERS);
    let explain = |url: &str| explain::explain(&checked, url).unwrap().to_json();
    let shown = explain("http://one/pay/1");
    assert_eq!(shown["route"], "routes[0]");
    for (key, value, from) in [
        ("timeouts.request", "1s", "routes[0]:20"),
        ("timeouts.per_try", "none", "upstream, line 9"),
        ("retry.methods", "POST", "routes[0]:21"),
        ("retry.attempts", "4", "defaults, line 3"),
        ("circuit_breaker.failure_statuses", "503", "routes[0]:22"),
        ("rate_limit", "off", "routes[0]:23"),
        ("headers.set.B", "***", "routes[0]:24"),
        ("headers.set.a", "***", "upstream, line 13"),
        ("headers.remove.c", "removed", "routes[0]:24"),
    ] {
        let policy = &shown["policies"][key];
        assert_eq!(*policy, json!({ "value": value, "from": from }), "{key}");
    }
    let plain = explain("http://one/plain");
    assert_eq!(plain["route"], "routes[1]");
    assert_eq!(
        plain["policies"]["timeouts.request"]["from"],
        "defaults, line 2"
    );
    let other = explain("http://one/other");
    assert_eq!(other["policies"], plain["policies"]);
}
