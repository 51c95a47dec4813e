//! Looks at the first bytes of a client without consuming them.

use std::time::Duration;

use crate::combinators::{First, first};
use crate::proxy::caller_end::CallerEnd;
use crate::proxy::client::Patience;
use crate::ring::{self, Chunk, timer};
use crate::sniff;
use crate::sniff::{HelloReader, ServerName, Sniff};
use crate::telemetry::TcpOutcome;
use crate::transport::Transport;

/// How long more is waited for where the first bytes are too few to tell. Who
/// speaks HTTP or TLS sends the rest at once; anybody else waits for an answer.
const SNIFF_MORE: Duration = Duration::from_millis(100);

/// The same after a first byte that begins a TLS record: little else begins with it,
/// and what holds for a server name is not to be got around by a pause.
const SNIFF_MORE_TLS: Duration = Duration::from_secs(1);

/// Reads until the first bytes tell what they are; they stay in `ahead`. Too
/// few of them before a FIN are no HTTP and no TLS, but may be all that a
/// client has to say. `None`: it broke off.
pub(super) async fn classify(caller: &mut CallerEnd<'_>, idle: Duration) -> Option<Sniff> {
    let mut unfinished = Sniff::NeedMore;
    let mut tell = |bytes: &[u8]| match sniff::sniff(bytes) {
        told @ (Sniff::NeedMore | Sniff::RequestLine) => {
            unfinished = told;
            None
        }
        known => Some(known),
    };
    let mut within = PeekTimes {
        first: idle,
        rest: SNIFF_MORE,
    };
    let mut peek = look_ahead(caller, within, &mut tell).await;
    let first = caller.ahead.as_deref();
    if matches!(peek, Peek::Silent) && first == Some(&[sniff::TLS_HANDSHAKE]) {
        within.rest = SNIFF_MORE_TLS;
        peek = look_ahead(caller, within, tell).await;
    }
    match peek {
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
    caller: &mut CallerEnd<'_>,
    server: &Transport,
    silence: Duration,
    idle: Duration,
) -> FirstSpeaker {
    if caller.ahead.is_none() {
        let spoke = first(caller.end.readable(), server.readable());
        match timer::timeout(silence, spoke).await {
            Err(_) => return FirstSpeaker::Nobody,
            Ok(First::Right(())) => return FirstSpeaker::Server,
            Ok(First::Left(())) => {}
        }
    }
    match classify(caller, idle).await {
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
    caller: &mut CallerEnd<'_>,
    within: PeekTimes,
    mut tell: impl FnMut(&[u8]) -> Option<T>,
) -> Peek<T> {
    let Some(first) = caller.next(within.first).await else {
        return match caller.end.has_ended() {
            true => Peek::Finished,
            false => Peek::Broken,
        };
    };
    if let Some(told) = tell(&first) {
        *caller.ahead = Some(first);
        return Peek::Known(told);
    }
    let until = ring::now() + within.rest;
    let mut bytes = first.to_vec();
    drop(first);
    let outcome = loop {
        caller.member.keeps(bytes.capacity());
        match caller.end.recv_by(until).await {
            Ok(Ok(Some(more))) => bytes.extend_from_slice(&more),
            Ok(Ok(None)) => break Peek::Finished,
            Ok(Err(_)) => break Peek::Broken,
            Err(_) => break Peek::Silent,
        }
        if let Some(told) = tell(&bytes) {
            break Peek::Known(told);
        }
    };
    *caller.ahead = Some(Chunk::from(bytes));
    outcome
}

/// Why a hello does not end.
pub(super) struct HelloFailure {
    /// How that is counted.
    pub outcome: TcpOutcome,
    /// What the log says of it.
    pub detail: &'static str,
}

impl HelloFailure {
    const TOO_LONG: Self = Self {
        outcome: TcpOutcome::BadRequest,
        detail: "the TLS hello is longer than 64 KiB",
    };
    const TOO_SLOW: Self = Self {
        outcome: TcpOutcome::BadRequest,
        detail: "the TLS hello did not end within timeouts.head",
    };
    const BROKEN_OFF: Self = Self {
        outcome: TcpOutcome::ClientReset,
        detail: "the client left amid its TLS hello",
    };
    const SHED: Self = Self {
        outcome: TcpOutcome::Overloaded,
        detail: "the client was shed amid its TLS hello",
    };
}

/// The server name that a TLS client asks for, if any.
///
/// # Errors
/// How the connection ends whose hello does not.
pub(super) async fn server_name(
    caller: &mut CallerEnd<'_>,
    patience: Patience,
) -> Result<Option<String>, HelloFailure> {
    let mut hello = HelloReader::default();
    let tell = |bytes: &[u8]| match hello.read(bytes) {
        ServerName::NeedMore => None,
        known => Some(known),
    };
    let within = PeekTimes {
        first: patience.idle(),
        rest: patience.head(),
    };
    match look_ahead(caller, within, tell).await {
        Peek::Known(ServerName::Name(name)) => Ok(Some(name)),
        Peek::Known(ServerName::Absent | ServerName::NeedMore) | Peek::Finished => Ok(None),
        Peek::Known(ServerName::TooLong) => Err(HelloFailure::TOO_LONG),
        Peek::Silent => Err(HelloFailure::TOO_SLOW),
        Peek::Broken if caller.member.is_shed() => Err(HelloFailure::SHED),
        Peek::Broken => Err(HelloFailure::BROKEN_OFF),
    }
}
