mod bounds;
mod documents;
mod effective;
mod environment;
mod explained;
mod fail_fast;
mod fault;
mod layers;
mod mistakes;
mod policies;
mod secrets;
mod settings;
mod tracing;

use std::net::SocketAddr;

use super::*;
use crate::addr::BindAddr;
use crate::config::checked::{ListenerProtocol, Workers};
use crate::proxy::memory::Limit;
use crate::route::settings::Endpoints;

fn mistakes(text: &str) -> Vec<String> {
    match load_str("f", text) {
        Ok(_) => Vec::new(),
        Err(mistakes) => mistakes.to_string().lines().map(str::to_owned).collect(),
    }
}

fn warnings(text: &str) -> Vec<String> {
    let checked = load_str("f", text).unwrap();
    checked.warnings.iter().map(ToString::to_string).collect()
}

/// A sound file.
fn loaded(text: &str) -> Checked {
    load_str("f", text).unwrap_or_else(|mistakes| panic!("{text}\n{mistakes}"))
}

fn repository() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn example(name: &str) -> Checked {
    load(&repository().join("examples").join(name)).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

#[test]
fn aliases_work_and_do_not_explode() {
    let text = "upstreams:\n  a: { pool: &p { max_idle: 7 } }\n  b: { hosts: [b], pool: *p }\n";
    let checked = load_str("f", text).unwrap();
    assert_eq!(checked.routes.upstreams[1].policies.pool.max_idle, 7);

    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let alias = format!("*a{}", n - 1);
        let list = [alias.as_str(); 10].join(", ");
        bomb.push_str(&format!("a{n}: &a{n} [{list}]\n"));
    }
    assert!(mistakes(&bomb).concat().contains("too many values"));
    let deep = format!("a: {}{}", "[".repeat(100), "]".repeat(100));
    assert!(mistakes(&deep).concat().contains("nested too deep"));
}

#[test]
fn line_ends_and_byte_order_marks_of_other_systems_are_read() {
    let checked = load_str("f", "\u{feff}workers: 3\r\ndrain_timeout: 1s\r\n").unwrap();
    assert_eq!(checked.workers, Workers::Count(3));
    let found = mistakes("workers: 3\r\n\r\ndrain_timeout: 1\r\n");
    assert!(found[0].starts_with("f:3: drain_timeout"), "{found:?}");
}

#[test]
fn files_that_cannot_be_read_say_so() {
    let missing = load(Path::new("/nonexistent/ambassador.yaml"))
        .unwrap_err()
        .to_string();
    assert!(
        missing.starts_with("/nonexistent/ambassador.yaml: there is no such file"),
        "{missing}"
    );
    let directory = load(Path::new("/")).unwrap_err().to_string();
    assert!(directory.starts_with("/: is a directory"), "{directory}");
}

#[test]
fn relative_paths_begin_in_the_directory_of_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ambassador.yaml");
    let auths = [
        "bearer: { file: a }",
        "basic: { user: u, password: { file: a } }",
        "header: { name: x-key, value: { file: a } }",
        "identity: { key: a, issuer: i, audience: b }",
        "sigv4: { service: s3, region: r, credentials: { file: a } }",
        "oauth2: { token_url: 'https://a.example/t', client_id: c, client_secret: { file: a }, \
         tls: { ca: sub/b, cert: c, key: /d } }",
        "oauth2: { token_url: 'https://a.example/t', client_id: c, private_key: { file: a } }",
        "token_exchange: { grant: rfc8693, url: 'https://a.example/t', subject: { file: a }, \
         tls: { ca: sub/b } }",
        "token_exchange: { grant: aws_web_identity, subject: { file: a }, service: s3, \
         region: r, role: 'arn:aws:iam::1:role/r', tls: { ca: sub/b } }",
    ];
    let mut text = "admin: { token_file: a }\nupstreams:\n".to_owned();
    for (number, auth) in auths.iter().enumerate() {
        text += &format!("  u{number}: {{ endpoints: [127.0.0.1:1], auth: {{ {auth} }} }}\n");
    }
    text += "placeholders: { stripe: { value: { file: a }, upstream: u0 } }\n";
    std::fs::write(&path, &text).unwrap();
    let checked = load(&path).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let at = |name: &str| directory.path().join(name);
    assert_eq!(checked.admin.token_file, Some(at("a")));
    for upstream in &checked.routes.upstreams {
        let files = upstream.auth.as_ref().unwrap().files();
        assert_eq!(files[0], at("a"), "{}", upstream.name);
        let tls = [at("sub/b"), at("c"), "/d".into()];
        assert_eq!(files[1..], tls[..files.len() - 1], "{}", upstream.name);
    }
    let placeholders = &checked.routes.upstreams[0].placeholders;
    assert_eq!(placeholders[0].files(), [at("a")]);
    let shown = checked.effective().to_string();
    let whole = format!("{:?}", at("a").display().to_string());
    assert_eq!(shown.matches(&whole).count(), auths.len() + 2, "{shown}");
}

