//! Credentials that the proxy adds: what the upstream gets, and who else sees it.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ambassador_tests::proxy::{Scratch, one_upstream};
use ambassador_tests::server::text;
use ambassador_tests::{
    Answer, Authority, Backend, Call, Column, Proxy, Request, Server, eventually, matrix,
    on_both_backends, ports,
};

use crate::identity::assert_private;

matrix!(
    a_token_of_a_file_is_what_the_upstream_gets,
    a_token_that_changes_fails_no_request,
    an_upstream_gets_its_own_token_and_no_other,
    a_password_and_a_key_are_sent_as_their_kinds_have_it,
    without_a_token_nothing_is_sent,
    a_retry_carries_the_token,
    a_refused_token_is_read_again_and_the_request_sent_once_more,
);

on_both_backends!(
    a_token_is_nowhere_to_be_seen,
    nobody_has_a_token_sent_back,
    a_server_that_does_not_prove_who_it_is_gets_no_token,
    a_file_that_turns_bad_leaves_the_token_of_before,
    a_relative_path_begins_beside_the_configuration,
    a_token_in_a_swapped_directory_is_followed,
    a_reload_that_names_another_file_sends_no_old_token,
);

const SOON: Duration = Duration::from_secs(30);

pub(crate) fn listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], ports::free()))
}

/// A file that root alone may read.
pub(crate) fn secret(scratch: &Scratch, name: &str, text: &str) -> PathBuf {
    let path = scratch.file(name, text);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
    path
}

/// Puts another file in its place.
pub(crate) fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).expect("it is writable");
    fs::set_permissions(&new, fs::Permissions::from_mode(0o644)).expect("it is ours");
    fs::rename(new, path).expect("it is writable");
}

fn bearer(file: &Path) -> String {
    format!("auth: {{ bearer: {{ file: \"{}\" }} }}\n", file.display())
}

/// Every value of the field of this name, in the order they came.
pub(crate) fn all(request: &Request, name: &str) -> Vec<String> {
    let fields = request.fields.iter();
    let named = fields.filter(|(key, _)| key.eq_ignore_ascii_case(name));
    named.map(|(_, value)| value.clone()).collect()
}

fn a_token_of_a_file_is_what_the_upstream_gets(column: Column) {
    let server = column.ok();
    let scratch = Scratch::new();
    let token = secret(&scratch, "token", "t0ken-1\n");
    let more = format!(
        "{}headers: {{ set: {{ authorization: by-a-rule }} }}\n",
        bearer(&token)
    );
    let (_proxy, listen) = column.in_front_of(&server, &more);
    let mut caller = column.connect(listen);
    for lines in [
        "",
        "Authorization: Basic b3duOm93bg==\r\n",
        "authorization: one\r\nAUTHORIZATION: two\r\nx-kept: yes\r\n",
    ] {
        let call = Call::get("/").to("web.test").lines(lines);
        assert_eq!(caller.call(&call).status, 200);
        let request = server.last_request();
        assert_eq!(
            all(&request, "authorization"),
            ["Bearer t0ken-1"],
            "{lines}"
        );
    }
    assert_eq!(server.last_request().field("x-kept"), Some("yes"));
    // Nor in a trailer, where a server may look for it as well.
    let call = Call::new("POST", "/").to("web.test").in_pieces();
    caller.send(&call.field("trailer", "authorization"));
    caller.piece("body");
    caller.end(&[("authorization", "own"), ("x-sum", "1")]);
    assert_eq!(caller.answer().status, 200);
    let request = server.last_request();
    assert_eq!(all(&request, "authorization"), ["Bearer t0ken-1"]);
    assert_eq!(request.trailer("authorization"), None);
    assert_eq!(request.trailer("x-sum"), Some("1"));
}

fn a_token_that_changes_fails_no_request(column: Column) {
    let server = column.ok();
    let scratch = Scratch::new();
    let token = scratch.file("token", "t0ken-0\n");
    let (proxy, listen) = column.in_front_of(&server, &bearer(&token));
    let stop = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..3)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut caller = column.connect(listen);
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(caller.get("/").status, 200);
                }
            })
        })
        .collect();
    assert_eq!(column.connect(listen).get("/").status, 200);
    for round in 1..=8 {
        replace(&token, &format!("t0ken-{round}\n"));
        let wanted = format!("Bearer t0ken-{round}");
        eventually("the new token is sent", SOON, || {
            server.last_request().field("authorization") == Some(&wanted)
        });
    }
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.join().expect("no request fails");
    }
    let valid = |value: &str| value.starts_with("Bearer t0ken-");
    let requests = server.requests();
    assert!(
        requests
            .iter()
            .all(|it| it.field("authorization").is_some_and(valid))
    );
    let refreshed = [("upstream", "web"), ("outcome", "refreshed")];
    assert_eq!(
        proxy.metric("ambassador_credential_refreshes_total", &refreshed),
        9.0
    );
}

