//! Flow control: RFC 9113 sections 5.2, 6.5.3 and 6.9.

use super::*;
use crate::http2::error::ErrorCode;
use crate::http2::event::Event;
use crate::http2::role::Role;
use crate::http2::stream::StreamId;

const FLOW: ErrorCode = ErrorCode::FLOW_CONTROL_ERROR;
const PROTOCOL: ErrorCode = ErrorCode::PROTOCOL_ERROR;
const ONE: StreamId = StreamId(1);

fn window(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

fn initial_window(size: u32) -> Vec<u8> {
    let payload = [&[0, 4], &size.to_be_bytes()[..]].concat();
    frame(SETTINGS, 0, 0, &payload)
}

/// A server that owes answers to streams 1 and 3.
fn answering() -> End {
    let mut server = End::server();
    for stream in [1, 3] {
        server.feed(&headers(stream, END_STREAM, GET)).unwrap();
        server.headers(stream, OK, false);
    }
    server.notes();
    server.sent();
    server
}

/// A server to which stream 1 sends, with these windows.
fn receiving(window: u32, connection_window: u32) -> End {
    let mut server = End::server_with(LocalSettings {
        window,
        connection_window,
        ..LOCAL
    });
    server.feed(&headers(1, 0, GET)).unwrap();
    server.notes();
    server
}

/// DATA frames with so many bytes in all.
fn content(stream: u32, mut bytes: usize) -> Vec<u8> {
    let mut frames = Vec::new();
    while bytes > 0 {
        let part = bytes.min(16_384);
        frames.extend_from_slice(&frame(DATA, 0, stream, &vec![7; part]));
        bytes -= part;
    }
    frames
}

fn opened(stream: Option<StreamId>) -> Note {
    Note::Other(Event::Window { stream })
}

/// WINDOW_UPDATE frames: stream and increment.
fn updates(end: &mut End) -> Vec<(u32, u32)> {
    let increment = |frame: &Frame| u32::from_be_bytes(frame.payload[..].try_into().unwrap());
    end.sent()
        .iter()
        .map(|frame| (frame.stream, increment(frame)))
        .collect()
}

#[test]
fn s6_9_1_no_more_is_sent_than_the_windows_allow() {
    let mut server = answering();
    assert_eq!(server.connection.capacity(ONE), 65_535);
    assert_eq!(server.data(1, &[1; 40_000], false), 40_000);
    server.sent();
    // The window of the connection is the smaller one for the other stream.
    assert_eq!(server.connection.capacity(StreamId(3)), 25_535);
    assert_eq!(server.data(3, &[3; 40_000], false), 25_535);
    assert_eq!(server.data(1, b"x", true), 0);
    let sent = server.sent();
    let lengths: Vec<usize> = sent.iter().map(|frame| frame.payload.len()).collect();
    assert_eq!(lengths, [16_384, 9_151]);
    server.feed(&window(0, 10)).unwrap();
    assert_eq!(server.notes(), [opened(None)]);
    server.feed(&window(0, 10)).unwrap();
    assert_eq!(server.notes(), [], "it was open already");
    assert_eq!(server.data(1, &[1; 40], true), 20);
    let sent = server.sent();
    assert_eq!(
        (sent.len(), sent[0].flags, sent[0].payload.len()),
        (1, 0, 20)
    );
}

#[test]
fn s6_9_1_a_stream_window_opens_for_its_stream() {
    let mut server = answering();
    server.feed(&window(0, 1_000_000)).unwrap();
    server.data(1, &[1; 65_535], false);
    server.sent();
    assert_eq!(server.connection.capacity(ONE), 0);
    assert_eq!(server.connection.capacity(StreamId(3)), 65_535);
    server.feed(&window(1, 5)).unwrap();
    assert_eq!(server.notes(), [opened(Some(ONE))]);
    assert_eq!(server.data(1, b"12345678", true), 5);
    assert_eq!(server.data(1, b"", true), 0, "no content needs no window");
    let flags: Vec<u8> = server.sent().iter().map(|frame| frame.flags).collect();
    assert_eq!(flags, [0, END_STREAM]);
    server.feed(&window(1, 5)).unwrap();
    assert_eq!(server.notes(), [], "nothing is left to send");
    assert_eq!(
        (server.connection.capacity(ONE), server.data(1, b"x", true)),
        (0, 0)
    );
}

#[test]
fn what_waits_in_the_output_counts() {
    let mut server = answering();
    server
        .feed(&[window(0, 1_000_000), window(1, 1_000_000)].concat())
        .unwrap();
    let taken = server.data(1, &[1; 100_000], false);
    assert_eq!(taken, 64 * 1024);
    assert!(server.connection.is_full());
    assert_eq!(server.data(3, b"x", true), 0);
    server.sent();
    assert!(!server.connection.is_full());
    assert_eq!(server.data(3, b"x", true), 1);
}

#[test]
fn s6_9_nothing_may_be_added_to_a_window_that_would_be_nothing() {
    for mut server in [answering(), receiving(65_535, 65_535)] {
        server.resets(&window(1, 0), 1, PROTOCOL);
    }
    answering().dies_of(&window(0, 0), PROTOCOL);
    let mut client = End::client();
    client.open(GET, true);
    client.resets(&window(1, 0), 1, PROTOCOL);
    client.dies_of(&window(0, 0), PROTOCOL);
}

#[test]
fn s6_9_1_a_window_is_below_2_to_31() {
    let most = 0x7fff_ffff - 65_535;
    let mut server = answering();
    server
        .feed(&[window(1, most), window(0, most)].concat())
        .unwrap();
    server.resets(&window(1, 1), 1, FLOW);
    server.dies_of(&window(0, 1), FLOW);
}

#[test]
fn s6_9_2_settings_change_the_windows_of_open_streams() {
    let mut server = answering();
    server.feed(&window(0, 1_000_000)).unwrap();
    server.data(1, &[1; 65_535], false);
    server.sent();
    server.feed(&initial_window(70_000)).unwrap();
    assert_eq!(server.notes(), [Note::Other(Event::Settings)]);
    assert_eq!(server.connection.capacity(ONE), 70_000 - 65_535);
    // Below what was sent.
    server.feed(&initial_window(1)).unwrap();
    server.notes();
    server.sent();
    assert_eq!(
        (server.connection.capacity(ONE), server.data(1, b"x", true)),
        (0, 0)
    );
    assert_eq!(server.data(3, b"xx", true), 1);
    // From 65,534 below 0 to 0, and then to 1.
    server.feed(&window(1, 65_534)).unwrap();
    assert_eq!(
        (server.notes(), server.connection.capacity(ONE)),
        (vec![], 0)
    );
    server.feed(&window(1, 1)).unwrap();
    assert_eq!(server.notes(), [opened(Some(ONE))]);
    assert_eq!(server.data(1, b"xx", true), 1);
    // New streams begin with it.
    server.feed(&headers(5, END_STREAM, GET)).unwrap();
    server.headers(5, OK, false);
    assert_eq!(server.connection.capacity(StreamId(5)), 1);
}

#[test]
fn s6_9_2_settings_may_not_make_a_window_too_large() {
    let mut server = answering();
    server.feed(&window(1, 0x7fff_ffff - 65_535)).unwrap();
    server.dies_of(&initial_window(65_536), FLOW);
    answering().dies_of(&initial_window(0x8000_0000), FLOW);
    // That of the connection is not theirs.
    let mut server = answering();
    server.feed(&window(0, 0x7fff_ffff - 65_535)).unwrap();
    server.feed(&initial_window(0x7fff_ffff)).unwrap();
}

#[test]
fn s6_9_1_a_peer_that_overruns_a_window_is_told() {
    let mut server = receiving(10_000, 65_535);
    server.feed(&content(1, 10_000)).unwrap();
    server.resets(&frame(DATA, 0, 1, b"x"), 1, FLOW);
    let mut server = receiving(1 << 20, 100_000);
    server.feed(&content(1, 100_000)).unwrap();
    server.dies_of(&frame(DATA, 0, 1, b"x"), FLOW);
    // Padding counts.
    let mut server = receiving(10_000, 65_535);
    server.feed(&content(1, 9_998)).unwrap();
    server.resets(&frame(DATA, PADDED, 1, &[1, b'x', 0]), 1, FLOW);
    let mut server = receiving(10, 65_535);
    server.resets(&frame(DATA, END_STREAM, 1, &[0; 11]), 1, FLOW);
}

#[test]
fn s6_9_windows_open_in_parts_as_content_is_released() {
    let mut server = receiving(1 << 20, 8 << 20);
    server.feed(&content(1, 1 << 20)).unwrap();
    server.connection.release(ONE, (128 << 10) - 1);
    assert_eq!(updates(&mut server), []);
    server.connection.release(ONE, 1);
    assert_eq!(updates(&mut server), [(1, 128 << 10)], "an eighth");
    server.connection.release(ONE, (896 << 10) - 1);
    assert_eq!(updates(&mut server), [(1, (896 << 10) - 1)]);
    server.connection.release(ONE, 1);
    assert_eq!(updates(&mut server), [(0, 1 << 20)]);
    let mut server = receiving(10_000, 65_535);
    server.feed(&content(1, 10_000)).unwrap();
    server.connection.release(ONE, 4_999);
    assert_eq!(updates(&mut server), []);
    server.connection.release(ONE, 1);
    assert_eq!(updates(&mut server), [(1, 5_000)]);
    server.connection.release(ONE, 1_000_000);
    assert_eq!(updates(&mut server), [(1, 5_000)], "no more than has come");
    server.feed(&content(1, 10_000)).unwrap();
    server.connection.release(ONE, 10_000);
    assert_eq!(updates(&mut server), [(1, 10_000), (0, 20_000)]);
}

#[test]
fn padding_is_given_back_at_once() {
    let mut server = receiving(512, 65_535);
    let padded = frame(DATA, PADDED, 1, &[&[255], &[0; 255][..]].concat());
    server.feed(&padded).unwrap();
    assert_eq!(updates(&mut server), [(1, 256)]);
    server.feed(&padded.repeat(127)).unwrap();
    let all = updates(&mut server);
    assert_eq!(all.iter().filter(|(stream, _)| *stream == 1).count(), 127);
    assert_eq!(
        all.iter().find(|(stream, _)| *stream == 0),
        Some(&(0, 16_384))
    );
}

#[test]
fn content_that_nobody_takes_does_not_hold_the_connection() {
    let mut server = receiving(65_535, 65_535);
    server.feed(&content(1, 40_000)).unwrap();
    assert_eq!(server.sent(), []);
    server.connection.reset(ONE, ErrorCode::CANCEL);
    server.sent();
    server.connection.forget(ONE);
    assert_eq!(updates(&mut server), [(0, 40_000)]);
    // What is late is not held at all.
    server.feed(&content(1, 40_000)).unwrap();
    assert_eq!(updates(&mut server), [(0, 16_384), (0, 16_384)]);
    server.feed(&headers(3, 0, GET)).unwrap();
    server
        .feed(&frame(DATA, END_STREAM, 3, &[7; 16_000]))
        .unwrap();
    server.headers(3, OK, true);
    server.sent();
    assert_eq!(server.connection.forget(StreamId(3)), Some(3));
    server.connection.release(StreamId(3), 16_000);
    server.feed(&content(1, 16_384)).unwrap();
    assert_eq!(
        updates(&mut server),
        [(0, 40_000 - 2 * 16_384 + 16_000), (0, 16_384)],
        "what was late each time, and the 16,000"
    );
}

#[test]
fn s6_5_3_a_window_applies_when_its_settings_are_acknowledged() {
    let server = |window: u32| {
        let mut server = End::new(Role::Server, LocalSettings { window, ..LOCAL });
        server.feed(crate::http2::frame::PREFACE).unwrap();
        server.feed(&frame(SETTINGS, 0, 0, b"")).unwrap();
        server.feed(&headers(1, 0, GET)).unwrap();
        server
    };
    let acknowledgement = frame(SETTINGS, ACK, 0, b"");
    // The client does not know of less yet.
    let mut smaller = server(10);
    smaller.feed(&content(1, 65_535)).unwrap();
    smaller.feed(&acknowledgement).unwrap();
    smaller.resets(&frame(DATA, 0, 1, b"x"), 1, FLOW);
    let mut larger = server(100_000);
    larger.feed(&content(1, 65_535)).unwrap();
    larger.feed(&acknowledgement).unwrap();
    larger.feed(&content(1, 100_000 - 65_535)).unwrap();
    larger.resets(&frame(DATA, 0, 1, b"x"), 1, FLOW);
    let mut early = server(100_000);
    early.feed(&content(1, 65_535)).unwrap();
    early.resets(&frame(DATA, 0, 1, b"x"), 1, FLOW);
}
