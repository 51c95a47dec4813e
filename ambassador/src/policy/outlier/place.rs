//! Where an endpoint stands, in one word.

use super::Standing;

/// Where an endpoint stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) standing: Standing,
    /// When its probe is due, in milliseconds since the detector's start;
    /// [`Self::PROBING`]: it is on its way. A usable one has none.
    pub(super) until_ms: u64,
}

impl Place {
    pub(super) const USABLE: Self = Self {
        standing: Standing::Usable,
        until_ms: 0,
    };
    pub(super) const PROBING: u64 = (1 << 62) - 1;
    /// 34 years.
    pub(super) const UNTIL_MS_MAX: u64 = (1 << 40) - 1;

    /// A usable one is 0, as a new one.
    pub(super) fn pack(self) -> u64 {
        let standing = match self.standing {
            Standing::Usable => 0,
            Standing::Avoided => 1,
            Standing::Ejected => 2,
        };
        standing << 62 | self.until_ms
    }

    pub(super) fn unpack(word: u64) -> Self {
        Self {
            standing: match word >> 62 {
                0 => Standing::Usable,
                1 => Standing::Avoided,
                _ => Standing::Ejected,
            },
            until_ms: word & Self::PROBING,
        }
    }

    pub(super) fn is_probing(self) -> bool {
        self.until_ms == Self::PROBING
    }
}
