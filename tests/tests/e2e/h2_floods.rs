//! Floods over HTTP/2: too much of what the protocol allows. The connection ends with
//! ENHANCE_YOUR_CALM, is counted, and nobody else notices.

mod callers;
mod upstreams;

use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ambassador_tests::http2::{Frame, code, flag, kind};
use ambassador_tests::{Backend, Client, Proxy, Server, on_both_backends};

on_both_backends!(callers_are_held_to_limits, upstreams_are_held_to_limits);

/// What a flood may cost the proxy while it lasts.
const MEMORY_MAX: u64 = 32 << 20;

/// Frames of one flood at most: five times what may come at once. All of it is less
/// than what the proxy reads on for, so that no reset destroys its last word.
const FRAMES_MAX: u32 = 10_000;

/// A flood: the frames of its beginning, and those of each of its rounds.
struct Flood {
    what: &'static str,
    /// The label that it is counted under.
    cause: &'static str,
    /// Sent once.
    begins: Vec<Frame>,
    /// Sent again and again, with the number of the round.
    round: Box<dyn Fn(u32) -> Vec<Frame> + Send + Sync>,
}

impl Flood {
    fn of(
        what: &'static str,
        cause: &'static str,
        round: impl Fn(u32) -> Vec<Frame> + Send + Sync + 'static,
    ) -> Flood {
        Flood {
            what,
            cause,
            begins: Vec::new(),
            round: Box::new(round),
        }
    }

    fn after(mut self, frame: Frame) -> Flood {
        self.begins.push(frame);
        self
    }

    /// Sends it until the other end has told of its end, takes no more, or has got it all.
    fn send(&self, is_told: &AtomicBool, mut put: impl FnMut(&[u8]) -> io::Result<()>) {
        let mut bytes: Vec<u8> = self.begins.iter().flat_map(Frame::bytes).collect();
        let mut frames = 0;
        for round in 0..FRAMES_MAX {
            for frame in (self.round)(round) {
                bytes.extend(frame.bytes());
                frames += 1;
            }
            let is_last = frames >= FRAMES_MAX;
            if bytes.len() > 8_000 || is_last {
                if put(&bytes).is_err() || is_last || is_told.load(Ordering::SeqCst) {
                    return;
                }
                bytes.clear();
            }
        }
    }
}

/// The stream of a round: the first is used by what begins.
fn stream(round: u32) -> u32 {
    2 * round + 3
}

/// Sends a flood while what comes is read. The code of the last GOAWAY.
fn play(flood: &Flood, reads: TcpStream, put: impl FnMut(&[u8]) -> io::Result<()>) -> Option<u32> {
    let is_told = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| last_word(reads, &is_told));
        flood.send(&is_told, put);
        reader.join().expect("no panic")
    })
}

/// Reads to the end, or until the connection is reset. The code of the last GOAWAY.
fn last_word(mut reads: TcpStream, is_told: &AtomicBool) -> Option<u32> {
    let timeout = reads.set_read_timeout(Some(PATIENCE));
    timeout.expect("a valid duration");
    let mut word = None;
    let mut head = [0; 9];
    while reads.read_exact(&mut head).is_ok() {
        let [a, b, c, frame_kind, flags, ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        if reads.read_exact(&mut payload).is_err() {
            break;
        }
        if frame_kind == kind::GOAWAY {
            word = Frame::new(frame_kind, flags, 0, payload).code();
            is_told.store(true, Ordering::SeqCst);
        }
    }
    word
}

/// Does something while a client gets its answers and `/livez` its own.
#[track_caller]
fn beside<R>(what: &str, proxy: &Proxy, mut client: Client, flood: impl FnOnce() -> R) -> R {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let witness = scope.spawn(|| {
            let mut answers = 0;
            while !is_over.load(Ordering::SeqCst) || answers == 0 {
                assert_eq!(client.get("/").status, 200, "{what}");
                assert_eq!(proxy.admin_status("/livez"), Some(200), "{what}");
                answers += 1;
            }
        });
        let result = flood();
        is_over.store(true, Ordering::SeqCst);
        assert!(witness.join().is_ok(), "others are served beside: {what}");
        result
    })
}

/// A proxy before an upstream for `/flooded`, and another one for the rest.
fn two_upstreams(listen: SocketAddr, flooded: &Server, more: &str, other: &Server) -> String {
    format!(
        "listeners: [{{ name: in, bind: \"{listen}\", protocol: http }}]\n\
         routes:\n  \
         - {{ match: {{ path_prefix: /flooded }}, upstream: flooded }}\n  \
         - {{ match: {{ path_prefix: / }}, upstream: other }}\n\
         upstreams:\n  \
         flooded: {{ endpoints: [\"{}\"]{more} }}\n  \
         other: {{ endpoints: [\"{}\"] }}\n",
        flooded.address(),
        other.address()
    )
}

/// Floods that a client can send as well as a server. `own` is a stream that is open.
fn of_both(own: u32) -> Vec<Flood> {
    let settings = |round: u32| vec![Frame::settings(&[(4, 65_535 - round % 2)])];
    vec![
        Flood::of("PING", "control-frames", |_| vec![Frame::ping(b"12345678")]),
        Flood::of("SETTINGS", "control-frames", settings),
        Flood::of("SETTINGS of many parameters", "settings", |_| {
            vec![Frame::settings(&[(3, 100); 2_000])]
        }),
        Flood::of("PRIORITY", "control-frames", |round| {
            vec![Frame::priority(stream(round), 0, 1)]
        }),
        Flood::of("empty DATA", "control-frames", move |_| {
            vec![Frame::data(own, "")]
        }),
        Flood::of("DATA of padding", "control-frames", move |_| {
            vec![Frame::data(own, "").padded(10)]
        }),
        Flood::of("a window opened by the byte", "control-frames", |_| {
            vec![Frame::window_update(0, 1)]
        }),
        Flood::of(
            "frames of a kind that is not known",
            "control-frames",
            |_| vec![Frame::new(0x33, 0, 0, *b"what")],
        ),
        Flood::of("PING that is told to be answered", "control-frames", |_| {
            vec![Frame::ping(b"87654321").with(flag::ACK)]
        }),
    ]
}

fn callers_are_held_to_limits(backend: Backend) {
    callers::hold(backend);
}

fn upstreams_are_held_to_limits(backend: Backend) {
    upstreams::hold(backend);
}

/// It is counted once, and costs no memory that stays.
#[track_caller]
fn expect_counted(proxy: &Proxy, flood: &Flood, peer: &str, before: f64) {
    let labels = [("peer", peer), ("cause", flood.cause)];
    proxy.expect_metric("ambassador_http2_floods_total", &labels, before + 1.0);
}

fn counted(proxy: &Proxy, flood: &Flood, peer: &str) -> f64 {
    let labels = [("peer", peer), ("cause", flood.cause)];
    proxy.metric("ambassador_http2_floods_total", &labels)
}

/// Where the peer has said what it thinks of a flood.
#[track_caller]
fn expect_calm(flood: &Flood, word: Option<u32>) {
    assert_eq!(word, Some(code::ENHANCE_YOUR_CALM), "{}", flood.what);
}

/// How long a flood may be read for.
const PATIENCE: Duration = Duration::from_secs(20);
