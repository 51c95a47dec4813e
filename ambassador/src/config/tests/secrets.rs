//! What is not shown, and how the rest is.

use std::sync::Arc;

use super::*;
use crate::route::settings::Settings;

/// As a file says it that was made from what is shown.
pub(super) fn masked(mut routes: Settings) -> Settings {
    let overridden = routes.routes.iter_mut();
    let overridden = overridden.filter_map(|route| route.overridden.as_mut());
    for upstream in routes.upstreams.iter_mut().chain(overridden) {
        let set = &mut Arc::make_mut(upstream).policies.headers.set;
        set.iter_mut().for_each(|(_, value)| *value = "***".into());
    }
    routes
}

fn upstream(text: &str) -> String {
    format!("upstreams:\n  a: {{ {text} }}\n")
}

#[test]
fn a_mistake_does_not_show_what_may_be_a_secret() {
    for (text, wanted) in [
        (
            upstream("headers: { set: { x-team: \"s3cret\\r\" } }"),
            "control characters, got ***",
        ),
        (
            upstream("headers: { set: { 'x-key: s3cret': } }"),
            "set.x-key:***: ",
        ),
        (
            upstream("headers: { set: s3cret }"),
            "must be a mapping, got ***",
        ),
        (upstream("headers: 's3cret'"), "must be a mapping, got ***"),
        (
            upstream("headers: { remove: ['x-key: s3cret'] }"),
            "no header name, got x-key:***",
        ),
        (
            upstream("dns: 'https://u:s3cret@api.test/'"),
            "got https://***@api.test/",
        ),
        (upstream("dns: 'api.test/?key=s3cret'"), "got api.test/?***"),
        (upstream("protocol: Bearer s3cret"), "got ***"),
        (upstream("'Bearer s3cret': x"), "a.Bearer***: unknown key"),
        (
            "admin: { token_file: eyJ.s3cret }".to_owned(),
            "must name a file, and looks like a secret; a file is ./NAME, got ***",
        ),
        (
            "API_TOKEN=s3cret: x".to_owned(),
            "API_TOKEN***: unknown key",
        ),
    ] {
        let found = mistakes(&text);
        assert!(!found.is_empty(), "{text}");
        assert!(
            found.iter().any(|it| it.contains(wanted)),
            "{text}\n{found:#?}"
        );
        assert!(
            !found.iter().any(|it| it.contains("s3cret")),
            "{text}\n{found:#?}"
        );
    }
    let asked = explain::explain(&example("full.yaml"), "ftp://u:s3cret@api.test/");
    let refused = asked.unwrap_err().to_string();
    assert!(refused.ends_with("got ftp://***@api.test/"), "{refused}");
}

#[test]
fn what_a_file_holds_controls_no_terminal() {
    let found = mistakes("\"a\\e[31m\\u202e\": 1\nspin: \"\\e]0;x\\a\"\n");
    assert_eq!(found.len(), 2, "{found:#?}");
    for mistake in &found {
        assert!(mistake.contains("\\u{1b}"), "{mistake}");
        let visible = |c: char| c == ' ' || c.is_ascii_graphic();
        assert!(mistake.chars().all(visible), "{mistake:?}");
    }
}
