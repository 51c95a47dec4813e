//! The `process_*` metrics that every Prometheus client exports, from /proc.

use std::fs;

/// Ticks per second in /proc/PID/stat: USER_HZ, which Linux fixes to 100 towards
/// user space on every architecture this runs on.
const USER_HZ: f64 = 100.0;

/// What /proc says of this process. A file that cannot be read leaves zeros.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Process {
    /// User and system time, all threads.
    pub cpu_seconds: f64,
    /// Resident memory.
    pub resident_bytes: u64,
    /// Address space.
    pub virtual_bytes: u64,
    /// Open descriptors.
    pub open_fds: u64,
    /// The soft limit of descriptors.
    pub max_fds: u64,
    /// Threads.
    pub threads: u64,
    /// Start, in seconds since 1970.
    pub start_seconds: f64,
}

impl Process {
    /// Reads the current values.
    pub(super) fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let mut process = Self::parse(
            &text("/proc/self/stat"),
            &text("/proc/self/status"),
            &text("/proc/self/limits"),
            &text("/proc/stat"),
        );
        process.open_fds = fs::read_dir("/proc/self/fd").map_or(0, |fds| {
            // The listing itself has one open.
            (fds.count() as u64).saturating_sub(1)
        });
        process
    }

    fn parse(stat: &str, status: &str, limits: &str, system: &str) -> Self {
        // The second field is the name in brackets, which may hold anything.
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
        let ticks = |at: usize| -> f64 {
            let field = fields.get(at - 3);
            field.and_then(|ticks| ticks.parse().ok()).unwrap_or(0.0)
        };
        let kib = |name: &str| number_after(status, name) * 1024;
        let boot = number_after(system, "btime") as f64;
        // Field numbers as proc(5) counts them: 14 utime, 15 stime, 22 starttime.
        Self {
            cpu_seconds: (ticks(14) + ticks(15)) / USER_HZ,
            resident_bytes: kib("VmRSS:"),
            virtual_bytes: kib("VmSize:"),
            open_fds: 0,
            max_fds: number_after(limits, "Max open files"),
            threads: number_after(status, "Threads:"),
            start_seconds: boot + ticks(22) / USER_HZ,
        }
    }
}

fn number_after(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_after_the_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 0 0 0 0 250 50 0 0 20 0 3 0 1000 1 2";
        let process = Process::parse(
            stat,
            "VmSize:\t  20 kB\nVmRSS:\t   10 kB\nThreads:\t3\n",
            "Max open files            1024                 524288               files\n",
            "cpu 1\nbtime 1700000000\n",
        );
        assert_eq!(process.cpu_seconds, 3.0);
        assert_eq!(process.start_seconds, 1_700_000_010.0);
        assert_eq!(process.resident_bytes, 10_240);
        assert_eq!(process.virtual_bytes, 20_480);
        assert_eq!(process.max_fds, 1024);
        assert_eq!(process.threads, 3);
    }

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let process = Process::read();
        assert!(process.resident_bytes > 0 && process.open_fds > 0 && process.max_fds > 0);
        assert!(process.start_seconds > 1_700_000_000.0);
    }
}
