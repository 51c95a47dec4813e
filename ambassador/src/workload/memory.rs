//! Memory that was needed for a while and is not any more.

use std::fs;
use std::ops::Range;

/// Lets go of the code that has run so far: pages of the binary and of its
/// libraries that are mapped stay counted for this process, though most of what
/// reads command lines and configuration never runs again. What does run is
/// mapped anew from the page cache when it is called, 64 KiB at a time.
#[expect(unsafe_code, reason = "std has no madvise")]
pub fn unmap_idle_code() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for range in maps.lines().filter_map(code) {
        // SAFETY: a mapping of a file, executable and not writable, has no page
        // that differs from the file: what is dropped is read again from there
        // (madvise(2), MADV_DONTNEED).
        unsafe {
            let start = range.start as *mut libc::c_void;
            libc::madvise(start, range.len(), libc::MADV_DONTNEED);
        }
    }
}

/// The addresses of a line of proc(5) maps that is executable, not writable, and
/// of a file.
fn code(line: &str) -> Option<Range<usize>> {
    let mut fields = line.split_whitespace();
    let (addresses, permissions) = (fields.next()?, fields.next()?);
    let path = fields.nth(3)?;
    if permissions != "r-xp" || !path.starts_with('/') {
        return None;
    }
    let (start, end) = addresses.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    Some(address(start)?..address(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_files_is_let_go() {
        let line = |rest: &str| format!("7f0000001000-7f0000003000 {rest}");
        let found = code(&line("r-xp 00001000 fe:01 42    /usr/bin/ambassador"));
        assert_eq!(found, Some(0x7f00_0000_1000..0x7f00_0000_3000));
        for other in [
            "r--p 00001000 fe:01 42    /usr/bin/ambassador",
            "rwxp 00001000 fe:01 42    /usr/bin/ambassador",
            "r-xp 00000000 00:00 0     [vdso]",
            "r-xp 00000000 00:00 0",
        ] {
            assert_eq!(code(&line(other)), None, "{other}");
        }
    }

    #[test]
    fn what_was_let_go_still_runs() {
        unmap_idle_code();
        assert_eq!("still here".to_uppercase(), "STILL HERE");
    }
}
