//! `docs/reasons.md` is what the code says. `AMBASSADOR_WRITE_REFERENCE=1` writes it.

use super::*;

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs");

fn all() -> impl Iterator<Item = Explanation> {
    ReasonLabel::ALL.iter().copied().map(Explanation::of)
}

fn page() -> String {
    let mut page = "# Reasons\n\nA reply that the ambassador makes itself says why in `x-ambassador-reason`. The same \
                    word is `reason` in the log and in `ambassador_requests_total`, and `outcome` of connections that \
                    are relayed. This page is made from the code; `ambassador explain --reason WORD` prints the same.\n\n\
                    | reason | status | at fault |\n|---|---|---|\n"
        .to_owned();
    for explanation in all() {
        let word = explanation.reason.as_str();
        page.push_str(&format!(
            "| [`{word}`](#{word}) | {} | {} |\n",
            explanation.status.unwrap_or("-"),
            explanation.at_fault()
        ));
    }
    for explanation in all() {
        page.push('\n');
        page.push_str(&explanation.section());
    }
    page
}

#[test]
fn the_page_is_current() {
    let path = format!("{DOCS}/reasons.md");
    if std::env::var_os("AMBASSADOR_WRITE_REFERENCE").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(
        written == page(),
        "AMBASSADOR_WRITE_REFERENCE=1 cargo test -p ambassador telemetry:: writes docs/reasons.md"
    );
}

#[test]
fn it_names_keys_metrics_and_pages_that_there_are() {
    let read = |name: &str| std::fs::read_to_string(format!("{DOCS}/{name}")).unwrap();
    let (keys, metrics) = (read("configuration.md"), read("observability.md"));
    let mut named = 0;
    for explanation in all() {
        for metric in explanation.metrics {
            assert!(metrics.contains(&format!("`{metric}")), "{metric}");
        }
        let texts = [explanation.meaning]
            .into_iter()
            .chain(explanation.remedy.iter().copied());
        for text in texts {
            assert!(text.ends_with('.'), "{text}");
            for key in ["timeouts.", "pool.", "circuit_breaker.", "retry."] {
                for (at, _) in text.match_indices(&format!("`{key}")) {
                    let rest = &text[at + 1 + key.len()..];
                    let name = rest.split('`').next().unwrap_or_default();
                    let section = format!("## `defaults.{}`", key.trim_end_matches('.'));
                    let start = keys.find(&section).expect("a section");
                    let section = &keys[start + 3..];
                    let section = section.split("\n## ").next().unwrap_or_default();
                    assert!(section.contains(&format!("| `{name}` |")), "{key}{name}");
                    named += 1;
                }
            }
        }
    }
    assert!(named > 10, "{named}");
}

#[test]
fn it_is_printed_for_people_and_for_programs() {
    let open = Explanation::of(ReasonLabel::CircuitOpen);
    let text = open.to_string();
    assert!(
        text.starts_with("circuit-open: The circuit is open"),
        "{text}"
    );
    assert!(text.contains("\nat fault  the upstream\n"), "{text}");
    assert!(text.contains("{reason=\"circuit-open\"}"), "{text}");
    assert!(text.contains(".outcome == \"circuit-open\""), "{text}");
    assert!(text.ends_with("docs/reasons.md#circuit-open"), "{text}");
    let json = open.to_json();
    assert_eq!(
        (&json["reason"], &json["status"]),
        (&json!("circuit-open"), &json!("503"))
    );
    let gone = Explanation::of(ReasonLabel::ClientGone);
    assert!(gone.to_json()["status"].is_null());
    assert!(
        !gone.log_query().contains("outcome"),
        "{}",
        gone.log_query()
    );
}
