//! Stream states: RFC 9113 section 5.1.

use super::*;
use crate::http2::error::ErrorCode;
use crate::http2::event::{Event, Section};
use crate::http2::stream::StreamId;

const POST: &[(&str, &str)] = &[
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "a.test"),
    (":path", "/"),
];

const CLOSED: ErrorCode = ErrorCode::STREAM_CLOSED;
const PROTOCOL: ErrorCode = ErrorCode::PROTOCOL_ERROR;

/// A server with one request: all of it has come, or only its head.
fn server_with_request(flags: u8) -> End {
    let mut server = End::server();
    server.feed(&headers(1, flags, POST)).unwrap();
    server.notes();
    server
}

/// A client that has sent a request, all of it.
fn client_with_request() -> End {
    let mut client = End::client();
    client.open(GET, true);
    client.sent();
    client
}

fn is_ignored(end: &mut End, input: &[u8]) {
    end.feed(input).unwrap();
    assert_eq!((end.sent(), end.notes()), (vec![], vec![]));
}

#[test]
fn idle_streams_take_headers_and_priority_only() {
    let code = ErrorCode::CANCEL.0.to_be_bytes();
    for input in [
        frame(DATA, 0, 1, b"x"),
        frame(DATA, END_STREAM, 1, b""),
        frame(RST_STREAM, 0, 1, &code),
        frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
        frame(CONTINUATION, END_HEADERS, 1, b""),
        frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]),
    ] {
        End::server().dies_of(&input, PROTOCOL);
        End::client().dies_of(&input, PROTOCOL);
        // Above what is in use, too.
        let mut above = input.clone();
        above[8] = 3;
        server_with_request(END_STREAM).dies_of(&above, PROTOCOL);
        client_with_request().dies_of(&above, PROTOCOL);
    }
    is_ignored(&mut End::server(), &frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 7]));
    is_ignored(&mut End::client(), &frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 7]));
    End::client().dies_of(&headers(1, 0, OK), PROTOCOL);
}

#[test]
fn ids_of_clients_are_odd_and_rise() {
    End::server().dies_of(&headers(2, END_STREAM, GET), PROTOCOL);
    client_with_request().dies_of(&headers(2, 0, OK), PROTOCOL);
    let mut server = End::server();
    server.feed(&headers(5, END_STREAM, GET)).unwrap();
    server.dies_of(&headers(3, END_STREAM, GET), PROTOCOL);
}

#[test]
fn streams_of_a_client_are_numbered_from_one() {
    let mut client = End::client();
    let ids = [(); 3].map(|()| client.open(GET, true).0);
    assert_eq!(ids, [1, 3, 5]);
    let sent: Vec<u32> = client.sent().iter().map(|frame| frame.stream).collect();
    assert_eq!(sent, [1, 3, 5]);
}

#[test]
fn a_stream_of_which_the_peer_has_sent_all_takes_no_more_from_it() {
    let more = [
        frame(DATA, 0, 1, b"x"),
        headers(1, END_STREAM, &[("x-late", "1")]),
    ];
    for input in &more {
        let mut server = server_with_request(END_STREAM);
        server.resets(input, 1, CLOSED);
        let failed = Event::Failed {
            stream: StreamId(1),
            code: CLOSED,
        };
        assert_eq!(server.notes(), [Note::Other(failed)]);
    }
    // A response that ends before its request.
    for input in [frame(DATA, 0, 1, b"x"), headers(1, 0, OK)] {
        let mut client = End::client();
        client.open(POST, false);
        client.feed(&headers(1, END_STREAM, OK)).unwrap();
        client.resets(&input, 1, CLOSED);
    }
    let mut server = server_with_request(END_STREAM);
    is_ignored(&mut server, &frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]));
    is_ignored(&mut server, &frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 7]));
    let code = ErrorCode::CANCEL;
    let reset = frame(RST_STREAM, 0, 1, &code.0.to_be_bytes());
    server.feed(&reset).unwrap();
    let stream = StreamId(1);
    assert_eq!(server.notes(), [Note::Other(Event::Reset { stream, code })]);
}

