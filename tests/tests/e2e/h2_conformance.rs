//! The cases of h2spec, each in both roles of the proxy: what h2spec sends as a client
//! goes to the proxy as a server, and what is its mirror image goes to the proxy as a
//! client, on and around a response. Sections are those of h2spec, which has the numbers
//! of RFC 7540 and RFC 7541; what is wanted is what RFC 9113 says.

mod accept;
mod case;
mod end;
mod fields;
mod frames;
mod generic;
mod messages;
pub mod stage;
mod streams;
mod verdict;
mod windows;

use std::collections::BTreeMap;

use ambassador_tests::{Backend, on_both_backends};

use case::Case;

on_both_backends!(
    generic_as_server,
    generic_as_client,
    fields_as_server,
    fields_as_client,
    streams_as_server,
    streams_as_client,
    frames_as_server,
    frames_as_client,
    windows_as_server,
    windows_as_client,
    messages_as_server,
    messages_as_client,
);

/// How many cases h2spec has for each of its sections. The second one of `http2/5.4.1`
/// is one of `--strict`, which the 146 are without.
const COUNTS: [(&str, usize); 49] = [
    ("generic/1", 1),
    ("generic/2", 5),
    ("generic/3.1", 3),
    ("generic/3.2", 3),
    ("generic/3.3", 5),
    ("generic/3.4", 1),
    ("generic/3.5", 1),
    ("generic/3.7", 1),
    ("generic/3.8", 1),
    ("generic/3.9", 2),
    ("generic/3.10", 2),
    ("generic/4", 4),
    ("generic/5", 15),
    ("http2/3.5", 2),
    ("http2/4.1", 3),
    ("http2/4.2", 3),
    ("http2/4.3", 3),
    ("http2/5.1", 13),
    ("http2/5.1.1", 2),
    ("http2/5.1.2", 1),
    ("http2/5.3.1", 2),
    ("http2/5.4.1", 2),
    ("http2/5.5", 2),
    ("http2/6.1", 3),
    ("http2/6.2", 4),
    ("http2/6.3", 2),
    ("http2/6.4", 3),
    ("http2/6.5", 3),
    ("http2/6.5.2", 5),
    ("http2/6.5.3", 2),
    ("http2/6.7", 4),
    ("http2/6.8", 1),
    ("http2/6.9", 3),
    ("http2/6.9.1", 3),
    ("http2/6.9.2", 3),
    ("http2/6.10", 6),
    ("http2/7", 2),
    ("http2/8.1", 1),
    ("http2/8.1.2", 1),
    ("http2/8.1.2.1", 4),
    ("http2/8.1.2.2", 2),
    ("http2/8.1.2.3", 7),
    ("http2/8.1.2.6", 2),
    ("http2/8.2", 1),
    ("hpack/2.3.3", 2),
    ("hpack/4.2", 1),
    ("hpack/5.2", 3),
    ("hpack/6.1", 1),
    ("hpack/6.3", 1),
];

#[test]
fn every_case_of_h2spec_is_there() {
    let cases = all();
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    for case in &cases {
        *found.entry(case.section).or_default() += 1;
    }
    assert_eq!(found, BTreeMap::from(COUNTS));
    assert_eq!(found.values().sum::<usize>(), 146 + 1);
}

/// Each case.
pub fn all() -> Vec<Case> {
    let groups = [
        of_generic(),
        of_fields(),
        of_streams(),
        of_frames(),
        of_windows(),
        of_messages(),
    ];
    groups.into_iter().flatten().collect()
}

fn of_generic() -> Vec<Case> {
    let groups = [
        generic::starts_and_streams(),
        generic::frames(),
        generic::messages(),
    ];
    groups.into_iter().flatten().collect()
}

fn of_fields() -> Vec<Case> {
    let groups = [fields::representations(), fields::malformed()];
    groups.into_iter().flatten().collect()
}

fn of_streams() -> Vec<Case> {
    let groups = [
        streams::start(),
        streams::frames(),
        streams::states(),
        streams::identifiers(),
        streams::errors(),
    ];
    groups.into_iter().flatten().collect()
}

fn of_frames() -> Vec<Case> {
    let groups = [
        frames::of_streams(),
        frames::of_settings(),
        frames::of_connections(),
        frames::of_continuation(),
    ];
    groups.into_iter().flatten().collect()
}

fn of_windows() -> Vec<Case> {
    let groups = [windows::updates(), windows::sizes()];
    groups.into_iter().flatten().collect()
}

fn of_messages() -> Vec<Case> {
    let groups = [
        messages::codes(),
        messages::exchanges(),
        messages::pseudo_fields(),
        messages::connection_fields(),
        messages::request_fields(),
        messages::lengths(),
    ];
    groups.into_iter().flatten().collect()
}

fn generic_as_server(backend: Backend) {
    stage::as_server(backend, &of_generic());
}

fn generic_as_client(backend: Backend) {
    stage::as_client(backend, &of_generic());
}

fn fields_as_server(backend: Backend) {
    stage::as_server(backend, &of_fields());
}

fn fields_as_client(backend: Backend) {
    stage::as_client(backend, &of_fields());
}

fn streams_as_server(backend: Backend) {
    stage::as_server(backend, &of_streams());
}

fn streams_as_client(backend: Backend) {
    stage::as_client(backend, &of_streams());
}

fn frames_as_server(backend: Backend) {
    stage::as_server(backend, &of_frames());
}

fn frames_as_client(backend: Backend) {
    stage::as_client(backend, &of_frames());
}

fn windows_as_server(backend: Backend) {
    stage::as_server(backend, &of_windows());
}

fn windows_as_client(backend: Backend) {
    stage::as_client(backend, &of_windows());
}

fn messages_as_server(backend: Backend) {
    stage::as_server(backend, &of_messages());
}

fn messages_as_client(backend: Backend) {
    stage::as_client(backend, &of_messages());
}
