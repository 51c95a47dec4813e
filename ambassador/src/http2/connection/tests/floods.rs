//! Floods: RFC 9113 section 10.5, each with its cause.

use std::time::Duration;

use super::*;
use crate::http2::connection::Connection;
use crate::http2::error::{Cause, ErrorCode, Flood};
use crate::http2::stream::StreamId;

const CALM: ErrorCode = ErrorCode::ENHANCE_YOUR_CALM;
const SECOND: Duration = Duration::from_secs(1);

/// How many frames of a kind pass, one after the other, before the connection ends.
fn passing(end: &mut End, mut next: impl FnMut(&mut End, u32) -> Vec<u8>) -> (u32, Cause) {
    for count in 0..20_000 {
        let input = next(end, count);
        if let Err(failure) = end.feed(&input) {
            assert_eq!(failure.code, CALM);
            return (count, failure.cause);
        }
        end.connection.output().clear();
        end.notes.clear();
    }
    panic!("20,000 pass");
}

fn odd(count: u32) -> u32 {
    2 * count + 1
}

#[test]
fn control_frames_are_limited() {
    let settings = [0, 3, 0, 0, 0, 9];
    for flood in [
        frame(PING, 0, 0, &[0; 8]),
        frame(PING, ACK, 0, &[0; 8]),
        frame(SETTINGS, 0, 0, &settings),
        frame(SETTINGS, ACK, 0, b""),
        frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1]),
        frame(PRIORITY, 0, 9, &[0, 0, 0, 3, 1]),
        frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
        frame(GOAWAY, 0, 0, &[0; 8]),
        frame(DATA, 0, 1, b""),
        frame(DATA, PADDED, 1, &[2, 0, 0]),
        frame(0xbb, 0, 0, b"unknown"),
    ] {
        let mut server = End::server();
        server.feed(&headers(1, 0, GET)).unwrap();
        let mut client = End::client();
        client.open(GET, false);
        client.feed(&headers(1, 0, OK)).unwrap();
        for mut end in [server, client] {
            let (count, cause) = passing(&mut end, |_, _| flood.clone());
            assert!((1_990..=2_000).contains(&count), "{count}: {flood:?}");
            assert_eq!(cause, Cause::Flood(Flood::ControlFrames));
        }
    }
}

#[test]
fn frames_for_streams_that_are_gone_are_limited() {
    let mut server = End::server();
    server.feed(&headers(1, 0, GET)).unwrap();
    server.connection.forget(StreamId(1));
    for kind in [RST_STREAM, WINDOW_UPDATE] {
        let (count, cause) = passing(&mut server, |_, _| frame(kind, 0, 1, &[0, 0, 0, 1]));
        assert!((1_990..=2_000).contains(&count), "{count}");
        assert_eq!(cause, Cause::Flood(Flood::ControlFrames));
        server = End::server();
        server.feed(&headers(1, 0, GET)).unwrap();
        server.connection.forget(StreamId(1));
    }
}

#[test]
fn a_thousand_control_frames_a_second_may_come() {
    let mut server = End::server();
    for _ in 0..20_000 {
        server.pass(SECOND / 1_000);
        server.feed(&frame(PING, 0, 0, &[0; 8])).unwrap();
        server.connection.output().clear();
    }
    // After any time there is room for the same number.
    server.pass(SECOND * 86_400 * 365);
    let (count, _) = passing(&mut server, |_, _| frame(PING, 0, 0, &[0; 8]));
    assert_eq!(count, 2_000);
}

#[test]
fn who_reads_what_is_sent_may_open_its_windows() {
    let mut server = End::server();
    server.feed(&headers(1, END_STREAM, GET)).unwrap();
    server.headers(1, OK, false);
    let increment = 2_048_u32.to_be_bytes();
    for _ in 0..20_000 {
        assert_eq!(server.data(1, &[7; 2_048], false), 2_048);
        server.connection.output().clear();
        for stream in [0, 1] {
            server
                .feed(&frame(WINDOW_UPDATE, 0, stream, &increment))
                .unwrap();
        }
    }
}

#[test]
fn who_opens_its_windows_by_the_byte_may_not() {
    let mut server = End::server();
    server.feed(&headers(1, END_STREAM, GET)).unwrap();
    server.headers(1, OK, false);
    server.data(1, &[7; 65_535], false);
    server.connection.output().clear();
    let (count, cause) = passing(&mut server, |server, count| {
        server.data(1, b"x", false);
        frame(WINDOW_UPDATE, 0, count % 2, &[0, 0, 0, 1])
    });
    assert!((2_000..2_020).contains(&count), "{count}");
    assert_eq!(cause, Cause::Flood(Flood::ControlFrames));
}