#[test]
fn an_empty_file_is_all_defaults() {
    let checked = load_str("f", "# nothing\n").unwrap();
    assert_eq!(checked.workers, Workers::Auto);
    assert_eq!(checked.admin.listen.to_string(), "127.0.0.1:15000");
    assert!(checked.capture.is_none() && checked.listeners.is_empty());
    assert_eq!(checked.routes.adopted.pool.max_connections, None);
}

#[test]
fn memory_is_limited_by_the_cgroup_unless_the_file_says_otherwise() {
    let limit = |text: &str| {
        let checked = load_str("f", text).unwrap();
        let shown = checked.effective()["memory_limit"].clone();
        (checked.memory_limit, shown)
    };
    assert_eq!(limit("{}"), (Limit::Auto, "auto".into()));
    assert_eq!(limit("memory_limit: auto"), (Limit::Auto, "auto".into()));
    assert_eq!(limit("memory_limit: none"), (Limit::None, "none".into()));
    let bytes = Limit::Bytes(24 << 20);
    assert_eq!(limit("memory_limit: 24MiB"), (bytes, "24MiB".into()));
    assert_eq!(limit("memory_limit: 25165824"), (bytes, "24MiB".into()));
}

#[test]
fn the_examples_are_sound_and_what_is_in_effect_loads_again() {
    for name in [
        "listeners.yaml",
        "capture.yaml",
        "resilience.yaml",
        "full.yaml",
    ] {
        let checked = example(name);
        assert!(checked.warnings.is_empty(), "{}", checked.warnings);
        let effective = checked.effective();
        let again = load_str("f", &effective.to_string()).unwrap_or_else(|m| panic!("{name}: {m}"));
        assert_eq!(again.effective(), effective, "{name}");
    }
}

#[test]
fn secrets_are_masked() {
    let shown = example("full.yaml").effective().to_string();
    let policies = format!("{:?}", example("full.yaml").policies);
    for shown in [shown, policies] {
        assert!(
            shown.contains("x-api-key") && shown.contains("***"),
            "{shown}"
        );
        // What a harmless name has may be one as well.
        assert!(
            !shown.contains("not-shown") && !shown.contains("shop\""),
            "{shown}"
        );
    }
}

#[test]
fn only_some_things_need_a_restart() {
    let old = load_str("f", "workers: 1\ncapture: {}").unwrap();
    let new = load_str(
        "f",
        "workers: 1\ncapture: { unmatched: refuse }\ndrain_timeout: 1s",
    )
    .unwrap();
    assert_eq!(old.check_reload(&new, "f"), Ok(()));
    let new = "workers: 2\nspin: adaptive\nuser: nobody\nadmin: { listen: 127.0.0.1:1 }\n\
               capture: { mode: iptables }";
    let refused = old
        .check_reload(&load_str("f", new).unwrap(), "f")
        .unwrap_err();
    let wanted = "f: workers: needs a restart\nf: spin: needs a restart\n\
                  f: user: needs a restart\n\
                  f: admin.listen: needs a restart\nf: capture.mode: needs a restart";
    assert_eq!(refused.to_string(), wanted);

    let nothing = load_str("f", "{}").unwrap();
    let all = "capture: { cgroups: [/a], include: { ports: [1] } }\nmemory_limit: none\n\
               listeners: [{ name: a, bind: 127.0.0.1:1 }]\ntelemetry: { access_log: {} }";
    let all = load_str("f", all).unwrap();
    assert_eq!(nothing.check_reload(&all, "f"), Ok(()));
    assert_eq!(all.check_reload(&nothing, "f"), Ok(()));
    let guarded = load_str("f", "admin: { token_file: /t }").unwrap();
    for (old, new) in [(&nothing, &guarded), (&guarded, &nothing)] {
        let refused = old.check_reload(new, "f").unwrap_err().to_string();
        assert_eq!(refused, "f: admin.token_file: needs a restart");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "[a-z:{}\\[\\],*&!'\" \n#|>~-]{0,200}") {
        let _ = load_str("f", &text);
    }

    #[test]
    fn no_value_panics(value in "\\PC{0,40}") {
        let quoted = serde_json::to_string(&value).unwrap();
        let text = format!(
            "workers: {quoted}\ndrain_timeout: {quoted}\nadmin: {{ listen: {quoted} }}\n\
             upstreams: {{ a: {{ hosts: [{quoted}], endpoints: [{quoted}], dns: {quoted} }} }}\n\
             routes: [{{ match: {{ host: {quoted} }}, upstream: {quoted} }}]\n\
             defaults:\n  timeouts: {{ request: {quoted} }}\n  \
             retry: {{ on: [{quoted}], budget: {{ ratio: {quoted} }}, body_limit: {quoted} }}\n  \
             circuit_breaker: {{ failures: {quoted}, failure_statuses: [{quoted}] }}\n  \
             rate_limit: {{ requests_per_second: {quoted} }}\n"
        );
        proptest::prop_assert!(load_str("f", &text).is_err());
        let checked = load_str("f", "").unwrap();
        let _ = explain::explain(&checked, &value);
    }
}
