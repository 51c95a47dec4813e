//! Opaque bytes in both directions: TCP relays, upgrades, CONNECT.
//!
//! A FIN of one side, which a stream calls END_STREAM, is passed to the other, which may
//! go on sending (half-close). Any other end is a reset of both, so that nobody takes a part
//! for the whole: of one side, by silence, or of the tunnel itself when the
//! drain cuts it.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use crate::clock::Instant;
use crate::combinators::{First, both, first};
use crate::proxy::shortage::is_shortage;
use crate::proxy::tunnel_end::TunnelEnd;
use crate::ring::{self, Chunk, Gather, timer};
use crate::telemetry::{Cells, Direction, Passage, TcpOutcome, TlsOutcome};

/// Where the bytes are counted, and when silence ends the tunnel.
pub(crate) struct Tunnel<'a> {
    /// For the metrics.
    pub cells: &'a Cells,
    /// For the log; it says under which upstream the metrics count.
    pub passage: &'a Passage,
    /// What its client was sent before it, in bytes.
    pub answered_bytes: u64,
    /// Silence in both directions that ends it.
    pub silence: Duration,
    /// `tcp_keepalive` of the upstream, which may pause reading for longer.
    pub keep_alive: Option<Duration>,
}

impl Tunnel<'_> {
    /// Relays until both sides have ended, one is reset or nothing moves for
    /// `silence`; the caller closes both then. `client_first` and `upstream_first` were received before.
    pub(crate) async fn run(
        &self,
        client: TunnelEnd<'_>,
        client_first: Option<Chunk>,
        upstream: TunnelEnd<'_>,
        upstream_first: Option<Chunk>,
    ) -> TcpOutcome {
        let mut cut = Cut(Some([client, upstream]));
        let moved = Cell::new(ring::now());
        let relay = both(
            self.relay(client, upstream, client_first, Direction::Sent, &moved),
            self.relay(
                upstream,
                client,
                upstream_first,
                Direction::Received,
                &moved,
            ),
        );
        // Whichever side the relay waits for: its client may be gone.
        let relay = first(relay, client.reset());
        match first(relay, self.watch(upstream, &moved)).await {
            First::Left(First::Left(Ok(_))) => {
                cut.0 = None;
                TcpOutcome::Closed
            }
            First::Left(First::Left(Err(outcome))) => outcome,
            First::Left(First::Right(())) => TcpOutcome::ClientReset,
            First::Right(()) => TcpOutcome::IdleTimeout,
        }
    }

    /// How the upstream has refused what it was shown, behind its handshake, where a
    /// relay has ended so before it said anything else.
    pub(crate) fn refusal(&self, upstream: TunnelEnd<'_>, ended: TcpOutcome) -> Option<TlsOutcome> {
        let has_spoken = self.passage.bytes_out.get() > self.answered_bytes;
        let is_it = ended == TcpOutcome::UpstreamReset && !has_spoken;
        upstream.refusal().filter(|_| is_it)
    }

    /// Resolves when nothing has moved for the silence that ends it. The timer is
    /// armed once for each silence and each look at the upstream, not per byte.
    async fn watch(&self, upstream: TunnelEnd<'_>, moved: &Cell<Instant>) {
        let look = |silence| ring::now() + ring::look_every(silence);
        let mut look_at = self.keep_alive.map(|silence| (silence, look(silence)));
        loop {
            let due = moved.get() + self.silence;
            if due <= ring::now() {
                return;
            }
            if let Some((silence, at)) = &mut look_at
                && *at <= ring::now()
            {
                upstream.allow_pause(*silence);
                *at = look(*silence);
            }
            let next = look_at.map_or(due, |(_, at)| at.min(due));
            timer::sleep_until(next).await;
        }
    }

    async fn relay(
        &self,
        from: TunnelEnd<'_>,
        to: TunnelEnd<'_>,
        received: Option<Chunk>,
        direction: Direction,
        moved: &Cell<Instant>,
    ) -> Result<(), TcpOutcome> {
        let passed = |bytes| self.cells.meter(self.passage, direction, bytes);
        pass(from, to, received, moved, passed)
            .await
            .map_err(|failed| failed.outcome(direction))
    }
}

/// Which of two ends has failed, and how.
pub(crate) enum EndFailure {
    /// The one that bytes came from.
    From(io::Error),
    /// The one that they went to.
    To(io::Error),
}

impl EndFailure {
    /// What ends a tunnel so: a shortage of this machine, else a reset.
    fn outcome(&self, direction: Direction) -> TcpOutcome {
        let (Self::From(error) | Self::To(error)) = self;
        match (self, direction) {
            _ if is_shortage(error) => TcpOutcome::Overloaded,
            (Self::From(_), Direction::Sent) | (Self::To(_), Direction::Received) => {
                TcpOutcome::ClientReset
            }
            (Self::From(_), Direction::Received) | (Self::To(_), Direction::Sent) => {
                TcpOutcome::UpstreamReset
            }
        }
    }
}

/// Passes on what comes from one end to the other one, the end included. `received` came
/// before; `moved` tells when something did last, and `passed` is told how much.
pub(crate) async fn pass(
    from: TunnelEnd<'_>,
    to: TunnelEnd<'_>,
    mut received: Option<Chunk>,
    moved: &Cell<Instant>,
    passed: impl Fn(u64),
) -> Result<(), EndFailure> {
    loop {
        let chunk = match received.take() {
            Some(chunk) => Some(chunk),
            None => from.recv().await.map_err(EndFailure::From)?,
        };
        let Some(chunk) = chunk else {
            let finished = to.finish().await;
            return finished.map_err(|error| EndFailure::To(error.source));
        };
        let mut gather = Gather::from(chunk);
        while gather.has_room()
            && let Some(more) = from.try_recv()
        {
            gather.push(more);
        }
        let bytes = gather.bytes() as u64;
        moved.set(ring::now());
        let posted = match to {
            // Most are connections, whose send is small.
            TunnelEnd::Own(transport) => transport.post(gather).await,
            TunnelEnd::Shared(..) => to.post(gather).await,
        };
        posted.map_err(|error| EndFailure::To(error.source))?;
        moved.set(ring::now());
        passed(bytes);
    }
}

/// The ends of a tunnel, while closing them now would cut it: dropped, it turns
/// the closes to come into resets.
struct Cut<'a>(Option<[TunnelEnd<'a>; 2]>);

impl Drop for Cut<'_> {
    fn drop(&mut self) {
        for end in self.0.into_iter().flatten() {
            end.cut();
        }
    }
}
