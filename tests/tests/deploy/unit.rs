//! The systemd unit: what systemd says of it, and that capture works under all
//! that it takes away.

use std::io::Write;
use std::process::Command;
use std::time::Duration;

use ambassador_tests::program;
use ambassador_tests::server::text;
use ambassador_tests::{Netns, Server, eventually};

use crate::machine::{self, Machine};

const ADDRESS: &str = "10.97.0.1";

/// What the unit may be exposed at most, in tenths, by `systemd-analyze security`.
/// Capture needs the capabilities that keep it from less.
const EXPOSURE: &str = "46";

#[test]
fn systemd_understands_every_line_of_the_unit() {
    let unit = "/lib/systemd/system/ambassador.service";
    let said = machine::installed(&format!("systemd-analyze verify {unit} 2>&1"));
    let text = String::from_utf8_lossy(&said.stdout);
    // It looks at what the unit depends on too.
    let ours: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("ambassador"))
        .collect();
    assert!(said.status.success() && ours.is_empty(), "{text}");
    let wrong = machine::installed(&format!(
        "sed -i s/ProtectSystem=strict/ProtectSystem=strictly/ {unit}; systemd-analyze verify {unit} 2>&1"
    ));
    assert!(String::from_utf8_lossy(&wrong.stdout).contains("strictly"));
}

#[test]
fn the_unit_is_exposed_as_little_as_capture_allows() {
    let mut analyze = Command::new("systemd-analyze");
    analyze
        .args(["security", "--no-pager", "--offline=true"])
        .arg(format!("--threshold={EXPOSURE}"))
        .arg(crate::root().join("deploy/systemd/ambassador.service"));
    let output = program::output(&mut analyze);
    // Past the harness, which shows only what failing tests print.
    let _ = std::io::stdout().lock().write_all(&output.stdout);
    assert!(output.status.success());
}

#[test]
fn the_service_captures_under_systemd_and_keeps_no_privilege() {
    let network = Netns::new();
    network.ip(&["addr", "add", &format!("{ADDRESS}/32"), "dev", "lo"]);
    let upstream = Server::over(network.listen(format!("{ADDRESS}:80")), |connection| {
        connection.serve_http(|_| text("captured"))
    });
    let machine = Machine::boot(
        &network,
        "admin: { metrics_listen: \"127.0.0.1:15020\" }\n\
         capture: { cgroups: [/sys/fs/cgroup/app.slice], on_failure: refuse }\n\
         upstreams:\n  web: { hosts: [10.97.0.1] }\n",
    );
    let curl = |url: &str| {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", network.path().display()))
            .args(["curl", "-sS", "--fail", "--max-time", "5", url]);
        command
    };
    eventually("the service is ready", Duration::from_secs(40), || {
        let probe = program::output(&mut curl("http://127.0.0.1:15020/readyz"));
        probe.status.success()
    });
    let ask = curl(&format!("http://{ADDRESS}/"));
    let mut captured = Command::new("sh");
    captured
        .args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""])
        .arg(machine.group("app.slice"))
        .arg(ask.get_program())
        .args(ask.get_args());
    assert_eq!(program::succeed(&mut captured), "captured");
    assert!(upstream.last_request().head.contains("x-request-id"));

    let proxies = machine.processes("run");
    assert_eq!(proxies.len(), 1, "{}", machine.log());
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxies[0])).expect("it runs");
    for line in [
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(status.contains(line), "{line}\n{status}");
    }
    assert!(!status.contains("Uid:\t0"), "{status}");
    // It ends when it is told to, in time and without an error.
    machine.systemctl(&["stop", "ambassador.service"]);
    let state = machine.systemctl(&["show", "--value", "-p", "Result", "ambassador.service"]);
    assert_eq!(state.trim(), "success");
}
