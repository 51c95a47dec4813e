//! The maps, and the constants that the loader writes before loading.

use ambassador_ebpf::{
    CIRCUITS as CIRCUITS_MAX, Circuit, Destination, Granted, HEARTBEATS, RULES_MAX, RuleKey,
    SHARES as SHARES_MAX, SLOTS, Share, Shared, Slot, Verdict,
};
use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, PerCpuArray, Queue, SkStorage};
use aya_ebpf::macros::btf_map;

/// Token table: slot -> destination. Programs fill free slots, the proxy frees
/// those that nobody uses any more.
#[btf_map]
pub static SLOT_TABLE: Array<Slot, { SLOTS as usize }> = Array::new();

/// Destination -> number of its token. Programs add, the proxy removes. Not
/// preallocated: most processes know few.
#[btf_map]
pub static INTERNED: HashMap<Destination, u32, { SLOTS as usize }, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

/// Numbers of slots that were given back, the oldest first.
#[btf_map]
pub static RETURNED: Queue<u32, { SLOTS as usize }> = Queue::new();

/// How many slots each workload holds, mapped by the proxy.
#[btf_map]
pub static SHARES: Array<Share, { SHARES_MAX as usize }, { BPF_F_MMAPABLE as usize }> =
    Array::new();

/// What to do with a destination; written by the proxy, a generation at a time.
#[btf_map]
pub static RULES: LpmTrie<RuleKey, u32, { RULES_MAX as usize }> = LpmTrie::new();

/// Epoch and heartbeats, mapped by the proxy.
#[btf_map]
pub static SHARED: Array<Shared, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// The circuits of upstreams, mapped by the proxy.
#[btf_map]
pub static CIRCUITS: Array<Circuit, { CIRCUITS_MAX as usize }, { BPF_F_MMAPABLE as usize }> =
    Array::new();

/// Connects per verdict.
#[btf_map]
pub static VERDICTS: PerCpuArray<u64, { Verdict::ALL.len() }> = PerCpuArray::new();

/// The token that a socket was given, and what for.
#[btf_map]
pub static GRANTED: SkStorage<Granted> = SkStorage::new();

/// Which workload these programs serve.
#[unsafe(no_mangle)]
pub static WORKLOAD: Global<u32> = Global::new(0);
/// Which of [`SHARES`] is theirs.
#[unsafe(no_mangle)]
pub static SHARE: Global<u32> = Global::new(0);
/// The proxy's port, host order.
#[unsafe(no_mangle)]
pub static PROXY_PORT: Global<u32> = Global::new(0);
/// Shards of the proxy; the one of this CPU must be alive.
#[unsafe(no_mangle)]
pub static SHARDS: Global<u32> = Global::new(1);
/// 1: the namespace routes the IPv6 token prefix; 0: IPv6 destinations get
/// v4-mapped tokens.
#[unsafe(no_mangle)]
pub static V6_PREFIX: Global<u32> = Global::new(0);

/// Counts one connect.
#[inline(always)]
pub fn count(verdict: Verdict) {
    if let Some(counter) = VERDICTS.get_ptr_mut(verdict as u32) {
        // SAFETY: the slot is this CPU's own, and programs of this type do not
        // preempt one another on it.
        unsafe { *counter += 1 };
    }
}

/// The heartbeat word of the shard that serves this CPU.
#[inline(always)]
pub fn heartbeat(shared: &Shared, cpu: u32) -> u64 {
    let shards = SHARDS.load();
    let shard = if shards == 0 { 0 } else { cpu % shards };
    let index = shard as usize & (HEARTBEATS - 1);
    // SAFETY: the index is masked to the array; the proxy stores the word whole.
    unsafe { core::ptr::read_volatile(shared.heartbeats.as_ptr().add(index)) }
}
