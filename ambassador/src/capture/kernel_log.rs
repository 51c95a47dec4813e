//! What the programs log, written to standard error for as long as the proxy
//! holds its end. Debugging only: the loader stays for it.

use std::io;
use std::os::fd::BorrowedFd;

use aya::Ebpf;
use aya_log::EbpfLogger;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

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
        let mut ready = [
            PollFd::new(&logger, PollFlags::IN),
            PollFd::new(&proxy, PollFlags::IN),
        ];
        match poll(&mut ready, None) {
            Err(Errno::INTR) => continue,
            polled => polled?,
        };
        let [has_records, is_over] = ready.map(|polled| !polled.revents().is_empty());
        if has_records {
            logger.flush();
        }
        if is_over {
            return Ok(());
        }
    }
}
