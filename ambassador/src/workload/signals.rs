//! Which signals are forwarded, and which are blocked.

use std::io;

/// Signals that a program may wait for. SIGTSTP and SIGCONT are not forwarded: job
/// control stops and continues proxy and command together.
pub(crate) const FORWARDED: [libc::c_int; 7] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGWINCH,
];

/// Keeps signals that mean nothing to the proxy from ending the process, which is
/// what they do by default: a script that rotates logs, or a service manager, may
/// send them to all that it finds. Those that are handled get their handlers
/// later; until then they end nothing either. Programs that are executed from
/// here get the default back, as with every handler.
#[expect(unsafe_code, reason = "std installs no signal handlers")]
pub(crate) fn outlive_stray_signals() -> io::Result<()> {
    extern "C" fn nothing(_signal: libc::c_int) {}
    const STRAY: [libc::c_int; 9] = [
        libc::SIGHUP,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGALRM,
        libc::SIGVTALRM,
        libc::SIGPROF,
        libc::SIGIO,
        libc::SIGPWR,
        libc::SIGSTKFLT,
    ];
    for signal in STRAY.into_iter().chain(libc::SIGRTMIN()..=libc::SIGRTMAX()) {
        // SAFETY: zero is a valid sigaction; both are live; the handler does
        // nothing, which may be done at any time.
        let set = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, std::ptr::null(), &raw mut action);
            if action.sa_sigaction != libc::SIG_DFL {
                continue;
            }
            action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut())
        };
        if set != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
