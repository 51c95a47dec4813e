//! A reload that changes what is captured.

use std::time::Duration;

use ambassador_tests::server::text;
use ambassador_tests::{
    Backend, Cgroup, Netns, Proxy, Server, eventually, on_both_backends, program,
};

use crate::capture::get;
use crate::capture_scope::{curl, inside, witness, world};

on_both_backends!(
    cgroups_of_one_namespace_are_captured_together,
    cgroups_come_and_go_with_the_file,
    a_cgroup_that_does_not_exist_changes_nothing,
    without_capture_nothing_is_captured_any_more,
    capture_that_was_not_there_needs_a_restart,
    a_cgroup_that_is_made_anew_is_captured_again,
    events_do_not_keep_a_cgroup_from_being_captured_again,
    a_namespace_comes_with_its_names,
    a_namespace_outlives_who_named_it,
    rules_follow_the_file,
    rules_follow_names,
);

const SOON: Duration = Duration::from_secs(10);

/// Says which reload this is and waits for it.
fn reload(proxy: &Proxy, config: &str) {
    let count = || proxy.metric("ambassador_config_reloads_total", &[]);
    let before = count();
    proxy.rewrite_config(config);
    proxy.signal(libc::SIGHUP);
    eventually("it is reloaded", SOON, || count() > before);
}

fn reload_fails(proxy: &Proxy, config: &str) {
    let count = || proxy.metric("ambassador_config_reload_failures_total", &[]);
    let before = count();
    proxy.rewrite_config(config);
    proxy.signal(libc::SIGHUP);
    eventually("it is refused", SOON, || count() > before);
}

/// A target in the proxy's own namespace, or in another.
fn target(cgroup: &Cgroup, namespace: Option<&Netns>) -> String {
    let netns = namespace.map_or(String::new(), |namespace| {
        format!(", netns: {}", namespace.path().display())
    });
    format!("{{ path: {}{netns} }}", cgroup.path().display())
}

fn capture(targets: &[String], upstreams: &str) -> String {
    format!(
        "capture: {{ cgroups: [{}] }}\n{upstreams}",
        targets.join(", ")
    )
}

/// What a program in the cgroup gets from 10.1.2.3, which has no route here.
fn ask(cgroup: &Cgroup) -> String {
    get(cgroup, "blocking", "10.1.2.3", 80, &[]).1
}

/// Whether a connect of the cgroup ends here, on loopback, wherever it was
/// going.
pub fn is_captured(cgroup: &Cgroup) -> bool {
    let script = "import socket, sys\n\
                  try: print(socket.create_connection((sys.argv[1], 80), 0.2).getsockname()[0])\n\
                  except OSError: print('direct')";
    let mut command = cgroup.command(program::PYTHON);
    let local = program::succeed(command.args(["-c", script, "10.1.2.3"]));
    local.starts_with("127.")
}

fn answering(words: &'static str) -> (Server, String) {
    let server = Server::http(move |_| text(words));
    let address = server.address();
    let upstreams =
        format!("upstreams: {{ web: {{ hosts: [10.1.2.3], endpoints: [\"{address}\"] }} }}\n");
    (server, upstreams)
}

fn cgroups_of_one_namespace_are_captured_together(backend: Backend) {
    let (_server, upstreams) = answering("found");
    let (one, two) = (Cgroup::new(), Cgroup::new());
    let targets = [target(&one, None), target(&two, None)];
    let proxy = Proxy::start(backend, &capture(&targets, &upstreams));
    for _ in 0..4 {
        assert_eq!(ask(&one), "found");
        assert_eq!(ask(&two), "found");
    }
    for cause in ["unknown-token", "foreign-peer"] {
        proxy.expect_metric("ambassador_dropped_accepts_total", &[("cause", cause)], 0.0);
    }
}

