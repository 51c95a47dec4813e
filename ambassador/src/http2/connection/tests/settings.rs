//! SETTINGS: RFC 9113 section 6.5, RFC 8441 section 3.

use super::*;
use crate::http2::block::Indexing;
use crate::http2::error::{Cause, ErrorCode, Flood};
use crate::http2::event::Event;
use crate::http2::role::Role;

const PROTOCOL: ErrorCode = ErrorCode::PROTOCOL_ERROR;
const SIZE: ErrorCode = ErrorCode::FRAME_SIZE_ERROR;

fn settings(parameters: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (number, value) in parameters {
        payload.extend_from_slice(&number.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    frame(SETTINGS, 0, 0, &payload)
}

fn both() -> [End; 2] {
    [End::server(), End::client()]
}

#[test]
fn s6_5_settings_belong_to_the_connection_and_are_whole() {
    for mut end in both() {
        end.dies_of(&frame(SETTINGS, 0, 1, b""), PROTOCOL);
    }
    for mut end in both() {
        end.dies_of(&frame(SETTINGS, 0, 0, &[0, 1, 0]), SIZE);
    }
    for mut end in both() {
        end.dies_of(&frame(SETTINGS, ACK, 0, &[0, 1, 0, 0, 0, 1]), SIZE);
    }
}

#[test]
fn s6_5_2_values_are_within_bounds() {
    let (push, window, size, connect) = (2, 4, 5, 8);
    for (parameter, code) in [
        ((push, 2), PROTOCOL),
        ((window, 0x8000_0000), ErrorCode::FLOW_CONTROL_ERROR),
        ((size, 16_383), PROTOCOL),
        ((size, 1 << 24), PROTOCOL),
        ((connect, 2), PROTOCOL),
    ] {
        for mut end in both() {
            end.dies_of(&settings(&[parameter]), code);
        }
    }
    for parameter in [
        (push, 0),
        (window, 0x7fff_ffff),
        (size, 16_384),
        (size, (1 << 24) - 1),
        (connect, 0),
        (0xbb, u32::MAX),
    ] {
        for mut end in both() {
            end.feed(&settings(&[parameter])).unwrap();
            assert_eq!(end.sent(), frames(&frame(SETTINGS, ACK, 0, b"")));
            assert_eq!(end.notes(), [Note::Other(Event::Settings)]);
        }
    }
    End::server().feed(&settings(&[(push, 1)])).unwrap();
    End::client().dies_of(&settings(&[(push, 1)]), PROTOCOL);
}

#[test]
fn s6_5_3_the_last_value_counts() {
    let mut client = End::client();
    client.feed(&settings(&[(3, 1), (3, 7)])).unwrap();
    assert_eq!(client.connection.free_streams(), 7);
}

/// 32 bytes are counted for each field besides its name and value.
#[test]
fn s6_5_2_sections_are_taken_up_to_a_size() {
    let section = |value: &'static [u8]| [(&b":status"[..], value, Indexing::Free)].into_iter();
    for mut end in both() {
        assert!(end.connection.takes_section(section(&[b'1'; 100_000])));
        end.feed(&settings(&[(6, 42)])).unwrap();
        assert!(end.connection.takes_section(section(b"200")));
        assert!(!end.connection.takes_section(section(b"2000")));
    }
}

#[test]
fn streams_are_few_until_the_first_settings() {
    let mut client = End::new(Role::Client, LOCAL);
    assert_eq!(client.connection.free_streams(), 100);
    client.feed(&settings(&[])).unwrap();
    assert!(client.connection.free_streams() > 1_000_000);
}

#[test]
fn parameters_of_a_frame_are_limited() {
    for mut end in both() {
        end.feed(&settings(&[(0xbb, 1); 64])).unwrap();
        let failure = end.dies_of(&settings(&[(0xbb, 1); 65]), ErrorCode::ENHANCE_YOUR_CALM);
        assert_eq!(failure.cause, Cause::Flood(Flood::Settings));
    }
}

#[test]
fn each_role_says_what_concerns_it() {
    let numbers = |role: Role| -> Vec<u16> {
        let sent = End::new(role, LOCAL).sent();
        let parameters = sent[0].payload.chunks(6);
        parameters
            .map(|one| u16::from_be_bytes([one[0], one[1]]))
            .collect()
    };
    assert_eq!(numbers(Role::Client), [2, 4, 6]);
    assert_eq!(numbers(Role::Server), [3, 4, 6, 8]);
}

#[test]
fn rfc8441_s3_extended_connect_is_not_taken_back() {
    let mut client = End::client();
    assert!(!client.connection.takes_extended_connect());
    client.feed(&settings(&[(8, 1)])).unwrap();
    assert!(client.connection.takes_extended_connect());
    client.dies_of(&settings(&[(8, 0)]), PROTOCOL);
}
