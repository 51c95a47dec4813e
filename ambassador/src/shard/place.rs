//! Which CPUs the shards run on.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The CPUs this process may run on, by number.
pub fn cpus() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    let all = 0..CpuSet::MAX_CPU;
    Ok(all.filter(|cpu| set.is_set(*cpu)).collect())
}

/// Binds this thread to a CPU. New connections are steered to the shard of the
/// CPU that connected, which only helps a shard that stays there. A refusal
/// costs speed, not correctness.
pub fn pin_to(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    if let Err(error) = sched_setaffinity(None, &set) {
        tracing::debug!(cpu, %error, "the shard cannot be bound to its CPU");
    }
}

/// How many CPUs' worth of time the cgroup of this process grants (v2
/// `cpu.max`); `None`: no quota.
pub fn quota(cpu_max: &str) -> Option<usize> {
    let mut fields = cpu_max.split_whitespace();
    let quota: u64 = fields.next()?.parse().ok()?;
    let period: u64 = fields.next()?.parse().ok()?;
    Some((quota.div_ceil(period.max(1)) as usize).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_cpu() {
        assert!(!cpus().unwrap().is_empty());
    }

    #[test]
    fn a_quota_is_rounded_up_to_whole_cpus() {
        assert_eq!(quota("max 100000"), None);
        assert_eq!(quota("150000 100000"), Some(2));
        assert_eq!(quota("10000 100000"), Some(1));
        assert_eq!(quota(""), None);
    }
}
