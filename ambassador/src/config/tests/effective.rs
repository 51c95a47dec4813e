//! What is in effect, as a file.

use serde_json::json;

use super::layers::LAYERS;
use super::*;

/// What is in effect is a file that means the same, routes included, but for
/// what is masked.
#[test]
fn what_is_in_effect_means_the_same_again() {
    let more = "\
upstreams:
  tcp: { hosts: [10.1.1.1], protocol: tcp }
  never: { hosts: [c], circuit_breaker: { failures: off }, rate_limit: { requests_per_second: 0.001 } }
  run: { hosts: [d], circuit_breaker: { consecutive: 2 }, retry: { body_limit: 1025, on: [], budget: { ratio: 7% } } }
  zoned: { hosts: [e], zone: z, load_balancing: { ring_hash: { header: h } },
           auth: { bearer: { file: /t } }, endpoints: [127.0.0.1:1],
           outlier: { consecutive: off, success_rate: on, max_ejected: 33.3% } }
  printed: { hosts: [h], endpoints: [127.0.0.1:1], auth: { bearer: { exec: [echo], ttl: 90s } } }
  basic: { hosts: [f], endpoints: [127.0.0.1:1], auth: { basic: { user: u, password: { file: /p } } } }
  header: { hosts: [g], endpoints: [127.0.0.1:1], auth: { header: { name: X-Key, value: { file: /k } } } }
routes:
  - { match: { path_prefix: /a }, upstream: run, circuit_breaker: { failures: 3 } }
  - { match: { path_prefix: /b }, upstream: never, rate_limit: off, circuit_breaker: { consecutive: 3 } }
  - { match: { path_prefix: /c }, upstream: zoned, load_balancing: { ring_hash: { source: ip } } }
";
    for text in [LAYERS, more] {
        let checked = loaded(text);
        let effective = checked.effective();
        let again = loaded(&effective.to_string());
        assert_eq!(again.effective(), effective);
        let routes = secrets::masked(checked.routes);
        assert_eq!(again.routes.routes, routes.routes);
        assert_eq!(again.routes.upstreams, routes.upstreams);
    }
    let effective = loaded(LAYERS).effective();
    let upstream = &effective["upstreams"]["one"];
    let mut breaker = json!({
        "failures": 9, "ratio": "50%", "window": "10s", "sleep": "30s", "consecutive": "off",
        "failure_statuses": [
            "500-599", { "grpc": ["unknown", "internal", "unavailable", "data-loss"] },
        ],
        "kernel_fail_fast": "off",
    });
    assert_eq!(upstream["circuit_breaker"], breaker);
    let route = &effective["routes"][0];
    breaker["failure_statuses"] = json!([503]);
    breaker
        .as_object_mut()
        .unwrap()
        .shift_remove("kernel_fail_fast");
    assert_eq!(route["circuit_breaker"], breaker);
    assert_eq!(route["rate_limit"], "off");
    assert_eq!(route["timeouts"]["request"], "1s");
    assert!(route.get("pool").is_none());
    assert!(effective["routes"][1].get("retry").is_none());
}
