//! Each word that a refusal or a dropped connection is told by stands in
//! docs/observability.md.

use std::collections::BTreeSet;

use ambassador::testing::http::Reason;
use ambassador::testing::telemetry::{
    AttemptOutcome, CLIENT_GONE, DroppedAccept, FaultKind, ShedCause, TcpOutcome,
};

const PAGE: &str = include_str!("../../docs/observability.md");

/// What stands between backticks in a text, where it is a word of its own.
fn words(text: &str) -> BTreeSet<&str> {
    let quoted = text.split('`').skip(1).step_by(2);
    let of_word = |c: char| c.is_ascii_lowercase() || c == '-';
    quoted.filter(|word| word.chars().all(of_word)).collect()
}

/// The row of the table of metrics.
fn row(metric: &str) -> &'static str {
    let start = format!("| `{metric}{{");
    let row = PAGE.lines().find(|line| line.starts_with(&start));
    row.unwrap_or_else(|| panic!("{metric} has no row"))
}

#[test]
fn reasons_have_a_row_with_their_status() {
    let start = PAGE.find("## Reasons").expect("it has a section");
    let section = &PAGE[start..];
    let section = &section[..section[3..].find("## ").expect("others follow")];
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let told: BTreeSet<(&str, &str)> = rows
        .map(|row| {
            let mut cells = row.split('|').map(str::trim).skip(1);
            let word = cells.next().expect("a word").trim_matches('`');
            (word, cells.next().expect("a status"))
        })
        .collect();
    let statuses: Vec<(&str, String)> = Reason::ALL
        .iter()
        .map(|reason| (reason.as_str(), reason.status().to_string()))
        .collect();
    let silent = [CLIENT_GONE, "drained"].map(|word| (word, "-"));
    let made = statuses.iter().map(|(word, status)| (*word, &**status));
    assert_eq!(told, made.chain(silent).collect());
}

#[test]
fn labels_stand_in_the_row_of_their_metric() {
    let rows: [(&str, Vec<&str>); 4] = [
        (
            "ambassador_upstream_attempts_total",
            AttemptOutcome::ALL.iter().map(|it| it.as_str()).collect(),
        ),
        (
            "ambassador_tcp_connections_total",
            TcpOutcome::ALL.iter().map(|it| it.as_str()).collect(),
        ),
        (
            "ambassador_dropped_accepts_total",
            DroppedAccept::ALL.iter().map(|it| it.as_str()).collect(),
        ),
        (
            "ambassador_faults_injected_total",
            FaultKind::ALL.iter().map(|it| it.as_str()).collect(),
        ),
    ];
    for (metric, known) in rows {
        let told = words(row(metric));
        for word in known {
            assert!(told.contains(word), "{metric}: {word} is not told of");
        }
    }
    let told = words(PAGE);
    for cause in ShedCause::ALL {
        assert!(
            told.contains(cause.as_str()),
            "{} is not told of",
            cause.as_str()
        );
    }
}
