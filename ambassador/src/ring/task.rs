//! The id of a task.

/// Names a task: the executor it runs on, its place there, and how many tasks
/// had that place before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TaskId {
    /// The number of its executor.
    pub executor: u16,
    /// How many tasks had its place before.
    pub generation: u16,
    /// Its place there.
    pub place: u32,
}

impl TaskId {
    /// In the bits of a pointer that points to nothing.
    pub(super) fn pack(self) -> *const () {
        let bits =
            (self.executor as usize) << 48 | (self.generation as usize) << 32 | self.place as usize;
        std::ptr::without_provenance(bits)
    }

    /// The counterpart.
    pub(super) fn unpack(data: *const ()) -> Self {
        let bits = data.addr();
        Self {
            executor: (bits >> 48) as u16,
            generation: (bits >> 32) as u16,
            place: bits as u32,
        }
    }
}

const _: () = assert!(usize::BITS == 64, "a task id is packed into 64 bits");