/// Routed by its name, by another upstream's name, and told by a redirect.
fn an_upstream_gets_its_own_token_and_no_other(column: Column) {
    let (mine, other) = (column.ok(), column.ok());
    let away = format!("http://{}/", other.address());
    let moved = column.server(move |_| Answer::status(302).field("location", &away));
    let scratch = Scratch::new();
    let (one, two) = (
        scratch.file("one", "t0ken-1"),
        scratch.file("two", "t0ken-2"),
    );
    let listen = listen();
    let config = format!(
        "{}  moved: {{ hosts: [moved.test], endpoints: [\"{}\"], {} }}\n  \
         other: {{ hosts: [other.test], endpoints: [\"{}\"] }}\n",
        one_upstream(listen, mine.address(), &bearer(&one)),
        moved.address(),
        bearer(&two).trim(),
        other.address(),
    );
    let _proxy = Proxy::start(column, &config);
    let mut caller = column.connect(listen);
    let call = |host: &str| Call::get("/").to(host);
    assert_eq!(caller.call(&call("web.test")).status, 200);
    let redirect = caller.call(&call("moved.test"));
    assert_eq!(redirect.status, 302);
    assert!(
        redirect.field("location").is_some(),
        "it is the program's to follow"
    );
    assert_eq!(caller.call(&call("other.test")).status, 200);
    assert_eq!(
        mine.last_request().field("authorization"),
        Some("Bearer t0ken-1")
    );
    assert_eq!(
        moved.last_request().field("authorization"),
        Some("Bearer t0ken-2")
    );
    assert_eq!(other.last_request().field("authorization"), None);
    assert_eq!(other.requests().len(), 1);
}

fn a_password_and_a_key_are_sent_as_their_kinds_have_it(column: Column) {
    let server = column.ok();
    let scratch = Scratch::new();
    let path = secret(&scratch, "secret", "open sesame\n");
    let file = path.display();
    let basic = format!("auth: {{ basic: {{ user: Aladdin, password: {{ file: \"{file}\" }} }} }}");
    let key = format!("auth: {{ header: {{ name: X-Api-Key, value: {{ file: \"{file}\" }} }} }}");
    let own = "authorization: own\r\nx-api-key: own\r\nX-API-KEY: own\r\n";
    let shown = |more: &str| {
        let (_proxy, listen) = column.in_front_of(&server, more);
        let call = Call::get("/").to("web.test").lines(own);
        assert_eq!(column.connect(listen).call(&call).status, 200);
        let request = server.last_request();
        [all(&request, "authorization"), all(&request, "x-api-key")]
    };
    let own = || "own".to_owned();
    let basic = shown(&basic);
    assert_eq!(basic[0], ["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="]);
    assert_eq!(basic[1], [own(), own()], "another field is the program's");
    let key = shown(&key);
    assert_eq!(
        (&*key[0], &*key[1]),
        (&[own()][..], &["open sesame".to_owned()][..])
    );
}

fn without_a_token_nothing_is_sent(column: Column) {
    let server = column.ok();
    let scratch = Scratch::new();
    let token = scratch.path().join("token");
    let more = format!("{}circuit_breaker: {{ consecutive: 1 }}\n", bearer(&token));
    let (proxy, listen) = column.in_front_of(&server, &more);
    let mut caller = column.connect(listen);
    for _ in 0..3 {
        let answer = caller.get("/");
        assert_eq!((answer.status, answer.reason()), (503, "auth-unavailable"));
    }
    assert_eq!((server.connections(), server.requests().len()), (0, 0));
    let upstream = proxy.upstream("web");
    assert_eq!(upstream["circuit_breaker"]["state"], "closed");
    assert_eq!(upstream["credential"]["state"], "failed");
    let why = upstream["credential"]["last_failure"].to_string();
    assert!(
        why.contains("token") && why.contains("No such file"),
        "{why}"
    );
    assert_eq!(
        proxy.metric("ambassador_retries_total", &[("upstream", "web")]),
        0.0
    );
    // It comes, and requests go at once.
    replace(&token, "t0ken-1\n");
    eventually("the token is there", SOON, || caller.get("/").status == 200);
    assert_eq!(
        server.last_request().field("authorization"),
        Some("Bearer t0ken-1")
    );
}

