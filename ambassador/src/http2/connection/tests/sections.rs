//! Field sections: RFC 9113 sections 4.3, 6.10, 8.1 and 8.1.1.

use super::*;
use crate::http2::error::{Cause, ErrorCode, Flood};
use crate::http2::event::{Event, Section};
use crate::http2::stream::StreamId;

const PROTOCOL: ErrorCode = ErrorCode::PROTOCOL_ERROR;
const CALM: ErrorCode = ErrorCode::ENHANCE_YOUR_CALM;

const LINES: &str = ":method: GET;:scheme: http;:authority: a.test;:path: /;";

/// A request in as many frames as there are `cuts` and one more.
fn in_parts(fields: &[(&str, &str)], parts: usize) -> Vec<Vec<u8>> {
    let section = section(fields);
    let mut frames = Vec::new();
    for at in 0..parts {
        let part = &section[section.len() * at / parts..section.len() * (at + 1) / parts];
        let kind = if at == 0 { HEADERS } else { CONTINUATION };
        let mut flags = if at == 0 { END_STREAM } else { 0 };
        if at == parts - 1 {
            flags |= END_HEADERS;
        }
        frames.push(frame(kind, flags, 1, part));
    }
    frames
}

fn failed(code: ErrorCode) -> Note {
    let stream = StreamId(1);
    Note::Other(Event::Failed { stream, code })
}

/// A server that has received the head of a request with that length.
fn server_with_length(length: Option<u64>) -> End {
    let mut server = End::server();
    server.feed(&headers(1, 0, GET)).unwrap();
    server.notes();
    server.connection.expect_length(StreamId(1), length);
    server
}

#[test]
fn s8_5_a_tunnel_carries_data_alone() {
    for trailers in [&[("x-late", "1")][..], &[]] {
        let mut server = server_with_length(None);
        server.connection.makes_tunnel(StreamId(1));
        server.feed(&frame(DATA, 0, 1, b"x")).unwrap();
        server.notes();
        server.feed(&headers(1, END_STREAM, trailers)).unwrap();
        assert_eq!(server.notes(), [failed(PROTOCOL)]);
    }
    let mut server = server_with_length(None);
    server.connection.makes_tunnel(StreamId(1));
    server.feed(&frame(DATA, END_STREAM, 1, b"")).unwrap();
    assert_eq!(server.notes(), [Note::Data(1, Vec::new(), true)]);
}

#[test]
fn s4_3_what_cannot_be_decoded_ends_the_connection() {
    let input = frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x10, 200]);
    End::server().dies_of(&input, ErrorCode::COMPRESSION_ERROR);
    // Whatever it was for.
    let mut server = End::server();
    server.feed(&headers(1, END_STREAM, GET)).unwrap();
    server.connection.reset(StreamId(1), ErrorCode::CANCEL);
    server.dies_of(&input, ErrorCode::COMPRESSION_ERROR);
}

#[test]
fn s6_10_a_section_comes_in_parts() {
    for parts in [2, 3, 9] {
        let mut server = End::server();
        server.feed(&in_parts(GET, parts).concat()).unwrap();
        let request = Note::Headers(1, Section::Request, true, LINES.to_owned());
        assert_eq!(server.notes(), [request]);
    }
    let mut parts = in_parts(GET, 2);
    parts.insert(1, frame(CONTINUATION, 0, 1, b""));
    End::server().feed(&parts.concat()).unwrap();
}

#[test]
fn s6_10_nothing_comes_between_the_parts() {
    let [first, last] = <[Vec<u8>; 2]>::try_from(in_parts(GET, 2)).unwrap();
    for between in [
        frame(DATA, 0, 1, b"x"),
        headers(1, 0, GET),
        headers(3, 0, GET),
        frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1]),
        frame(RST_STREAM, 0, 1, &[0; 4]),
        frame(SETTINGS, 0, 0, b""),
        frame(PING, 0, 0, &[0; 8]),
        frame(GOAWAY, 0, 0, &[0; 8]),
        frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        frame(CONTINUATION, 0, 3, b""),
        frame(0xbb, 0, 0, b""),
    ] {
        let mut server = End::server();
        server.feed(&first).unwrap();
        server.dies_of(&between[..9], PROTOCOL);
    }
    let mut server = End::server();
    server.feed(&[first, last].concat()).unwrap();
    // The section has ended.
    let more = frame(CONTINUATION, END_HEADERS, 1, b"");
    server.dies_of(&more, PROTOCOL);
    End::server().dies_of(&frame(CONTINUATION, END_HEADERS, 0, b""), PROTOCOL);
}

#[test]
fn s6_10_large_sections_are_sent_in_parts() {
    for length in [16_384, 40_000] {
        let (mut client, mut server) = pair();
        let value = "v".repeat(length);
        client.open(&[GET, &[("x-large", &value)]].concat(), true);
        let sent = frames(client.connection.output());
        let kinds: Vec<(u8, u8)> = sent.iter().map(|frame| (frame.kind, frame.flags)).collect();
        assert_eq!(kinds[0], (HEADERS, END_STREAM));
        assert_eq!(kinds.last(), Some(&(CONTINUATION, END_HEADERS)));
        assert!(sent.iter().all(|frame| frame.payload.len() <= 16_384));
        exchange(&mut client, &mut server);
        let lines = format!("{LINES}x-large: {value};");
        assert_eq!(
            server.notes(),
            [Note::Headers(1, Section::Request, true, lines)]
        );
    }
}

