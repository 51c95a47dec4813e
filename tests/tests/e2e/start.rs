//! What a person reads who starts the proxy: one line that says what runs, or
//! what is wrong and what to do.

use std::net::SocketAddr;
use std::time::Duration;

use ambassador_tests::proxy::{Launch, Scratch, ambassador, one_upstream};
use ambassador_tests::{Backend, Cgroup, Proxy, Server, on_both_backends, ports, program};

on_both_backends!(the_first_line_says_what_runs_and_where);

const SOON: Duration = Duration::from_secs(10);

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn the_first_line_says_what_runs_and_where(backend: Backend) {
    let (server, cgroup) = (Server::ok(), Cgroup::new());
    let (http, tcp, metrics) = (ports::free(), ports::free(), ports::free());
    let scratch = Scratch::new();
    let socket = scratch.path().join("egress.sock");
    // A wildcard address is worth a warning, which comes behind the first line.
    let config = format!(
        "workers: 3\n\
         listeners:\n\
         \x20 - {{ name: egress, bind: 0.0.0.0:{http} }}\n\
         \x20 - {{ name: orders, bind: 127.0.0.1:{tcp}, protocol: tcp, upstream: web }}\n\
         \x20 - {{ name: near, bind: \"unix:{}\" }}\n\
         capture: {{ unmatched: adopt }}\n\
         upstreams: {{ web: {{ endpoints: [\"{}\"] }} }}\n",
        socket.display(),
        server.address(),
    );
    let proxy = Proxy::capturing(backend, &cgroup, &config);
    let log = proxy.log();
    let first = log.lines().next().unwrap_or_default();
    let cgroup = cgroup.path().display();
    let backend = match backend {
        Backend::Ring => "backend io_uring",
        Backend::Epoll => "backend epoll (AMBASSADOR_BACKEND=epoll)",
    };
    for part in [
        concat!("ambassador ", env!("CARGO_PKG_VERSION")),
        backend,
        "shards 3",
        &format!("egress 0.0.0.0:{http} (http)"),
        &format!("orders 127.0.0.1:{tcp} (tcp)"),
        &format!("near unix:{} (http)", socket.display()),
        &format!("captured {cgroup} (ebpf, unmatched: adopt)"),
        &format!("admin {}", proxy.admin()),
    ] {
        assert!(first.contains(part), "{part}\n{log}");
    }
    let warned = |line: &str| line.contains("WARN") && line.contains("is open to other machines");
    ambassador_tests::eventually("the warning is there", SOON, || {
        proxy.log().lines().skip(1).any(warned)
    });
    drop(proxy);

    let config = format!(
        "admin: {{ listen: \"{}\", metrics_listen: \"{}\" }}\n",
        loopback(ports::free()),
        loopback(metrics)
    );
    let file = scratch.file("idle.yaml", &config);
    let mut idle = ambassador(Backend::Epoll);
    let said = scratch.path().join("said");
    let mut idle = program::Running::start(
        idle.args(["run", "--config"])
            .arg(&file)
            .stderr(std::fs::File::create(&said).expect("it is writable")),
    );
    let log = || std::fs::read_to_string(&said).unwrap_or_default();
    ambassador_tests::eventually("it says that it serves nothing", SOON, || {
        log().contains("nothing is served")
    });
    let first = log().lines().next().unwrap_or_default().to_owned();
    for part in [
        "listeners none".to_owned(),
        "captured none".to_owned(),
        format!("metrics {}", loopback(metrics)),
    ] {
        assert!(first.contains(&part), "{part}\n{first}");
    }
    ambassador_tests::os::kill(idle.id(), libc::SIGTERM).expect("it runs");
    assert_eq!(idle.wait(SOON).code(), Some(0));
}

/// What the proxy says to these arguments, all of it, which is a line or two.
#[track_caller]
fn mistake(arguments: &[&str], code: i32) -> String {
    let output = program::output(ambassador(Backend::Ring).args(arguments));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert_eq!(output.stdout, b"", "{arguments:?}");
    let lines = said.lines().count();
    assert!((1..=2).contains(&lines), "{arguments:?}: {said}");
    assert!(!said.contains("os error"), "{arguments:?}: {said}");
    said
}

