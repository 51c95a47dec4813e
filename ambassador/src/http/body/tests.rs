use super::*;

#[test]
fn a_chunked_body_ends_after_its_trailers() {
    let body = b"3\r\nabc\r\n0\r\nx: y\r\n\r\n";
    let mut reader = BodyReader::of_request(RequestBody::Chunked);
    let mut data = Vec::new();
    let input = [&body[..], b"GET /"].concat();
    let progress = reader.advance_into(&input, &mut data).unwrap();
    assert_eq!((progress.consumed, progress.done), (body.len(), true));
    assert_eq!(data, b"abc");
}
