//! The token table as the proxy reads it, and the page it shares with the
//! programs. A lookup costs one system call, once per accepted connection, so
//! that the table is not mapped into the process.
#![expect(unsafe_code, reason = "the shared page is mapped memory")]

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use ambassador_ebpf::{
    CANARY, HEARTBEATS, KINDS, NUMBER_NONE, NUMBERS, Shared, Slot, TOKEN_V4, TOKEN_V4_MASK,
    TOKEN_V6, slot_of,
};

use super::bpf;
use super::mapping::Mapping;
use crate::addr::OriginalDst;
use crate::clock;

/// Reads tokens. Cheap to clone, one per shard.
#[derive(Clone, Debug)]
pub struct TokenTable {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    slots: OwnedFd,
    page: Arc<SharedPage>,
    proxy_port: u16,
}

/// What an accepted connection's local address says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// A published token: serve it.
    Token(Token),
    /// The canary of `/readyz`: close it, count nothing.
    Canary,
    /// No token: reset and count it.
    Foreign,
}

/// A captured destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// Who connected: the number of a [`Workload`](super::Workload).
    pub workload: u32,
    /// Where the application meant to go, IPv4 never v4-mapped.
    pub destination: OriginalDst,
}

/// One shard's sign of life.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    page: Arc<SharedPage>,
    shard: usize,
}

impl Heartbeat {
    /// Says that the shard is alive now. To be called every 250 ms: after a
    /// second without it, connects on the shard's CPUs do what `on_failure`
    /// says. One store.
    pub fn beat(&self) {
        let now = clock::now().kernel_ns();
        self.page
            .heartbeat(self.shard)
            .store(now, Ordering::Relaxed);
        self.page.proxy_alive().store(now, Ordering::Relaxed);
    }

    /// Says that the shard takes no more connections: connects on its CPUs do
    /// what `on_failure` says, from now on. Its own still pass, for as long as
    /// this is said again.
    pub fn stop(&self) {
        self.page.heartbeat(self.shard).store(0, Ordering::Relaxed);
        let now = clock::now().kernel_ns();
        self.page.proxy_alive().store(now, Ordering::Relaxed);
    }
}

impl TokenTable {
    /// How many destinations it has places for.
    pub const SLOTS: u32 = ambassador_ebpf::SLOTS;

    pub(super) fn new(slots: OwnedFd, page: Arc<SharedPage>, proxy_port: u16) -> Self {
        Self {
            inner: Arc::new(Inner {
                slots,
                page,
                proxy_port,
            }),
        }
    }

    /// What the local address of an accepted connection means. That its
    /// workload is one of the listener's namespace is the caller's to check.
    pub fn lookup(&self, local: SocketAddr) -> io::Result<Accepted> {
        if local.port() != self.inner.proxy_port {
            return Ok(Accepted::Foreign);
        }
        let Some(number) = number_of(local.ip(), self.inner.proxy_port) else {
            return Ok(Accepted::Foreign);
        };
        if number == CANARY {
            return Ok(Accepted::Canary);
        }
        let mut entry = [FREE];
        if !bpf::read(self.inner.slots.as_fd(), &slot_of(number), &mut entry)? {
            return Ok(Accepted::Foreign);
        }
        // The slot may have been given to another since.
        if entry[0].number != number {
            return Ok(Accepted::Foreign);
        }
        let known = entry[0].destination;
        let destination = SocketAddr::new(ip_of(known.addr), u16::from_be(known.port));
        Ok(Accepted::Token(Token {
            workload: known.workload,
            destination: OriginalDst(destination).canonical(),
        }))
    }

    /// The heartbeat of a shard.
    pub fn heartbeat(&self, shard: u16) -> Heartbeat {
        Heartbeat {
            page: self.inner.page.clone(),
            shard: usize::from(shard) % HEARTBEATS,
        }
    }

    /// Slots that are taken, the canary's included.
    pub fn slots_used(&self) -> u32 {
        let held = (0..KINDS).map(|kind| self.inner.page.held(kind).load(Ordering::Relaxed));
        held.fold(1, u32::saturating_add).min(Self::SLOTS)
    }
}

