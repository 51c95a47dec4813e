//! A session of rustls over a stream of the ring.
//!
//! What arrives is decrypted as it is received, and nothing is sent by receiving:
//! the answer to a key update goes along with what is sent next (RFC 8446 section
//! 4.6.3). What is sent is encrypted when the send begins.
//!
//! What connections in clear do as well is not inlined, so that they pay for a branch
//! alone.

use std::cell::{RefCell, RefMut};
use std::io::{self, BufRead, IoSlice, Write};
use std::task::{Context, Poll, ready};

use rustls::pki_types::CertificateDer;
use rustls::{CipherSuite, Connection, HandshakeKind, NamedGroup, ProtocolVersion};

use super::outcome::refusal;
use super::{alpn, certificate};
use crate::clock::{self, Instant};
use crate::ring::timer::Elapsed;
use crate::ring::{self, Chunk, Gather, SendError, Stream, StreamId};
use crate::telemetry::{Resumption, TlsCipher, TlsGroup, TlsOutcome, TlsSummary, TlsVersion};

/// What a record adds to its bytes, at most (RFC 8446 section 5.2, RFC 5246 section
/// 6.2.3.3).
const RECORD_OVERHEAD: usize = 32;

/// The most bytes in a record (RFC 8446 section 5.1).
const RECORD_BYTES: usize = 16 * 1024;

/// A session over a stream, which each call is given. Boxed, as most connections have
/// none.
#[derive(Debug)]
pub(crate) struct Session(Box<RefCell<State>>);

/// What was agreed upon, with the keys: what goes on over the same socket on another
/// shard.
#[derive(Debug)]
pub(crate) struct Agreement {
    connection: Connection,
    summary: TlsSummary,
}

/// A session amid its use.
#[derive(Debug)]
struct State {
    /// `None`: it goes on on another shard.
    agreement: Option<Agreement>,
    stream: StreamId,
    /// Decrypted, and not given out yet.
    received: Option<Chunk>,
    end: Option<End>,
    /// What the peer has got may be a part: it is not told that it was all (RFC 8446
    /// section 6.1).
    is_cut: bool,
    outgoing: Outgoing,
}

/// How receiving has ended.
#[derive(Debug)]
enum End {
    /// The peer has said that it sends no more.
    Closed,
    /// The connection ended without that: what came may be a part.
    Cut,
    /// What came is not what the peer sent.
    Broken(rustls::Error),
}

/// What of the sent bytes may not have left this process, unencrypted: should none
/// of it leave, it may go over another connection.
#[derive(Debug, Default)]
enum Outgoing {
    /// Nothing.
    #[default]
    None,
    /// The bytes of one send.
    One(Box<Gather>),
    /// Those of several, of which it is not known how many have left.
    Several,
}

impl Session {
    /// A session over the stream that it was agreed upon over, or over one with the
    /// same socket on another shard.
    pub(crate) fn new(stream: &Stream, agreement: Agreement) -> Self {
        Self::after_handshake(stream, agreement, None)
    }

    /// The same with what came right behind the handshake.
    pub(super) fn after_handshake(
        stream: &Stream,
        agreement: Agreement,
        received: Option<Chunk>,
    ) -> Self {
        Self(Box::new(RefCell::new(State {
            agreement: Some(agreement),
            stream: stream.id(),
            received,
            end: None,
            is_cut: false,
            outgoing: Outgoing::None,
        })))
    }

