//! Placeholders: programs send a word, and the upstream that it is for gets the secret.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use ambassador_tests::proxy::{Scratch, one_upstream};
use ambassador_tests::server::text;
use ambassador_tests::{
    Authority, Backend, Call, Cgroup, Client, Column, Proxy, Server, eventually, matrix,
    on_both_backends, program,
};

use crate::capture_scope::{inside, world};
use crate::credentials::{all, listen, replace, secret};
use crate::sigv4::Aws;

matrix!(
    the_upstream_gets_the_secret_and_no_other_does,
    without_a_secret_nothing_is_sent,
    a_refused_secret_is_read_again_and_the_request_sent_once_more,
);

on_both_backends!(
    curl_with_a_user_is_understood,
    a_captured_program_never_holds_the_secret,
    requests_in_a_tunnel_carry_it,
    a_secret_that_changes_is_taken,
    a_reload_moves_it_to_another_upstream,
    a_server_that_does_not_prove_who_it_is_gets_nothing,
    a_signature_is_made_of_the_secret,
);

const SOON: Duration = Duration::from_secs(30);
const STRIPE: &str = "amb-placeholder-stripe";

/// `placeholders` with `stripe` alone, of the upstream `web`.
fn stripe(file: &Path) -> String {
    format!(
        "placeholders: {{ stripe: {{ value: {{ file: \"{}\" }}, upstream: web, in: [header] }} }}\n",
        file.display()
    )
}

fn basic(pair: &str) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

fn the_upstream_gets_the_secret_and_no_other_does(column: Column) {
    let (server, other) = (column.ok(), column.ok());
    let scratch = Scratch::new();
    let live = secret(&scratch, "live", "sk_live_s3cret\n");
    let test = secret(&scratch, "test", "sk_test_s3cret\n");
    let listen = listen();
    let config = format!(
        "telemetry: {{ access_log: {{ path: stdout }}, tracing: {{}} }}\n\
         placeholders:\n  stripe: {{ value: {{ file: \"{}\" }}, upstream: web }}\n  \
         stripe-test: {{ value: {{ file: \"{}\" }}, upstream: web }}\n{}  \
         other: {{ hosts: [other.test], endpoints: [\"{}\"] }}\n",
        live.display(),
        test.display(),
        one_upstream(listen, server.address(), ""),
        other.address(),
    );
    let proxy = Proxy::start(column, &config);
    let mut caller = column.connect(listen);
    let pair = format!("git:{STRIPE}");
    let fields = format!(
        "authorization: {}\r\nx-api-key: {STRIPE}\r\nx-both: {STRIPE}-test,{STRIPE}\r\n\
         x-none: amb-placeholder-nobody\r\n",
        basic(&pair)
    );
    let path = format!("/?key={STRIPE}");
    for host in ["web.test", "other.test"] {
        let call = Call::post(&path, STRIPE).to(host).lines(&fields);
        assert_eq!(caller.call(&call).status, 200);
    }
    let request = server.last_request();
    let expected = basic("git:sk_live_s3cret");
    assert_eq!(request.field("authorization"), Some(&*expected));
    assert_eq!(request.field("x-api-key"), Some("sk_live_s3cret"));
    let both = "sk_test_s3cret,sk_live_s3cret";
    assert_eq!(request.field("x-both"), Some(both));
    assert_eq!(request.field("x-none"), Some("amb-placeholder-nobody"));
    // Fields alone are looked into.
    assert_eq!(
        (request.target.as_str(), request.body),
        (&*path, STRIPE.into())
    );
    // To others it goes as it is.
    let request = other.last_request();
    assert_eq!(request.field("authorization"), Some(&*basic(&pair)));
    assert_eq!(request.field("x-api-key"), Some(STRIPE));
    // The name of the upstream leads there as well.
    let call = Call::get("/").to("x.test").field("x-upstream-host", "web");
    assert_eq!(caller.call(&call.field("x-api-key", STRIPE)).status, 200);
    assert_eq!(all(&server.last_request(), "x-api-key"), ["sk_live_s3cret"]);
    let placeholders = proxy.upstream("web")["placeholders"].clone();
    assert_eq!(placeholders[0]["name"], "stripe");
    assert_eq!(placeholders[0]["state"], "valid");
    eventually("the log tells of a word that is none", SOON, || {
        proxy.log().contains("name=nobody")
    });
    for said in [
        proxy.log(),
        proxy.admin_get("/config"),
        proxy.admin_get("/upstreams"),
        proxy.admin_get("/metrics"),
    ] {
        assert!(!said.contains("s3cret"), "{said}");
    }
}

