//! The contract between the BPF programs and the proxy: keys, values, limits
//! and map names. No dependencies, no logic that only one side needs.
//!
//! Addresses are 16 bytes in network order, IPv4 as v4-mapped IPv6; ports are
//! in network order wherever the kernel side stores them.
#![no_std]

/// Slots of the token table: how many different destinations can be in use at
/// a time. 40 bytes of kernel memory each, paid at start.
pub const SLOTS: u32 = 16_384;

/// Slots that only claimed destinations may take, so that a scan of addresses
/// nobody configured cannot push a configured upstream out of the table.
pub const SLOTS_CLAIMED_ONLY: u32 = SLOTS / 4;

/// Token numbers: the slot in the lower bits, above it how often the slot has
/// been given out. So the token of an earlier destination is told from that of
/// the present one, until the numbers of a slot have all been used.
pub const NUMBERS: u32 = 1 << 22;

/// The number and the slot of the canary; interning starts behind it. The
/// loader tags the canary's socket with it, which makes it one.
pub const CANARY: u32 = 0;

/// The number of a slot that nobody has.
pub const NUMBER_NONE: u32 = 0;

/// The slot of a token number.
pub const fn slot_of(number: u32) -> u32 {
    number % SLOTS
}

/// The number under which the slot of `number` is given out the next time.
pub const fn next_number(number: u32) -> u32 {
    (number + SLOTS) % NUMBERS
}

/// The time in which the use of a slot is noted: CLOCK_MONOTONIC nanoseconds
/// shifted right by this, some 1.07 s.
pub const TICK_SHIFT: u32 = 30;

/// Workloads whose slots are counted one by one, and one more for all that come
/// on top. 8 bytes of kernel memory each, paid at start.
pub const SHARES: u32 = 4_096;

/// The share of those that have none of their own.
pub const SHARE_OF_THE_REST: u32 = 0;

/// Tokens are 127.64.0.0 + number; the whole of 127.64.0.0/10 is left to them.
pub const TOKEN_V4: u32 = 0x7f40_0000;
/// The mask of 127.64.0.0/10.
pub const TOKEN_V4_MASK: u32 = 0xffc0_0000;

/// IPv6 tokens are `fd7f:656d:6261:PORT::NUMBER`, PORT being the proxy's: each
/// proxy of a namespace routes a /64 of its own. The first 48 bits.
pub const TOKEN_V6: [u16; 3] = [0xfd7f, 0x656d, 0x6261];

/// The destination of the canary: 192.0.2.1:9, documentation addresses (RFC
/// 5737), so that an uncaptured canary reaches nobody.
pub const CANARY_V4: u32 = 0xc000_0201;
/// The canary's port.
pub const CANARY_PORT: u16 = 9;

/// Shards whose heartbeat is looked at; more share these words.
pub const HEARTBEATS: usize = 256;

/// A heartbeat older than this is a dead or hung shard (nanoseconds).
pub const STALE_NS: u64 = 1_000_000_000;

/// Rules that fit the kernel's trie, two generations of them.
pub const RULES_MAX: u32 = 65_536;

/// Circuits, the one that is none included. 16 bytes of kernel memory each,
/// paid at start.
pub const CIRCUITS: u32 = 1024;

/// The circuit that is none: never open.
pub const CIRCUIT_NONE: u32 = 0;

/// The word of a closed circuit.
pub const CIRCUIT_CLOSED: u64 = 0;

/// A destination as a workload sees it: the key of interning, and part of a
/// slot.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// Network order; IPv4 as v4-mapped.
    pub addr: [u32; 4],
    /// Which workload connects.
    pub workload: u32,
    /// Network order.
    pub port: u16,
    /// In a slot, the [`Kind`] as which it was taken; 0 in a key.
    pub kind: u16,
}

/// What a slot was taken for: each kind is counted for itself.
#[repr(u16)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A destination that no upstream claimed.
    Unclaimed = 0,
    /// One that an upstream claimed.
    Claimed = 1,
}

/// How many kinds there are.
pub const KINDS: usize = 2;

/// One entry of the token table. While a number stands in it, the destination
/// does not change: whoever finds the number of his token has what it is for.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Slot {
    /// Where the application meant to go.
    pub destination: Destination,
    /// The decision on it: epoch in the upper, [`rule`] bits in the lower half.
    pub decision: u64,
    /// The number of its token; [`NUMBER_NONE`]: the slot is free.
    pub number: u32,
    /// When a connect went there last, in ticks of [`TICK_SHIFT`].
    pub used_at: u32,
}

/// Which token a socket was given, and for what: what the guard looks for and
/// getpeername() shows, whatever has become of the slot since.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Granted {
    /// Of the token.
    pub number: u32,
    /// For whom.
    pub workload: u32,
    /// Network order; IPv4 as v4-mapped.
    pub addr: [u32; 4],
    /// Network order.
    pub port: u16,
    /// Zero.
    pub pad: u16,
}

/// How many slots a workload holds. Programs add, the proxy subtracts.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Share {
    /// By [`Kind`].
    pub held: [u32; KINDS],
}

/// The page both sides map.
#[repr(C)]
pub struct Shared {
    /// Generation of the rules in force. Never 0 once rules are installed.
    pub epoch: u32,
    /// Slots that were ever given out, the canary's included: those above it
    /// have only one number behind them.
    pub slots_touched: u32,
    /// The proxy's thread group as the kernel numbers it, whatever namespace
    /// the proxy lives in; learned from its first canary. 0: not yet. Worth
    /// something only while `proxy_alive` is fresh: the number is given out
    /// again.
    pub proxy_tgid: u32,
    /// Zero.
    pub pad: u32,
    /// CLOCK_MONOTONIC nanoseconds of each shard's last sign of life.
    pub heartbeats: [u64; HEARTBEATS],
    /// CLOCK_MONOTONIC nanoseconds at which some shard was last there, be it
    /// one that takes no more connections.
    pub proxy_alive: u64,
    /// How many slots all workloads hold together.
    pub all: Share,
}

