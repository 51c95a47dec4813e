//! Two ends of a connection, each with its driver, over a pair of sockets.

use std::future::poll_fn;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use super::*;
use crate::message::{End, FieldList};
use crate::ring::{self, Backend, Chunk, Gather, Options};

/// Windows that a test fills.
const WINDOW: u32 = 65_535;

/// What a stream has received.
#[derive(Debug, Default, PartialEq, Eq)]
struct Message {
    heads: usize,
    content: usize,
    trailers: Vec<u8>,
}

fn settings() -> LocalSettings {
    LocalSettings {
        window: WINDOW,
        connection_window: 4 * WINDOW,
        ..LocalSettings::default()
    }
}

/// Runs `script` with the client's end; `serve` is told of each stream that it opens.
fn between<F, S>(
    script: impl FnOnce(Rc<Multiplexed>) -> F + 'static,
    serve: impl Fn(Http2Stream) -> S + 'static,
) where
    F: Future<Output = ()> + 'static,
    S: Future<Output = ()> + 'static,
{
    run(async move {
        let (near, far) = UnixStream::pair().unwrap();
        let near = Transport::from_connected(near.into()).unwrap();
        let far = Transport::from_connected(far.into()).unwrap();
        let client = driven_client(near);
        let server = Multiplexed::server(far, settings());
        ring::spawn(async move {
            let mut driver = Driver::of(&server);
            loop {
                match driver.next().await {
                    Driven::Opened(opened) => {
                        ring::spawn(serve(opened.stream));
                    }
                    Driven::Ended(_) => break,
                    Driven::Changed | Driven::Rests => {}
                }
            }
        });
        script(client).await;
    });
}

fn run(script: impl Future<Output = ()> + 'static) {
    let options = Options {
        backend: Backend::Epoll,
        shard: 0,
        spin: ring::Spin::Never,
    };
    ring::run(options, script).unwrap();
}

/// A client's end, and its driver at work.
fn driven_client(transport: Transport) -> Rc<Multiplexed> {
    let client = Multiplexed::client(transport, settings());
    let driven = Rc::clone(&client);
    ring::spawn(async move {
        let mut driver = Driver::of(&driven);
        while !matches!(driver.next().await, Driven::Ended(_)) {}
    });
    client
}

/// A server that speaks in frames made by hand.
struct FramePeer {
    stream: UnixStream,
}

impl FramePeer {
    /// Reads the preface of the client.
    fn new(mut stream: UnixStream) -> Self {
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream.read_exact(&mut [0; 24]).unwrap();
        Self { stream }
    }

    fn write(&mut self, frame: &[u8]) {
        self.stream.write_all(frame).unwrap();
    }

    /// Reads frames until so many bytes of DATA have come.
    fn read_content(&mut self, mut bytes: usize) {
        while bytes > 0 {
            let mut header = [0; 9];
            self.stream.read_exact(&mut header).unwrap();
            let [_, a, b, kind, ..] = header;
            let mut payload = vec![0; usize::from(u16::from_be_bytes([a, b]))];
            self.stream.read_exact(&mut payload).unwrap();
            if kind == 0 {
                bytes = bytes
                    .checked_sub(payload.len())
                    .expect("no more than the window");
            }
        }
    }

    fn read_to_end(&mut self) {
        self.stream.read_to_end(&mut Vec::new()).unwrap();
    }
}

fn list(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut list = FieldList(&mut bytes);
    for (name, value) in fields {
        list.push(name.as_bytes(), value.as_bytes());
    }
    bytes
}

fn request() -> Chunk {
    Chunk::from(list(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/"),
    ]))
}

fn response() -> Chunk {
    Chunk::from(list(&[(":status", "200")]))
}

fn content(bytes: usize) -> Gather {
    Gather::from(Chunk::from(vec![b'x'; bytes]))
}

/// Everything that comes on a stream.
async fn received(stream: &Http2Stream) -> Result<Message, StreamFailure> {
    let mut message = Message::default();
    loop {
        match stream.recv().await? {
            Received::Head(_) => message.heads += 1,
            Received::Content(content) => message.content += content.len(),
        }
        if stream.is_whole() {
            message.trailers = stream.take_trailers();
            return Ok(message);
        }
    }
}

