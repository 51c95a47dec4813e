//! What the programs log, written to standard error for as long as the proxy
//! holds its end. Debugging only: the loader stays for it.
#![expect(unsafe_code, reason = "poll() takes a pointer")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use aya::Ebpf;
use aya_log::EbpfLogger;

struct StandardError;

impl log::Log for StandardError {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        eprintln!("kernel: {}", record.args());
    }

    fn flush(&self) {}
}

/// Writes records until the proxy is gone.
pub(super) fn follow(programs: &mut Ebpf, proxy: BorrowedFd<'_>) -> io::Result<()> {
    log::set_max_level(log::LevelFilter::Trace);
    let mut logger =
        EbpfLogger::init_with_logger(programs, StandardError).map_err(io::Error::other)?;
    loop {
        let mut ready = [logger.as_raw_fd(), proxy.as_raw_fd()].map(|fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        });
        // SAFETY: the array is live and of the length given.
        if unsafe { libc::poll(ready.as_mut_ptr(), 2, -1) } < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
            continue;
        }
        if ready[0].revents != 0 {
            logger.flush();
        }
        if ready[1].revents != 0 {
            return Ok(());
        }
    }
}
