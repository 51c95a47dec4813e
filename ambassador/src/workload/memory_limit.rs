//! How much memory the cgroup of this process leaves it, in the unified
//! hierarchy or, on hybrid systems, in that of the memory controller alone.

use std::fs;
use std::path::{Path, PathBuf};

use super::cgroup::{Hierarchy, own_and_above};

/// Version 1 says a number of this kind where there is no limit: the largest
/// that is a multiple of the page size.
const UNLIMITED: u64 = 1 << 62;

/// The files that say how much the process may have: of its cgroup, and of the
/// cgroups that this one is in.
#[derive(Debug)]
pub(crate) struct MemoryLimits(Vec<PathBuf>);

impl MemoryLimits {
    /// Those of this process, as far as they can be seen.
    pub(crate) fn find() -> Self {
        let named = [
            (Hierarchy::Unified, "memory.max"),
            (Hierarchy::Memory, "memory.limit_in_bytes"),
        ];
        let files = named.into_iter().flat_map(|(hierarchy, name)| {
            let groups = own_and_above(hierarchy).unwrap_or_default();
            groups.into_iter().map(move |group| group.join(name))
        });
        Self(files.filter(|file| file.exists()).collect())
    }

    /// Whether there are any.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The smallest, as of now; `None`: there is none.
    pub(crate) fn smallest(&self) -> Option<u64> {
        self.0.iter().filter_map(|file| limit(file)).min()
    }
}

fn limit(file: &Path) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let bytes = text.trim().parse().ok();
    bytes.filter(|bytes| *bytes < UNLIMITED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_that_is_a_number_counts() {
        let directory = std::env::temp_dir().join(format!("amb-limits-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let limits = |texts: &[&str]| {
            let files = texts.iter().enumerate().map(|(at, text)| {
                let file = directory.join(at.to_string());
                fs::write(&file, text).unwrap();
                file
            });
            MemoryLimits(files.collect()).smallest()
        };
        assert_eq!(limits(&["max\n", "max\n"]), None);
        assert_eq!(limits(&["9223372036854771712\n"]), None);
        assert_eq!(
            limits(&["max\n", "67108864\n", "134217728\n"]),
            Some(64 << 20)
        );
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(MemoryLimits(vec![directory]).smallest(), None);
    }
}