/// Whether connects to what an upstream claims are refused at once. The proxy
/// stores each word whole, whenever its circuit breaker changes; a program
/// changes the first one only, by compare and exchange, and only where it is a
/// time that has passed.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Circuit {
    /// [`CIRCUIT_CLOSED`], or the CLOCK_MONOTONIC nanoseconds before which
    /// connects are refused. The first connect after it passes, and puts the
    /// time before which no other does in its place: a permit that is lost
    /// expires.
    pub open_until: u64,
    /// How long a permit holds (nanoseconds).
    pub permit: u64,
}

/// The data of a key of the rules' trie. Port 0 is every port that no rule
/// names; a port that one names has a complete set of its own.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct RuleKey {
    /// Generation.
    pub epoch: u32,
    /// Network order.
    pub port: u16,
    /// Zero.
    pub pad: u16,
    /// Network order; IPv4 as v4-mapped.
    pub addr: [u32; 4],
}

/// Bits in front of the address in a [`RuleKey`].
pub const RULE_PREFIX_BITS: u32 = 64;

/// The value of a rule: an action and its modifiers.
pub mod rule {
    /// The kernel connects straight; counted as out of scope.
    pub const BYPASS: u32 = 1;
    /// Captured.
    pub const CAPTURE: u32 = 2;
    /// In scope and unclaimed: the kernel connects straight.
    pub const PASSTHROUGH: u32 = 3;
    /// ECONNREFUSED.
    pub const REFUSE: u32 = 4;
    /// The bits of the action.
    pub const ACTION: u32 = 0xff;
    /// A connect that cannot be captured is refused, else let through.
    pub const FAIL_CLOSED: u32 = 1 << 8;
    /// An upstream claims the destination: it may take any slot.
    pub const CLAIMED: u32 = 1 << 9;
    /// UDP to port 443 is refused where TCP is captured.
    pub const NO_QUIC: u32 = 1 << 10;
    /// The number of the circuit is in the bits from this one on.
    pub const CIRCUIT_SHIFT: u32 = 16;
}

/// What became of a connect(); the index of its counter.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Sent to the proxy.
    Captured,
    /// Out of scope: untouched.
    Bypassed,
    /// In scope, but no upstream claims it and unclaimed ones pass.
    Passthrough,
    /// Refused by `unmatched: refuse`.
    Refused,
    /// Hardly a slot is left, and none for anybody; `on_failure` decided.
    TableFull,
    /// No heartbeat or no listener; `on_failure` decided.
    ProxyDown,
    /// A connect of the proxy itself.
    Own,
    /// The socket is bound to a device; `on_failure` decided.
    DeviceBound,
    /// The caller named a token itself, or lacks our tag: refused.
    ForgedToken,
    /// QUIC refused, so that the client falls back to TCP.
    QuicRefused,
    /// The canary's own connect.
    Canary,
    /// A canary that could not be captured; the first of each start is one.
    CanaryFailed,
    /// Refused by the open circuit of the upstream that claims it.
    CircuitOpen,
    /// The workload holds as many slots as it may while others could want
    /// some; `on_failure` decided.
    OverQuota,
}

impl Verdict {
    /// Every verdict, in the order of its counter.
    pub const ALL: [Self; 14] = [
        Self::Captured,
        Self::Bypassed,
        Self::Passthrough,
        Self::Refused,
        Self::TableFull,
        Self::ProxyDown,
        Self::Own,
        Self::DeviceBound,
        Self::ForgedToken,
        Self::QuicRefused,
        Self::Canary,
        Self::CanaryFailed,
        Self::CircuitOpen,
        Self::OverQuota,
    ];

    /// The value of the metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Captured => "captured",
            Self::Bypassed => "bypassed",
            Self::Passthrough => "passthrough",
            Self::Refused => "refused",
            Self::TableFull => "table_full",
            Self::ProxyDown => "proxy_down",
            Self::Own => "own",
            Self::DeviceBound => "device_bound",
            Self::ForgedToken => "forged_token",
            Self::QuicRefused => "quic_refused",
            Self::Canary => "canary",
            Self::CanaryFailed => "canary_failed",
            Self::CircuitOpen => "circuit_open",
            Self::OverQuota => "over_quota",
        }
    }
}

const _: () = assert!(size_of::<Destination>() == 24);
const _: () = assert!(size_of::<Slot>() == 40);
const _: () = assert!(size_of::<Granted>() == 28);
const _: () = assert!(size_of::<Share>() == 8);
const _: () = assert!(size_of::<RuleKey>() == 24);
const _: () = assert!(size_of::<Circuit>() == 16);
const _: () = assert!(size_of::<Shared>() == 16 + 8 * HEARTBEATS + 8 + 8);
const _: () = assert!(
    SLOTS.is_power_of_two() && NUMBERS.is_power_of_two() && NUMBERS - 1 <= !TOKEN_V4_MASK,
    "slots are the lower bits of numbers, which fit the host part of 127.64.0.0/10"
);
const _: () = assert!(
    CIRCUITS <= 1 << (32 - rule::CIRCUIT_SHIFT),
    "the number of a circuit fits a rule"
);
