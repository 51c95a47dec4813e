//! Whole exchanges between a client and a server.

use super::*;
use crate::http2::event::{Event, Section};
use crate::http2::stream::StreamId;

#[test]
fn a_request_and_a_response_with_content_and_trailers_pass() {
    let (mut client, mut server) = pair();
    let id = client.open(&[GET, &[("x-one", "1")]].concat(), false);
    assert_eq!(client.data(1, b"question", true), 8);
    exchange(&mut client, &mut server);
    let lines = ":method: GET;:scheme: http;:authority: a.test;:path: /;x-one: 1;";
    assert_eq!(
        server.notes(),
        [
            Note::Headers(1, Section::Request, false, lines.to_owned()),
            Note::Data(1, b"question".to_vec(), true),
        ]
    );
    server.headers(1, &[(":status", "103")], false);
    server.headers(1, OK, false);
    assert_eq!(server.data(1, b"answer", false), 6);
    server.headers(1, &[("grpc-status", "0")], true);
    exchange(&mut client, &mut server);
    let status = |status: &str| format!(":status: {status};");
    assert_eq!(
        client.notes(),
        [
            Note::Headers(1, Section::Response, false, status("103")),
            Note::Headers(1, Section::Response, false, status("200")),
            Note::Data(1, b"answer".to_vec(), false),
            Note::Headers(1, Section::Trailers, true, "grpc-status: 0;".to_owned()),
        ]
    );
    assert_eq!(
        (client.connection.streams(), server.connection.streams()),
        (0, 0)
    );
    let users: Vec<(StreamId, u32)> = server
        .connection
        .users()
        .map(|(id, user)| (id, *user))
        .collect();
    assert_eq!(users, [(id, 1)]);
    assert_eq!(client.connection.forget(id), Some(0));
    assert_eq!(server.connection.forget(id), Some(1));
    assert_eq!((client.sent(), server.sent()), (vec![], vec![]));
}

#[test]
fn a_body_larger_than_the_windows_passes_as_it_is_released() {
    let (mut client, mut server) = pair();
    client.open(GET, false);
    let body: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
    let mut sent = 0;
    let mut came = Vec::new();
    let mut windows = 0;
    while sent < body.len() {
        let taken = client.data(1, &body[sent..], true);
        assert!(taken > 0, "stuck at {sent}");
        sent += taken;
        exchange(&mut client, &mut server);
        for note in server.notes() {
            let Note::Data(1, bytes, end) = note else {
                continue;
            };
            server.connection.release(StreamId(1), bytes.len() as u32);
            came.extend_from_slice(&bytes);
            assert_eq!(end, came.len() == body.len());
        }
        exchange(&mut client, &mut server);
        let opened = Note::Other(Event::Window {
            stream: Some(StreamId(1)),
        });
        windows += client
            .notes()
            .iter()
            .filter(|note| **note == opened)
            .count();
    }
    assert_eq!(came, body);
    assert!(windows > 0, "no window was opened");
}
