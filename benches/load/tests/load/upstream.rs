//! The upstream, byte by byte.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::program::Upstream;

/// What `upstream` says to `request` until it closes.
fn exchange(upstream: &Upstream, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(upstream.address).expect("it listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("a valid timeout");
    stream.write_all(request).expect("it reads");
    stream.shutdown(Shutdown::Write).expect("it is open");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it closes");
    answer
}

#[test]
fn pipelined_requests_are_answered_in_order_even_after_the_client_is_done() {
    let upstream = Upstream::http();
    let requests = b"GET /1 HTTP/1.1\r\n\r\nGET /p/2 HTTP/1.1\r\nhost: a\r\n\r\n\
        GET /3 HTTP/1.1\r\nconnection: close\r\n\r\nGET /4 HTTP/1.1\r\n\r\n";
    let expected = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx\
        HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nxx\
        HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nxxx";
    let answer = exchange(&upstream, requests);
    assert_eq!(String::from_utf8(answer).unwrap(), expected);
}

#[test]
fn what_it_cannot_answer_ends_the_connection() {
    let (http, tcp) = (Upstream::http(), Upstream::tcp());
    let answer = exchange(&http, b"DELETE /1 HTTP/1.1\r\n\r\n");
    assert!(answer.starts_with(b"HTTP/1.1 400 "));
    assert_eq!(exchange(&tcp, b"GET /1 HTTP/1.1\r\n\r\n"), b"");
}

#[test]
fn an_opaque_request_is_answered_with_what_it_asks_for() {
    let upstream = Upstream::tcp();
    let mut requests = b"\0AMBLOAD\0\0\0\0\0\0\0\x05".to_vec();
    requests.extend_from_within(..);
    assert_eq!(exchange(&upstream, &requests), b"xxxxxxxxxx");
}

#[test]
fn a_signal_ends_it() {
    let mut upstream = Upstream::http();
    let pid = Pid::from_child(&upstream.child);
    kill_process(pid, Signal::TERM).unwrap();
    let status = upstream.child.wait().unwrap();
    assert_eq!(status.signal(), Some(Signal::TERM.as_raw()));
}
