//! Returns memory that was needed for a while only.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::Range;

use rustix::mm::{Advice, madvise};

/// What is mapped of the binary and of its libraries, and cannot be written to:
/// code, constants, unwind tables. Pages of it that are mapped stay counted for
/// this process, though most of what reads command lines and configuration
/// never runs again.
#[derive(Debug)]
pub(crate) struct MappedFiles(Vec<Range<usize>>);

impl MappedFiles {
    /// What is mapped now. None of it may be unmapped for good before the last
    /// [`unmap`](Self::unmap): libraries of the start never are.
    pub(crate) fn find() -> Self {
        let smaps = File::open("/proc/self/smaps").map(BufReader::new);
        Self(smaps.map(unchanged).unwrap_or_default())
    }

    /// Lets go of it. What is still in use is mapped anew from the page cache,
    /// 64 KiB at a time.
    #[expect(unsafe_code, reason = "madvise may take back what is in use")]
    pub(crate) fn unmap(&self) {
        for range in &self.0 {
            // SAFETY: the mapping is of a file, not writable, and has no page
            // that differs from the file: what is dropped is read again from
            // there (madvise(2), MADV_DONTNEED).
            let _ = unsafe { madvise(range.start as *mut _, range.len(), Advice::LinuxDontNeed) };
        }
    }
}

/// The size of a page. The C library knows it from the start; rustix would read
/// it from a file, which a confined process may not.
#[expect(unsafe_code, reason = "sysconf")]
pub(crate) fn page_bytes() -> u64 {
    // SAFETY: it takes a number and touches no memory.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).unwrap_or(4096)
}

/// Has the allocator give back to the kernel what was freed; the C library
/// keeps most of it. A thread that allocates meanwhile waits: 0.6 ms after
/// 1,000 connections, 2 ms after 7,000.
#[cfg_attr(
    target_env = "gnu",
    expect(unsafe_code, reason = "std has no malloc_trim")
)]
pub(crate) fn give_back_freed() {
    // Others, musl among them, give back by themselves.
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes the allocator's own locks and touches nothing in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The addresses of mappings in a proc(5) smaps that are of a file,
/// not writable, and have no page of this process's own, neither in memory nor
/// swapped out: those that the dynamic linker relocated have some.
fn unchanged(smaps: impl BufRead) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut mapping = None;
    for line in smaps.lines().map_while(Result::ok) {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("Anonymous:" | "Swap:"), Some("0")) => {}
            (Some("Anonymous:" | "Swap:"), _) => mapping = None,
            (Some("VmFlags:"), _) => found.extend(mapping.take()),
            (Some(addresses), Some("r--p" | "r-xp")) => {
                let path = words.nth(3).filter(|path| path.starts_with('/'));
                mapping = path.and_then(|_| range(addresses));
            }
            _ => {}
        }
    }
    found
}

fn range(addresses: &str) -> Option<Range<usize>> {
    let (start, end) = addresses.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    Some(address(start)?..address(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn smaps(mapping: &str, anonymous: u32, swap: u32) -> String {
        format!(
            "7f0000001000-7f0000003000 {mapping}\n\
             Size:                  8 kB\n\
             Anonymous:           {anonymous:3} kB\n\
             Swap:                {swap:3} kB\n\
             VmFlags: rd mr mw me \n"
        )
    }

    fn found(smaps: &str) -> Vec<Range<usize>> {
        unchanged(smaps.as_bytes())
    }

    #[test]
    fn only_what_is_as_in_the_file_is_let_go() {
        let code = "r-xp 00001000 fe:01 42    /usr/bin/ambassador";
        let constants = "r--p 00001000 fe:01 42    /usr/bin/ambassador";
        let range = 0x7f00_0000_1000..0x7f00_0000_3000;
        for mapping in [code, constants] {
            assert_eq!(found(&smaps(mapping, 0, 0)), vec![range.clone()]);
            assert!(found(&smaps(mapping, 4, 0)).is_empty());
            assert!(found(&smaps(mapping, 0, 4)).is_empty());
        }
        for mapping in [
            "rw-p 00001000 fe:01 42    /usr/bin/ambassador",
            "rwxp 00001000 fe:01 42    /usr/bin/ambassador",
            "r--s 00001000 fe:01 42    /usr/bin/ambassador",
            "r-xp 00000000 00:00 0     [vdso]",
            "r-xp 00000000 00:00 0",
        ] {
            assert!(found(&smaps(mapping, 0, 0)).is_empty(), "{mapping}");
        }
        let both = smaps(code, 0, 0) + &smaps(constants, 4, 0);
        assert_eq!(found(&both), vec![range], "each by itself");
    }

    #[test]
    fn what_was_let_go_still_runs() {
        let files = MappedFiles::find();
        assert!(!files.0.is_empty());
        files.unmap();
        assert_eq!("still here".to_uppercase(), "STILL HERE");
    }
}
