//! What can go wrong with a request, counted by kind.

/// Why a request has no valid answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The connection could not be established.
    Connect,
    /// The peer closed the connection before the whole answer.
    Closed,
    /// The connection failed: reset, mostly.
    Broken,
    /// The head is not one, or too long.
    Malformed,
    /// The status is not 200.
    Status,
    /// The length is not what was asked for, or not said.
    Length,
    /// There was more than the answer.
    Surplus,
    /// No whole answer before the deadline of the run.
    Unfinished,
    /// The queue was full: not sent at all.
    Overflow,
}

/// Requests without a valid answer, by [`ErrorKind`].
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Errors {
    /// [`ErrorKind::Connect`].
    pub connect: u64,
    /// [`ErrorKind::Closed`].
    pub closed: u64,
    /// [`ErrorKind::Broken`].
    pub broken: u64,
    /// [`ErrorKind::Malformed`].
    pub malformed: u64,
    /// [`ErrorKind::Status`].
    pub status: u64,
    /// [`ErrorKind::Length`].
    pub length: u64,
    /// [`ErrorKind::Surplus`].
    pub surplus: u64,
    /// [`ErrorKind::Unfinished`].
    pub unfinished: u64,
    /// [`ErrorKind::Overflow`].
    pub overflow: u64,
}

impl Errors {
    /// Counts `times` more of `kind`.
    pub fn count(&mut self, kind: ErrorKind, times: u64) {
        *match kind {
            ErrorKind::Connect => &mut self.connect,
            ErrorKind::Closed => &mut self.closed,
            ErrorKind::Broken => &mut self.broken,
            ErrorKind::Malformed => &mut self.malformed,
            ErrorKind::Status => &mut self.status,
            ErrorKind::Length => &mut self.length,
            ErrorKind::Surplus => &mut self.surplus,
            ErrorKind::Unfinished => &mut self.unfinished,
            ErrorKind::Overflow => &mut self.overflow,
        } += times;
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        let transport = self.connect + self.closed + self.broken;
        let content = self.malformed + self.status + self.length + self.surplus;
        transport + content + self.unfinished + self.overflow
    }
}
