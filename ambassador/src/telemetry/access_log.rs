//! The access log: one line per request and per relayed connection, a JSON object
//! where nothing else is asked for.
//!
//! A shard formats a line into its own bounded buffer; one thread takes the
//! buffers and writes them out, in as few writes as it can keep up with. The two
//! meet under a lock that either holds for a copy of one line or a swap of two
//! buffers. What finds its buffer full, because the file or pipe does not keep
//! up, is dropped and counted; a request never waits for its log.

mod format;
mod keep;
mod line;
mod writer;

pub(crate) use format::{FIELDS, LineFormat, Template, TemplateError};
pub(crate) use keep::Keep;
pub(super) use keep::has_failed;
pub(super) use line::{Circumstances, has_member, has_path};
pub(crate) use line::{Line, LogRecord};
pub(crate) use writer::{AccessLog, Sink};

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Where lines go, and how many of them.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where they go.
    pub target: Target,
    /// Opens a file to append to it, and makes it where it is missing.
    pub open: fn(&Path) -> io::Result<File>,
    /// How each is written.
    pub format: LineFormat,
    /// The share of requests and relayed connections that is logged, 0 to 1.
    pub sample: f64,
    /// What is logged whatever that says.
    pub keep: Keep,
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Appended to this file.
    File(PathBuf),
}
