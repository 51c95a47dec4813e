//! What a person types: checks, schema, explanations, exit codes.

use std::net::TcpListener;

use crate::identity::{assert_all, assert_private, four};
use ambassador_tests::program::Running;
use ambassador_tests::proxy::{Launch, Scratch, ambassador, one_upstream};
use ambassador_tests::{
    Authority, Backend, Cgroup, Client, Proxy, Server, on_both_backends, ports, program,
};

on_both_backends!(
    the_environment_is_a_configuration,
    the_environment_can_ask_for_tls,
);

/// Without a file the admin API is at its one default port.
static DEFAULT_ADMIN_PORT: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn the_environment_is_a_configuration(backend: Backend) {
    let server = Server::ok();
    assert_eq!(answer_by_environment(backend, &server, &[]), Some(200));
}

fn the_environment_can_ask_for_tls(backend: Backend) {
    let authority = Authority::new("root");
    let leaf = authority.issue(&["127.0.0.1", "whatever.test"]);
    let server = Server::secured(leaf.server(), |connection| {
        connection.serve_http(|_| ambassador_tests::server::text("ok"))
    });
    let scratch = Scratch::new();
    let ca = scratch.file("ca.pem", &authority.pem).display().to_string();
    for (enabled, status) in [("true", 200), ("false", 502)] {
        let environment = [("TLS_ENABLED", enabled), ("SSL_CERT_FILE", &ca)];
        let answered = answer_by_environment(backend, &server, &environment);
        assert_eq!(answered, Some(status), "{enabled}");
    }
}

/// What a request is answered by a proxy that has its configuration from these, and from
/// those that have it reach a server.
fn answer_by_environment(
    backend: Backend,
    server: &Server,
    environment: &[(&str, &str)],
) -> Option<u16> {
    let _alone = DEFAULT_ADMIN_PORT
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let listen = std::net::SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let mut child = Running::start(
        ambassador(backend)
            .arg("run")
            .envs(environment.iter().copied())
            .env("LISTEN_ADDR", listen.to_string())
            .env("UPSTREAM_HOST", "127.0.0.1")
            .env("UPSTREAM_PORT", server.address().port().to_string()),
    );
    let mut answer = None;
    let limit = std::time::Duration::from_secs(10);
    ambassador_tests::eventually("it listens", limit, || {
        answer = Client::try_connect(listen).map(|mut client| {
            client.send("GET / HTTP/1.1\r\nHost: whatever.test\r\n\r\n");
            client.response("GET").status
        });
        answer.is_some()
    });
    ambassador_tests::os::kill(child.id(), libc::SIGTERM).expect("it runs");
    assert_eq!(child.wait(limit).code(), Some(0));
    answer
}

#[test]
fn every_mistake_is_told_at_once_with_its_line() {
    let scratch = Scratch::new();
    let file = scratch.file(
        "bad.yaml",
        "workers: many\nnonsense: 1\nupstreams:\n  web:\n    endpoints: [\"1.2.3.4:99999\"]\n    \
         timeouts: { connect: soon }\n    retry: { attempts: 0 }\n",
    );
    let output = program::output(ambassador(Backend::Ring).arg("check").arg(&file));
    assert_eq!(output.status.code(), Some(78));
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    let path = file.display();
    for start in [
        format!("{path}:1: workers: "),
        format!("{path}:2: nonsense: "),
        format!("{path}:5: upstreams.web.endpoints"),
        format!("{path}:6: upstreams.web.timeouts.connect: "),
        format!("{path}:7: upstreams.web.retry.attempts: "),
    ] {
        assert!(
            said.lines().any(|line| line.starts_with(&start)),
            "{start}\n{said}"
        );
    }
    let run = program::output(
        ambassador(Backend::Ring)
            .args(["run", "--config"])
            .arg(&file),
    );
    assert_eq!(run.status.code(), Some(78));
}

#[test]
fn a_good_file_passes() {
    let scratch = Scratch::new();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 8081));
    let file = scratch.file("good.yaml", &one_upstream(address, address, ""));
    program::succeed(ambassador(Backend::Ring).arg("check").arg(&file));
}

#[test]
fn the_schema_is_a_json_schema() {
    let schema = program::succeed(ambassador(Backend::Ring).arg("schema"));
    let schema: serde_json::Value = serde_json::from_str(&schema).expect("it is JSON");
    assert!(schema["$schema"].is_string());
    assert!(schema["properties"]["upstreams"].is_object(), "{schema}");
}