fn a_retry_carries_the_token(column: Column) {
    let busy = column.server(|_| Answer::status(503));
    let well = column.ok();
    let scratch = Scratch::new();
    let token = scratch.file("token", "t0ken-1");
    let listen = listen();
    let config = format!(
        "listeners:\n  - {{ name: egress, bind: \"{listen}\", protocol: http }}\n\
         upstreams:\n  web:\n    hosts: [web.test]\n    \
         endpoints: [\"{}\", \"{}\"]\n    retry: {{ base: 1ms }}\n    {}",
        busy.address(),
        well.address(),
        bearer(&token)
    );
    let _proxy = Proxy::start(column, &config);
    let mut caller = column.connect(listen);
    eventually("one was retried", SOON, || {
        assert_eq!(caller.get("/").status, 200);
        !busy.requests().is_empty()
    });
    for request in busy.requests().iter().chain(&well.requests()) {
        assert_eq!(all(request, "authorization"), ["Bearer t0ken-1"]);
    }
}

/// The file changes when its token is refused: before that, whoever looks at it on a slow
/// machine would know the new one first.
fn a_refused_token_is_read_again_and_the_request_sent_once_more(column: Column) {
    let scratch = Scratch::new();
    let token = scratch.file("token", "t0ken-1");
    let open = fs::OpenOptions::new().write(true).open(&token);
    let open = Arc::new(open.expect("it is writable"));
    let changed = Arc::clone(&open);
    let server = column.server(move |request| match request.field("authorization") {
        Some("Bearer t0ken-2") => Answer::ok(&request.body),
        shown => {
            if shown == Some("Bearer t0ken-1") {
                let written = changed.write_all_at(b"t0ken-2", 0);
                written.expect("it is writable");
            }
            Answer::status(401).field("www-authenticate", "Bearer")
        }
    });
    let more = format!("{}retry: {{ attempts: 1 }}\n", bearer(&token));
    let (proxy, listen) = column.in_front_of(&server, &more);
    let mut caller = column.connect(listen);
    let answer = caller.call(&Call::post("/", "the body").to("web.test"));
    assert_eq!((answer.status, answer.text().as_str()), (200, "the body"));
    let shown = server.requests();
    let shown: Vec<_> = shown
        .iter()
        .filter_map(|it| it.field("authorization"))
        .collect();
    assert_eq!(shown, ["Bearer t0ken-1", "Bearer t0ken-2"]);
    let retried = [("upstream", "web"), ("cause", "credential")];
    proxy.expect_metric("ambassador_retries_total", &retried, 1.0);
    // One that is refused although nothing better is there goes back as it is.
    open.write_all_at(b"t0ken-3", 0).expect("it is writable");
    eventually("the server's answer is passed on", SOON, || {
        let answer = caller.call(&Call::get("/").to("web.test"));
        answer.status == 401 && answer.field("www-authenticate") == Some("Bearer")
    });
    assert_eq!(proxy.upstream("web")["circuit_breaker"]["failures"], 0);
}

/// Also where root alone may read it, and after a reload.
fn a_relative_path_begins_beside_the_configuration(backend: Backend) {
    let server = Server::http(|_| text("ok"));
    // Directories of tests are beside each other.
    let scratch = Scratch::new();
    secret(&scratch, "one", "t0ken-1");
    secret(&scratch, "two", "t0ken-2");
    let name = scratch.path().file_name().expect("it has one");
    let beside = |file: &str| Path::new("..").join(name).join(file);
    let listen = listen();
    let config = |file: &str| one_upstream(listen, server.address(), &bearer(&beside(file)));
    let proxy = Proxy::start(backend, &config("one"));
    let mut caller = ambassador_tests::Client::connect(listen);
    assert_eq!(caller.get("/").status, 200);
    let shown = server.last_request();
    assert_eq!(shown.field("authorization"), Some("Bearer t0ken-1"));
    replace(&scratch.path().join("one"), "t0ken-3");
    eventually("the file is followed", SOON, || {
        caller.get("/").status == 200
            && server.last_request().field("authorization") == Some("Bearer t0ken-3")
    });
    replace(&scratch.path().join("two"), "t0ken-2");
    proxy.rewrite_config(&config("two"));
    eventually("the other file is read", SOON, || {
        caller.get("/").status == 200
            && server.last_request().field("authorization") == Some("Bearer t0ken-2")
    });
}