#[test]
fn a_request_and_its_answer_with_trailers() {
    let serve = |stream: Http2Stream| async move {
        let message = received(&stream).await.unwrap();
        assert_eq!(message.content, 5);
        let trailers = list(&[("grpc-status", "0")]);
        let answer = stream.send(Some(response()), content(3), End::Whole(&trailers));
        answer.await.unwrap();
    };
    between(
        async |client| {
            let stream = Http2Stream::on(client);
            let asked = stream.send(Some(request()), content(5), End::Whole(b""));
            asked.await.unwrap();
            let message = received(&stream).await.unwrap();
            let trailers = list(&[("grpc-status", "0")]);
            let expected = Message {
                heads: 1,
                content: 3,
                trailers,
            };
            assert_eq!(message, expected);
        },
        serve,
    );
}

/// RFC 9113 sections 6.5.3 and 6.7: nothing else has to be sent for that.
#[test]
fn settings_and_pings_are_answered_at_once() {
    let serve = |_: Http2Stream| async {};
    between(
        async |client| {
            client.ping();
            let before = client.heard_at();
            while client.state.borrow().codec.awaits_pong() {
                timer::sleep(Duration::from_millis(1)).await;
            }
            assert!(client.heard_at() >= before);
        },
        serve,
    );
}

#[test]
fn content_above_the_windows_comes_as_it_is_read() {
    const BYTES: usize = 20 * WINDOW as usize;
    let serve = |stream: Http2Stream| async move {
        let message = received(&stream).await.unwrap();
        assert_eq!(message.content, BYTES);
        let answer = stream.send(Some(response()), content(BYTES), End::Whole(b""));
        answer.await.unwrap();
    };
    between(
        async |client| {
            let stream = Http2Stream::on(client);
            let asked = stream.send(Some(request()), content(BYTES), End::Whole(b""));
            asked.await.unwrap();
            assert_eq!(received(&stream).await.unwrap().content, BYTES);
        },
        serve,
    );
}

/// A response may begin before the request is whole.
#[test]
fn what_a_dropped_send_has_left_is_sent_before_all_else() {
    const BYTES: usize = 20 * WINDOW as usize;
    let serve = |stream: Http2Stream| async move {
        let message = received(&stream).await.unwrap();
        assert_eq!(message.content, BYTES + 3);
        assert_eq!(message.trailers, list(&[("after", "all")]));
        let answer = stream.send(Some(response()), content(1), End::Whole(b""));
        answer.await.unwrap();
    };
    for is_followed in [true, false] {
        between(
            async move |client| {
                let trailers = list(&[("after", "all")]);
                let stream = Http2Stream::on(client);
                let (bytes, end) = match is_followed {
                    true => (BYTES, End::More),
                    false => (BYTES + 3, End::Whole(&trailers)),
                };
                let mut dropped = stream.send(Some(request()), content(bytes), end);
                let begun = poll_fn(|context| Poll::Ready(Pin::new(&mut dropped).poll(context)));
                assert!(begun.await.is_pending());
                drop(dropped);
                if is_followed {
                    let rest = stream.send(None, content(3), End::Whole(&trailers));
                    rest.await.unwrap();
                }
                assert_eq!(received(&stream).await.unwrap().content, 1);
            },
            serve,
        );
    }
}

