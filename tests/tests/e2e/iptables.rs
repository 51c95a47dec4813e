//! `mode: iptables`: the same proxy behind redirect rules.

use std::process::Command;

use ambassador_tests::proxy::{Scratch, ambassador};
use ambassador_tests::{Backend, Cgroup, Proxy, on_both_backends, program};

use crate::capture_scope::{witness, world};

on_both_backends!(rules_capture_and_are_removed);

#[test]
fn an_unknown_backend_of_iptables_is_refused() {
    let (cgroup, scratch) = (Cgroup::new(), Scratch::new());
    let config = format!(
        "capture: {{ mode: iptables, cgroups: [{}] }}\n\
         admin: {{ listen: \"unix:{}/admin.sock\" }}\n\
         upstreams: {{ web: {{ hosts: [10.1.2.3], endpoints: [\"127.0.0.1:1\"] }} }}\n",
        cgroup.path().display(),
        scratch.path().display()
    );
    let output = program::output(
        ambassador(Backend::Ring)
            .env("AMBASSADOR_IPTABLES", "ntf")
            .args(["run", "--config"])
            .arg(scratch.file("iptables.yaml", &config)),
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(
        said.contains("ntf") && said.contains("AMBASSADOR_IPTABLES"),
        "{said}"
    );
}

fn rules_capture_and_are_removed(backend: Backend) {
    // REDIRECT needs a route to the original destination.
    let namespace = world(&["10.1.0.0/16"]);
    let server = witness(&namespace);
    let rules = || {
        let [nsenter, entered, save] = namespace.wrap("iptables-save");
        program::succeed(
            Command::new(nsenter)
                .args([entered, save])
                .args(["-t", "nat"]),
        )
    };
    let before = rules();
    let cgroup = Cgroup::new();
    let config = format!(
        "capture:\n  mode: iptables\n  cgroups: [{{ path: {}, netns: {} }}]\n\
         upstreams: {{ web: {{ hosts: [10.1.0.0/16], endpoints: [\"127.0.0.1:80\"] }} }}\n",
        cgroup.path().display(),
        namespace.path().display()
    );
    let mut proxy = Proxy::start(backend, &config);
    let [nsenter, entered, curl] = namespace.wrap("curl");
    let mut command = cgroup.command(nsenter);
    command
        .args([entered, curl])
        .args(["-sS", "-m20", "http://10.1.2.3/"]);
    assert_eq!(program::succeed(&mut command), "proxied");
    assert_eq!(server.requests().len(), 1);
    assert!(rules().contains("REDIRECT"), "{}", rules());
    proxy.signal(libc::SIGTERM);
    let status = proxy.wait(std::time::Duration::from_secs(20));
    assert_eq!(status.code(), Some(0));
    let jumps = |rules: String| {
        rules
            .lines()
            .filter(|line| line.starts_with("-A"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(jumps(rules()), jumps(before));
}
