//! Signals that mean nothing, and an end that comes in time whatever hangs.

use std::time::{Duration, Instant};

use ambassador_tests::{Backend, Cgroup, Proxy, eventually, on_both_backends, os, program};

use crate::capture_scope::{inside, witness, world};

on_both_backends!(
    stray_signals_end_nothing,
    it_ends_in_time_although_the_helper_hangs,
);

const SOON: Duration = Duration::from_secs(10);

/// The proxy's children: its helper.
fn helper(proxy: &Proxy) -> u32 {
    let pid = proxy.pid();
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = std::fs::read_to_string(path).expect("it runs");
    let mut children = children.split_whitespace();
    let first = children.next().expect("it has a helper");
    first.parse().expect("a number")
}

fn stray_signals_end_nothing(backend: Backend) {
    let namespace = world(&["10.1.0.0/16"]);
    let server = witness(&namespace);
    let cgroup = Cgroup::new();
    let proxy = inside(backend, &namespace, &cgroup, "");
    for signal in [
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGALRM,
        libc::SIGVTALRM,
        libc::SIGPROF,
        libc::SIGIO,
        libc::SIGPIPE,
        libc::SIGPWR,
        libc::SIGRTMIN(),
        libc::SIGRTMAX(),
    ] {
        proxy.signal(signal);
        os::kill(helper(&proxy), signal).expect("the helper runs");
    }
    let [nsenter, entered, curl] = namespace.wrap("curl");
    let mut command = cgroup.command(nsenter);
    let arguments = [&entered, &curl, "-sS", "-m10", "http://10.1.2.3/"];
    let said = program::succeed(command.args(arguments));
    assert_eq!(said, "proxied");
    assert_eq!(proxy.admin_status("/readyz"), Some(200));
    assert!(os::kill(helper(&proxy), 0).is_ok());
    drop(server);
}

fn it_ends_in_time_although_the_helper_hangs(backend: Backend) {
    let namespace = world(&["10.1.0.0/16"]);
    let _server = witness(&namespace);
    let cgroup = Cgroup::new();
    let mut proxy = inside(backend, &namespace, &cgroup, "drain_timeout: 1s\n");
    let helper = helper(&proxy);
    os::kill(helper, libc::SIGSTOP).expect("it runs");
    // Their upstream sockets come from the helper: more of them than were stocked.
    let clients: Vec<_> = (0..12)
        .map(|_| {
            let [nsenter, entered, curl] = namespace.wrap("curl");
            let mut command = cgroup.command(nsenter);
            let arguments = [
                &entered,
                &curl,
                "-s",
                "-m20",
                "-o/dev/null",
                "http://10.1.2.3/",
            ];
            program::Running::start(command.args(arguments))
        })
        .collect();
    eventually("they are there", SOON, || {
        proxy
            .metrics()
            .sum("ambassador_captured_connects_total", &[])
            >= 12.0
    });
    let told = Instant::now();
    proxy.signal(libc::SIGTERM);
    assert_eq!(proxy.wait(SOON).code(), Some(0));
    let took = told.elapsed();
    os::kill(helper, libc::SIGCONT).expect("it waits");
    drop(clients);
    // Of the two seconds some are left; a busy machine takes its own.
    assert!(took < Duration::from_millis(3_500), "{took:?}");
    eventually("the helper has undone all and ended", SOON, || {
        os::kill(helper, 0).is_err()
    });
}