#[test]
fn what_is_kept_of_a_head_is_known_until_it_is_whole() {
    let mut server = End::server();
    let [first, second, last] = &in_parts(GET, 3)[..] else {
        panic!("three parts");
    };
    server.feed(first).unwrap();
    let kept = server.connection.unfinished_bytes();
    assert!(kept >= first.len() - 9, "{kept}");
    // A frame in part is kept beside it.
    server.feed(&second[..second.len() - 1]).unwrap();
    let more = server.connection.unfinished_bytes();
    assert!(more >= kept + second.len() - 1, "{more}");
    server.feed(&second[second.len() - 1..]).unwrap();
    server.feed(last).unwrap();
    assert_eq!(server.connection.unfinished_bytes(), 0);
    // The start of content is no head.
    server.feed(&headers(3, 0, GET)).unwrap();
    server.feed(&frame(DATA, 0, 3, b"content")[..9]).unwrap();
    assert_eq!(server.connection.unfinished_bytes(), 0);
}

#[test]
fn parts_and_bytes_of_a_section_are_limited() {
    let filled = |length: usize| frame(CONTINUATION, 0, 1, &vec![0; length]);
    let mut server = End::server();
    server.feed(&frame(HEADERS, 0, 1, b"")).unwrap();
    server.feed(&filled(0).repeat(8)).unwrap();
    let failure = server.dies_of(&filled(0), CALM);
    assert_eq!(failure.cause, Cause::Flood(Flood::Continuations));
    let mut server = End::server_with(LocalSettings {
        list_max: 8_192,
        ..LOCAL
    });
    server.feed(&frame(HEADERS, 0, 1, &[0; 16_384])).unwrap();
    server.feed(&filled(16_384)).unwrap();
    let failure = server.dies_of(&filled(1), CALM);
    assert_eq!(failure.cause, Cause::Flood(Flood::HeaderList));
}

#[test]
fn a_section_above_the_limit_is_told_and_one_far_above_ends_the_connection() {
    let large = |bytes: usize| {
        let value = "v".repeat(1_000);
        let fields = vec![("x-large", &value[..]); bytes / 1_000];
        in_parts(&fields, bytes.div_ceil(16_000)).concat()
    };
    let local = LocalSettings {
        list_max: 8_192,
        ..LOCAL
    };
    let mut server = End::server_with(local);
    server.feed(&large(14_000)).unwrap();
    assert!(server.connection.block().is_too_large());
    let note = server.notes().remove(0);
    assert!(matches!(note, Note::Headers(1, Section::Request, true, _)));
    server.headers(1, &[(":status", "431")], true);
    server.feed(&headers(3, END_STREAM, GET)).unwrap();
    assert!(!server.connection.block().is_too_large());
    let failure = End::server_with(local).dies_of(&large(33_000), CALM);
    assert_eq!(failure.cause, Cause::Flood(Flood::HeaderList));
}

#[test]
fn s8_1_trailers_end_the_stream() {
    let mut server = server_with_length(None);
    server.resets(&headers(1, 0, &[("x-sum", "1")]), 1, PROTOCOL);
    assert_eq!(server.notes(), [failed(PROTOCOL)]);
    let mut server = server_with_length(None);
    server
        .feed(&headers(1, END_STREAM, &[("x-sum", "1")]))
        .unwrap();
    let lines = "x-sum: 1;".to_owned();
    assert_eq!(
        server.notes(),
        [Note::Headers(1, Section::Trailers, true, lines)]
    );
}

#[test]
fn s8_1_a_response_begins_with_its_head() {
    let client = || {
        let mut client = End::client();
        client.open(GET, true);
        client
    };
    let mut early = client();
    early.resets(&frame(DATA, END_STREAM, 1, b"x"), 1, PROTOCOL);
    assert_eq!(early.notes(), [failed(PROTOCOL)]);
    let interim = &[(":status", "103")];
    let mut early = client();
    early.feed(&headers(1, 0, interim).repeat(2)).unwrap();
    early.resets(&frame(DATA, 0, 1, b"x"), 1, PROTOCOL);
    client().resets(&headers(1, END_STREAM, interim), 1, PROTOCOL);
    let mut twice = client();
    twice.feed(&headers(1, 0, OK)).unwrap();
    twice.resets(&headers(1, 0, OK), 1, PROTOCOL);
}

#[test]
fn s8_1_1_content_has_the_length_that_was_said() {
    let data = |flags: u8, bytes: &[u8]| frame(DATA, flags, 1, bytes);
    let trailers = headers(1, END_STREAM, &[("x-sum", "1")]);
    for (right, end) in [
        (data(END_STREAM, b"four"), true),
        (
            [data(0, b"fo"), data(PADDED | END_STREAM, b"\x01ur\0")].concat(),
            true,
        ),
        ([data(0, b"four"), data(END_STREAM, b"")].concat(), true),
        ([data(0, b"four"), trailers].concat(), false),
    ] {
        let mut server = server_with_length(Some(4));
        server.feed(&right).unwrap();
        assert_eq!(server.notes()[0], Note::Data(1, b"four".to_vec(), end));
        assert_eq!(server.sent(), []);
    }
    for wrong in [
        data(END_STREAM, b"fou"),
        data(0, b"fourf"),
        data(END_STREAM, b"fourf"),
        data(END_STREAM, b""),
        [data(0, b"fou"), headers(1, END_STREAM, &[("x-sum", "1")])].concat(),
    ] {
        let mut server = server_with_length(Some(4));
        server.resets(&wrong, 1, PROTOCOL);
        assert_eq!(server.notes().pop(), Some(failed(PROTOCOL)));
    }
    let mut server = server_with_length(Some(0));
    server.resets(&data(0, b"x"), 1, PROTOCOL);
}