    fn state(&self) -> RefMut<'_, State> {
        self.0.borrow_mut()
    }

    /// What was agreed upon.
    #[inline(never)]
    pub(crate) fn summary(&self) -> TlsSummary {
        self.state().agreement().summary
    }

    /// Whether HTTP/2 is spoken over it.
    pub(crate) fn is_http2(&self) -> bool {
        alpn::is_http2(self.state().agreement().connection.alpn_protocol())
    }

    /// How the peer has refused what it was shown; `None`: it has not.
    pub(crate) fn refusal(&self, stream: &Stream) -> Option<TlsOutcome> {
        // It may have come while something was sent.
        while !self.has_news() && self.take_arrived(stream) {}
        match &self.state().end {
            Some(End::Broken(rustls::Error::AlertReceived(alert))) => refusal(*alert),
            _ => None,
        }
    }

    /// Whether the certificate that the peer has shown, now or in the session that is
    /// taken up again, has come to its end.
    pub(super) fn peer_has_expired(&self) -> bool {
        let mut state = self.state();
        let chain = state.agreement().connection.peer_certificates();
        let leaf = chain.and_then(|chain| chain.first());
        let end = leaf.and_then(|leaf| certificate::not_after(leaf));
        end.is_some_and(|end| end < clock::unix_ms() / 1_000)
    }

    /// The certificate that the peer has shown, in DER.
    pub(crate) fn peer_certificate(&self) -> Option<CertificateDer<'static>> {
        let mut state = self.state();
        let chain = state.agreement().connection.peer_certificates()?;
        chain.first().cloned()
    }

    /// The next bytes; `None`: the peer has said that it sends no more.
    ///
    /// # Errors
    /// `UnexpectedEof` where the connection ended without that, `InvalidData` for what
    /// the peer did not send, and what the kernel says.
    #[inline(never)]
    pub(crate) fn poll_recv(
        &self,
        stream: &Stream,
        context: &Context<'_>,
    ) -> Poll<io::Result<Option<Chunk>>> {
        let mut state = self.state();
        loop {
            if let Some(chunk) = state.received.take() {
                return Poll::Ready(Ok(Some(chunk)));
            }
            if let Some(end) = &state.end {
                return Poll::Ready(end.result());
            }
            match ready!(stream.poll_recv(context))? {
                Some(chunk) => state.open(&chunk),
                None => state.end = Some(End::Cut),
            }
        }
    }

    /// The same, but not past `deadline`. What is here already comes even then.
    #[inline(never)]
    pub(crate) fn poll_recv_by(
        &self,
        stream: &Stream,
        deadline: Instant,
        context: &Context<'_>,
    ) -> Poll<Result<io::Result<Option<Chunk>>, Elapsed>> {
        match self.poll_recv(stream, context) {
            Poll::Ready(received) => Poll::Ready(Ok(received)),
            Poll::Pending => stream.poll_elapsed(deadline, context).map(Err),
        }
    }

    /// Ready when bytes, the end or an error wait; takes nothing.
    #[inline(never)]
    pub(crate) fn poll_readable(&self, stream: &Stream, context: &Context<'_>) -> Poll<()> {
        loop {
            if self.has_news() {
                return Poll::Ready(());
            }
            ready!(stream.poll_readable(context));
            if !self.take_arrived(stream) {
                return Poll::Ready(());
            }
        }
    }

    /// The same, but not past `deadline`.
    #[inline(never)]
    pub(crate) fn poll_readable_by(
        &self,
        stream: &Stream,
        deadline: Instant,
        context: &Context<'_>,
    ) -> Poll<Result<(), Elapsed>> {
        match self.poll_readable(stream, context) {
            Poll::Ready(()) => Poll::Ready(Ok(())),
            Poll::Pending => stream.poll_elapsed(deadline, context).map(Err),
        }
    }

    /// Bytes that have arrived already.
    #[inline(never)]
    pub(crate) fn try_recv(&self, stream: &Stream) -> Option<Chunk> {
        loop {
            let received = self.state().received.take();
            if received.is_some() || !self.take_arrived(stream) {
                return received;
            }
        }
    }

    /// Whether bytes, the end or an error wait to be received, or something is still
    /// being sent. Tickets and key updates are none of these.
    #[inline(never)]
    pub(crate) fn is_closed_or_busy(&self, stream: &Stream) -> bool {
        loop {
            if self.has_news() {
                return true;
            }
            if !self.take_arrived(stream) {
                return stream.is_closed_or_busy();
            }
        }
    }

    /// Whether the peer has said that it sends no more, and all before it was received.
    pub(crate) fn ended_in_order(&self) -> bool {
        let state = self.state();
        state.received.is_none() && matches!(state.end, Some(End::Closed))
    }

    /// Encrypts what is to be sent next.
    #[inline(never)]
    pub(crate) fn seal(&self, gather: Gather) -> Gather {
        self.state().seal(gather)
    }

    /// The error of a send, with the bytes as they were before they were encrypted.
    #[cold]
    pub(crate) fn unsealed(&self, mut error: SendError) -> SendError {
        let outgoing = std::mem::take(&mut self.state().outgoing);
        error.unsent = match (error.unsent, outgoing) {
            (Some(_), Outgoing::One(gather)) => Some(gather),
            _ => None,
        };
        error
    }

    /// Tells the peer that no more comes (RFC 8446 section 6.1), as far as it can be
    /// told without waiting.
    pub(crate) fn close_write(&self) {
        self.state().close_write();
    }

    /// The peer is told nothing when it closes: what it has got may be a part.
    #[cold]
    pub(crate) fn cut(&self) {
        self.state().is_cut = true;
    }

    /// What goes on over the same socket on another shard.
    pub(crate) fn into_agreement(self) -> Option<Agreement> {
        self.state().agreement.take()
    }

    /// Decrypts what has arrived; `false`: nothing has.
    fn take_arrived(&self, stream: &Stream) -> bool {
        let arrived = stream.try_recv();
        if let Some(chunk) = &arrived {
            self.state().open(chunk);
        }
        arrived.is_some()
    }

    fn has_news(&self) -> bool {
        let state = self.state();
        state.received.is_some() || state.end.is_some()
    }
}