#[test]
fn explain_names_the_upstream() {
    let scratch = Scratch::new();
    let file = scratch.file(
        "explained.yaml",
        "upstreams:\n  payments: { hosts: [10.1.2.3], endpoints: [\"127.0.0.1:9000\"], timeouts: { connect: 3s } }\n",
    );
    let mut command = ambassador(Backend::Ring);
    let said = program::succeed(
        command
            .args(["explain", "--config"])
            .arg(&file)
            .arg("10.1.2.3:80"),
    );
    for word in ["payments", "127.0.0.1:9000", "3s"] {
        assert!(said.contains(word), "{word}\n{said}");
    }
}

#[test]
fn explain_tells_what_a_reason_means() {
    let ask = |arguments: &[&str]| {
        let mut command = ambassador(Backend::Ring);
        program::succeed(command.args(["explain", "--reason"]).args(arguments))
    };
    let said = ask(&["circuit-open"]);
    for word in [
        "at fault  the upstream",
        "circuit_breaker.sleep",
        "docs/reasons.md#circuit-open",
    ] {
        assert!(said.contains(word), "{word}\n{said}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&ask(&["no-route", "--json"])).expect("JSON");
    assert_eq!(json["status"], "404");
    // A word that there is not is answered with those that there are.
    let mut command = ambassador(Backend::Ring);
    let output = program::output(command.args(["explain", "--reason", "circuit"]));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(
        said.contains("circuit-open") && said.contains("client-gone"),
        "{said}"
    );
}

#[test]
fn a_wrong_command_line_is_64() {
    for arguments in [
        &["explain", "--reason", "loop", "10.1.2.3:80"][..],
        &["explain", "10.1.2.3:80"],
        &["fly"],
        &["run", "--wings"],
        &["exec"],
        &[],
    ] {
        let output = program::output(ambassador(Backend::Ring).args(arguments));
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {output:?}");
    }
}

#[test]
fn a_busy_port_is_69() {
    let busy = TcpListener::bind("127.0.0.1:0").expect("a port is left");
    let address = busy.local_addr().expect("it listens");
    let mut proxy = Proxy::spawn(
        Backend::Ring,
        &one_upstream(address, address, ""),
        Launch::default(),
    );
    assert_eq!(
        proxy.wait(std::time::Duration::from_secs(10)).code(),
        Some(69)
    );
    assert!(
        proxy.log().contains(&address.port().to_string()),
        "{}",
        proxy.log()
    );
}

/// Where a user without privileges can run it. A process of its own copies:
/// a descriptor open for writing here could leak into a child being started
/// at that moment and make the copy "busy".
fn copy_of_the_binary(scratch: &Scratch) -> std::path::PathBuf {
    let copy = scratch.path().join("ambassador");
    let binary = ambassador_tests::proxy::binary();
    program::succeed(std::process::Command::new("cp").arg(binary).arg(&copy));
    copy
}

#[test]
fn missing_privilege_is_69_and_named() {
    let cgroup = Cgroup::new();
    // 65534 is nobody; --clear-groups needs no database.
    let wrapper = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--no-new-privs",
    ];
    let scratch = Scratch::new();
    let copy = copy_of_the_binary(&scratch);
    let readable = |path: &std::path::Path| {
        program::succeed(std::process::Command::new("chmod").arg("a+rx").arg(path));
    };
    readable(scratch.path());
    readable(&copy);
    let file = scratch.file(
        "capture.yaml",
        "upstreams: { web: { hosts: [10.1.2.3], endpoints: [\"127.0.0.1:1\"] } }\n",
    );
    readable(&file);
    let as_nobody = |arguments: &[&std::ffi::OsStr], code: i32| {
        let mut command = std::process::Command::new(wrapper[0]);
        command.args(&wrapper[1..]).arg(&copy).args(arguments);
        let output = program::output(&mut command);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        said
    };
    let run = ["run", "--config"].map(std::ffi::OsStr::new);
    let capture = [
        file.as_os_str(),
        "--cgroup".as_ref(),
        cgroup.path().as_os_str(),
    ];
    let said = as_nobody(&[&run[..], &capture].concat(), 69);
    assert!(
        said.contains("CAP_") && said.contains("run as root"),
        "{said}"
    );
    let exec = ["exec", "--", "true"].map(std::ffi::OsStr::new);
    let said = as_nobody(&exec, 69);
    assert!(said.contains("run as root"), "{said}");
    let secret = scratch.file("secret.yaml", "workers: 1\n");
    let mut chmod = std::process::Command::new("chmod");
    program::succeed(chmod.arg("0600").arg(&secret));
    let said = as_nobody(&[&run[..], &[secret.as_os_str()]].concat(), 78);
    assert!(
        said.ends_with("secret.yaml: this user may not read it\n"),
        "{said}"
    );
}

#[test]
fn a_path_that_is_no_cgroup_is_a_mistake_and_stays_as_it_was() {
    let (scratch, cgroup) = (Scratch::new(), Cgroup::new());
    let plain = scratch.path().join("plain");
    std::fs::create_dir(&plain).expect("it is writable");
    let older = scratch.path().join("older");
    std::fs::create_dir(&older).expect("it is writable");
    std::fs::write(older.join("cgroup.procs"), "").expect("it is writable");
    let file = scratch.file("file", "");
    for path in [&plain, &older, &file] {
        let shown = path.display();
        let admin = ports::free();
        let config = scratch.file(
            "capture.yaml",
            &format!("admin: {{ listen: 127.0.0.1:{admin} }}\ncapture:\n  cgroups: [{shown}]\n"),
        );
        let checked = program::output(ambassador(Backend::Ring).arg("check").arg(&config));
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert_eq!(checked.status.code(), Some(78), "{said}");
        assert!(
            said.contains(":3: capture.cgroups[0]: is no cgroup"),
            "{said}"
        );
        assert!(said.contains(&shown.to_string()), "{said}");

        let config = scratch.file(
            "plain.yaml",
            &format!("admin: {{ listen: 127.0.0.1:{admin} }}\n"),
        );
        let mut run = ambassador(Backend::Ring);
        run.args(["run", "--config"]).arg(&config);
        run.arg("--cgroup").arg(cgroup.path());
        let run = program::output(run.arg("--cgroup").arg(path));
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        assert_eq!(run.status.code(), Some(69), "{said}");
        assert!(said.contains("no cgroup"), "{said}");
        assert!(said.contains(&shown.to_string()), "{said}");
    }
    let entries = |path: &std::path::Path| std::fs::read_dir(path).expect("it is there").count();
    assert_eq!((entries(&plain), entries(&older)), (0, 1));
    let said = program::succeed(ambassador(Backend::Ring).args(["doctor", "--clean"]));
    assert!(
        !said.contains(&cgroup.path().display().to_string()),
        "{said}"
    );
}

#[test]
fn explicit_listeners_need_no_privilege() {
    let server = Server::ok();
    let listen = std::net::SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let scratch = Scratch::new();
    let copy = copy_of_the_binary(&scratch);
    let admin = ports::free();
    let config = format!(
        "admin: {{ listen: \"127.0.0.1:{admin}\" }}\n{}",
        one_upstream(listen, server.address(), "")
    );
    let file = scratch.file("plain.yaml", &config);
    program::succeed(
        std::process::Command::new("chmod")
            .args(["-R", "a+rX"])
            .arg(scratch.path()),
    );
    let mut child = Running::start(
        std::process::Command::new("setpriv")
            .args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "--no-new-privs",
            ])
            .arg(&copy)
            .args(["run", "--config"])
            .arg(&file)
            .env("AMBASSADOR_SECCOMP", "kill"),
    );
    let limit = std::time::Duration::from_secs(10);
    let mut status = None;
    ambassador_tests::eventually("it answers", limit, || {
        status = Client::try_connect(listen).map(|mut client| client.get("/").status);
        status.is_some()
    });
    // It stays who it is, and is confined nevertheless.
    assert_all(child.id(), "Uid", &four(65_534));
    assert_all(child.id(), "NoNewPrivs", "1");
    assert_all(child.id(), "Seccomp", "2");
    assert_private(child.id());
    ambassador_tests::os::kill(child.id(), libc::SIGTERM).expect("it runs");
    assert_eq!(child.wait(limit).code(), Some(0));
    assert_eq!(status, Some(200));
}
