use super::*;

#[test]
fn a_sound_head_is_read() {
    let src = b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabc";
    let mut response = ResponseHead::default();
    let length = response.parse(src, Method::Get, &Limits::default()).unwrap().unwrap();
    assert_eq!(length, src.len() - 3);
    assert_eq!(response.status_and_phrase(src), b"404 Not Found");
    assert_eq!(response.body(), ResponseBody::Length(3));
}