impl Agreement {
    /// That of a handshake that is over.
    pub(super) fn new(mut connection: Connection) -> Self {
        // It bounds what waits unencrypted, which nothing does from here on.
        connection.set_buffer_limit(None);
        Self {
            summary: summary(&connection),
            connection,
        }
    }
}

impl State {
    fn agreement(&mut self) -> &mut Agreement {
        self.agreement.as_mut().expect("it is only taken to leave")
    }

    fn close_write(&mut self) {
        self.agreement().connection.send_close_notify();
        self.send_last();
    }

    fn send_last(&mut self) {
        let bytes = self.take_ciphertext(0);
        ring::send_last(self.stream, &bytes);
    }

    /// Decrypts a part of what the peer sends.
    fn open(&mut self, chunk: &[u8]) {
        self.outgoing = Outgoing::None;
        let mut plain = None;
        match open(&mut self.agreement().connection, chunk, &mut plain) {
            Ok(Progress::More) => {}
            Ok(Progress::Closed) => self.end = Some(End::Closed),
            Err(error) => self.end = Some(End::Broken(error)),
        }
        self.received = plain;
    }

    fn seal(&mut self, gather: Gather) -> Gather {
        let slices: Vec<_> = gather.chunks().map(|chunk| IoSlice::new(chunk)).collect();
        // As its buffer has no limit, a session takes everything at once.
        let taken = self.agreement().connection.writer().write_vectored(&slices);
        debug_assert!(taken.is_ok_and(|taken| taken == gather.bytes()));
        let sealed = self.take_ciphertext(gather.bytes());
        self.outgoing = match std::mem::take(&mut self.outgoing) {
            Outgoing::None => {
                let mut gather = gather;
                gather.detach();
                Outgoing::One(Box::new(gather))
            }
            Outgoing::One(_) | Outgoing::Several => Outgoing::Several,
        };
        sealed.into()
    }

    /// What is to be sent, of so many bytes unencrypted.
    fn take_ciphertext(&mut self, bytes: usize) -> Chunk {
        let records = bytes / RECORD_BYTES + 1;
        take_ciphertext(
            &mut self.agreement().connection,
            bytes + records * RECORD_OVERHEAD,
        )
    }
}