#[test]
fn each_message_may_come_with_a_ping() {
    let mut server = End::server();
    server.feed(&headers(1, 0, GET)).unwrap();
    let with_ping = [frame(DATA, 0, 1, b"x"), frame(PING, 0, 0, &[0; 8])].concat();
    for _ in 0..20_000 {
        server.feed(&with_ping).unwrap();
        server.connection.release(StreamId(1), 1);
        server.connection.output().clear();
        server.notes.clear();
    }
}

#[test]
fn streams_reset_before_their_answer_are_limited() {
    let rapid = |count: u32| {
        let reset = frame(
            RST_STREAM,
            0,
            odd(count),
            &ErrorCode::CANCEL.0.to_be_bytes(),
        );
        [headers(odd(count), END_STREAM, GET), reset].concat()
    };
    let (count, cause) = passing(&mut End::server(), |server, count| {
        if let Some(before) = count.checked_sub(1) {
            server.connection.forget(StreamId(odd(before)));
        }
        rapid(count)
    });
    assert_eq!((count, cause), (500, Cause::Flood(Flood::PeerResets)));
    // A hundred a second may.
    let mut server = End::server();
    for count in 0..5_000 {
        server.pass(SECOND / 100);
        server.feed(&rapid(count)).unwrap();
        server.connection.forget(StreamId(odd(count)));
        server.connection.output().clear();
    }
}

#[test]
fn who_takes_every_second_answer_may_reset_the_others() {
    let mut server = End::server();
    for count in 0..10_000 {
        let id = odd(count);
        server.feed(&headers(id, END_STREAM, GET)).unwrap();
        match count % 2 {
            0 => server.headers(id, OK, true),
            _ => server.feed(&frame(RST_STREAM, 0, id, &[0; 4])).unwrap(),
        }
        server.connection.forget(StreamId(id));
        server.connection.output().clear();
        server.notes.clear();
    }
}

#[test]
fn a_server_may_refuse_what_a_client_asks() {
    let mut client = End::client();
    for _ in 0..5_000 {
        let id = client.open(GET, true);
        client
            .feed(&frame(RST_STREAM, 0, id.0, &[0, 0, 0, 7]))
            .unwrap();
        client.connection.forget(id);
        client.connection.output().clear();
    }
}

#[test]
fn streams_that_have_to_be_reset_are_limited() {
    // Each is reset here for what comes after its head.
    for provoke in [
        |id: u32| frame(WINDOW_UPDATE, 0, id, &[0; 4]),
        |id: u32| frame(WINDOW_UPDATE, 0, id, &[0x7f, 255, 255, 255]),
        |id: u32| frame(PRIORITY, 0, id, &id.to_be_bytes()),
        |id: u32| headers(id, 0, &[("x-late", "1")]),
        |id: u32| headers(id, END_STREAM, &[("x-late", "1")]).repeat(2),
    ] {
        let (count, cause) = passing(&mut End::server(), |server, count| {
            if let Some(before) = count.checked_sub(1) {
                server.connection.forget(StreamId(odd(before)));
            }
            [headers(odd(count), 0, GET), provoke(odd(count))].concat()
        });
        assert_eq!((count, cause), (100, Cause::Flood(Flood::StreamErrors)));
    }
}

#[test]
fn streams_above_the_limit_may_not_be_asked_for_forever() {
    let mut server = End::server_with(LocalSettings {
        max_streams: 1,
        ..LOCAL
    });
    server.feed(&headers(1, 0, GET)).unwrap();
    let (count, cause) = passing(&mut server, |_, count| headers(odd(count) + 2, 0, GET));
    assert_eq!((count, cause), (2_000, Cause::Flood(Flood::ControlFrames)));
    // Nor may a stream be gone on with that was reset here.
    let mut server = End::server();
    server.feed(&headers(1, 0, GET)).unwrap();
    server.connection.forget(StreamId(1));
    let (count, cause) = passing(&mut server, |_, _| headers(1, 0, GET));
    assert_eq!((count, cause), (2_000, Cause::Flood(Flood::ControlFrames)));
}

#[test]
fn an_idle_connection_is_small() {
    // What a user keeps is its own.
    let size = size_of::<Connection<()>>();
    assert!(size <= 700, "{size}");
    let mut server = End::server();
    for count in 0..200 {
        server.feed(&headers(odd(count), END_STREAM, GET)).unwrap();
        if count % 2 == 1 {
            for id in [odd(count - 1), odd(count)].map(StreamId) {
                server.headers(id.0, OK, true);
                server.connection.forget(id);
            }
        }
    }
    let connection = &server.connection;
    assert_eq!(connection.partial.capacity(), 0);
    assert!(connection.section.is_none());
    assert!(connection.streams.capacity() <= 4);
}
