//! What connect4 and connect6 share: the decision on one connect().

use ambassador_ebpf::{
    CANARY, CANARY_PORT, CANARY_V4, CIRCUIT_CLOSED, CIRCUIT_NONE, Destination, Granted,
    RULE_PREFIX_BITS, RuleKey, STALE_NS, Shared, TICK_SHIFT, Verdict, rule, slot_of,
};
use aya_ebpf::bindings::{BPF_F_CURRENT_NETNS, bpf_sock_addr, bpf_sock_tuple};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_set_retval,
    bpf_sk_lookup_tcp, bpf_sk_release,
};
use aya_ebpf::programs::SockAddrContext;

use crate::intern::{InternResult, UNKNOWN, intern, known};
use crate::maps::{
    CIRCUITS, GRANTED, PROXY_PORT, RULES, SHARED, SLOT_TABLE, V6_PREFIX, WORKLOAD, count, heartbeat,
};
use crate::token::{self, Addr};

const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const IPPROTO_TCP: u32 = 6;
const LOOPBACK_IFINDEX: u32 = 1;
const ECONNREFUSED: i32 = 111;
const QUIC_PORT: u16 = 443;

/// What a hook does with the socket address it was given.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing.
    Leave,
    /// The call fails.
    Refuse,
    /// The destination becomes the token, at the proxy's port.
    Rewrite,
}

/// Lets the call through.
pub const ALLOW: i32 = 1;

/// Makes the call fail with ECONNREFUSED.
#[inline(always)]
pub fn refuse() -> i32 {
    // SAFETY: sets the value that the system call returns, no more.
    unsafe { bpf_set_retval(-ECONNREFUSED) };
    0
}

/// Decides one connect() to `addr`, which becomes the token where the outcome
/// is to rewrite. (As an outcome's own value the token is undefined on the
/// other paths, and the compiler spills what the verifier then refuses.)
#[inline(always)]
pub fn decide(ctx: &SockAddrContext, addr: &mut Addr, port_be: u32) -> Outcome {
    // SAFETY: the verifier turns these into checked context loads.
    let sock_addr: &bpf_sock_addr = unsafe { &*ctx.sock_addr };
    let port = port_be as u16;
    if sock_addr.type_ == SOCK_DGRAM {
        return quic(addr, port);
    }
    if sock_addr.type_ != SOCK_STREAM || sock_addr.protocol != IPPROTO_TCP {
        return Outcome::Leave;
    }
    if token::is_token(addr) {
        // Another proxy's token was written by a program further down.
        if u32::from(u16::from_be(port)) != PROXY_PORT.load() & 0xffff {
            return Outcome::Leave;
        }
        count(Verdict::ForgedToken);
        return Outcome::Refuse;
    }
    let Some(shared) = SHARED.get(0) else {
        return Outcome::Leave;
    };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let mut number = CANARY;
    let mut decision = rule::CAPTURE | rule::FAIL_CLOSED;
    let mut verdict = Verdict::Canary;
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    if is_canary(ctx, addr, port) {
        // SAFETY: the word is in the shared page and stored whole.
        unsafe {
            (&raw const shared.proxy_tgid)
                .cast_mut()
                .write_volatile(tgid)
        };
    } else {
        verdict = Verdict::Captured;
        if is_proxy(shared, tgid) {
            count(Verdict::Own);
            return Outcome::Leave;
        }
        let destination = Destination {
            addr: *addr,
            workload: WORKLOAD.load(),
            port,
            kind: 0,
        };
        let epoch = epoch(shared);
        number = known(&destination);
        decision = if number == UNKNOWN {
            look_up(addr, port, epoch)
        } else {
            current(number, addr, port, epoch)
        };
        match decision & rule::ACTION {
            rule::CAPTURE => {}
            rule::REFUSE => {
                count(Verdict::Refused);
                return Outcome::Refuse;
            }
            rule::PASSTHROUGH => {
                count(Verdict::Passthrough);
                return Outcome::Leave;
            }
            _ => {
                count(Verdict::Bypassed);
                return Outcome::Leave;
            }
        }
        let tick = (now >> TICK_SHIFT) as u32;
        if number == UNKNOWN {
            match intern(&destination, decision, epoch, tick, shared) {
                InternResult::Number(taken) => number = taken,
                InternResult::Not(why) => return fail(decision, why),
            }
        } else {
            touch(number, tick);
        }
    }
    capture(ctx, addr, number, decision, shared, (verdict, now))
}

