//! The end of a connection: RFC 9113 section 6.8.

use super::*;
use crate::http2::connection::send::OpenError;
use crate::http2::error::ErrorCode;
use crate::http2::event::Event;
use crate::http2::stream::StreamId;

const PROTOCOL: ErrorCode = ErrorCode::PROTOCOL_ERROR;
const SIZE: ErrorCode = ErrorCode::FRAME_SIZE_ERROR;

fn go_away(last: u32, code: ErrorCode) -> Vec<u8> {
    let payload = [last.to_be_bytes(), code.0.to_be_bytes()].concat();
    frame(GOAWAY, 0, 0, &[&payload[..], b"for the log"].concat())
}

#[test]
fn go_away_has_a_form() {
    for make in [End::server, End::client] {
        make().dies_of(&frame(GOAWAY, 0, 1, &[0; 8]), PROTOCOL);
        make().dies_of(&frame(GOAWAY, 0, 0, &[0; 7]), SIZE);
        let mut end = make();
        end.feed(&go_away(9, ErrorCode::NO_ERROR)).unwrap();
        end.feed(&go_away(7, ErrorCode::NO_ERROR)).unwrap();
        end.dies_of(&go_away(9, ErrorCode::NO_ERROR), PROTOCOL);
    }
}

#[test]
fn streams_above_the_last_may_be_sent_elsewhere() {
    let mut client = End::client();
    for _ in 0..4 {
        client.open(GET, true);
    }
    client.sent();
    client.feed(&go_away(3, ErrorCode::NO_ERROR)).unwrap();
    let note = Event::GoAway {
        last: StreamId(3),
        code: ErrorCode::NO_ERROR,
    };
    assert_eq!(client.notes(), [Note::Other(note)]);
    assert!(client.connection.is_draining());
    let taken = std::iter::from_fn(|| client.connection.take_unprocessed());
    let taken: Vec<u32> = taken.map(|(id, _)| id.0).collect();
    assert_eq!(taken, [7, 5]);
    assert_eq!((client.sent(), client.connection.streams()), (vec![], 2));
    // The others go on, and no new one begins.
    client.feed(&headers(3, END_STREAM, OK)).unwrap();
    assert_eq!(client.notes().len(), 1);
    assert_eq!(client.connection.check_open(), Err(OpenError::Ended));
}

#[test]
fn an_end_that_is_announced_leaves_time_to_learn_of_it() {
    let mut server = End::server();
    server.feed(&headers(1, END_STREAM, GET)).unwrap();
    server.connection.announce_end();
    server.connection.announce_end();
    assert_eq!(
        server.sent(),
        frames(&frame(GOAWAY, 0, 0, &[0x7f, 255, 255, 255, 0, 0, 0, 0]))
    );
    server.feed(&headers(3, END_STREAM, GET)).unwrap();
    assert_eq!(server.notes().len(), 2, "it is served still");
    server.connection.go_away(ErrorCode::NO_ERROR);
    assert_eq!(
        server.sent(),
        frames(&frame(GOAWAY, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0]))
    );
    // What comes now was sent before the client knew.
    server.feed(&headers(5, 0, GET)).unwrap();
    server.feed(&frame(DATA, END_STREAM, 5, b"late")).unwrap();
    assert_eq!((server.notes(), server.sent()), (vec![], vec![]));
    server.headers(3, OK, true);
    assert_eq!(server.sent()[0].stream, 3);
    server.connection.output().clear();
    server.feed(&frame(PING, 0, 1, b"")).unwrap_err();
    assert_eq!(
        server.sent()[0].payload[..4],
        [0, 0, 0, 3],
        "it does not rise"
    );
}

#[test]
fn a_client_that_ends_opens_no_more() {
    let (mut client, mut server) = pair();
    client.open(GET, true);
    client.connection.go_away(ErrorCode::NO_ERROR);
    assert_eq!(client.connection.check_open(), Err(OpenError::Ended));
    exchange(&mut client, &mut server);
    let note = Event::GoAway {
        last: StreamId(0),
        code: ErrorCode::NO_ERROR,
    };
    assert_eq!(server.notes().pop(), Some(Note::Other(note)));
    server.headers(1, OK, true);
    exchange(&mut client, &mut server);
    assert_eq!(client.notes().len(), 1);
}

#[test]
fn ids_are_used_up_at_their_end() {
    let mut client = End::client();
    client.connection.streams.use_id(StreamId(0x7fff_fffd));
    assert_eq!(client.open(GET, true), StreamId::MAX);
    assert_eq!(client.connection.check_open(), Err(OpenError::Ended));
    let mut server = End::server();
    server.feed(&headers(0x7fff_ffff, END_STREAM, GET)).unwrap();
    server.dies_of(&headers(0x7fff_fffd, END_STREAM, GET), PROTOCOL);
}
