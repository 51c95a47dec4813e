//! Looks at the first bytes of a client without consuming them.

use std::time::Duration;

use crate::combinators::{First, first};
use crate::proxy::client::{Client, Patience};
use crate::ring::{self, Chunk, timer};
use crate::sniff;
use crate::sniff::{ServerName, Sniff};
use crate::transport::Transport;

/// How long more is waited for where the first bytes are too few to tell. Who
/// speaks HTTP or TLS sends the rest at once; anybody else waits for an answer.
const SNIFF_MORE: Duration = Duration::from_millis(100);

/// Reads until the first bytes tell what they are; they stay in `ahead`. Too
/// few of them before a FIN are no HTTP and no TLS, but may be all that a
/// client has to say. `None`: it broke off.
pub(super) async fn classify(client: &mut Client, idle: Duration) -> Option<Sniff> {
    let mut unfinished = Sniff::NeedMore;
    let tell = |bytes: &[u8]| match sniff::sniff(bytes) {
        told @ (Sniff::NeedMore | Sniff::RequestLine) => {
            unfinished = told;
            None
        }
        known => Some(known),
    };
    let within = PeekTimes {
        first: idle,
        rest: SNIFF_MORE,
    };
    match look_ahead(client, within, tell).await {
        Peek::Known(told) => Some(told),
        Peek::Silent if unfinished == Sniff::RequestLine => Some(Sniff::Http1),
        Peek::Silent | Peek::Finished => Some(Sniff::Opaque),
        Peek::Broken => None,
    }
}

/// Who speaks first between a client and a server.
pub(super) enum FirstSpeaker {
    /// The client, and like this.
    Client(Sniff),
    /// The server, or it has ended.
    Server,
    /// Neither, for too long.
    Nobody,
    /// The client broke off.
    Ended,
}

/// Waits for the first bytes of either side; those of the client tell what it
/// speaks.
pub(super) async fn who_speaks(
    client: &mut Client,
    server: &Transport,
    silence: Duration,
    idle: Duration,
) -> FirstSpeaker {
    if client.ahead.is_none() {
        let spoke = first(client.stream.readable(), server.readable());
        match timer::timeout(silence, spoke).await {
            Err(_) => return FirstSpeaker::Nobody,
            Ok(First::Right(())) => return FirstSpeaker::Server,
            Ok(First::Left(())) => {}
        }
    }
    match classify(client, idle).await {
        Some(sniff) => FirstSpeaker::Client(sniff),
        None => FirstSpeaker::Ended,
    }
}

/// What came of looking ahead.
enum Peek<T> {
    /// The bytes told it.
    Known(T),
    /// They did not, and no more came in time.
    Silent,
    /// Nor will more come: a FIN.
    Finished,
    /// The connection broke off, or nothing came at all.
    Broken,
}

/// How long is waited for bytes.
#[derive(Debug, Clone, Copy)]
struct PeekTimes {
    /// For the first.
    first: Duration,
    /// From these on for all others.
    rest: Duration,
}

/// Reads until `tell` can tell something of all bytes so far, which it must
/// within a bound of its own; they stay in `ahead` in any case.
async fn look_ahead<T>(
    client: &mut Client,
    within: PeekTimes,
    mut tell: impl FnMut(&[u8]) -> Option<T>,
) -> Peek<T> {
    let Some(mut bytes) = client.next(within.first).await else {
        return match client.stream.ended_with_fin() {
            true => Peek::Finished,
            false => Peek::Broken,
        };
    };
    let mut until = None;
    loop {
        if let Some(told) = tell(&bytes) {
            client.ahead = Some(bytes);
            return Peek::Known(told);
        }
        bytes.detach();
        client.member.keeps(bytes.len());
        let until = *until.get_or_insert_with(|| ring::now() + within.rest);
        let ended = match client.stream.recv_by(until).await {
            Ok(Ok(Some(more))) => {
                bytes = Chunk::from([&bytes[..], &more[..]].concat());
                continue;
            }
            Ok(Ok(None)) => Peek::Finished,
            Ok(Err(_)) => Peek::Broken,
            Err(_) => Peek::Silent,
        };
        client.ahead = Some(bytes);
        return ended;
    }
}

/// The server name that a TLS client asks for, if any. `None`: it broke off, or
/// fell silent.
pub(super) async fn server_name(client: &mut Client, patience: Patience) -> Option<Option<String>> {
    let tell = |bytes: &[u8]| match sniff::server_name(bytes) {
        ServerName::NeedMore => None,
        known => Some(known),
    };
    let within = PeekTimes {
        first: patience.idle(),
        rest: patience.head(),
    };
    match look_ahead(client, within, tell).await {
        Peek::Known(ServerName::Name(name)) => Some(Some(name)),
        Peek::Known(ServerName::Absent | ServerName::NeedMore) | Peek::Finished => Some(None),
        Peek::Silent | Peek::Broken => None,
    }
}
