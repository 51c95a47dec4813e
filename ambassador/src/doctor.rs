//! `ambassador doctor`: what this machine lacks, and what killed proxies left
//! behind.
//!
//! Each check tests one thing and says what to do about it. Nothing is changed,
//! except by [`clean`].

mod checks;
mod leftovers;

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

pub(crate) use leftovers::{clean, leftovers};

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Nothing to do.
    Ok,
    /// Something works worse, or only in part, without what is advised.
    Advice,
    /// Capture by eBPF cannot work.
    Missing,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// What was looked at, one word.
    pub name: &'static str,
    /// The verdict.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What to do; absent when the status is ok.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// What the checks cannot find out by themselves.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// The I/O backend that would be used: `io_uring` or `epoll`.
    pub backend: String,
    /// Why it is not io_uring.
    pub why_not_ring: Option<String>,
    /// Whether the BPF programs are inside this binary.
    pub has_programs: bool,
    /// The cgroup whose hooks are looked at; default: our own.
    pub cgroup: Option<PathBuf>,
}

/// The whole report.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    /// In the order of the dependencies: the first that fails explains others.
    pub checks: Vec<Check>,
}

impl Report {
    /// Runs every check.
    pub(crate) fn of(facts: &Facts) -> Self {
        Self {
            checks: checks::all(facts),
        }
    }

    /// Whether capture can work.
    pub(crate) fn is_ready(&self) -> bool {
        self.checks
            .iter()
            .all(|check| check.status != Status::Missing)
    }

    /// For `--json`.
    pub(crate) fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }
}

/// One line for each check: `ok` or what to do.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Check {
            name,
            status,
            found,
            advice,
        } in &self.checks
        {
            let verdict = match status {
                Status::Ok => "ok",
                Status::Advice => "note",
                Status::Missing => "missing",
            };
            write!(f, "{verdict:<8}{name:<12}{found}")?;
            match advice {
                Some(advice) => writeln!(f, "; {advice}")?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            status: Status::Ok,
            found: found.into(),
            advice: None,
        }
    }

    fn advice(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            name,
            status: Status::Advice,
            found: found.into(),
            advice: Some(advice.into()),
        }
    }

    fn missing(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            name,
            status: Status::Missing,
            found: found.into(),
            advice: Some(advice.into()),
        }
    }
}

#[cfg(test)]
mod tests;