fn cgroups_come_and_go_with_the_file(backend: Backend) {
    let (_server, upstreams) = answering("found");
    let inner = Netns::new();
    let (first, second, remote) = (Cgroup::new(), Cgroup::new(), Cgroup::new());
    let _remote_server = Server::over(inner.listen("127.0.0.1:9000"), |connection| {
        connection.serve_http(|_| text("from inside"))
    });
    let upstreams = format!(
        "{}, inner: {{ hosts: [10.9.9.9], endpoints: [\"127.0.0.1:9000\"] }} }}\n",
        upstreams.trim_end().trim_end_matches('}').trim_end()
    );
    let ask_inside = || curl(&inner, &remote, "http://10.9.9.9/");
    let [first_target, second_target] = [target(&first, None), target(&second, None)];
    let remote_target = target(&remote, Some(&inner));
    let proxy = Proxy::start(backend, &capture(&[first_target], &upstreams));
    assert_eq!(ask(&first), "found");
    assert!(!is_captured(&second));
    assert!(!ask_inside().status.success());

    let all = [target(&first, None), second_target, remote_target];
    reload(&proxy, &capture(&all, &upstreams));
    assert_eq!(ask(&first), "found");
    assert_eq!(ask(&second), "found");
    let output = ask_inside();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "from inside");
    assert!(listens_on_a_wildcard(&inner));
    assert_eq!(proxy.admin_status("/readyz"), Some(200));

    reload(&proxy, &capture(&all[1..2], &upstreams));
    assert!(!is_captured(&first));
    assert_eq!(ask(&second), "found");
    assert!(!ask_inside().status.success());
    eventually("its listener is gone from the namespace", SOON, || {
        !listens_on_a_wildcard(&inner)
    });
    assert_eq!(proxy.admin_status("/readyz"), Some(200));

    reload(&proxy, &capture(&all, &upstreams));
    assert_eq!(ask(&first), "found");
    let output = ask_inside();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "from inside");
}

fn listens_on_a_wildcard(namespace: &Netns) -> bool {
    let [nsenter, entered, cat] = namespace.wrap("cat");
    let mut command = std::process::Command::new(nsenter);
    let sockets = program::succeed(command.args([&entered, &cat, "/proc/net/tcp6"]));
    // Of any address, in state LISTEN.
    let listener = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().unwrap_or_default();
        local.starts_with(&"0".repeat(32)) && fields.nth(1) == Some("0A")
    };
    sockets.lines().any(listener)
}

fn a_cgroup_that_does_not_exist_changes_nothing(backend: Backend) {
    let (_server, upstreams) = answering("found");
    let (one, two) = (Cgroup::new(), Cgroup::new());
    let proxy = Proxy::start(backend, &capture(&[target(&one, None)], &upstreams));
    let missing = "{ path: /sys/fs/cgroup/no-such-group }".to_owned();
    let wrong = [target(&one, None), target(&two, None), missing];
    reload_fails(&proxy, &capture(&wrong, &upstreams));
    assert!(proxy.log().contains("no-such-group"), "{}", proxy.log());
    assert!(!is_captured(&two));
    assert_eq!(ask(&one), "found");
    reload(&proxy, &capture(&wrong[..2], &upstreams));
    assert_eq!(ask(&two), "found");
}

fn without_capture_nothing_is_captured_any_more(backend: Backend) {
    let (_server, upstreams) = answering("found");
    let cgroup = Cgroup::new();
    let config = capture(&[target(&cgroup, None)], &upstreams);
    let proxy = Proxy::start(backend, &config);
    assert_eq!(ask(&cgroup), "found");
    reload(&proxy, &upstreams);
    assert!(!is_captured(&cgroup));
    assert_eq!(proxy.admin_status("/readyz"), Some(200));
    reload(&proxy, &config);
    assert_eq!(ask(&cgroup), "found");
}

fn capture_that_was_not_there_needs_a_restart(backend: Backend) {
    let (_server, upstreams) = answering("found");
    let cgroup = Cgroup::new();
    let proxy = Proxy::start(backend, &upstreams);
    reload_fails(&proxy, &capture(&[target(&cgroup, None)], &upstreams));
    assert!(proxy.log().contains("needs a restart"), "{}", proxy.log());
    assert!(!is_captured(&cgroup));
}