#[inline(always)]
fn is_canary(ctx: &SockAddrContext, addr: &Addr, port: u16) -> bool {
    token::is_mapped(addr)
        && addr[3] == CANARY_V4.to_be()
        && port == CANARY_PORT.to_be()
        && matches!(grant(ctx), Some(granted) if granted.number == CANARY)
}

/// What a socket was given.
#[inline(always)]
pub fn grant<'a>(ctx: &'a SockAddrContext) -> Option<&'a Granted> {
    // SAFETY: a checked context load; the storage is the socket's own, lives as
    // long as that, and is checked for null.
    unsafe {
        if (*ctx.sock_addr).__bindgen_anon_1.sk.is_null() {
            return None;
        }
        GRANTED.get_ptr_mut(ctx).as_ref()
    }
}

/// Whether this is the proxy: its exemption ends with it.
#[inline(always)]
fn is_proxy(shared: &Shared, tgid: u32) -> bool {
    // SAFETY: both words are stored whole, the first by the programs alone.
    let (proxy, alive) = unsafe {
        (
            core::ptr::read_volatile(&raw const shared.proxy_tgid),
            core::ptr::read_volatile(&raw const shared.proxy_alive),
        )
    };
    if tgid != proxy {
        return false;
    }
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    alive >= now || now - alive <= STALE_NS
}

/// A slot's decision under this epoch, worked out anew where it is older. A
/// racing program stores the same or a newer word; an older one is replaced at
/// the next connect.
#[inline(always)]
fn current(number: u32, addr: &Addr, port: u16, epoch: u32) -> u32 {
    let Some(entry) = SLOT_TABLE.get_ptr_mut(slot_of(number)) else {
        return look_up(addr, port, epoch);
    };
    // SAFETY: a live array element; the word is loaded and stored whole.
    let stored = unsafe { core::ptr::read_volatile(&raw const (*entry).decision) };
    if (stored >> 32) as u32 == epoch {
        return stored as u32;
    }
    let fresh = look_up(addr, port, epoch);
    let word = (u64::from(epoch) << 32) | u64::from(fresh);
    // SAFETY: as above.
    unsafe { core::ptr::write_volatile(&raw mut (*entry).decision, word) };
    fresh
}

/// Notes that a slot is in use. Most connects write nothing.
#[inline(always)]
fn touch(number: u32, tick: u32) {
    let Some(entry) = SLOT_TABLE.get_ptr_mut(slot_of(number)) else {
        return;
    };
    // SAFETY: a live array element; the word is loaded and stored whole.
    unsafe {
        let used_at = &raw mut (*entry).used_at;
        if core::ptr::read_volatile(used_at) != tick {
            core::ptr::write_volatile(used_at, tick);
        }
    }
}

/// Checks that the proxy can take the connection, tags the socket and names
/// the token.
#[inline(always)]
fn capture(
    ctx: &SockAddrContext,
    addr: &mut Addr,
    number: u32,
    decision: u32,
    shared: &Shared,
    (verdict, now): (Verdict, u64),
) -> Outcome {
    // SAFETY: checked context loads; a connecting address always has a socket.
    let device = unsafe {
        let sk = (*ctx.sock_addr).__bindgen_anon_1.sk;
        if sk.is_null() {
            return Outcome::Leave;
        }
        (*sk).bound_dev_if
    };
    if device != 0 && device != LOOPBACK_IFINDEX {
        return fail(decision, unless_canary(verdict, Verdict::DeviceBound));
    }
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let beat = heartbeat(shared, cpu);
    if beat < now && now - beat > STALE_NS {
        return fail(decision, unless_canary(verdict, Verdict::ProxyDown));
    }
    // After the heartbeat: a circuit that a dead proxy left open has no say.
    if circuit_refuses(decision >> rule::CIRCUIT_SHIFT, now) {
        count(Verdict::CircuitOpen);
        return Outcome::Refuse;
    }
    let prefixed = !token::is_mapped(addr) && V6_PREFIX.load() != 0;
    let token = if prefixed {
        token::v6(number)
    } else {
        [0, 0, token::MAPPED, token::v4(number)]
    };
    if !listening(ctx, &token, prefixed) {
        return fail(decision, unless_canary(verdict, Verdict::ProxyDown));
    }
    // SAFETY: the socket is the context's own.
    let granted = unsafe { GRANTED.get_or_insert_ptr_mut(ctx, None) };
    if granted.is_null() {
        return fail(decision, unless_canary(verdict, Verdict::TableFull));
    }
    // SAFETY: not null; the connecting task holds the socket's lock. The port
    // is a checked context load.
    unsafe {
        *granted = Granted {
            number,
            workload: WORKLOAD.load(),
            addr: *addr,
            port: (*ctx.sock_addr).user_port as u16,
            pad: 0,
        };
    }
    count(verdict);
    *addr = token;
    Outcome::Rewrite
}

