//! Tokens that a command prints: who runs it, with what, and what becomes of one that
//! fails.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use ambassador_tests::proxy::{Scratch, one_upstream};
use ambassador_tests::{Backend, Client, Proxy, Server, eventually, on_both_backends, os};

use crate::credentials::listen;
use crate::identity::{assert_all, children, of_threads};

on_both_backends!(
    a_command_prints_the_token_and_is_run_by_nobody_in_particular,
    what_a_command_prints_is_fetched_anew_ahead_of_its_end,
    a_command_that_fails_is_told_and_nothing_is_sent,
    a_reload_brings_new_commands,
    a_reload_brings_no_first_command,
    a_runner_that_ends_is_replaced,
    the_end_of_what_runs_commands_is_told,
    no_command_outlives_the_proxy,
);

const SOON: Duration = Duration::from_secs(30);

/// A directory and a script in it that everybody may read.
fn script(scratch: &Scratch, name: &str, text: &str) -> String {
    let open = fs::Permissions::from_mode(0o777);
    fs::set_permissions(scratch.path(), open).expect("it is ours");
    let path = scratch.file(name, text);
    path.display().to_string()
}

fn exec(words: &[&str], ttl: &str) -> String {
    let words = serde_json::to_string(words).expect("it is text");
    format!("auth: {{ bearer: {{ exec: {words}, ttl: {ttl} }} }}\n")
}

fn start(backend: Backend, server: &Server, auth: &str) -> (Proxy, std::net::SocketAddr) {
    Proxy::in_front_of_with(backend, server.address(), auth)
}

/// The process that starts what runs commands.
fn keeper(proxy: &Proxy) -> u32 {
    let is_keeper = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("credential-commands")
    };
    let keeper = children(proxy.pid()).into_iter().find(is_keeper);
    keeper.expect("there is one")
}

/// The process that runs commands, if it is there.
fn try_runner(proxy: &Proxy) -> Option<u32> {
    children(keeper(proxy)).into_iter().next()
}

fn runner(proxy: &Proxy) -> u32 {
    try_runner(proxy).expect("there is one")
}

fn kill(pid: u32) {
    os::kill(pid, libc::SIGKILL).expect("it is ours");
}

fn a_command_prints_the_token_and_is_run_by_nobody_in_particular(backend: Backend) {
    let server = Server::ok();
    let scratch = Scratch::new();
    let text = "{ id -u; env | sort; grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status; \
                ls -l /proc/self/fd | grep -c socket:; } > $1/seen; echo t0ken-1";
    let path = script(&scratch, "print", text);
    let directory = scratch.path().display().to_string();
    let (proxy, listen) = start(backend, &server, &exec(&["sh", &path, &directory], "10m"));
    assert_eq!(Client::connect(listen).get("/").status, 200);
    assert_eq!(
        server.last_request().field("authorization"),
        Some("Bearer t0ken-1")
    );

    let seen = fs::read_to_string(scratch.path().join("seen")).expect("it ran");
    let uid = of_threads(proxy.pid(), "Uid")[0]
        .split(' ')
        .next()
        .map(str::to_owned);
    assert_eq!(seen.lines().next(), uid.as_deref(), "{seen}");
    for line in [
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
    ] {
        assert!(seen.contains(line), "no {line} in\n{seen}");
    }
    let names = seen
        .lines()
        .filter_map(|line| line.split_once('=').map(|(name, _)| name));
    let own = ["OLDPWD", "PWD", "SHLVL", "_"];
    let names: Vec<&str> = names.filter(|name| !own.contains(name)).collect();
    assert_eq!(names, ["HOME", "PATH"]);
    assert!(seen.ends_with("\n0\n"), "a socket is open: {seen}");
    let runner = runner(&proxy);
    assert_all(runner, "CapPrm", "0000000000000000");
    assert_all(runner, "NoNewPrivs", "1");
    let (config, upstreams) = (proxy.admin_get("/config"), proxy.admin_get("/upstreams"));
    let config: serde_json::Value = serde_json::from_str(&config).expect("it is JSON");
    let shown = &config["upstreams"]["web"]["auth"]["bearer"]["exec"];
    assert_eq!(*shown, serde_json::json!(["sh", "***", "***"]));
    assert!(!upstreams.contains("t0ken"), "{upstreams}");
    let left = proxy.metric(
        "ambassador_credential_expiry_seconds",
        &[("upstream", "web")],
    );
    assert!(left > 500.0 && left <= 600.0, "{left}");
}

fn what_a_command_prints_is_fetched_anew_ahead_of_its_end(backend: Backend) {
    let server = Server::ok();
    let scratch = Scratch::new();
    let path = script(
        &scratch,
        "print",
        "echo 1 >> $1/runs; echo t0ken-$(wc -l < $1/runs)",
    );
    let directory = scratch.path().display().to_string();
    let (_proxy, listen) = start(backend, &server, &exec(&["sh", &path, &directory], "2s"));
    let mut caller = Client::connect(listen);
    eventually("the third token is sent", SOON, || {
        assert_eq!(caller.get("/").status, 200);
        let shown = server
            .last_request()
            .field("authorization")
            .map(str::to_owned);
        shown.as_deref() == Some("Bearer t0ken-3")
    });
}

