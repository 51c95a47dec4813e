//! Exchanges over HTTP/2: one request after the other on one connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use ambassador_tests::http2::peer::Wire;
use ambassador_tests::http2::{Frame, PREFACE, Peer, flag, kind};

/// A connection of the proxy to an upstream.
struct Accepted(TcpStream);

impl Wire for Accepted {
    fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let stream = Read::by_ref(&mut self.0);
        stream.take(count as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }
}

/// Answers each request with two bytes, in one piece with their head.
pub fn answer(stream: TcpStream) -> io::Result<()> {
    let mut peer = Peer::over(Accepted(stream));
    peer.wire().take(PREFACE.len())?;
    peer.send(&Frame::settings(&[]))?;
    while let Some(frame) = peer.receive()? {
        match frame.kind {
            kind::SETTINGS if !frame.has(flag::ACK) => peer.send(&Frame::settings(&[]).ack())?,
            kind::HEADERS => {
                let fields = [(":status", "200"), ("content-length", "2")];
                let head = Frame::fields(frame.stream, &fields);
                let content = Frame::data(frame.stream, "ok").ending();
                peer.put(&[head.bytes(), content.bytes()].concat())?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Makes so many requests.
pub fn repeat(proxy: SocketAddr, times: u64) -> io::Result<()> {
    let mut peer = Peer::connect(proxy);
    peer.greet(&[])?;
    for number in 0..times as u32 {
        let stream = 2 * number + 1;
        peer.send(&Frame::get(stream, "/"))?;
        while !is_end(&peer.frame()?, stream)? {}
    }
    Ok(())
}

fn is_end(frame: &Frame, stream: u32) -> io::Result<bool> {
    match frame.kind {
        kind::RST_STREAM | kind::GOAWAY => Err(io::Error::other(format!("{frame:?}"))),
        _ => Ok(frame.stream == stream && frame.is_last()),
    }
}
