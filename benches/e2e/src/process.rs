//! What the kernel says of processes: time on the CPU, memory, affinity.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Time that the threads of these processes spent on a CPU, by the scheduler's
/// own accounting (proc(5), schedstat).
pub fn cpu_time(pids: &[u32]) -> Duration {
    let of_thread = |path: &Path| -> u64 {
        let text = fs::read_to_string(path.join("schedstat")).unwrap_or_default();
        let first = text.split(' ').next();
        first.and_then(|word| word.parse().ok()).unwrap_or(0)
    };
    let threads = pids.iter().flat_map(|pid| {
        let entries = fs::read_dir(format!("/proc/{pid}/task"));
        entries.into_iter().flatten().flatten()
    });
    let total = threads.map(|thread| of_thread(&thread.path())).sum();
    Duration::from_nanos(total)
}

/// Proportional set size of these processes, in bytes: pages that several share
/// count for their part (proc(5), smaps_rollup).
pub fn pss(pids: &[u32]) -> u64 {
    let of_process = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kilobytes.unwrap_or(0) * 1024
    };
    pids.iter().map(of_process).sum()
}

/// How many CPUs there are for this process.
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, |cpus| cpus.get())
}

/// Keeps a process, all of its threads, on one CPU.
#[expect(unsafe_code, reason = "std cannot bind other processes")]
pub fn pin(pid: u32, cpu: usize) {
    let entries = fs::read_dir(format!("/proc/{pid}/task"));
    for thread in entries.into_iter().flatten().flatten() {
        let name = thread.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // SAFETY: cpu_set_t is a plain bit set, for which all zeroes is empty;
        // it lives through the call, and its size is the one given.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(cpu, &mut set);
            libc::sched_setaffinity(id, size_of::<libc::cpu_set_t>(), &set);
        }
    }
}

/// Time that all CPUs of the machine spent on anything, and that its host took
/// away meanwhile (proc(5), /proc/stat).
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    busy: Duration,
    stolen: Duration,
}

impl Machine {
    /// As of now.
    pub fn now() -> Self {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = text.lines().next().unwrap_or_default();
        let ticks: Vec<u64> = line
            .split_whitespace()
            .skip(1)
            .filter_map(|word| word.parse().ok())
            .collect();
        // user, nice, system, idle, iowait, irq, softirq, steal
        let sum = |fields: &[usize]| {
            let ticks = fields
                .iter()
                .filter_map(|field| ticks.get(*field))
                .sum::<u64>();
            Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
        };
        Self {
            busy: sum(&[0, 1, 2, 5, 6, 7]),
            stolen: sum(&[7]),
        }
    }

    /// Time since `before` that was spent on anything but `ours`, and that was
    /// stolen.
    pub fn foreign_since(&self, before: &Self, ours: Duration) -> (Duration, Duration) {
        let busy = self.busy.saturating_sub(before.busy);
        let stolen = self.stolen.saturating_sub(before.stolen);
        (busy.saturating_sub(ours), stolen)
    }
}

/// Raises the soft limit of open files to the hard one, for this process and
/// what it starts; gives it.
pub fn raise_open_files() -> io::Result<u64> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, limit)?;
    Ok(maximum.unwrap_or(u64::MAX))
}

/// USER_HZ, which is 100 on every architecture that this runs on.
const TICKS_PER_SECOND: u64 = 100;

/// CPU time of children that were waited for.
#[expect(unsafe_code, reason = "std has no getrusage")]
pub fn children_cpu_time() -> Duration {
    // SAFETY: getrusage fills the structure, for which all zeroes is valid.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage);
        usage
    };
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_run_and_has_memory() {
        let own = [std::process::id()];
        assert!(cpu_time(&own) > Duration::ZERO);
        assert!(pss(&own) > 100 * 1024);
    }

    #[test]
    fn what_is_ours_is_not_foreign() {
        let machine = |busy, stolen| Machine {
            busy: Duration::from_secs(busy),
            stolen: Duration::from_secs(stolen),
        };
        let foreign = machine(12, 3).foreign_since(&machine(10, 2), Duration::from_millis(1500));
        assert_eq!(
            foreign,
            (Duration::from_millis(500), Duration::from_secs(1))
        );
    }
}
