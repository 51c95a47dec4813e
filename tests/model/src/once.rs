//! A cell that is written once, for which loom has none: that of the standard
//! library, made to show loom every access.

use std::sync::OnceLock as Cell;

use loom::sync::atomic::{AtomicU32, Ordering};

/// As that of the standard library, with the methods that are in use.
#[derive(Debug)]
pub struct OnceLock<T> {
    cell: Cell<T>,
    companion: AtomicU32,
}

impl<T> Default for OnceLock<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> OnceLock<T> {
    pub fn new() -> Self {
        Self {
            cell: Cell::new(),
            companion: AtomicU32::new(0),
        }
    }

    pub fn get(&self) -> Option<&T> {
        self.companion.fetch_add(0, Ordering::AcqRel);
        self.cell.get()
    }

    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        self.companion.fetch_add(0, Ordering::AcqRel);
        // Made outside: loom may switch threads in there.
        if let Some(made) = self.cell.get() {
            return made;
        }
        let made = make();
        self.cell.get_or_init(|| made)
    }
}
