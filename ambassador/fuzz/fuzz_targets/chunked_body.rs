//! A chunked body: no input panics, a cut changes nothing, and the content is
//! never longer than the framed body.

#![no_main]

use ambassador::testing::http1::BodyReader;
use ambassador::testing::message::Length;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let strict = read(BodyReader::of_request(Length::Unknown), bytes);
    let lenient = read(BodyReader::of_response(Length::Unknown), bytes);
    // What passes to the letter passes in a response, and means the same.
    if let Some(content) = strict {
        assert_eq!(lenient, Some(content));
    }
});

/// The content, or of what has come of it; `None` where the framing is refused.
fn read(chunked: BodyReader, bytes: &[u8]) -> Option<Vec<u8>> {
    let (mut reader, mut data) = (chunked.clone(), Vec::new());
    let whole = reader.advance_into(bytes, &mut data);
    assert_eq!(chunked.clone().advance(bytes), whole);

    let (mut bytewise, mut consumed, mut content) = (chunked, 0, Vec::new());
    let mut refused = None;
    for byte in bytes.chunks(1) {
        match bytewise.advance_into(byte, &mut content) {
            Ok(progress) => consumed += progress.consumed,
            Err(bad) => {
                refused = Some(bad);
                break;
            }
        }
    }
    assert_eq!(data, content);
    match whole {
        Ok(progress) => {
            assert_eq!(refused, None);
            assert_eq!(consumed, progress.consumed);
            assert_eq!(bytewise.is_done(), progress.done);
            assert!(progress.done || consumed == bytes.len());
            assert!(data.len() <= consumed);
        }
        Err(bad) => assert_eq!(refused, Some(bad)),
    }
    whole.is_ok().then_some(data)
}