#[test]
fn a_stream_that_both_have_ended_takes_only_what_may_be_late() {
    let closed = || {
        let mut server = server_with_request(END_STREAM);
        server.headers(1, OK, true);
        server.sent();
        server
    };
    closed().resets(&frame(DATA, 0, 1, b"x"), 1, CLOSED);
    closed().dies_of(&headers(1, END_STREAM, GET), CLOSED);
    closed().dies_of(&frame(CONTINUATION, END_HEADERS, 1, b""), PROTOCOL);
    for late in [
        frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
        frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 0]),
        frame(RST_STREAM, 0, 1, &[0; 4]),
        frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 7]),
    ] {
        is_ignored(&mut closed(), &late);
        let mut server = closed();
        server.connection.forget(StreamId(1));
        is_ignored(&mut server, &late);
    }
    let mut server = closed();
    server.connection.forget(StreamId(1));
    server.resets(&frame(DATA, 0, 1, b"x"), 1, CLOSED);
    assert_eq!(server.notes(), [], "nobody knows the stream any more");
    is_ignored(&mut server, &frame(DATA, 0, 1, b"more"));
    let mut server = closed();
    server.connection.forget(StreamId(1));
    server.dies_of(&headers(1, END_STREAM, GET), CLOSED);
}

#[test]
fn a_stream_that_the_peer_has_reset_takes_nothing_from_it() {
    let reset = frame(RST_STREAM, 0, 1, &ErrorCode::CANCEL.0.to_be_bytes());
    let server = || {
        let mut server = server_with_request(0);
        server.feed(&reset).unwrap();
        server.notes();
        server
    };
    server().resets(&frame(DATA, 0, 1, b"x"), 1, CLOSED);
    server().dies_of(&headers(1, END_STREAM, &[("x", "1")]), CLOSED);
    server().dies_of(&frame(CONTINUATION, END_HEADERS, 1, b""), PROTOCOL);
    let client = || {
        let mut client = client_with_request();
        client.feed(&reset).unwrap();
        client.notes();
        client
    };
    client().resets(&frame(DATA, 0, 1, b"x"), 1, CLOSED);
    client().dies_of(&headers(1, 0, OK), CLOSED);
    is_ignored(&mut client(), &reset);
    assert_eq!(client().connection.streams(), 0);
}

#[test]
fn what_is_late_for_a_stream_reset_here_is_ignored() {
    let mut server = server_with_request(0);
    server.connection.reset(StreamId(1), ErrorCode::CANCEL);
    let sent = server.sent();
    assert_eq!((sent.len(), sent[0].kind), (1, RST_STREAM));
    server.connection.reset(StreamId(1), ErrorCode::CANCEL);
    assert_eq!(server.sent(), [], "once is enough");
    is_ignored(&mut server, &frame(DATA, 0, 1, b"late"));
    is_ignored(&mut server, &frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]));
    assert_eq!(server.connection.forget(StreamId(1)), Some(1));
    is_ignored(&mut server, &frame(DATA, 0, 1, b"later"));
    is_ignored(&mut server, &headers(1, END_STREAM, &[("x-last", "1")]));
    // With that the peer has ended it.
    server.dies_of(&headers(1, END_STREAM, &[("x-last", "1")]), CLOSED);
}

#[test]
fn a_head_that_is_late_is_decoded_for_those_that_refer_to_it() {
    let (mut client, mut server) = pair();
    client.open(GET, true);
    exchange(&mut client, &mut server);
    let named = &[(":status", "200"), ("x-name", "a value for the table")];
    server.headers(1, named, true);
    client.connection.reset(StreamId(1), ErrorCode::CANCEL);
    client.open(GET, true);
    exchange(&mut client, &mut server);
    server.headers(3, named, true);
    server.notes();
    exchange(&mut client, &mut server);
    let lines = ":status: 200;x-name: a value for the table;".to_owned();
    let response = Note::Headers(3, Section::Response, true, lines);
    assert_eq!(client.notes(), [response]);
}

