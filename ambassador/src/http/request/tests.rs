use super::*;

#[test]
fn a_sound_head_is_read_with_order_and_case_kept() {
    let src = b"POST /p HTTP/1.1\r\nhOst: a\r\nContent-Length: 3\r\n\r\nabc";
    let mut request = RequestHead::default();
    let length = request.parse(src, &Limits::default()).unwrap().unwrap();
    assert_eq!(length, src.len() - 3);
    assert_eq!(request.body(), RequestBody::Length(3));
    assert_eq!(request.target(src), b"/p");
    let names: Vec<_> = request.fields().iter().map(|field| field.name(src)).collect();
    assert_eq!(names, [&b"hOst"[..], b"Content-Length"]);
}