fn without_a_secret_nothing_is_sent(column: Column) {
    let server = column.ok();
    let scratch = Scratch::new();
    let file = scratch.path().join("secret");
    let listen = listen();
    let config = stripe(&file) + &one_upstream(listen, server.address(), "");
    let proxy = Proxy::start(column, &config);
    let mut caller = column.connect(listen);
    let call = Call::get("/").to("web.test");
    let call = call.field("authorization", &format!("Bearer {STRIPE}"));
    for _ in 0..3 {
        let answer = caller.call(&call);
        assert_eq!((answer.status, answer.reason()), (503, "auth-unavailable"));
    }
    assert_eq!((server.connections(), server.requests().len()), (0, 0));
    let placeholder = proxy.upstream("web")["placeholders"][0].clone();
    assert_eq!(placeholder["state"], "failed");
    let why = placeholder["last_failure"].to_string();
    assert!(why.contains("No such file"), "{why}");
    assert_eq!(proxy.upstream("web")["circuit_breaker"]["failures"], 0);
    // Others need none.
    assert_eq!(caller.get("/").status, 200);
    // What would be more than a field is refused.
    replace(&file, "sk\r\nx-admin: yes");
    eventually("it is refused", SOON, || {
        let placeholder = proxy.upstream("web")["placeholders"][0].clone();
        placeholder["last_failure"]
            .to_string()
            .contains("control character")
    });
    assert_eq!(caller.call(&call).status, 503);
    replace(&file, "sk_1\n");
    eventually("the secret is there", SOON, || {
        caller.call(&call).status == 200
    });
    assert_eq!(
        all(&server.last_request(), "authorization"),
        ["Bearer sk_1"]
    );
}

/// The file changes when its secret is refused: before that, whoever looks at it on a slow
/// machine would know the new one first.
fn a_refused_secret_is_read_again_and_the_request_sent_once_more(column: Column) {
    let scratch = Scratch::new();
    let file = scratch.file("secret", "sk_1");
    let changed = file.clone();
    let server = column.server(move |request| match request.field("x-api-key") {
        Some("sk_2") => ambassador_tests::Answer::ok(&request.body),
        _ => {
            replace(&changed, "sk_2");
            ambassador_tests::Answer::status(401)
        }
    });
    let listen = listen();
    let more = "retry: { attempts: 1 }\n";
    let config = stripe(&file) + &one_upstream(listen, server.address(), more);
    let proxy = Proxy::start(column, &config);
    let mut caller = column.connect(listen);
    eventually("it is read", SOON, || {
        proxy.upstream("web")["placeholders"][0]["state"] == "valid"
    });
    let call = Call::post("/", "the body").to("web.test");
    let answer = caller.call(&call.field("x-api-key", STRIPE));
    assert_eq!((answer.status, answer.text().as_str()), (200, "the body"));
    let shown = server.requests();
    let shown: Vec<_> = shown
        .iter()
        .filter_map(|it| it.field("x-api-key"))
        .collect();
    assert_eq!(shown, ["sk_1", "sk_2"]);
}