#[test]
fn data_that_comes_as_its_stream_is_reset_is_given_back() {
    let mut server = server_with_request(0);
    let input = frame(DATA, 0, 1, &[7; 10_000]);
    server.feed(&input[..2_009]).unwrap();
    assert_eq!(server.notes(), [Note::Data(1, vec![7; 2_000], false)]);
    server.connection.forget(StreamId(1));
    server.sent();
    is_ignored(&mut server, &input[2_009..]);
    // All of the window is there still.
    let rest = LOCAL.connection_window as usize;
    let mut left = rest;
    server.feed(&headers(3, 0, POST)).unwrap();
    while left > 0 {
        let part = left.min(16_384);
        server.feed(&frame(DATA, 0, 1, &vec![7; part])).unwrap();
        left -= part;
    }
    let updates = server.sent();
    let increments = updates.iter().filter(|frame| frame.kind == WINDOW_UPDATE);
    let given: u32 = increments
        .map(|frame| u32::from_be_bytes(frame.payload[..].try_into().unwrap()))
        .sum();
    assert!(given as usize > rest / 2, "{given}");
}

#[test]
fn a_stream_forgotten_early_is_reset() {
    for (answered, code) in [(false, ErrorCode::CANCEL), (true, ErrorCode::NO_ERROR)] {
        let mut server = server_with_request(0);
        server.headers(1, OK, answered);
        server.sent();
        assert_eq!(server.connection.forget(StreamId(1)), Some(1));
        let sent = server.sent();
        assert_eq!(sent.len(), 1);
        assert_eq!(
            (sent[0].kind, &sent[0].payload[..]),
            (RST_STREAM, &code.0.to_be_bytes()[..])
        );
        assert_eq!(server.connection.streams(), 0);
    }
}

#[test]
fn streams_above_the_limit_are_refused() {
    let mut server = End::server_with(LocalSettings {
        max_streams: 2,
        ..LOCAL
    });
    server.feed(&headers(1, END_STREAM, GET)).unwrap();
    server.feed(&headers(3, 0, POST)).unwrap();
    server.notes();
    server.resets(&headers(5, 0, POST), 5, ErrorCode::REFUSED_STREAM);
    assert_eq!(server.notes(), []);
    is_ignored(&mut server, &frame(DATA, END_STREAM, 5, b"late"));
    // One that is closed makes room, even before its user forgets it.
    server.headers(1, OK, true);
    server.sent();
    server.feed(&headers(7, END_STREAM, GET)).unwrap();
    assert_eq!((server.sent(), server.notes().len()), (vec![], 1));
    server.headers(7, OK, true);
    server.feed(&headers(9, END_STREAM, GET)).unwrap();
    server.headers(9, OK, true);
    // Four are kept, which is twice the limit.
    server.resets(&headers(11, END_STREAM, GET), 11, ErrorCode::REFUSED_STREAM);
    server.connection.forget(StreamId(1));
    server.feed(&headers(13, END_STREAM, GET)).unwrap();
    assert_eq!(server.sent(), []);
}

#[test]
fn a_client_keeps_to_the_limit_of_the_server() {
    use crate::http2::connection::send::OpenError;
    let mut client = End::client();
    let most = [0, 3, 0, 0, 0, 2];
    client.feed(&frame(SETTINGS, 0, 0, &most)).unwrap();
    client.open(GET, true);
    assert_eq!(client.connection.free_streams(), 1);
    client.open(GET, true);
    assert_eq!(client.connection.check_open(), Err(OpenError::NoStreamFree));
    client.feed(&headers(1, END_STREAM, OK)).unwrap();
    assert_eq!(client.connection.check_open(), Ok(()));
    assert_eq!(End::server().connection.check_open(), Err(OpenError::Ended));
}