#[track_caller]
fn expect(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "{word}\n{said}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_the_reason() {
    let scratch = Scratch::new();
    let binary = scratch.path().join("binary.yaml");
    std::fs::write(&binary, [0xff, 0xfe, 0]).expect("it is writable");
    let broken = scratch.file(
        "broken.yaml",
        "upstreams:\n  web: { endpoints: [\n foo: bar\n",
    );
    let here = scratch.path().display().to_string();
    for (file, words) in [
        ("/no/such.yaml", "/no/such.yaml: there is no such file"),
        (&here, ": is a directory: name a file in it"),
        (&binary.display().to_string(), ": is not text in UTF-8"),
        ("/dev/zero", "/dev/zero: is no regular file"),
        (
            &broken.display().to_string(),
            "broken.yaml:3: is not YAML: ",
        ),
    ] {
        for command in [&["check"][..], &["run", "--config"]] {
            let said = mistake(&[command, &[file]].concat(), 78);
            expect(&said, &[words]);
        }
        let said = mistake(&["exec", "--config", file, "--", "true"], 78);
        expect(&said, &[words]);
    }
    let said = mistake(&["run", "--config", "relative.yaml"], 78);
    let directory = std::env::current_dir().expect("there is one");
    expect(
        &said,
        &["no such file in", &directory.display().to_string()],
    );
}

#[test]
fn a_wrong_key_is_named_with_what_was_meant() {
    let scratch = Scratch::new();
    let file = scratch.file(
        "key.yaml",
        "upstreams:\n  web:\n    endpoint: [1.2.3.4:1]\n",
    );
    let file = file.display().to_string();
    let said = mistake(&["run", "--config", &file], 78);
    let start = format!("{file}:3: upstreams.web.endpoint: unknown key");
    expect(&said, &[&start, "did you mean endpoints?"]);
}

#[test]
fn a_wrong_command_line_says_what_it_takes() {
    for (arguments, words) in [
        (&["rum"][..], &["'rum'", "'run'", "`ambassador --help`"][..]),
        (
            &["run", "--wings"],
            &["'--wings'", "`ambassador run --help`"],
        ),
        (
            &["run", "--config"],
            &["'--config <CONFIG>'", "`ambassador run --help`"],
        ),
        (&["run"], &["--config FILE", "LISTEN_ADDR"]),
        (
            &["exec", "--summary"],
            &["<COMMAND>", "`ambassador exec --help`"],
        ),
        (
            &["explain", "x:1"],
            &["--config <CONFIG>", "`ambassador explain --help`"],
        ),
        (
            &["status", "--admin", "here"],
            &["--admin", "ip:port", "here"],
        ),
    ] {
        expect(&mistake(arguments, 64), words);
    }
}

/// Starts a proxy that cannot, and gives what it logged.
#[track_caller]
fn cannot_start(config: &str) -> String {
    let mut proxy = Proxy::spawn(Backend::Ring, config, Launch::default());
    assert_eq!(proxy.wait(SOON).code(), Some(69), "{}", proxy.log());
    let log = proxy.log();
    let said = log.lines().filter(|line| line.starts_with("ambassador: "));
    let said: Vec<_> = said.collect();
    assert_eq!(said.len(), 1, "{log}");
    said[0].to_owned()
}

#[test]
fn a_listener_that_cannot_be_opened_says_why_and_what_to_do() {
    let server = Server::ok();
    let taken = server.address();
    let said = cannot_start(&one_upstream(taken, taken, ""));
    let port = taken.port();
    let ss = format!("ss -ltnp 'sport = :{port}'");
    expect(
        &said,
        &["listener egress", &taken.to_string(), "in use", &ss],
    );

    let nowhere = SocketAddr::from(([192, 0, 2, 77], 8081));
    let said = cannot_start(&one_upstream(nowhere, taken, ""));
    expect(&said, &["192.0.2.77:8081", "no interface", "`ip address`"]);

    let scratch = Scratch::new();
    let config = |socket: &str| {
        format!(
            "listeners: [{{ name: near, bind: \"unix:{}\" }}]\n",
            scratch.path().join(socket).display()
        )
    };
    scratch.file("plain", "precious");
    expect(
        &cannot_start(&config("plain")),
        &["listener near", "choose another path"],
    );
    expect(
        &cannot_start(&config("no/such/directory")),
        &["directory does not exist"],
    );
}

#[test]
fn a_busy_admin_address_is_told_from_a_busy_listener() {
    let server = Server::ok();
    let admin = server.address().to_string();
    let scratch = Scratch::new();
    let file = scratch.file("admin.yaml", &format!("admin: {{ listen: \"{admin}\" }}\n"));
    let said = mistake(&["run", "--config", &file.display().to_string()], 69);
    expect(
        &said,
        &["admin: cannot listen on", &admin, "in use", "ss -ltnp"],
    );
    // Of those who ask, too.
    let free = loopback(ports::free()).to_string();
    let said = mistake(&["status", "--admin", &free], 69);
    expect(&said, &[&free, "is it running"]);
}