/// Whether a circuit is open. Once its time has passed, one connect takes the
/// permit and finds it closed.
#[inline(always)]
fn circuit_refuses(number: u32, now: u64) -> bool {
    if number == CIRCUIT_NONE {
        return false;
    }
    let Some(circuit) = CIRCUITS.get_ptr_mut(number) else {
        return false;
    };
    // SAFETY: a live array element; the proxy stores its words whole.
    let (until, permit) = unsafe {
        (
            core::ptr::read_volatile(&raw const (*circuit).open_until),
            core::ptr::read_volatile(&raw const (*circuit).permit),
        )
    };
    if until == CIRCUIT_CLOSED {
        return false;
    }
    if now < until {
        return true;
    }
    // SAFETY: as above; 64 bits are exchanged as one.
    let (found, taken) = unsafe {
        core::intrinsics::atomic_cxchg::<
            u64,
            { core::intrinsics::AtomicOrdering::SeqCst },
            { core::intrinsics::AtomicOrdering::SeqCst },
        >(&raw mut (*circuit).open_until, until, now + permit)
    };
    // Not taken: another connect has it, or the proxy has just decided.
    !taken && found != CIRCUIT_CLOSED
}

/// The canary's failures are its own: they are no application's connects.
#[inline(always)]
fn unless_canary(verdict: Verdict, why: Verdict) -> Verdict {
    match verdict {
        Verdict::Canary => Verdict::CanaryFailed,
        _ => why,
    }
}

/// What a connect does that should be captured and cannot be.
#[inline(always)]
fn fail(decision: u32, why: Verdict) -> Outcome {
    count(why);
    if decision & rule::FAIL_CLOSED != 0 {
        Outcome::Refuse
    } else {
        Outcome::Leave
    }
}

/// Whether a socket listens where the token points, in the socket's namespace.
#[inline(always)]
fn listening(ctx: &SockAddrContext, token: &Addr, v6: bool) -> bool {
    // SAFETY: zero is a valid tuple.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    let port = (PROXY_PORT.load() as u16).to_be();
    let size = if v6 {
        tuple.__bindgen_anon_1.ipv6.daddr = *token;
        tuple.__bindgen_anon_1.ipv6.dport = port;
        36
    } else {
        tuple.__bindgen_anon_1.ipv4.daddr = token[3];
        tuple.__bindgen_anon_1.ipv4.dport = port;
        12
    };
    // SAFETY: the tuple is live and as long as said; what is found is released.
    unsafe {
        let found = bpf_sk_lookup_tcp(
            ctx.sock_addr.cast(),
            &mut tuple,
            size,
            BPF_F_CURRENT_NETNS as i64 as u64,
            0,
        );
        if found.is_null() {
            return false;
        }
        bpf_sk_release(found.cast());
    }
    true
}

#[inline(always)]
fn epoch(shared: &Shared) -> u32 {
    // SAFETY: the proxy stores the word whole.
    unsafe { core::ptr::read_volatile(&raw const shared.epoch) }
}

/// The rule for a destination: the set of its own port where there is one.
#[inline(always)]
fn look_up(addr: &Addr, port: u16, epoch: u32) -> u32 {
    let mut key = Key::new(
        RULE_PREFIX_BITS + 128,
        RuleKey {
            epoch,
            port,
            pad: 0,
            addr: *addr,
        },
    );
    if let Some(rule) = RULES.get(&key) {
        return *rule;
    }
    key.data.port = 0;
    match RULES.get(&key) {
        Some(rule) => *rule,
        None => rule::BYPASS,
    }
}

/// UDP is not captured, but QUIC may be refused where TCP would be captured.
#[inline(always)]
pub fn quic(addr: &Addr, port: u16) -> Outcome {
    if u16::from_be(port) != QUIC_PORT {
        return Outcome::Leave;
    }
    let Some(shared) = SHARED.get(0) else {
        return Outcome::Leave;
    };
    let decision = look_up(addr, port, epoch(shared));
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    if decision & rule::NO_QUIC == 0 || is_proxy(shared, tgid) {
        return Outcome::Leave;
    }
    count(Verdict::QuicRefused);
    Outcome::Refuse
}
