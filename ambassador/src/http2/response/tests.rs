use super::*;
use crate::http2::sample;

/// A response of these lines to a request with this method.
fn answer(method: Method, lines: &str, ends: bool) -> Result<ResponseHead, BadMessage> {
    let mut response = ResponseHead::default();
    read_response(&mut response, &sample::block(lines), method, ends)?;
    Ok(response)
}

fn refusal(lines: &str) -> Option<BadMessage> {
    answer(Method::Get, lines, false).err()
}

#[test]
fn a_response_is_read_with_its_parts() {
    let block = sample::block(":status: 404\nserver: a\nx-a: \nset-cookie: a\nset-cookie: b");
    let mut response = ResponseHead::default();
    read_response(&mut response, &block, Method::Get, false).unwrap();
    assert_eq!(response.status(), 404);
    assert_eq!(response.status_and_phrase(block.bytes()), b"404");
    assert_eq!(response.fields().len(), 4);
    assert!(response.keep_alive() && response.is_chunked());
    assert!(!response.ends_with_connection() && !response.is_coded());
}

/// RFC 9113 section 8.3.2.
#[test]
fn a_status_has_three_digits_and_comes_first_and_once() {
    for (lines, expected) in [
        ("", BadMessage::MissingPseudoField),
        ("server: a", BadMessage::MissingPseudoField),
        ("server: a\n:status: 200", BadMessage::MissingPseudoField),
        (":status: 200\n:status: 200", BadMessage::PseudoField),
        (":status: 200\na: b\n:status: 200", BadMessage::PseudoField),
        (":status: 200\n:path: /", BadMessage::PseudoField),
        (":path: /\n:status: 200", BadMessage::PseudoField),
        (":status: ", BadMessage::PseudoValue),
        (":status: 20", BadMessage::PseudoValue),
        (":status: 2000", BadMessage::PseudoValue),
        (":status: 099", BadMessage::PseudoValue),
        (":status: 2 0", BadMessage::PseudoValue),
        (":status: 200 OK", BadMessage::PseudoValue),
    ] {
        assert_eq!(refusal(lines), Some(expected), "{lines}");
    }
}

/// RFC 9113 sections 8.2.1 and 8.2.2.
#[test]
fn fields_are_regular_and_of_no_connection() {
    for (line, expected) in [
        ("Server: a", BadMessage::FieldName),
        ("a: b\u{7f}", BadMessage::FieldValue),
        ("connection: close", BadMessage::ConnectionField),
        ("transfer-encoding: chunked", BadMessage::ConnectionField),
        ("upgrade: h2c", BadMessage::ConnectionField),
        // Requests alone may have it.
        ("te: trailers", BadMessage::ConnectionField),
    ] {
        assert_eq!(
            refusal(&format!(":status: 200\n{line}")),
            Some(expected),
            "{line}"
        );
    }
}

/// RFC 9113 sections 8.1 and 8.6.
#[test]
fn interim_responses_have_another_behind_them() {
    for status in [100, 103, 199] {
        let lines = format!(":status: {status}\nlink: a");
        let response = answer(Method::Get, &lines, false).unwrap();
        assert!(response.is_informational() && response.is_unframed());
        assert_eq!(response.length(), Length::None);
        let ended = answer(Method::Get, &lines, true).err();
        assert_eq!(ended, Some(BadMessage::InterimEnd));
        let lines = format!("{lines}\ncontent-length: 1");
        assert_eq!(refusal(&lines), Some(BadMessage::InterimWithBody));
    }
    assert_eq!(refusal(":status: 101"), Some(BadMessage::UnexpectedUpgrade));
}

/// RFC 9113 section 8.1.1 and RFC 9110 section 8.6.
#[test]
fn a_length_is_said_once_and_fits_the_stream() {
    for (status, line, ends, expected) in [
        (200, "a: b", true, Ok(Length::Exact(0))),
        (200, "a: b", false, Ok(Length::Unknown)),
        (200, "content-length: 0", true, Ok(Length::None)),
        (200, "content-length: 0", false, Ok(Length::None)),
        (200, "content-length: 7", false, Ok(Length::Exact(7))),
        (
            200,
            "content-length: 7",
            true,
            Err(BadMessage::LengthWithoutBody),
        ),
        (
            200,
            "content-length: 7\ncontent-length: 7",
            false,
            Err(BadMessage::RepeatedLength),
        ),
        (200, "content-length: x", false, Err(BadMessage::Length)),
        (204, "a: b", true, Ok(Length::None)),
        (204, "content-length: 7", true, Ok(Length::None)),
        (304, "content-length: 7", true, Ok(Length::None)),
        (304, "content-length: 7", false, Ok(Length::None)),
    ] {
        let lines = format!(":status: {status}\n{line}");
        let length = answer(Method::Get, &lines, ends).map(|response| response.length());
        assert_eq!(length, expected, "{lines}");
    }
    let head = answer(Method::Head, ":status: 200\ncontent-length: 7", true);
    assert_eq!(head.map(|response| response.length()), Ok(Length::None));
}

/// RFC 9113 section 8.5.
#[test]
fn what_follows_a_success_of_connect_is_a_tunnel() {
    let tunnel = answer(Method::Connect, ":status: 200\ncontent-length: 7", false).unwrap();
    assert!(tunnel.is_unframed());
    assert_eq!(tunnel.length(), Length::None);
    let refused = answer(Method::Connect, ":status: 403\ncontent-length: 7", false).unwrap();
    assert_eq!(refused.length(), Length::Exact(7));
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let mut block = FieldBlock::new(50, 8);
    sample::push(&mut block, b":status", b"200");
    sample::push(&mut block, b"server", b"a");
    let outcome = read_response(&mut ResponseHead::default(), &block, Method::Get, true);
    assert_eq!(outcome, Err(BadMessage::HeadTooLarge));
}
