//! Arbitrary bytes and frames, cut at any place: what is told and what is
//! answered does not depend on how they come, and nothing panics.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::http2::error::{ConnectionError, ErrorCode};
use crate::http2::event::Event;
use crate::http2::role::Role;
use crate::http2::stream::StreamId;

/// A frame of any kind, most of them nearly right.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let stream = prop_oneof![4 => 0..8_u32, 1 => any::<u32>()];
    let flags = prop_oneof![Just(0), Just(1), Just(4), Just(5), Just(0x2d), any::<u8>()];
    let fields = prop_oneof![
        Just(section(GET)),
        Just(section(OK)),
        Just(section(&[(":status", "100")])),
        Just(section(&[("x-trailer", "1")])),
    ];
    let number = prop_oneof![
        Just(0),
        Just(1),
        Just(65_535),
        Just(0x7fff_ffff),
        any::<u32>()
    ];
    let parameter = (0..10_u16, number.clone());
    let parameters = prop::collection::vec(parameter, 0..4);
    let payload = prop_oneof![
        4 => fields.prop_map(|section| (HEADERS, section)),
        4 => prop::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| (DATA, bytes)),
        1 => Just((DATA, vec![0; 1_000])),
        2 => number.clone().prop_map(|number| (WINDOW_UPDATE, number.to_be_bytes().to_vec())),
        1 => number.prop_map(|number| (RST_STREAM, number.to_be_bytes().to_vec())),
        1 => parameters.prop_map(|parameters| (SETTINGS, written(&parameters))),
        1 => any::<[u8; 8]>().prop_map(|bytes| (PING, bytes.to_vec())),
        1 => any::<[u8; 8]>().prop_map(|bytes| (GOAWAY, bytes.to_vec())),
        1 => any::<[u8; 5]>().prop_map(|bytes| (PRIORITY, bytes.to_vec())),
        1 => prop::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| (CONTINUATION, bytes)),
        1 => (any::<u8>(), prop::collection::vec(any::<u8>(), 0..20)),
    ];
    (payload, flags, stream).prop_map(|((kind, payload), flags, stream)| {
        let stream = match kind {
            SETTINGS | PING | GOAWAY => stream & 0x8000_0000,
            _ => stream,
        };
        frame(kind, flags, stream, &payload)
    })
}

fn written(parameters: &[(u16, u32)]) -> Vec<u8> {
    let one =
        |(number, value): &(u16, u32)| [&number.to_be_bytes()[..], &value.to_be_bytes()].concat();
    parameters.iter().flat_map(one).collect()
}

/// What became of an input: what was told, what was sent, and whether the
/// connection ended.
type Outcome = (Vec<Note>, Vec<u8>, Result<(), ConnectionError>);

/// Receives an input in pieces of these sizes, over and over.
fn outcome(role: Role, input: &[u8], sizes: &[usize]) -> Outcome {
    let mut end = match role {
        Role::Server => End::server(),
        Role::Client => End::client(),
    };
    if role == Role::Client {
        for _ in 0..3 {
            end.open(GET, false);
        }
    }
    let mut rest = input;
    let mut sizes = sizes.iter().cycle();
    while !rest.is_empty() {
        let size = sizes
            .next()
            .copied()
            .unwrap_or(rest.len())
            .clamp(1, rest.len());
        let (piece, behind) = rest.split_at(size);
        if let Err(failure) = end.feed(piece) {
            return (
                end.notes(),
                std::mem::take(end.connection.output()),
                Err(failure),
            );
        }
        rest = behind;
    }
    (end.notes(), std::mem::take(end.connection.output()), Ok(()))
}

/// Sends as much of so many bytes as may go; the end, where the number is even.
fn send_some(end: &mut End, stream: StreamId, size: usize) {
    let sent = end.data(stream.0, &vec![7; size], size.is_multiple_of(2));
    assert!(sent <= size);
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Server), Just(Role::Client)]
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        Just(vec![1]),
        prop::collection::vec(1..40_usize, 1..20),
        prop::collection::vec(1..20_000_usize, 1..5),
    ]
}

proptest! {
    #[test]
    fn it_does_not_matter_where_frames_are_cut(
        role in role(),
        frames in prop::collection::vec(any_frame(), 1..30),
        sizes in sizes(),
    ) {
        let input = frames.concat();
        let whole = outcome(role, &input, &[input.len()]);
        prop_assert_eq!(outcome(role, &input, &sizes), whole);
    }

    #[test]
    fn bytes_of_any_kind_do_no_harm(
        role in role(),
        input in prop::collection::vec(any::<u8>(), 1..2_000),
        sizes in sizes(),
    ) {
        let whole = outcome(role, &input, &[input.len()]);
        prop_assert_eq!(outcome(role, &input, &sizes), whole);
    }

    /// Two ends never find fault with each other, whatever their users do.
    #[test]
    fn two_ends_understand_each_other(
        steps in prop::collection::vec((0..12_u8, 0..4_usize, 0..40_000_usize), 1..80),
    ) {
        let (mut client, mut server) = pair();
        let mut streams: Vec<StreamId> = Vec::new();
        let mut answered = HashSet::new();
        for (step, which, size) in steps {
            let stream = streams.get(which % streams.len().max(1)).copied();
            match (step, stream) {
                (0 | 1, _) => streams.extend((streams.len() < 90).then(|| client.open(GET, false))),
                (_, None) => {}
                (2, Some(id)) => send_some(&mut client, id, size),
                (3, Some(id)) if server.connection.user(id).is_some() => {
                    let is_first = answered.insert(id);
                    server.headers(id.0, OK, !is_first || size.is_multiple_of(4));
                }
                (4 | 5, Some(id)) if answered.contains(&id) => send_some(&mut server, id, size),
                (6, Some(id)) => client.connection.reset(id, ErrorCode::CANCEL),
                (7, Some(id)) => server.connection.reset(id, ErrorCode::CANCEL),
                (8, Some(id)) => client.connection.release(id, size as u32),
                (9, Some(id)) => server.connection.release(id, size as u32),
                (10, Some(id)) => drop(client.connection.forget(id)),
                (11, Some(_)) => exchange(&mut client, &mut server),
                _ => {}
            }
        }
        exchange(&mut client, &mut server);
        let is_failure = |note: &&Note| matches!(note, Note::Other(Event::Failed { .. }));
        prop_assert_eq!(client.notes.iter().find(is_failure), None);
        prop_assert_eq!(server.notes.iter().find(is_failure), None);
    }
}