/// As Stripe's own examples have it: the key is the user, without a password.
fn curl_with_a_user_is_understood(backend: Backend) {
    let server = Server::ok();
    let scratch = Scratch::new();
    let listen = listen();
    let file = secret(&scratch, "secret", "sk_live_1\n");
    let config = stripe(&file) + &one_upstream(listen, server.address(), "");
    let _proxy = Proxy::start(backend, &config);
    let url = format!("http://{listen}/v1/charges");
    program::succeed(std::process::Command::new("curl").args([
        "-sSf",
        "-u",
        &format!("{STRIPE}:"),
        "-H",
        "Host: web.test",
        &url,
    ]));
    let request = server.last_request();
    assert_eq!(request.field("authorization"), Some(&*basic("sk_live_1:")));
}

fn a_captured_program_never_holds_the_secret(backend: Backend) {
    let namespace = world(&["10.1.0.0/16", "10.2.0.0/16"]);
    let _server = Server::over(namespace.listen("0.0.0.0:80"), |connection| {
        connection.serve_http(|request| text(request.field("x-api-key").unwrap_or("nobody")))
    });
    let (cgroup, scratch) = (Cgroup::new(), Scratch::new());
    let file = secret(&scratch, "secret", "sk_live_1\n");
    let config = stripe(&file)
        + "upstreams:\n  web: { hosts: [10.1.0.0/16], endpoints: [\"127.0.0.1:80\"] }\n  \
           shop: { hosts: [10.2.0.0/16], endpoints: [\"127.0.0.1:80\"] }\n";
    let _proxy = inside(backend, &namespace, &cgroup, &config);
    let ask = |url: &str| {
        let [nsenter, entered, curl] = namespace.wrap("curl");
        let mut command = cgroup.command(nsenter);
        let key = format!("x-api-key: {STRIPE}");
        program::succeed(command.args([&*entered, &*curl, "-sSf", "-m", "10", "-H", &key, url]))
    };
    assert_eq!(ask("http://10.1.2.3/"), "sk_live_1");
    assert_eq!(ask("http://10.2.2.3/"), STRIPE);
}

fn requests_in_a_tunnel_carry_it(backend: Backend) {
    let server = Server::ok();
    let scratch = Scratch::new();
    let listen = listen();
    let file = secret(&scratch, "secret", "sk_live_1\n");
    let config = stripe(&file) + &one_upstream(listen, server.address(), "");
    let _proxy = Proxy::start(backend, &config);
    let mut client = Client::connect(listen);
    client.send("CONNECT web.test:80 HTTP/1.1\r\nHost: web.test:80\r\n\r\n");
    assert_eq!(client.response("CONNECT").status, 200);
    let head = format!("GET / HTTP/1.1\r\nHost: web.test\r\nx-api-key: {STRIPE}\r\n\r\n");
    client.send(&head);
    assert_eq!(client.response("GET").status, 200);
    assert_eq!(server.last_request().field("x-api-key"), Some("sk_live_1"));
}

fn a_secret_that_changes_is_taken(backend: Backend) {
    let server = Server::ok();
    let scratch = Scratch::new();
    let listen = listen();
    let file = secret(&scratch, "secret", "sk_1\n");
    let config = stripe(&file) + &one_upstream(listen, server.address(), "");
    let proxy = Proxy::start(backend, &config);
    let mut client = Client::connect(listen);
    let mut sent = || {
        let head = format!("GET / HTTP/1.1\r\nHost: web.test\r\nx-api-key: {STRIPE}\r\n\r\n");
        client.send(&head);
        assert_eq!(client.response("GET").status, 200);
        all(&server.last_request(), "x-api-key")
    };
    assert_eq!(sent(), ["sk_1"]);
    replace(&file, "sk_2\n");
    eventually("the new one is sent", SOON, || sent() == ["sk_2"]);
    // One that cannot be sent leaves that of before.
    replace(&file, "\n");
    eventually("it is refused", SOON, || {
        let placeholder = proxy.upstream("web")["placeholders"][0].clone();
        placeholder["last_failure"]
            .to_string()
            .contains("holds nothing")
    });
    assert_eq!(sent(), ["sk_2"]);
}

