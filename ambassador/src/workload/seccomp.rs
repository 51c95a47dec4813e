//! The system calls that are left to the proxy once it has started: an allow-list
//! made of what both engines and the control side use.
//!
//! End-to-end tests run with [`KILL`], so that what is missing here ends a test.
//! Otherwise such a call fails with EPERM. The kernel remembers which calls are
//! allowed whatever their arguments, so that those cost next to nothing.
//!
//! Operations of io_uring are no system calls and pass no filter; for them the
//! user and the file access of the process are what holds.

use std::collections::BTreeMap;
use std::env;
use std::io;

use seccompiler::SeccompCmpArgLen::Dword;
use seccompiler::SeccompCmpOp::{Eq, MaskedEq};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCondition, SeccompFilter, SeccompRule, apply_filter,
};

/// Set to `kill`, what is not allowed ends the process.
pub(crate) const KILL: &str = "AMBASSADOR_SECCOMP";

/// Allowed whatever the arguments.
const ALLOWED: &[i64] = &[
    // Sockets.
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_listen,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    // Descriptors.
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fcntl,
    libc::SYS_pipe2,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    // Waiting.
    libc::SYS_clock_nanosleep,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_nanosleep,
    libc::SYS_ppoll,
    libc::SYS_signalfd4,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    // Files: the configuration, tokens, names, the log, sockets with a path.
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fchmodat,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_ftruncate,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_rm_watch,
    libc::SYS_lseek,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_readlinkat,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_unlinkat,
    // Memory.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mincore,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // Threads, signals, time, and facts about this process.
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getcpu,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_kill,
    libc::SYS_membarrier,
    libc::SYS_pidfd_send_signal,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_sysinfo,
    libc::SYS_tgkill,
    libc::SYS_uname,
    libc::SYS_wait4,
    libc::SYS_waitid,
];

/// Older forms, of which newer architectures have none.
#[cfg(target_arch = "x86_64")]
const ALLOWED_OLDER: &[i64] = &[
    libc::SYS_access,
    libc::SYS_chmod,
    libc::SYS_epoll_wait,
    libc::SYS_getpgrp,
    libc::SYS_lstat,
    libc::SYS_open,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rmdir,
    libc::SYS_stat,
    libc::SYS_time,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_OLDER: &[i64] = &[];

/// Families of sockets: no packets, no kernel interfaces but questions about
/// sockets and addresses.
const FAMILIES: [i32; 4] = [
    libc::AF_INET,
    libc::AF_INET6,
    libc::AF_NETLINK,
    libc::AF_UNIX,
];

/// Of bpf(2): maps that are open already.
const BPF_COMMANDS: [u32; 4] = [
    1, // BPF_MAP_LOOKUP_ELEM
    2, // BPF_MAP_UPDATE_ELEM
    3, // BPF_MAP_DELETE_ELEM
    4, // BPF_MAP_GET_NEXT_KEY
];

/// Of ioctl(2): blocking or not, how much there is to read, how much of what was
/// sent was not taken, whether it is a terminal, which kind a namespace is of.
const IOCTLS: [u64; 5] = [
    libc::FIONBIO,
    libc::FIONREAD,
    libc::TIOCOUTQ,
    libc::TCGETS,
    0xb703,
];

/// Of prctl(2): names of threads and of memory, and what glibc asks at the start
/// of a thread.
const PRCTLS: [i32; 2] = [libc::PR_SET_NAME, libc::PR_SET_VMA];

/// What the helper and all that it starts never need: other processes' memory
/// and descriptors, the kernel's code, keys and clocks.
const REFUSED_TO_HELPERS: &[i64] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_userfaultfd,
];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Leaves this thread, and those that it starts, what is allowed.
pub(super) fn restrict_proxy() -> io::Result<()> {
    let otherwise = match env::var_os(KILL) {
        Some(word) if word == "kill" => SeccompAction::KillProcess,
        _ => SeccompAction::Errno(libc::EPERM as u32),
    };
    // Its arguments are in memory, which a filter does not see. Without it the C
    // library makes threads by clone, whose flags are seen.
    let clone3 = Rules::from([(libc::SYS_clone3, Vec::new())]);
    let missing = SeccompAction::Errno(libc::ENOSYS as u32);
    install(clone3, SeccompAction::Allow, missing)?;
    install(proxy_rules()?, otherwise, SeccompAction::Allow)
}

/// Takes from this process, and from those that it starts, what no helper needs.
pub(super) fn restrict_helper() -> io::Result<()> {
    let refused = REFUSED_TO_HELPERS.iter().map(|call| (*call, Vec::new()));
    let refusal = SeccompAction::Errno(libc::EPERM as u32);
    install(refused.collect(), SeccompAction::Allow, refusal)
}

fn proxy_rules() -> io::Result<Rules> {
    let always = ALLOWED.iter().chain(ALLOWED_OLDER);
    let mut rules: Rules = always.map(|call| (*call, Vec::new())).collect();
    rules.insert(libc::SYS_clone3, Vec::new());
    let thread = libc::CLONE_THREAD as u64;
    rules.insert(
        libc::SYS_clone,
        vec![argument(0, MaskedEq(thread), thread)?],
    );
    // Nothing becomes code that was not when the program started.
    let no_code = || argument(2, MaskedEq(libc::PROT_EXEC as u64), 0);
    rules.insert(libc::SYS_mmap, vec![no_code()?]);
    rules.insert(libc::SYS_mprotect, vec![no_code()?]);
    // Limits are read and not changed.
    rules.insert(libc::SYS_prlimit64, vec![pointer_is_null(2)?]);
    let one_of = |index, values: &mut dyn Iterator<Item = u64>| {
        values.map(|value| argument(index, Eq, value)).collect()
    };
    let families: io::Result<Vec<_>> = one_of(0, &mut FAMILIES.iter().map(|f| *f as u64));
    rules.insert(libc::SYS_socket, families?);
    let unix = argument(0, Eq, libc::AF_UNIX as u64)?;
    rules.insert(libc::SYS_socketpair, vec![unix]);
    let commands: io::Result<Vec<_>> = one_of(0, &mut BPF_COMMANDS.iter().map(|c| (*c).into()));
    rules.insert(libc::SYS_bpf, commands?);
    let ioctls: io::Result<Vec<_>> = one_of(1, &mut IOCTLS.iter().copied());
    rules.insert(libc::SYS_ioctl, ioctls?);
    let prctls: io::Result<Vec<_>> = one_of(0, &mut PRCTLS.iter().map(|p| *p as u64));
    rules.insert(libc::SYS_prctl, prctls?);
    Ok(rules)
}

