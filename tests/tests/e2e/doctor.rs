//! `ambassador doctor`: what it says of this machine.

use std::process::Command;

use ambassador_tests::proxy::{ambassador, binary};
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
    for word in ["kernel", "cgroup", "bpf", "io_uring", "seccomp", "landlock"] {
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

/// In a mount namespace of its own, as others have pins on this machine.
#[test]
fn who_squats_where_pins_go_is_named() {
    let report = |prepare: &str| {
        let script = format!("mount -t bpf bpf /sys/fs/bpf && {prepare} && exec \"$0\" doctor");
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "sh", "-c", &script]).arg(binary());
        let output = program::output(&mut unshare);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = said.lines().find(|line| line.contains("pins "));
        let line = line.unwrap_or_else(|| panic!("{said}")).to_owned();
        (output.status.code(), line)
    };
    let (code, line) = report("mkdir -m 700 /sys/fs/bpf/ambassador");
    assert!(line.starts_with("ok"), "{line}");
    assert_eq!(code, Some(0));
    let theirs = "chown 12345 /sys/fs/bpf/ambassador";
    let (code, line) = report(&format!("mkdir -m 700 /sys/fs/bpf/ambassador && {theirs}"));
    assert!(line.starts_with("missing"), "{line}");
    assert!(
        line.contains("owned by user 12345") && line.contains("remove"),
        "{line}"
    );
    assert_eq!(code, Some(69));
    let (_, line) = report("mkdir -m 777 /sys/fs/bpf/ambassador");
    assert!(line.contains("open to others"), "{line}");
}
