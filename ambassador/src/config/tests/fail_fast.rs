//! `kernel_fail_fast`: who can have it, and what is said to the others.

use super::*;

/// A file that captures, with these upstreams, one on each line from the third.
fn capturing(upstreams: &str) -> String {
    format!("capture: {{}}\nupstreams:\n{upstreams}")
}

/// Names of the upstreams that have it.
fn with_it(checked: &Checked) -> Vec<&str> {
    let upstreams = checked.routes.upstreams.iter();
    let on = upstreams.filter(|upstream| upstream.policies.circuit_breaker.kernel_fail_fast);
    on.map(|upstream| &*upstream.name).collect()
}

#[test]
fn it_needs_addresses_of_its_own() {
    let sound = load_str(
        "f",
        &capturing(
            "  a: { hosts: [10.1.2.3], circuit_breaker: { kernel_fail_fast: on } }
  b: { hosts: [b.example, 10.1.2.4], circuit_breaker: { kernel_fail_fast: on } }
  c: { hosts: [10.2.0.0/16:80, \"*.c\"], circuit_breaker: { kernel_fail_fast: on } }
  d: { hosts: [10.2.0.0/16:81], circuit_breaker: { kernel_fail_fast: on }, protocol: tcp }
  e: { hosts: [10.1.2.5], circuit_breaker: { kernel_fail_fast: off } }
",
        ),
    );
    let sound = sound.unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!(with_it(&sound), ["a", "b", "c", "d"]);
    assert!(sound.warnings.is_empty());

    let key = |name: &str| format!("upstreams.{name}.circuit_breaker.kernel_fail_fast");
    let no_address =
        "needs an address, a CIDR or a whole name in hosts: the kernel goes by address";
    let shared = "needs addresses of its own, and";
    let wanted = [
        format!("f:3: {}: {no_address}, got on", key("wild")),
        format!("f:4: {}: {no_address}, got on", key("none")),
        format!(
            "f:5: {}: {shared} two claims 10.0.0.0/8, got on",
            key("one")
        ),
        format!("f:6: {}: {shared} one claims 10.1.2.3, got on", key("two")),
        format!(
            "f:7: {}: {shared} two claims 10.0.0.0/8, got on",
            key("port")
        ),
    ];
    let text = capturing(
        "  wild: { hosts: [\"*.a\"], circuit_breaker: { kernel_fail_fast: on } }
  none: { endpoints: [10.9.0.1:80], circuit_breaker: { kernel_fail_fast: on } }
  one: { hosts: [c, 10.1.2.3], circuit_breaker: { kernel_fail_fast: on } }
  two: { hosts: [10.0.0.0/8], circuit_breaker: { kernel_fail_fast: on } }
  port: { hosts: [10.2.0.0/16:80], circuit_breaker: { kernel_fail_fast: on } }
",
    );
    assert_eq!(mistakes(&text), wanted);
}

#[test]
fn it_needs_the_programs() {
    let upstreams =
        "upstreams: { a: { hosts: [10.1.2.3],\n circuit_breaker: { kernel_fail_fast: on } } }\n";
    let key = "f:2: upstreams.a.circuit_breaker.kernel_fail_fast";
    for (capture, what) in [
        (
            "",
            "needs capture, an empty one where exec or run --cgroup says of what",
        ),
        ("capture: { mode: iptables }", "needs capture.mode: ebpf"),
    ] {
        let text = format!("{upstreams}{capture}");
        assert_eq!(mistakes(&text), [format!("{key}: {what}, got on")]);
    }
    let text = format!("{upstreams}capture: {{ mode: ebpf }}");
    assert_eq!(mistakes(&text), [""; 0]);
}

#[test]
fn it_is_inherited_by_those_who_can_have_it() {
    let text = "\
defaults: { circuit_breaker: { kernel_fail_fast: on } }
capture: {}
upstreams:
  a: { hosts: [10.1.2.3] }
  wild: { hosts: [\"*.a\"] }
  one: { hosts: [10.2.0.0/16] }
  two: { hosts: [10.2.1.0/24] }
  off: { hosts: [10.1.2.4], circuit_breaker: { kernel_fail_fast: off } }
routes:
  - { upstream: one, circuit_breaker: { failures: 1 } }
";
    let checked = load_str("f", text).unwrap();
    assert_eq!(with_it(&checked), ["a"]);
    let listed = |index: usize| {
        let mut policies = checked.policies[index].iter();
        let policy = policies.find(|policy| policy.key.ends_with("kernel_fail_fast"));
        policy.unwrap().value.as_str()
    };
    assert_eq!(
        [0, 1, 2, 3, 4].map(listed),
        ["on", "off", "off", "off", "off"]
    );
    let again = load_str("f", &checked.effective().to_string()).unwrap();
    assert_eq!(with_it(&again), ["a"]);

    let nothing = text.replace("capture: {}", "capture: { mode: iptables }");
    assert_eq!(
        warnings(&nothing),
        [
            "1: defaults.circuit_breaker.kernel_fail_fast: does nothing: \
          needs capture.mode: ebpf, got on"
        ]
    );
    assert_eq!(with_it(&load_str("f", &nothing).unwrap()), [""; 0]);
}

#[test]
fn it_is_not_for_routes() {
    let text = "\
capture: {}
upstreams: { a: { hosts: [10.1.2.3] } }
routes:
  - upstream: a
    circuit_breaker: { kernel_fail_fast: off }
";
    let wanted = "f:5: routes[0].circuit_breaker.kernel_fail_fast: is for a whole upstream: \
                  connects come before there is a request to route, got off";
    assert_eq!(mistakes(text), [wanted]);
}