fn argument(index: u8, how: seccompiler::SeccompCmpOp, value: u64) -> io::Result<SeccompRule> {
    SeccompCondition::new(index, Dword, how, value)
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(io::Error::other)
}

fn pointer_is_null(index: u8) -> io::Result<SeccompRule> {
    SeccompCondition::new(index, seccompiler::SeccompCmpArgLen::Qword, Eq, 0)
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(io::Error::other)
}

fn install(rules: Rules, otherwise: SeccompAction, matched: SeccompAction) -> io::Result<()> {
    let arch = env::consts::ARCH.try_into().map_err(io::Error::other)?;
    let program: BpfProgram = SeccompFilter::new(rules, otherwise, matched, arch)
        .and_then(TryInto::try_into)
        .map_err(io::Error::other)?;
    match apply_filter(&program) {
        Ok(()) => Ok(()),
        Err(seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error)) => Err(error),
        Err(error) => Err(io::Error::other(error)),
    }
}

/// Whether the kernel takes a filter that ends a process; the error of one that
/// does not.
#[expect(unsafe_code, reason = "std has no seccomp")]
pub(crate) fn is_available() -> io::Result<()> {
    let action: u32 = libc::SECCOMP_RET_KILL_PROCESS;
    // SAFETY: the kernel reads the word, which lives until it returns, and changes
    // nothing.
    let asked = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_ACTION_AVAIL,
            0,
            &raw const action,
        )
    };
    match asked {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether a kernel, or what stands in for one, says that it knows no filters.
pub(super) fn is_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL))
}

#[cfg(test)]
mod tests {
    #![expect(unsafe_code, reason = "system calls by number")]
    use std::fs::File;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// The error of a call with these arguments.
    fn error_of(call: i64, arguments: [u64; 5]) -> Option<i32> {
        let [a, b, c, d, e] = arguments;
        // SAFETY: every call below either takes numbers alone, or is refused
        // before it looks at a pointer.
        let result = unsafe { libc::syscall(call, a, b, c, d, e) };
        let error = io::Error::last_os_error().raw_os_error();
        (result < 0).then_some(error).flatten()
    }

    /// A filter is of a thread and of those that it starts.
    fn on_a_thread(test: impl FnOnce() + Send + 'static) {
        std::thread::spawn(test).join().unwrap();
    }

    #[test]
    fn the_proxy_serves_and_does_nothing_else() {
        on_a_thread(|| {
            restrict_proxy().unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            assert!(File::open("/proc/self/status").is_ok());
            on_a_thread(|| assert!(std::fs::read_dir("/proc/self/fd").is_ok()));

            let (refused, missing) = (Some(libc::EPERM), Some(libc::ENOSYS));
            let exec = libc::PROT_EXEC as u64;
            let packet = libc::AF_PACKET as u64;
            let new_user = libc::CLONE_NEWUSER as u64;
            // BPF_PROG_LOAD
            let load = 5;
            for (call, arguments) in [
                (libc::SYS_execve, [0; 5]),
                (libc::SYS_ptrace, [0; 5]),
                (libc::SYS_mount, [0; 5]),
                (libc::SYS_unshare, [new_user, 0, 0, 0, 0]),
                (libc::SYS_setns, [0; 5]),
                (libc::SYS_clone, [new_user, 0, 0, 0, 0]),
                (libc::SYS_clone, [libc::SIGCHLD as u64, 0, 0, 0, 0]),
                (libc::SYS_socket, [packet, libc::SOCK_RAW as u64, 0, 0, 0]),
                (libc::SYS_bpf, [load, 0, 0, 0, 0]),
                (libc::SYS_mmap, [0, 4096, exec, 0x22, u64::MAX]),
                (libc::SYS_mprotect, [0, 4096, exec, 0, 0]),
                (
                    libc::SYS_prlimit64,
                    [0, libc::RLIMIT_NOFILE.into(), 8, 0, 0],
                ),
                (libc::SYS_ioctl, [0, libc::TIOCSTI, 0, 0, 0]),
                (libc::SYS_prctl, [libc::PR_SET_DUMPABLE as u64, 1, 0, 0, 0]),
                (libc::SYS_setuid, [0; 5]),
                (libc::SYS_process_vm_readv, [1, 0, 0, 0, 0]),
            ] {
                assert_eq!(error_of(call, arguments), refused, "{call}");
            }
            assert_eq!(error_of(libc::SYS_clone3, [0; 5]), missing);
        });
    }

    #[test]
    fn a_helper_does_not_reach_into_processes() {
        on_a_thread(|| {
            restrict_helper().unwrap();
            for call in [libc::SYS_ptrace, libc::SYS_init_module] {
                assert_eq!(error_of(call, [0; 5]), Some(libc::EPERM), "{call}");
            }
            let run = std::process::Command::new("true").status();
            assert!(run.unwrap().success());
        });
    }
}
