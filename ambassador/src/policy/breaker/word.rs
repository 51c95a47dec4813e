//! The state of a breaker, packed into one word.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) kind: Kind,
    /// Raised by every change.
    pub(super) epoch: u32,
    /// When an open one may be probed, in milliseconds since the start.
    pub(super) until_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Closed,
    Open,
    HalfOpen,
    /// By force: nothing is counted.
    HeldClosed,
}

impl Word {
    const EPOCH_BITS: u32 = 22;
    /// 34 years. An open breaker with this much is held open.
    pub(super) const FOR_EVER_MS: u64 = (1 << 40) - 1;

    pub(super) fn pack(self) -> u64 {
        self.kind as u64 | u64::from(self.epoch) << 2 | self.until_ms << (2 + Self::EPOCH_BITS)
    }

    pub(super) fn unpack(word: u64) -> Self {
        Self {
            kind: match word & 3 {
                0 => Kind::Closed,
                1 => Kind::Open,
                2 => Kind::HalfOpen,
                _ => Kind::HeldClosed,
            },
            epoch: (word >> 2) as u32 & ((1 << Self::EPOCH_BITS) - 1),
            until_ms: word >> (2 + Self::EPOCH_BITS),
        }
    }

    pub(super) fn to(self, kind: Kind, until_ms: u64) -> Self {
        Self {
            kind,
            epoch: (self.epoch + 1) & ((1 << Self::EPOCH_BITS) - 1),
            until_ms: until_ms.min(Self::FOR_EVER_MS),
        }
    }
}