fn a_command_that_fails_is_told_and_nothing_is_sent(backend: Backend) {
    for (words, why) in [
        (&["/no/such/program"][..], "cannot be run: No such file"),
        (
            &["sh", "-c", "echo s3cret; exit 3"],
            "ends with exit status: 3",
        ),
        (&["sh", "-c", "true"], "holds nothing"),
        (&["sh", "-c", "echo two; echo lines"], "more than one line"),
        (&["sh", "-c", "yes s3cret"], "prints more than 16384 bytes"),
    ] {
        let server = Server::ok();
        let (proxy, listen) = start(backend, &server, &exec(words, "10m"));
        let answer = Client::connect(listen).get("/");
        assert_eq!((answer.status, answer.reason()), (503, "auth-unavailable"));
        let said = proxy.upstream("web")["credential"]["last_failure"].to_string();
        assert!(said.contains(why), "{said}");
        assert!(!proxy.log().contains("s3cret") && !said.contains("s3cret"));
        assert_eq!(server.connections(), 0);
    }
}

fn a_reload_brings_new_commands(backend: Backend) {
    let server = Server::ok();
    let listen = listen();
    let config = |word: &str| {
        let auth = exec(&["echo", word], "10m");
        one_upstream(listen, server.address(), &auth)
    };
    let proxy = Proxy::start(backend, &config("t0ken-1"));
    let mut caller = Client::connect(listen);
    for word in ["t0ken-1", "t0ken-2", "t0ken-3", "t0ken-1"] {
        proxy.rewrite_config(&config(word));
        eventually("the new command's token is sent", SOON, || {
            let status = caller.get("/").status;
            assert!(status == 200 || status == 503, "{status}");
            let request = server.last_request();
            request.field("authorization") == Some(&format!("Bearer {word}"))
        });
    }
    let deaths = proxy.metric("ambassador_command_runner_deaths_total", &[]);
    assert_eq!(deaths, 0.0, "{}", proxy.log());
    assert_all(runner(&proxy), "CapPrm", "0000000000000000");
}

/// Nobody is there to run it.
fn a_reload_brings_no_first_command(backend: Backend) {
    let server = Server::ok();
    let listen = listen();
    let proxy = Proxy::start(backend, &one_upstream(listen, server.address(), ""));
    let auth = exec(&["echo", "t0ken-1"], "10m");
    proxy.rewrite_config(&one_upstream(listen, server.address(), &auth));
    eventually("it is refused", SOON, || {
        proxy
            .log()
            .contains("upstreams.*.auth.bearer.exec: needs a restart")
    });
    assert_eq!(Client::connect(listen).get("/").status, 200);
    assert_eq!(server.last_request().field("authorization"), None);
}

fn a_runner_that_ends_is_replaced(backend: Backend) {
    let server = Server::ok();
    let scratch = Scratch::new();
    let text = "echo 1 >> $1/runs; echo t0ken-$(wc -l < $1/runs)";
    let path = script(&scratch, "print", text);
    let directory = scratch.path().display().to_string();
    let (proxy, listen) = start(backend, &server, &exec(&["sh", &path, &directory], "2s"));
    let mut caller = Client::connect(listen);
    assert_eq!(caller.get("/").status, 200);
    for death in 1..=2 {
        let first = runner(&proxy);
        kill(first);
        eventually("another one is there", SOON, || {
            try_runner(&proxy).is_some_and(|other| other != first)
        });
        let runs = || fs::read_to_string(scratch.path().join("runs")).expect("it ran");
        let before = runs().len();
        eventually("it runs commands", SOON, || runs().len() > before);
        eventually("that is counted", SOON, || {
            proxy.metric("ambassador_command_runner_deaths_total", &[]) == f64::from(death)
        });
    }
    assert!(
        proxy.log().contains("ended and is replaced"),
        "{}",
        proxy.log()
    );
    assert_eq!(proxy.admin_get("/readyz"), "ok\n");
    eventually("a token is sent", SOON, || caller.get("/").status == 200);
}

fn the_end_of_what_runs_commands_is_told(backend: Backend) {
    let server = Server::ok();
    let (proxy, listen) = start(backend, &server, &exec(&["echo", "t0ken-1"], "3s"));
    let mut caller = Client::connect(listen);
    assert_eq!(caller.get("/").status, 200);
    let left = format!("/proc/{}", runner(&proxy));
    kill(keeper(&proxy));
    eventually("it is said", SOON, || {
        proxy
            .admin_get("/readyz")
            .contains("run commands have ended")
    });
    assert!(
        proxy.log().contains("run commands have ended"),
        "{}",
        proxy.log()
    );
    assert_eq!(
        proxy.metric("ambassador_command_runner_deaths_total", &[]),
        1.0
    );
    eventually("the runner has ended", SOON, || !Path::new(&left).exists());
    eventually("there is no token", SOON, || caller.get("/").status == 503);
    let said = proxy.upstream("web")["credential"]["last_failure"].to_string();
    assert!(
        said.contains("the process that runs commands has ended"),
        "{said}"
    );
}

/// Neither the runner nor a command that hangs.
fn no_command_outlives_the_proxy(backend: Backend) {
    let server = Server::ok();
    let scratch = Scratch::new();
    let path = script(
        &scratch,
        "hang",
        "echo $$ > $1/pid.new; mv $1/pid.new $1/pid; sleep 3600",
    );
    let directory = scratch.path().display().to_string();
    let (mut proxy, _) = start(backend, &server, &exec(&["sh", &path, &directory], "10m"));
    let pid = scratch.path().join("pid");
    eventually("it runs", SOON, || pid.exists());
    let pid = fs::read_to_string(&pid).expect("it is there");
    let hanging = format!("/proc/{}", pid.trim());
    assert!(Path::new(&hanging).exists());
    let runner = format!("/proc/{}", runner(&proxy));
    proxy.kill();
    eventually("the command has ended", SOON, || {
        !Path::new(&hanging).exists()
    });
    eventually("the runner has ended", SOON, || {
        !Path::new(&runner).exists()
    });
}
