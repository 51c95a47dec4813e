//! The form of frames: RFC 9113 sections 3.4, 4.1, 4.2, 5.3, 5.5 and 6.

use super::*;
use crate::http2::error::{Cause, ErrorCode};
use crate::http2::event::{Event, Section};
use crate::http2::frame::PREFACE;
use crate::http2::role::Role;
use crate::http2::stream::StreamId;

const PROTOCOL: ErrorCode = ErrorCode::PROTOCOL_ERROR;
const SIZE: ErrorCode = ErrorCode::FRAME_SIZE_ERROR;

/// A server and a client, each with stream 1 open in both directions.
fn both() -> [End; 2] {
    let mut server = End::server();
    server.feed(&headers(1, 0, GET)).unwrap();
    server.notes();
    let mut client = End::client();
    client.open(GET, false);
    client.feed(&headers(1, 0, OK)).unwrap();
    client.notes();
    client.sent();
    [server, client]
}

fn die_of(input: &[u8], code: ErrorCode) {
    for mut end in both() {
        end.dies_of(input, code);
    }
}

#[test]
fn s3_4_a_connection_begins_with_what_says_that_it_is_http2() {
    let hello = End::new(Role::Client, LOCAL).connection.output().clone();
    let rest = hello.strip_prefix(PREFACE).expect("the preface is first");
    let kinds: Vec<u8> = frames(rest).iter().map(|frame| frame.kind).collect();
    assert_eq!(kinds, [SETTINGS, WINDOW_UPDATE]);
    let mut server = End::new(Role::Server, LOCAL);
    let sent: Vec<u8> = server.sent().iter().map(|frame| frame.kind).collect();
    assert_eq!(sent, [SETTINGS, WINDOW_UPDATE]);
    server.dies_of(b"GET / HTTP/1.1\r\n", PROTOCOL);
    let mut late = PREFACE.to_vec();
    late[23] = b'x';
    End::new(Role::Server, LOCAL).dies_of(&late, PROTOCOL);
}

#[test]
fn s3_4_settings_come_first() {
    for first in [
        frame(PING, 0, 0, &[0; 8]),
        frame(SETTINGS, ACK, 0, b""),
        headers(1, END_STREAM, GET),
        frame(0xbb, 0, 0, b"unknown"),
        // As the header of a frame, this has a length that no frame may have.
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
    ] {
        let mut server = End::new(Role::Server, LOCAL);
        server.feed(PREFACE).unwrap();
        server.dies_of(&first, PROTOCOL);
        End::new(Role::Client, LOCAL).dies_of(&first, PROTOCOL);
    }
}

#[test]
fn s4_1_unknown_kinds_flags_and_reserved_bits_are_ignored() {
    for mut end in both() {
        end.feed(&frame(0xbb, 0xff, 0, &[1; 16_384])).unwrap();
        end.feed(&frame(0xbb, 0xff, 77, b"")).unwrap();
        assert_eq!((end.notes(), end.sent()), (vec![], vec![]));
        end.feed(&frame(PING, 0xfe, 0x8000_0000, &[7; 8])).unwrap();
        let pong = frames(&frame(PING, ACK, 0, &[7; 8]));
        assert_eq!(end.sent(), pong);
        end.feed(&frame(DATA, 0xf6, 0x8000_0001, b"x")).unwrap();
        assert_eq!(end.notes(), [Note::Data(1, b"x".to_vec(), false)]);
        end.feed(&frame(WINDOW_UPDATE, 0, 1, &[0x80, 0, 0, 1]))
            .unwrap();
        assert_eq!(end.sent(), []);
    }
}

#[test]
fn s4_2_frames_have_at_most_16384_bytes() {
    for mut end in both() {
        end.feed(&frame(DATA, 0, 1, &[0; 16_384])).unwrap();
        assert_eq!(end.notes(), [Note::Data(1, vec![0; 16_384], false)]);
    }
    for kind in [DATA, HEADERS, SETTINGS, 0xbb] {
        // The header is enough.
        die_of(&frame(kind, 0, 1, &[0; 16_385])[..9], SIZE);
    }
}

#[test]
fn s5_3_priority_has_only_a_form() {
    let itself = frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 9]);
    for mut end in both() {
        end.resets(&itself, 1, PROTOCOL);
    }
    End::server().dies_of(&itself, PROTOCOL);
    let with_priority = |depends: u8| {
        let payload = [&[0, 0, 0, depends, 9], &section(GET)[..]].concat();
        frame(
            HEADERS,
            END_HEADERS | END_STREAM | WITH_PRIORITY,
            1,
            &payload,
        )
    };
    let mut server = End::server();
    server.resets(&with_priority(1), 1, PROTOCOL);
    assert_eq!(server.notes(), []);
    let mut server = End::server();
    server.feed(&with_priority(3)).unwrap();
    assert_eq!(server.notes().len(), 1);
    // It uses no id.
    let mut server = End::server();
    server
        .feed(&frame(PRIORITY, 0, 9, &[0x80, 0, 0, 5, 255]))
        .unwrap();
    server.feed(&headers(7, END_STREAM, GET)).unwrap();
    assert_eq!((server.notes().len(), server.sent()), (1, vec![]));
}

#[test]
fn s6_1_data_belongs_to_a_stream() {
    die_of(&frame(DATA, 0, 0, b"x"), PROTOCOL);
}

