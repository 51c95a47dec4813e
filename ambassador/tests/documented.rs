//! Each reason stands in docs/observability.md, with its status.

use std::collections::BTreeSet;

use ambassador::testing::message::Reason;
use ambassador::testing::telemetry::ReasonLabel;

const PAGE: &str = include_str!("../../docs/observability.md");

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
    let status_of = |label: &ReasonLabel| {
        let word = label.as_str();
        let known = statuses.iter().find(|(reason, _)| *reason == word);
        (word, known.map_or("-", |(_, status)| status))
    };
    assert_eq!(told, ReasonLabel::ALL.iter().map(status_of).collect());
}