/// Nor does another endpoint, as trying one would only tell more servers of it.
/// A server answers TRACE with what it was sent.
fn nobody_has_a_token_sent_back(backend: Backend) {
    let scratch = Scratch::new();
    let token = secret(&scratch, "token", "t0ken-1");
    let server = Server::http(|request| text(&request.head));
    let listen = listen();
    let config = one_upstream(listen, server.address(), &bearer(&token));
    let _proxy = Proxy::start(backend, &config);
    let mut client = ambassador_tests::Client::connect(listen);
    client.send("TRACE / HTTP/1.1\r\nHost: web.test\r\n\r\n");
    let answer = client.response("TRACE");
    assert_eq!((answer.status, answer.reason()), (400, "bad-request"));
    assert!(answer.text().contains("TRACE"), "{}", answer.text());
    assert_eq!(server.connections(), 0);
}

fn a_server_that_does_not_prove_who_it_is_gets_no_token(backend: Backend) {
    let scratch = Scratch::new();
    let authority = Authority::new("root");
    let ca = scratch.file("ca.pem", &authority.pem);
    let token = scratch.file("token", "t0ken-1");
    let serve = |name: &str| {
        let leaf = authority.issue(&[name]);
        Server::secured(leaf.server(), |connection| {
            connection.serve_http(|_| text("ok"))
        })
    };
    let (right, wrong) = (serve("web.test"), serve("other.test"));
    let tls = format!("tls: {{ ca: {} }}\nretry: {{ base: 1ms }}\n", ca.display());
    let more = format!("{}{tls}", bearer(&token));
    let (_proxy, listen) = Proxy::in_front_of_with(backend, wrong.address(), &more);
    let mut caller = ambassador_tests::Client::connect(listen);
    let answer = caller.get("/");
    assert_eq!((answer.status, answer.reason()), (502, "tls-failed"));
    assert!(wrong.requests().is_empty());
    let (_proxy, listen) = Proxy::in_front_of_with(backend, right.address(), &more);
    let mut caller = ambassador_tests::Client::connect(listen);
    assert_eq!(caller.get("/").status, 200);
    assert_eq!(
        right.last_request().field("authorization"),
        Some("Bearer t0ken-1")
    );
}

/// Not in the access log, what the admin API tells, the log, or a core.
fn a_token_is_nowhere_to_be_seen(backend: Backend) {
    let server = Server::ok();
    let scratch = Scratch::new();
    let token = secret(&scratch, "token", "s3cret-token\n");
    let telemetry = "telemetry: { access_log: { path: stdout }, tracing: {} }";
    let (auth, listen) = (bearer(&token), listen());
    let config = format!(
        "{telemetry}\n{}",
        one_upstream(listen, server.address(), &auth)
    );
    let proxy = Proxy::start(backend, &config);
    let mut caller = ambassador_tests::Client::connect(listen);
    assert_eq!(caller.get("/").status, 200);
    assert_eq!(
        server.last_request().field("authorization"),
        Some("Bearer s3cret-token")
    );
    // It turns into one that is refused: what is said of it does not show it.
    replace(&token, "s3cret token\n");
    let failed = [("upstream", "web"), ("outcome", "failed")];
    eventually("it is refused", SOON, || {
        proxy.metric("ambassador_credential_refreshes_total", &failed) >= 1.0
    });
    eventually("the log tells", SOON, || {
        proxy.log().contains("cannot fetch the credential") && proxy.log().contains("\"path\"")
    });
    for said in [
        proxy.log(),
        proxy.admin_get("/config"),
        proxy.admin_get("/upstreams"),
        proxy.admin_get("/metrics"),
    ] {
        assert!(!said.contains("s3cret"), "{said}");
    }
    // What is written of it is a path.
    assert!(
        proxy
            .admin_get("/config")
            .contains(&token.display().to_string())
    );
    assert_private(proxy.pid());
}

