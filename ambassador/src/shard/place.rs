//! Which CPUs the shards run on.

use std::io;

/// The CPUs this process may run on, by number.
#[expect(unsafe_code, reason = "the standard library only tells how many")]
pub fn cpus() -> io::Result<Vec<usize>> {
    // SAFETY: cpu_set_t is a plain bit set, for which all zeroes is empty.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is live and its size is the one named; 0 is this thread.
    let got = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
    if got != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the number is below CPU_SETSIZE, the size of the set in bits.
    let has = |cpu: &usize| unsafe { libc::CPU_ISSET(*cpu, &set) };
    Ok((0..libc::CPU_SETSIZE as usize).filter(has).collect())
}

/// Binds this thread to a CPU. New connections are steered to the shard of the
/// CPU that connected, which only helps a shard that stays there. A refusal
/// costs speed, not correctness.
#[expect(unsafe_code, reason = "the standard library cannot bind threads")]
pub fn pin_to(cpu: usize) {
    // SAFETY: cpu_set_t is a plain bit set, for which all zeroes is empty.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the caller's number came out of such a set.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the set is live and its size is the one named; 0 is this thread.
    let bound = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) };
    if bound != 0 {
        let error = io::Error::last_os_error();
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