fn summary(connection: &Connection) -> TlsSummary {
    let version = match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => TlsVersion::Tls13,
        _ => TlsVersion::Tls12,
    };
    let group = connection.negotiated_key_exchange_group();
    let group = match group.map(|group| group.name()) {
        Some(NamedGroup::X25519MLKEM768) => TlsGroup::X25519MlKem768,
        Some(NamedGroup::X25519) => TlsGroup::X25519,
        Some(NamedGroup::secp256r1) => TlsGroup::Secp256r1,
        Some(NamedGroup::secp384r1) => TlsGroup::Secp384r1,
        Some(_) => TlsGroup::Other,
        // A resumed session of TLS 1.2 exchanges no keys.
        None => TlsGroup::None,
    };
    TlsSummary {
        version,
        group,
        cipher: cipher(connection),
        resumption: match connection.handshake_kind() {
            Some(HandshakeKind::Resumed) => Resumption::Resumed,
            _ => Resumption::Full,
        },
    }
}

fn cipher(connection: &Connection) -> TlsCipher {
    use CipherSuite as Suite;
    let suite = connection.negotiated_cipher_suite();
    match suite.map(|suite| suite.suite()) {
        Some(Suite::TLS13_AES_128_GCM_SHA256) => TlsCipher::Aes128,
        Some(Suite::TLS13_AES_256_GCM_SHA384) => TlsCipher::Aes256,
        Some(Suite::TLS13_CHACHA20_POLY1305_SHA256) => TlsCipher::ChaCha20,
        Some(Suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256) => TlsCipher::EcdsaAes128,
        Some(Suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384) => TlsCipher::EcdsaAes256,
        Some(Suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256) => TlsCipher::EcdsaChaCha20,
        Some(Suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256) => TlsCipher::RsaAes128,
        Some(Suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384) => TlsCipher::RsaAes256,
        Some(Suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256) => TlsCipher::RsaChaCha20,
        _ => TlsCipher::Other,
    }
}

impl End {
    fn result(&self) -> io::Result<Option<Chunk>> {
        match self {
            Self::Closed => Ok(None),
            Self::Cut => Err(io::ErrorKind::UnexpectedEof.into()),
            Self::Broken(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error.clone())),
        }
    }
}

impl Drop for State {
    /// Tells the peer that its connection closes, or what was wrong with what it sent.
    fn drop(&mut self) {
        match &self.end {
            _ if self.agreement.is_none() => {}
            None | Some(End::Closed) if !self.is_cut => self.close_write(),
            // The alert waits (RFC 8446 section 6.2). It is for the peer's log.
            Some(End::Broken(_)) => self.send_last(),
            _ => {}
        }
    }
}

/// Whether the peer goes on sending.
pub(super) enum Progress {
    /// It may.
    More,
    /// It has said that it does not.
    Closed,
}

/// Hands what the peer sent to a session, and adds the bytes that it decrypts.
pub(super) fn open(
    connection: &mut Connection,
    mut chunk: &[u8],
    plain: &mut Option<Chunk>,
) -> Result<Progress, rustls::Error> {
    let mut opened = Vec::new();
    let mut progress = Progress::More;
    let result = loop {
        if chunk.is_empty() {
            break Ok(());
        }
        // All before it was processed, so there is room for it.
        if let Err(error) = connection.read_tls(&mut chunk) {
            break Err(rustls::Error::General(error.to_string()));
        }
        let state = match connection.process_new_packets() {
            Ok(state) => state,
            Err(error) => break Err(error),
        };
        let mut reader = connection.reader();
        while let Ok(bytes @ [_, ..]) = reader.fill_buf() {
            opened.extend_from_slice(bytes);
            let count = bytes.len();
            reader.consume(count);
        }
        if state.peer_has_closed() {
            progress = Progress::Closed;
            break Ok(());
        }
    };
    if !opened.is_empty() {
        *plain = Some(opened.into());
    }
    result.map(|()| progress)
}

/// What a session wants to send, about so many bytes.
pub(super) fn take_ciphertext(connection: &mut Connection, bytes: usize) -> Chunk {
    Chunk::written(bytes, |out| {
        while connection.wants_write() {
            // A vector takes everything.
            if connection.write_tls(&mut Taker(out)).is_err() {
                break;
            }
        }
    })
}

/// Appends to a buffer all that it is given.
struct Taker<'a>(&'a mut Vec<u8>);

impl Write for Taker<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