fn a_file_that_turns_bad_leaves_the_token_of_before(backend: Backend) {
    let server = Server::ok();
    let scratch = Scratch::new();
    let token = scratch.file("token", "t0ken-1\n");
    let (proxy, listen) = Proxy::in_front_of_with(backend, server.address(), &bearer(&token));
    let mut caller = ambassador_tests::Client::connect(listen);
    assert_eq!(caller.get("/").status, 200);
    let long = "x".repeat(10_000);
    for (count, text) in ["", "\n", "one\r\nx-admin: yes", &long]
        .into_iter()
        .enumerate()
    {
        replace(&token, text);
        let failed = [("upstream", "web"), ("outcome", "failed")];
        eventually("it is refused", SOON, || {
            proxy.metric("ambassador_credential_refreshes_total", &failed) > count as f64
        });
        assert_eq!(caller.get("/").status, 200);
        let request = server.last_request();
        assert_eq!(all(&request, "authorization"), ["Bearer t0ken-1"]);
    }
    assert_eq!(proxy.upstream("web")["credential"]["state"], "valid");
    replace(&token, "t0ken-2\n");
    eventually("the new token is sent", SOON, || {
        assert_eq!(caller.get("/").status, 200);
        server.last_request().field("authorization") == Some("Bearer t0ken-2")
    });
}

/// As Kubernetes projects a service account's token.
fn a_token_in_a_swapped_directory_is_followed(backend: Backend) {
    let server = Server::ok();
    let scratch = Scratch::new();
    let path = |name: &str| scratch.path().join(name);
    for (version, text) in [("v1", "t0ken-1"), ("v2", "t0ken-2")] {
        fs::create_dir(path(version)).expect("it is writable");
        fs::write(path(version).join("token"), text).expect("it is writable");
    }
    symlink("v1", path("..data")).expect("it is writable");
    symlink("..data/token", path("token")).expect("it is writable");
    let (_proxy, listen) =
        Proxy::in_front_of_with(backend, server.address(), &bearer(&path("token")));
    let mut caller = ambassador_tests::Client::connect(listen);
    assert_eq!(caller.get("/").status, 200);
    assert_eq!(
        server.last_request().field("authorization"),
        Some("Bearer t0ken-1")
    );
    symlink("v2", path("..new")).expect("it is writable");
    fs::rename(path("..new"), path("..data")).expect("it is writable");
    eventually("the new token is sent", SOON, || {
        assert_eq!(caller.get("/").status, 200);
        server.last_request().field("authorization") == Some("Bearer t0ken-2")
    });
}

fn a_reload_that_names_another_file_sends_no_old_token(backend: Backend) {
    let (one, two) = (Server::ok(), Server::ok());
    let scratch = Scratch::new();
    let (old, new) = (scratch.file("old", "t0ken-1"), scratch.path().join("new"));
    let listen = listen();
    let proxy = Proxy::start(backend, &one_upstream(listen, one.address(), &bearer(&old)));
    let mut caller = ambassador_tests::Client::connect(listen);
    assert_eq!(caller.get("/").status, 200);
    proxy.rewrite_config(&one_upstream(listen, two.address(), &bearer(&new)));
    eventually("it was reloaded", SOON, || {
        proxy.metric("ambassador_config_reloads_total", &[]) >= 1.0
    });
    eventually("there is no token", SOON, || {
        let mut caller = ambassador_tests::Client::connect(listen);
        caller.get("/").reason() == "auth-unavailable"
    });
    replace(&new, "t0ken-2");
    eventually("there is one", SOON, || {
        let mut caller = ambassador_tests::Client::connect(listen);
        caller.get("/").status == 200
    });
    let requests = two.requests();
    let values = requests.iter().map(|request| all(request, "authorization"));
    assert!(
        values
            .into_iter()
            .all(|values| values == ["Bearer t0ken-2"])
    );
    // Without auth, without a token.
    proxy.rewrite_config(&one_upstream(listen, two.address(), ""));
    eventually("it was reloaded", SOON, || {
        proxy.metric("ambassador_config_reloads_total", &[]) >= 2.0
    });
    let mut caller = ambassador_tests::Client::connect(listen);
    assert_eq!(caller.get("/").status, 200);
    assert_eq!(two.last_request().field("authorization"), None);
}
