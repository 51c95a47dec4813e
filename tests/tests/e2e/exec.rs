//! `ambassador exec`: a command with its calls captured, and nothing left behind.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use ambassador_tests::program::Running;
use ambassador_tests::proxy::{Scratch, ambassador};
use ambassador_tests::server::text;
use ambassador_tests::{Backend, Server, cgroup, eventually, on_both_backends, os, program};

on_both_backends!(
    a_command_is_captured_by_a_file,
    a_command_without_a_file_is_adopted,
    exec_nested_in_exec,
    a_daemonised_child_is_waited_for,
    a_killed_exec_leaves_nothing,
);

const SOON: Duration = Duration::from_secs(10);

fn exec(backend: Backend, arguments: &[&str]) -> Output {
    program::output(ambassador(backend).arg("exec").args(arguments))
}

fn config(scratch: &Scratch, server: &Server) -> String {
    let upstream = format!(
        "{{ hosts: [10.1.2.3], endpoints: [\"{}\"] }}",
        server.address()
    );
    let path = scratch.file("exec.yaml", &format!("upstreams: {{ web: {upstream} }}\n"));
    path.display().to_string()
}

/// The cgroup that `exec` with this process id makes.
fn has_group_of(pid: u32) -> bool {
    cgroup::find(&format!("ambassador-exec-{pid}")).is_some()
}

fn a_command_is_captured_by_a_file(backend: Backend) {
    let server = Server::http(|request| text(&request.target));
    let scratch = Scratch::new();
    let file = config(&scratch, &server);
    let url = "http://10.1.2.3/from-exec";
    let output = exec(
        backend,
        &["--config", &file, "--", "curl", "-sS", "-m20", url],
    );
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        output.stdout, b"/from-exec",
        "nothing of the proxy's own on stdout"
    );
    let summary = exec(
        backend,
        &[
            "--config",
            &file,
            "--summary",
            "--",
            "curl",
            "-sS",
            "-m20",
            url,
        ],
    );
    assert_eq!(summary.stdout, b"/from-exec");
    assert!(
        String::from_utf8_lossy(&summary.stderr).contains("web"),
        "{summary:?}"
    );
}

fn a_command_without_a_file_is_adopted(backend: Backend) {
    let namespace = crate::capture_scope::world(&["10.1.0.0/16"]);
    let server = Server::over(namespace.listen("0.0.0.0:80"), |connection| {
        connection.serve_http(|request| {
            text(
                request
                    .field("x-request-id")
                    .map_or("direct", |_| "adopted"),
            )
        })
    });
    let [nsenter, entered, binary] =
        namespace.wrap(&ambassador_tests::proxy::binary().display().to_string());
    let mut command = Command::new(nsenter);
    command
        .args([entered, binary])
        .env("AMBASSADOR_BACKEND", backend.name());
    command.args(["exec", "--", "curl", "-sS", "-m20", "http://10.1.2.3/"]);
    assert_eq!(program::succeed(&mut command), "adopted");
    assert_eq!(server.requests().len(), 1);
}

fn exec_nested_in_exec(backend: Backend) {
    let server = Server::http(|request| text(&request.target));
    let scratch = Scratch::new();
    let file = config(&scratch, &server);
    let binary = ambassador_tests::proxy::binary().display().to_string();
    let inner = [
        &binary,
        "exec",
        "--config",
        &file,
        "--",
        "curl",
        "-sS",
        "-m20",
        "http://10.1.2.3/n",
    ];
    let output = exec(
        backend,
        &[&["--config", &file, "--"], inner.as_slice()].concat(),
    );
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"/n");
}

fn a_daemonised_child_is_waited_for(backend: Backend) {
    let server = Server::http(|request| text(&request.target));
    let scratch = Scratch::new();
    let file = config(&scratch, &server);
    let done = scratch.path().join("done");
    // The daemon calls only after its parent has ended.
    let script = format!(
        "setsid sh -c 'while kill -0 '$$' 2>/dev/null; do sleep 0.05; done; \
         curl -sS -m20 -o {} http://10.1.2.3/daemon' >/dev/null 2>&1 &",
        done.display()
    );
    let output = exec(backend, &["--config", &file, "--", "sh", "-c", &script]);
    assert!(output.status.success(), "{output:?}");
    let written = std::fs::read_to_string(&done).expect("exec waited for it");
    assert_eq!(written, "/daemon", "still captured");
}

fn a_killed_exec_leaves_nothing(backend: Backend) {
    let server = Server::http(|request| text(&request.target));
    let scratch = Scratch::new();
    let file = config(&scratch, &server);
    let script = "curl -sS -m20 http://10.1.2.3/up; echo; exec sleep 30";
    let mut child = Running::start(
        ambassador(backend)
            .args(["exec", "--config", &file, "--", "sh", "-c", script])
            .env("XDG_RUNTIME_DIR", scratch.path())
            .stdout(Stdio::piped()),
    );
    let mut lines = BufReader::new(child.stdout()).lines();
    assert_eq!(lines.next().expect("a line").expect("text"), "/up");
    let pid = child.id();
    let admin = scratch.path().join(format!("ambassador-exec-{pid}"));
    assert!(admin.exists(), "it has its admin socket there");
    os::kill(pid, libc::SIGKILL).expect("it runs");
    child.wait(SOON);
    eventually("its cgroup is gone", SOON, || !has_group_of(pid));
    eventually("its directory is gone", SOON, || !admin.exists());
}

#[test]
fn the_exit_status_is_the_commands() {
    let script = |script| {
        exec(Backend::Ring, &["--", "sh", "-c", script])
            .status
            .code()
    };
    assert_eq!(script("exit 0"), Some(0));
    assert_eq!(script("exit 37"), Some(37));
    assert_eq!(script("kill -TERM $$"), Some(128 + libc::SIGTERM));
    assert_eq!(script("kill -KILL $$"), Some(128 + libc::SIGKILL));
    assert_eq!(
        exec(Backend::Ring, &["--", "/no/such/program"])
            .status
            .code(),
        Some(127)
    );
    assert_eq!(
        exec(Backend::Ring, &["--", "/etc/passwd"]).status.code(),
        Some(126)
    );
}

#[test]
fn signals_are_forwarded() {
    let script = "trap 'echo got; exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = Running::start(
        ambassador(Backend::Ring)
            .args(["exec", "--", "sh", "-c", script])
            .stdout(Stdio::piped()),
    );
    let mut lines = BufReader::new(child.stdout()).lines();
    assert_eq!(lines.next().expect("a line").expect("text"), "ready");
    os::kill(child.id(), libc::SIGTERM).expect("it runs");
    assert_eq!(lines.next().expect("a line").expect("text"), "got");
    assert_eq!(child.wait(SOON).code(), Some(9));
    eventually("its cgroup is gone", SOON, || !has_group_of(child.id()));
}

#[test]
fn arguments_input_and_environment_pass_through() {
    let mut command = ambassador(Backend::Ring);
    command.args([
        "exec",
        "--",
        "sh",
        "-c",
        "echo \"$0|$1|$X\"; id -u; ulimit -n",
        "a b",
        "--c",
    ]);
    let output = program::succeed(command.env("X", "y z"));
    assert!(output.starts_with("a b|--c|y z\n0\n"), "{output}");
}
