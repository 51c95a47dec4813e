//! What is known of a TLS session, and how handshakes went.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::labels::{TlsCipher, TlsGroup, TlsOutcome, TlsVersion};

/// What was agreed upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsSummary {
    /// The version.
    pub version: TlsVersion,
    /// The group of the key exchange.
    pub group: TlsGroup,
    /// The cipher suite.
    pub cipher: TlsCipher,
    /// Whether an earlier session was resumed.
    pub resumption: Resumption,
}

/// Whether a session goes on from an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumption {
    /// It was agreed upon anew.
    Full,
    /// It has the secrets of an earlier one.
    Resumed,
}

/// Counts the handshakes of an upstream or a listener. They are rare, so all shards
/// share the counters; one without TLS has none.
#[derive(Debug, Default)]
pub(crate) struct Handshakes(OnceLock<Box<Counts>>);

const VERSIONS: usize = TlsVersion::ALL.len();
const GROUPS: usize = TlsGroup::ALL.len();

/// Some handshake has ended.
static ENDED: AtomicBool = AtomicBool::new(false);

/// Whether a handshake has ended, of whatever upstream or listener, since this was
/// last asked.
pub(crate) fn handshakes_have_ended() -> bool {
    ENDED.swap(false, Ordering::Relaxed)
}

#[derive(Debug, Default)]
struct Counts {
    failed: [AtomicU64; TlsOutcome::ALL.len()],
    completed: [[[AtomicU64; 2]; GROUPS]; VERSIONS],
}

/// How many handshakes had the same result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HandshakeCount {
    /// How they ended.
    pub outcome: TlsOutcome,
    /// What was agreed upon; `None`: nothing.
    pub agreed: Option<(TlsVersion, TlsGroup, Resumption)>,
    /// How many.
    pub count: u64,
}

impl Handshakes {
    /// One has come to an end.
    pub(crate) fn completed(&self, summary: &TlsSummary) {
        let of_group = &self.counts().completed[summary.version as usize][summary.group as usize];
        of_group[summary.resumption as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// One has failed like this.
    pub(crate) fn failed(&self, outcome: TlsOutcome) {
        self.counts().failed[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Those that have happened.
    pub(crate) fn all(&self) -> Vec<HandshakeCount> {
        let Some(counts) = self.0.get() else {
            return Vec::new();
        };
        let mut all = Vec::new();
        let mut add = |outcome, agreed, count: &AtomicU64| {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                all.push(HandshakeCount {
                    outcome,
                    agreed,
                    count,
                });
            }
        };
        for version in TlsVersion::ALL {
            for group in TlsGroup::ALL {
                for resumption in [Resumption::Full, Resumption::Resumed] {
                    let of_group = &counts.completed[*version as usize][*group as usize];
                    let agreed = Some((*version, *group, resumption));
                    add(
                        TlsOutcome::Completed,
                        agreed,
                        &of_group[resumption as usize],
                    );
                }
            }
        }
        for outcome in TlsOutcome::ALL {
            add(*outcome, None, &counts.failed[*outcome as usize]);
        }
        all
    }

    fn counts(&self) -> &Counts {
        ENDED.store(true, Ordering::Relaxed);
        self.0.get_or_init(Box::default)
    }
}

impl Resumption {
    /// The value of the label `resumed`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Full => "false",
            Self::Resumed => "true",
        }
    }
}