#[test]
fn s6_1_padding_is_taken_off() {
    for mut end in both() {
        let padded = [&[3][..], b"content", &[0; 3]].concat();
        end.feed(&frame(DATA, PADDED | END_STREAM, 1, &padded))
            .unwrap();
        assert_eq!(end.notes(), [Note::Data(1, b"content".to_vec(), true)]);
    }
    for mut end in both() {
        end.feed(&frame(DATA, PADDED, 1, &[2, 0, 0])).unwrap();
        assert_eq!(end.notes(), []);
        end.feed(&frame(DATA, PADDED | END_STREAM, 1, &[0]))
            .unwrap();
        assert_eq!(end.notes(), [Note::Data(1, vec![], true)]);
    }
    die_of(&frame(DATA, PADDED, 1, &[3, 0, 0]), PROTOCOL);
    die_of(&frame(DATA, PADDED, 1, &[255]), PROTOCOL);
    die_of(&frame(DATA, PADDED, 1, b""), SIZE);
}

#[test]
fn s6_2_headers_have_padding_and_priority() {
    let flags = END_HEADERS | END_STREAM;
    let fields = section(GET);
    let padded = [&[2][..], &fields, &[0; 2]].concat();
    let both_of_them = [&[2, 0, 0, 0, 3, 1][..], &fields, &[0; 2]].concat();
    for (more, payload) in [(PADDED, padded), (PADDED | WITH_PRIORITY, both_of_them)] {
        let mut server = End::server();
        server
            .feed(&frame(HEADERS, flags | more, 1, &payload))
            .unwrap();
        let lines = ":method: GET;:scheme: http;:authority: a.test;:path: /;";
        let request = Note::Headers(1, Section::Request, true, lines.to_owned());
        assert_eq!(server.notes(), [request]);
    }
    let bad = |more: u8, payload: &[u8], code| {
        let input = frame(HEADERS, flags | more, 1, payload);
        End::server().dies_of(&input, code);
    };
    bad(PADDED, &[fields.len() as u8 + 1, 0], PROTOCOL);
    bad(PADDED, b"", SIZE);
    bad(WITH_PRIORITY, &[0, 0, 0, 3], SIZE);
    bad(PADDED | WITH_PRIORITY, &[2, 0, 0, 0, 3, 1], SIZE);
    die_of(&headers(0, END_STREAM, GET), PROTOCOL);
    die_of(&frame(HEADERS, 0, 0, &section(GET)), PROTOCOL);
}

#[test]
fn s6_3_priority_has_five_bytes_and_a_stream() {
    die_of(&frame(PRIORITY, 0, 0, &[0, 0, 0, 3, 1]), PROTOCOL);
    for mut end in both() {
        end.resets(&frame(PRIORITY, 0, 1, &[0, 0, 0, 3]), 1, SIZE);
    }
    die_of(&frame(PRIORITY, 0, 9, &[0; 6]), SIZE);
}

#[test]
fn s6_4_rst_stream_has_four_bytes_and_a_stream() {
    die_of(&frame(RST_STREAM, 0, 0, &[0; 4]), PROTOCOL);
    die_of(&frame(RST_STREAM, 0, 1, &[0; 3]), SIZE);
    die_of(&frame(RST_STREAM, 0, 1, &[0; 5]), SIZE);
    for mut end in both() {
        end.feed(&frame(RST_STREAM, 0, 1, &[0, 0, 9, 9])).unwrap();
        let reset = Event::Reset {
            stream: StreamId(1),
            code: ErrorCode(0x909),
        };
        assert_eq!(end.notes(), [Note::Other(reset)]);
        assert_eq!((end.sent(), end.connection.streams()), (vec![], 0));
    }
}

#[test]
fn s6_6_nobody_may_push() {
    let promise = [&[0, 0, 0, 2], &section(GET)[..]].concat();
    die_of(&frame(PUSH_PROMISE, END_HEADERS, 1, &promise), PROTOCOL);
}

#[test]
fn s6_7_ping_is_answered() {
    for mut end in both() {
        end.feed(&frame(PING, 0, 0, b"12345678")).unwrap();
        assert_eq!(end.sent(), frames(&frame(PING, ACK, 0, b"12345678")));
        end.connection.ping();
        end.connection.ping();
        let sent = end.sent();
        assert_eq!(sent.len(), 1, "one at a time");
        end.feed(&frame(PING, ACK, 0, b"another1")).unwrap();
        assert_eq!((end.notes(), end.sent()), (vec![], vec![]));
        let answer = frame(PING, ACK, 0, &sent[0].payload);
        end.feed(&answer).unwrap();
        assert_eq!(end.notes(), [Note::Other(Event::Pong)]);
        end.feed(&answer).unwrap();
        assert_eq!(end.notes(), [], "nobody asked again");
    }
    die_of(&frame(PING, 0, 1, &[0; 8]), PROTOCOL);
    die_of(&frame(PING, 0, 0, &[0; 6]), SIZE);
    die_of(&frame(PING, 0, 0, &[0; 9]), SIZE);
}

#[test]
fn s6_9_window_update_has_four_bytes() {
    die_of(&frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1]), SIZE);
    die_of(&frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 0, 1]), SIZE);
}

#[test]
fn the_peer_is_told_why_it_has_to_go() {
    let mut server = both().into_iter().next().unwrap();
    let failure = server.feed(&frame(PING, 0, 1, &[0; 8])).unwrap_err();
    let Cause::Violation(text) = failure.cause else {
        panic!("{failure}");
    };
    let sent = server.sent();
    let payload = [&[0, 0, 0, 1, 0, 0, 0, 1], text.as_bytes()].concat();
    assert_eq!((sent[0].kind, &sent[0].payload), (GOAWAY, &payload));
}