/// RFC 9113 section 6.9.2.
#[test]
fn content_goes_on_when_settings_open_its_window() {
    const BYTES: usize = WINDOW as usize + 5;
    let (near, far) = UnixStream::pair().unwrap();
    let peer = std::thread::spawn(move || {
        let mut peer = FramePeer::new(far);
        peer.write(b"\0\0\0\x04\0\0\0\0\0");
        peer.read_content(WINDOW as usize);
        // The connection's window opens by 5, and then that of every stream.
        peer.write(b"\0\0\x04\x08\0\0\0\0\0\0\0\0\x05");
        peer.write(b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\x01\0\x04");
        peer.read_content(5);
        // HEADERS with `:status: 200`, which end the stream.
        peer.write(b"\0\0\x01\x01\x05\0\0\0\x01\x88");
        peer.read_to_end();
    });
    run(async move {
        let near = Transport::from_connected(near.into()).unwrap();
        let client = driven_client(near);
        let stream = Http2Stream::on(client);
        let asked = stream.send(Some(request()), content(BYTES), End::Whole(b""));
        asked.await.unwrap();
        assert_eq!(received(&stream).await.unwrap().heads, 1);
    });
    peer.join().unwrap();
}

#[test]
fn a_stream_that_is_not_read_holds_no_other() {
    let serve = |stream: Http2Stream| async move {
        let answer = stream.send(
            Some(response()),
            content(2 * WINDOW as usize),
            End::Whole(b""),
        );
        // The one that is not read ends with its connection.
        let _ = answer.await;
    };
    between(
        async |client| {
            let unread = Http2Stream::on(Rc::clone(&client));
            let asked = unread.send(Some(request()), Gather::default(), End::Whole(b""));
            asked.await.unwrap();
            for _ in 0..10 {
                let stream = Http2Stream::on(Rc::clone(&client));
                let asked = stream.send(Some(request()), Gather::default(), End::Whole(b""));
                asked.await.unwrap();
                let message = received(&stream).await.unwrap();
                assert_eq!(message.content, 2 * WINDOW as usize);
            }
            assert!(unread.try_recv().is_some());
        },
        serve,
    );
}

#[test]
fn a_stream_that_is_dropped_is_reset_and_the_connection_goes_on() {
    let serve = |stream: Http2Stream| async move {
        if received(&stream).await.is_err() {
            // The client has given it up.
            assert_eq!(
                stream.failure(),
                Some(StreamFailure::Reset(ErrorCode::CANCEL))
            );
            return;
        }
        let answer = stream.send(Some(response()), content(1), End::Whole(b""));
        answer.await.unwrap();
    };
    between(
        async |client| {
            let given_up = Http2Stream::on(Rc::clone(&client));
            let asked = given_up.send(Some(request()), content(1), End::More);
            asked.await.unwrap();
            drop(given_up);
            let stream = Http2Stream::on(Rc::clone(&client));
            let asked = stream.send(Some(request()), content(1), End::Whole(b""));
            asked.await.unwrap();
            assert_eq!(received(&stream).await.unwrap().content, 1);
            assert_eq!(client.streams(), 0);
        },
        serve,
    );
}

#[test]
fn what_a_goaway_leaves_out_was_not_processed() {
    let serve = |stream: Http2Stream| async move {
        stream.connection().go_away(ErrorCode::NO_ERROR);
        let answer = stream.send(Some(response()), content(1), End::Whole(b""));
        answer.await.unwrap();
    };
    between(
        async |client| {
            let first = Http2Stream::on(Rc::clone(&client));
            let asked = first.send(Some(request()), Gather::default(), End::Whole(b""));
            asked.await.unwrap();
            assert_eq!(received(&first).await.unwrap().content, 1);
            assert!(client.is_draining());
            let late = Http2Stream::on(Rc::clone(&client));
            let asked = late.send(Some(request()), Gather::default(), End::Whole(b""));
            assert!(asked.await.is_err());
            assert_eq!(late.failure(), Some(StreamFailure::Unprocessed));
        },
        serve,
    );
}

#[test]
fn a_connection_that_ends_fails_its_streams() {
    let serve = |stream: Http2Stream| async move {
        stream.failed().await;
    };
    between(
        async |client| {
            let stream = Http2Stream::on(Rc::clone(&client));
            let asked = stream.send(Some(request()), Gather::default(), End::Whole(b""));
            asked.await.unwrap();
            client.end(Ended::Closed);
            assert_eq!(received(&stream).await, Err(StreamFailure::Ended));
            assert_eq!(client.ended(), Some(Ended::Closed));
        },
        serve,
    );
}

/// Amid a head nothing else can come (RFC 9113 section 4.3).
#[test]
fn a_head_that_is_late_fails_every_stream() {
    run(async {
        let (near, mut far) = UnixStream::pair().unwrap();
        let client = driven_client(Transport::from_connected(near.into()).unwrap());
        let streams = [(); 2].map(|()| Http2Stream::on(Rc::clone(&client)));
        for stream in &streams {
            let asked = stream.send(Some(request()), Gather::default(), End::Whole(b""));
            asked.await.unwrap();
        }
        assert_eq!(client.unfinished_since(), None);
        // SETTINGS, and a head without its end.
        far.write_all(b"\0\0\0\x04\0\0\0\0\0").unwrap();
        far.write_all(b"\0\0\x01\x01\x04\0\0\0\x01").unwrap();
        let first = loop {
            timer::sleep(Duration::from_millis(2)).await;
            if let Some(since) = client.unfinished_since() {
                break since;
            }
        };
        let begun = || streams.each_ref().map(Http2Stream::has_begun_section);
        assert_eq!(begun(), [true, false]);
        // The end, and the beginning of the next one, which has a time of its own.
        far.write_all(b"\x88\0\0\x01").unwrap();
        while client.unfinished_since() == Some(first) {
            timer::sleep(Duration::from_millis(2)).await;
        }
        assert!(client.unfinished_since() > Some(first));
        assert_eq!(begun(), [false; 2], "of what stream it is is not known");
        client.end_for_slowness();
        assert!(matches!(streams[0].try_recv(), Some(Received::Head(_))));
        let failures = streams.map(|stream| stream.failure());
        assert_eq!(failures, [Some(StreamFailure::Slow); 2]);
    });
}
