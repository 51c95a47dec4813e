//! The token table has no place left.

use std::time::Duration;

use ambassador_tests::{Backend, Cgroup, eventually, on_both_backends, program};

use crate::capture_scope::{inside, witness, world};

on_both_backends!(a_full_table_is_said_in_the_log_and_by_readyz);

const SOON: Duration = Duration::from_secs(10);

/// Connects to as many addresses as it is told, and does not wait.
const SCAN: &str = "\
import socket, sys
for number in range(int(sys.argv[1]), int(sys.argv[2])):
    client = socket.socket()
    client.setblocking(False)
    client.connect_ex((f'10.1.{number >> 8}.{number & 255}', 81))
    client.close()
";

fn a_full_table_is_said_in_the_log_and_by_readyz(backend: Backend) {
    let namespace = world(&["10.1.0.0/16"]);
    let _server = witness(&namespace);
    let cgroup = Cgroup::new();
    let proxy = inside(backend, &namespace, &cgroup, "");
    let scan = |from: u32, to: u32| {
        let [nsenter, entered, python] = namespace.wrap(program::PYTHON);
        let (from, to) = (from.to_string(), to.to_string());
        let mut command = cgroup.command(nsenter);
        program::succeed(command.args([entered, python, "-c".into(), SCAN.into(), from, to]));
    };
    let ask = || {
        let [nsenter, entered, curl] = namespace.wrap("curl");
        let mut command = cgroup.command(nsenter);
        // Short: a proxy that is stopped accepts in the kernel, and no further.
        let arguments = [&entered, &curl, "-sS", "-m1", "http://10.1.2.3/"];
        program::output(command.args(arguments)).stdout
    };
    assert_eq!(ask(), b"proxied");
    assert_eq!(proxy.admin_get("/readyz"), "ok\n");
    // A proxy that hangs is not asked, and destinations get their places.
    proxy.signal(libc::SIGSTOP);
    eventually("it is taken for hung", SOON, || ask() == b"direct");
    scan(0, 16_384 * 3 / 4);
    proxy.signal(libc::SIGCONT);
    eventually("it is back", SOON, || ask() == b"proxied");
    scan(20_000, 20_010);
    let turned_away = || {
        let full = [("verdict", "table_full")];
        proxy.metric("ambassador_captured_connects_total", &full)
    };
    let before = turned_away();
    assert!(before >= 10.0, "{before}");
    let said = "the token table is full";
    // A shard that was stopped may still have much to do.
    let ready = |text: &str| {
        proxy.admin_status("/readyz") == Some(200) && {
            let body = proxy.admin_get("/readyz");
            body.starts_with("ok\n") && body.contains(text)
        }
    };
    eventually("it is said", SOON, || {
        ready(said) && proxy.log().contains(said)
    });
    scan(20_010, 20_020);
    eventually("what came since is counted", SOON, || {
        ready(&format!("{} connects", turned_away()))
    });
    assert_eq!(turned_away(), before + 10.0);
    assert_eq!(proxy.log().matches(said).count(), 1, "once a minute");
}
