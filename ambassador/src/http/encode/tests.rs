use super::*;
use crate::http::{Limits, Method};

#[test]
fn a_response_loses_what_is_for_one_hop() {
    let src = b"HTTP/1.1 200 OK\r\nConnection: x-hop\r\nX-Hop: 1\r\nServer: s\r\n\r\n";
    let mut response = ResponseHead::default();
    response.parse(src, Method::Get, &Limits::default()).unwrap();
    let mut out = Vec::new();
    let rewrite = ResponseRewrite { close: true, http10: false, dechunk: false };
    write_response(&mut out, src, &response, &rewrite);
    assert_eq!(out, b"HTTP/1.1 200 OK\r\nServer: s\r\nConnection: close\r\n\r\n");
}