/// A slot to read into.
pub(super) const FREE: Slot = Slot {
    destination: ambassador_ebpf::Destination {
        addr: [0; 4],
        workload: 0,
        port: 0,
        kind: 0,
    },
    decision: 0,
    number: NUMBER_NONE,
    used_at: 0,
};

/// The number of an address, where it is a token of the proxy at `port`.
fn number_of(ip: IpAddr, port: u16) -> Option<u32> {
    let number = match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let bits = ip.to_bits();
            (bits & TOKEN_V4_MASK == TOKEN_V4).then_some(bits & !TOKEN_V4_MASK)
        }
        IpAddr::V6(ip) => {
            let s = ip.segments();
            let ours = s[..3] == TOKEN_V6 && s[3] == port && s[4] == 0 && s[5] == 0;
            ours.then_some(u32::from(s[6]) << 16 | u32::from(s[7]))
        }
    };
    number.filter(|number| *number < NUMBERS)
}

fn ip_of(words: [u32; 4]) -> IpAddr {
    let mut octets = [0; 16];
    for (i, word) in words.iter().enumerate() {
        octets[4 * i..4 * i + 4].copy_from_slice(&word.to_ne_bytes());
    }
    Ipv6Addr::from(octets).to_canonical()
}

/// The mapped page.
#[derive(Debug)]
pub(super) struct SharedPage(Mapping<Shared>);

impl SharedPage {
    pub(super) fn map(map: BorrowedFd<'_>) -> io::Result<Self> {
        Mapping::of(map).map(Self)
    }

    pub(super) fn epoch(&self) -> &AtomicU32 {
        // SAFETY: aligned, mapped as long as self, shared with the kernel only.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.0.as_ptr()).epoch) }
    }

    /// Slots that were ever given out.
    pub(super) fn slots_touched(&self) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.0.as_ptr()).slots_touched) }
    }

    /// Slots of a kind that are taken.
    pub(super) fn held(&self, kind: usize) -> &AtomicU32 {
        // SAFETY: as above; the index is bounds-checked.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.0.as_ptr()).all.held[kind]) }
    }

    /// Whether each of so many shards gave a sign of life within `limit`.
    pub(super) fn all_beat(&self, shards: u16, limit: Duration) -> bool {
        let now = clock::now().kernel_ns();
        let limit = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        let mut beats = (0..usize::from(shards).min(HEARTBEATS)).map(|shard| self.heartbeat(shard));
        beats.all(|beat| now.saturating_sub(beat.load(Ordering::Relaxed)) <= limit)
    }

    fn proxy_alive(&self) -> &AtomicU64 {
        // SAFETY: as above.
        unsafe { AtomicU64::from_ptr(&raw mut (*self.0.as_ptr()).proxy_alive) }
    }

    /// How long ago a shard gave the last sign of life.
    pub(super) fn silence(&self) -> Duration {
        let beats = (0..HEARTBEATS).map(|shard| self.heartbeat(shard).load(Ordering::Relaxed));
        let last = beats.max().unwrap_or(0);
        Duration::from_nanos(clock::now().kernel_ns().saturating_sub(last))
    }

    fn heartbeat(&self, shard: usize) -> &AtomicU64 {
        // SAFETY: as above; the index is bounds-checked.
        unsafe { AtomicU64::from_ptr(&raw mut (*self.0.as_ptr()).heartbeats[shard]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_told_from_other_addresses() {
        let number = |ip: &str| number_of(ip.parse().unwrap(), 0x3a99);
        assert_eq!(number("127.64.0.7"), Some(7));
        assert_eq!(number("::ffff:127.64.1.0"), Some(256));
        assert_eq!(number("fd7f:656d:6261:3a99::1:2"), Some(0x1_0002));
        assert_eq!(number("fd7f:656d:6261:3a98::7"), None, "another proxy's");
        assert_eq!(number("fd7f:656d:6261:3a99::40:0"), None, "out of range");
        assert_eq!(number("127.0.0.1"), None);
        assert_eq!(number("127.128.0.1"), None);
        assert_eq!(number("fd7f:656d:6261:3a99:1::7"), None);
    }
}
