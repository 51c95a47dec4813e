//! `ambassador doctor`: what it says of this machine.

use ambassador_tests::proxy::ambassador;
use ambassador_tests::{Backend, Cgroup, Proxy, program};
use serde_json::Value;

/// What the check of this name found, with these further arguments.
fn check(name: &str, arguments: &[&str]) -> Value {
    let mut doctor = ambassador(Backend::Ring);
    let said = program::succeed(doctor.args(["doctor", "--json"]).args(arguments));
    let report: Value = serde_json::from_str(&said).expect("it is JSON");
    let mut checks = report["checks"].as_array().into_iter().flatten();
    let check = checks.find(|check| check["name"] == name);
    check.cloned().unwrap_or_else(|| panic!("{name}\n{said}"))
}

#[test]
fn a_line_for_each_need() {
    let output = program::output(ambassador(Backend::Ring).arg("doctor"));
    let said = String::from_utf8_lossy(&output.stdout).to_lowercase();
    for word in ["kernel", "cgroup", "bpf", "io_uring"] {
        assert!(
            said.lines().any(|line| line.contains(word)),
            "{word}\n{said}"
        );
    }
}

#[test]
fn programs_of_a_running_ambassador_are_no_others() {
    let cgroup = Cgroup::new();
    let _proxy = Proxy::capturing(Backend::Ring, &cgroup, "");
    let path = cgroup.path().display().to_string();
    // Guards are at the root, above every cgroup.
    for (arguments, program) in [(&[][..], "guard4"), (&["--cgroup", &path], "connect4")] {
        let others = check("others", arguments);
        assert_eq!(others["status"], "ok", "{others}");
        let found = others["found"].as_str().unwrap_or_default();
        assert!(found.contains(program), "{others}");
        assert!(found.contains("running ambassador"), "{others}");
    }
}