/// As a service manager does when it starts a service again.
fn a_cgroup_that_is_made_anew_is_captured_again(backend: Backend) {
    let namespace = world(&["10.1.0.0/16"]);
    let _server = witness(&namespace);
    let (by_programs, by_rules) = (Cgroup::new(), Cgroup::new());
    for (cgroup, mode) in [(&by_programs, "ebpf"), (&by_rules, "iptables")] {
        let config = format!(
            "  mode: {mode}\nupstreams: {{ web: {{ hosts: [10.1.0.0/16], endpoints: [\"127.0.0.1:80\"] }} }}\n"
        );
        let proxy = inside(backend, &namespace, cgroup, &config);
        let ask = || curl(&namespace, cgroup, "http://10.1.2.3/").stdout;
        assert_eq!(ask(), b"proxied");
        std::fs::remove_dir(cgroup.path()).expect("it is empty");
        assert_eq!(proxy.admin_status("/readyz"), Some(200), "{mode}");
        std::fs::create_dir(cgroup.path()).expect("writable");
        eventually("it is captured again", SOON, || ask() == b"proxied");
        assert_eq!(proxy.admin_status("/readyz"), Some(200), "{mode}");
    }
}

/// Reloads, by a signal and by the file, come more often than the proxy looks.
fn events_do_not_keep_a_cgroup_from_being_captured_again(backend: Backend) {
    let namespace = world(&["10.1.0.0/16"]);
    let _server = witness(&namespace);
    let cgroup = Cgroup::new();
    let config = "upstreams: { web: { hosts: [10.1.0.0/16], endpoints: [\"127.0.0.1:80\"] } }\n";
    let proxy = inside(backend, &namespace, &cgroup, config);
    let ask = || curl(&namespace, &cgroup, "http://10.1.2.3/").stdout;
    assert_eq!(ask(), b"proxied");
    let text = std::fs::read_to_string(proxy.config_file()).expect("it is there");
    let over = std::sync::atomic::AtomicBool::new(false);
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0.. {
                if over.load(relaxed) {
                    return;
                }
                proxy.signal(libc::SIGHUP);
                let new = proxy.config_file().with_extension("new");
                std::fs::write(&new, format!("{text}# {number}\n")).expect("writable");
                std::fs::rename(new, proxy.config_file()).expect("writable");
                std::thread::sleep(Duration::from_millis(150));
            }
        });
        std::fs::remove_dir(cgroup.path()).expect("it is empty");
        std::fs::create_dir(cgroup.path()).expect("writable");
        let made = std::time::Instant::now();
        let mut captured = false;
        while !captured && made.elapsed() < SOON {
            let ready = proxy.admin_status("/readyz");
            captured = ask() == b"proxied";
            assert!(captured || ready != Some(200), "it says that it captures");
        }
        over.store(true, relaxed);
        assert!(captured, "{}", proxy.log());
        // A second, and what a busy machine adds.
        assert!(
            made.elapsed() < Duration::from_secs(4),
            "{:?}",
            made.elapsed()
        );
    });
}

fn a_namespace_comes_with_its_names(backend: Backend) {
    let names = crate::capture_dns::names_inside();
    let (namespace, cgroup) = (&names.namespace, Cgroup::new());
    let elsewhere = Cgroup::new();
    let upstreams = crate::capture_dns::UPSTREAMS;
    let proxy = Proxy::start(backend, &capture(&[target(&elsewhere, None)], upstreams));
    reload(
        &proxy,
        &capture(&[target(&cgroup, Some(namespace))], upstreams),
    );
    eventually("the name is looked up there", SOON, || {
        let output = curl(namespace, &cgroup, "http://10.1.2.3/");
        output.stdout == b"found"
    });
}