fn a_reload_moves_it_to_another_upstream(backend: Backend) {
    let (server, other) = (Server::ok(), Server::ok());
    let scratch = Scratch::new();
    let listen = listen();
    let file = scratch.file("secret", "sk_1\n");
    let upstreams = format!(
        "{}  other: {{ hosts: [other.test], endpoints: [\"{}\"] }}\n",
        one_upstream(listen, server.address(), ""),
        other.address()
    );
    let config = |placeholders: &str| placeholders.to_owned() + &upstreams;
    let proxy = Proxy::start(backend, &config(&stripe(&file)));
    let mut client = Client::connect(listen);
    let mut sent = |host: &str, to: &Server| {
        let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\nx-api-key: {STRIPE}\r\n\r\n");
        client.send(&head);
        assert_eq!(client.response("GET").status, 200);
        all(&to.last_request(), "x-api-key")
    };
    assert_eq!(sent("web.test", &server), ["sk_1"]);
    assert_eq!(sent("other.test", &other), [STRIPE]);
    proxy.rewrite_config(&config(&stripe(&file).replace("web", "other")));
    eventually("the other one gets it", SOON, || {
        sent("other.test", &other) == ["sk_1"]
    });
    assert_eq!(sent("web.test", &server), [STRIPE]);
    proxy.rewrite_config(&config(""));
    eventually("nobody gets it", SOON, || {
        sent("other.test", &other) == [STRIPE]
    });
}

fn a_server_that_does_not_prove_who_it_is_gets_nothing(backend: Backend) {
    let scratch = Scratch::new();
    let authority = Authority::new("root");
    let ca = scratch.file("ca.pem", &authority.pem);
    let file = secret(&scratch, "secret", "sk_1\n");
    let serve = |name: &str| {
        let leaf = authority.issue(&[name]);
        Server::secured(leaf.server(), |connection| {
            connection.serve_http(|_| text("ok"))
        })
    };
    let (right, wrong) = (serve("web.test"), serve("other.test"));
    let ask = |server: &Server| {
        let listen = listen();
        let more = format!("tls: {{ ca: {} }}\nretry: {{ base: 1ms }}\n", ca.display());
        let config = stripe(&file) + &one_upstream(listen, server.address(), &more);
        let _proxy = Proxy::start(backend, &config);
        let mut client = Client::connect(listen);
        let head = format!("GET / HTTP/1.1\r\nHost: web.test\r\nx-api-key: {STRIPE}\r\n\r\n");
        client.send(&head);
        client.response("GET")
    };
    let answer = ask(&wrong);
    assert_eq!((answer.status, answer.reason()), (502, "tls-failed"));
    assert!(wrong.requests().is_empty());
    assert_eq!(ask(&right).status, 200);
    assert_eq!(right.last_request().field("x-api-key"), Some("sk_1"));
}

/// The service has botocore compute the signature of what it gets.
fn a_signature_is_made_of_the_secret(backend: Backend) {
    let aws = Aws::serving();
    let scratch = Scratch::new();
    let file = secret(&scratch, "secret", "sk_1\n");
    let keys = "[default]\naws_access_key_id = AKIDFILE\naws_secret_access_key = file/s3cr3t+\n";
    let keys = secret(&scratch, "keys", keys);
    let listen = listen();
    let more = format!(
        "auth: {{ sigv4: {{ service: sqs, region: eu-west-1, credentials: {{ file: \"{}\" }} }} }}\n",
        keys.display()
    );
    let config = stripe(&file) + &one_upstream(listen, aws.address, &more);
    let _proxy = Proxy::start(backend, &config);
    let mut client = Client::connect(listen);
    let head = format!("GET / HTTP/1.1\r\nHost: web.test\r\nx-amz-meta-key: {STRIPE}\r\n\r\n");
    client.send(&head);
    assert_eq!(client.response("GET").text(), "AKIDFILE ");
}