fn a_namespace_outlives_who_named_it(backend: Backend) {
    let names = crate::capture_dns::names_inside();
    let (namespace, cgroup) = (&names.namespace, Cgroup::new());
    let [nsenter, entered, sleep] = namespace.wrap("sleep");
    let mut command = std::process::Command::new(nsenter);
    let mut process = program::Running::start(command.args([&entered, &sleep, "60"]));
    let own = std::fs::read_link("/proc/self/ns/net").expect("readable");
    let path = format!("/proc/{}/ns/net", process.id());
    eventually("it has entered", SOON, || {
        std::fs::read_link(&path).is_ok_and(|namespace| namespace != own)
    });
    let capture = |more: &str| {
        let cgroup = cgroup.path().display();
        format!(
            "capture: {{ cgroups: [{{ path: {cgroup}, netns: {path} }}]{more} }}\n\
             upstreams: {{ web: {{ hosts: [10.1.2.3], endpoints: [\"127.0.0.1:9000\"] }} }}\n"
        )
    };
    let ask = || curl(namespace, &cgroup, "http://10.1.2.3/").stdout;
    let proxy = Proxy::start(backend, &capture(""));
    assert_eq!(ask(), b"found");
    ambassador_tests::os::kill(process.id(), libc::SIGKILL).expect("it runs");
    process.wait(SOON);
    reload(&proxy, &capture(", unmatched: refuse"));
    assert_eq!(ask(), b"found");
}

fn in_rules(targets: &[String], more: &str) -> String {
    format!(
        "capture: {{ mode: iptables, cgroups: [{}]{more} }}\n\
         upstreams: {{ web: {{ hosts: [10.1.0.0/16], endpoints: [\"127.0.0.1:80\"] }} }}\n",
        targets.join(", ")
    )
}

fn rules_follow_the_file(backend: Backend) {
    let namespace = world(&["10.1.0.0/16"]);
    let _server = witness(&namespace);
    let (one, two) = (Cgroup::new(), Cgroup::new());
    let [first, second] = [&one, &two].map(|cgroup| target(cgroup, Some(&namespace)));
    let ask = |cgroup: &Cgroup, host: &str| {
        let output = curl(&namespace, cgroup, &format!("http://{host}/"));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let expect = |one_gets: &str, two_gets: &str| {
        assert_eq!(ask(&one, "10.1.2.3"), one_gets);
        assert_eq!(ask(&two, "10.1.2.3"), two_gets);
    };
    let proxy = Proxy::start(backend, &in_rules(std::slice::from_ref(&first), ""));
    expect("proxied", "direct");
    reload(&proxy, &in_rules(&[first.clone(), second.clone()], ""));
    expect("proxied", "proxied");
    let exclude = ", exclude: { cidrs: [10.1.2.0/24] }";
    reload(&proxy, &in_rules(&[first.clone(), second.clone()], exclude));
    expect("direct", "direct");
    assert_eq!(ask(&one, "10.1.3.3"), "proxied");
    reload(&proxy, &in_rules(&[second], ""));
    expect("direct", "proxied");
    let bad = in_rules(&[first, "{ path: /tmp }".to_owned()], "");
    reload_fails(&proxy, &bad);
    expect("direct", "proxied");
}

fn rules_follow_names(backend: Backend) {
    let names = crate::capture_dns::names_inside();
    let (namespace, cgroup) = (&names.namespace, Cgroup::new());
    // Not what the name server says of every name.
    namespace.ip(&["addr", "add", "192.0.2.7/32", "dev", "lo"]);
    let _server = witness(namespace);
    let config = "  mode: iptables\n  unmatched: passthrough\n  include: { cidrs: [127.0.0.0/8, 192.0.2.0/24] }\n\
         upstreams: { web: { hosts: [backend.test], endpoints: [\"127.0.0.1:9000\"] } }\n";
    let _proxy = inside(backend, namespace, &cgroup, config);
    eventually("the rules know the address", SOON, || {
        curl(namespace, &cgroup, "http://127.0.0.1/").stdout == b"proxied"
    });
    let other = curl(namespace, &cgroup, "http://192.0.2.7/").stdout;
    assert_eq!(String::from_utf8_lossy(&other), "direct");
}
